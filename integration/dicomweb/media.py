"""Media types: Content-Type and Accept as DICOMweb uses them, with transfer syntaxes as parameters (PS3.18 8.7)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from urllib.parse import unquote

from python_multipart.multipart import parse_options_header

from firstread.integration.dicomweb.errors import BadRequest

DICOM, JSON, XML, OCTETS = (
    "application/dicom",
    "application/dicom+json",
    "application/dicom+xml",
    "application/octet-stream",
)
RELATED = "multipart/related"
_MOST_TYPES = 64

FRAME_TYPES: Mapping[str, str] = MappingProxyType(
    {
        "1.2.840.10008.1.2.4.50": "image/jpeg",
        "1.2.840.10008.1.2.4.51": "image/jpeg",
        "1.2.840.10008.1.2.4.57": "image/jpeg",
        "1.2.840.10008.1.2.4.70": "image/jpeg",
        "1.2.840.10008.1.2.4.80": "image/jls",
        "1.2.840.10008.1.2.4.81": "image/jls",
        "1.2.840.10008.1.2.4.90": "image/jp2",
        "1.2.840.10008.1.2.4.91": "image/jp2",
        "1.2.840.10008.1.2.4.92": "image/jpx",
        "1.2.840.10008.1.2.4.93": "image/jpx",
        "1.2.840.10008.1.2.4.110": "image/jxl",
        "1.2.840.10008.1.2.4.111": "image/jxl",
        "1.2.840.10008.1.2.4.112": "image/jxl",
        "1.2.840.10008.1.2.4.201": "image/jphc",
        "1.2.840.10008.1.2.4.202": "image/jphc",
        "1.2.840.10008.1.2.4.203": "image/jphc",
        "1.2.840.10008.1.2.5": "image/dicom-rle",
    }
)
"""Transfer syntax -> media type of a compressed frame (PS3.18 Table 8.7.3-2)."""


@dataclass(frozen=True)
class MediaType:
    """One media type: ``multipart/related; type="application/dicom"`` has its inner type in ``inner``."""

    name: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    quality: float = 1.0

    @property
    def inner(self) -> str:
        """The type of the parts; the type itself where it is no multipart."""
        return self.parameters.get("type", "").lower() if self.is_multipart else self.name

    @property
    def is_multipart(self) -> bool:
        """True for multipart/related."""
        return self.name == RELATED

    @property
    def transfer_syntax(self) -> str:
        """The transfer syntax asked for, ``*`` for any, empty for none in particular."""
        return self.parameters.get("transfer-syntax", "")

    def covers(self, name: str) -> bool:
        """True when ``name`` is one of what this type means (``*/*``, ``image/*``)."""
        wanted = self.inner or "*/*"
        return wanted in ("*/*", name) or (wanted.endswith("/*") and name.startswith(wanted[:-1]))


def content_type(value: str | None) -> MediaType:
    """The type of a body. Raises BadRequest where there is none."""
    if not value:
        raise BadRequest("the request has no Content-Type")
    name, options = parse_options_header(value)
    parameters = {key.decode("latin-1").lower(): option.decode("latin-1") for key, option in options.items()}
    return MediaType(name.decode("latin-1").strip().lower(), MappingProxyType(parameters))


def accepted(header: str | None, query: Sequence[str]) -> list[MediaType]:
    """What a client accepts, best first: the ``accept`` query parameters, then the header (PS3.18 8.3.3.1).

    Nothing at all means anything. Raises BadRequest for what cannot be read.
    """
    named = [unquote(one) for one in query] or [header or "*/*"]
    types = []
    for one in _apart(",".join(named)):
        media = content_type(one)
        if media.name == "*":
            media = MediaType("*/*", media.parameters)
        if "/" not in media.name:
            raise BadRequest(f"{one[:60]!r} is no media type")
        types.append(MediaType(media.name, media.parameters, _quality(media.parameters.get("q", "1"))))
    if len(types) > _MOST_TYPES:
        raise BadRequest(f"more than {_MOST_TYPES} media types")
    return sorted((one for one in types if one.quality > 0), key=lambda one: -one.quality)


def choose(
    types: Iterable[MediaType], offered: Sequence[str], *, multipart: bool | None = None
) -> tuple[MediaType, str] | None:
    """The first type asked for that can be given, and which of ``offered`` it is. ``multipart``: whether its parts must
    come as multipart/related (True), must not (False), or either."""
    for media in types:
        loose = media.name in ("*/*", "multipart/*")
        if multipart is True and not (media.is_multipart or loose):
            continue
        if multipart is False and media.is_multipart:
            continue
        for name in offered:
            if loose or media.covers(name):
                return media, name
    return None


def _apart(value: str) -> list[str]:
    """The types of a list; commas inside quotes do not part them."""
    parts, quoted, begin = [], False, 0
    for at, letter in enumerate(value):
        if letter == '"':
            quoted = not quoted
        elif letter == "," and not quoted:
            parts.append(value[begin:at])
            begin = at + 1
    parts.append(value[begin:])
    return [part.strip() for part in parts if part.strip()]


def _quality(value: str) -> float:
    try:
        quality = float(value)
    except ValueError as error:
        raise BadRequest(f"q={value[:10]!r} is no quality") from error
    if not 0 <= quality <= 1:
        raise BadRequest(f"q={value[:10]!r} is not between 0 and 1")
    return quality
