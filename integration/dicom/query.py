"""Query and retrieve, study root, as values: what an identifier asks, and how a match is written (PS3.4 C.4, C.6.2)."""

from __future__ import annotations

import enum
import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydicom import config as pydicom_config
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pynetdicom.dsutils import decode, encode

from firstread.integration.dicom.requestor import DicomPeer
from firstread.integration.dicom.services import Caller

_IMPLICIT, _BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"


class QueryLevel(enum.StrEnum):
    """Query/Retrieve Level (0008,0052) of the study root (PS3.4 C.6.2.1)."""

    STUDY = "STUDY"
    SERIES = "SERIES"
    IMAGE = "IMAGE"


UNIQUE_KEYS: Mapping[QueryLevel, str] = {
    QueryLevel.STUDY: "StudyInstanceUID",
    QueryLevel.SERIES: "SeriesInstanceUID",
    QueryLevel.IMAGE: "SOPInstanceUID",
}
NO_KEYS = ("QueryRetrieveLevel", "SpecificCharacterSet", "TimezoneOffsetFromUTC")
_OURS = ("RetrieveAETitle", "InstanceAvailability")


class QueryFailure(Exception):
    """C000: it cannot be done now, or an unexpected error; the message goes out as Error Comment."""

    code = 0xC000


class BadIdentifier(QueryFailure):
    """A900: the identifier does not match the SOP class (PS3.4 Table C.4-1)."""

    code = 0xA900


class TooMany(QueryFailure):
    """A700: more than is answered at once."""

    code = 0xA700


class CannotCount(QueryFailure):
    """A701: what matches cannot be told now; the same again may succeed."""

    code = 0xA701


class CannotConvert(Exception):
    """An object that goes into none of the accepted transfer syntaxes without a loss; the message says why."""


@dataclass(frozen=True)
class QueryRequest:
    """What an identifier asks. ``match``: keyword to matching value as PS3.4 C.2.2.2 writes it, ``Sequence.Attribute``
    inside a sequence; ``wanted``: every key, matched or not."""

    level: QueryLevel
    match: Mapping[str, str]
    wanted: tuple[str, ...]

    @property
    def uids(self) -> tuple[str, ...]:
        """The values of the level's unique key."""
        return tuple(part for part in self.match.get(UNIQUE_KEYS[self.level], "").split("\\") if part)


@dataclass(frozen=True)
class Retrievable:
    """One object that can be sent, and where it lies (a Part 10 file)."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    path: Path


@dataclass(frozen=True)
class QueryService:
    """What a receiver asks its owner. Everything is called from the thread of an association; ``find`` and ``retrieve``
    may raise :class:`QueryFailure`.

    ``serves``: whether this calling AE title may ask. ``knows``: whether a keyword can be matched on a level.
    ``peer``: where an AE title is reached, None for one that nobody knows. ``decompress(path, transfer_syntax)`` makes
    a native copy that its caller deletes; it raises :class:`CannotConvert`.
    """

    serves: Callable[[str], bool]
    knows: Callable[[str, QueryLevel], bool]
    find: Callable[[Caller, QueryRequest], Iterator[Mapping[str, object]]]
    retrieve: Callable[[Caller, QueryRequest, str], list[Retrievable]]
    """With the AE title that gets the objects."""
    peer: Callable[[str], DicomPeer | None]
    decompress: Callable[[Path, str], Path]


def read_identifier(encoded: io.BytesIO | None, transfer_syntax: str) -> QueryRequest:
    """What an identifier asks (PS3.4 C.4.1.1.3). Raises :class:`BadIdentifier`.

    The hierarchy is kept to: below STUDY one Study Instance UID is named, on IMAGE one Series Instance UID as well
    (PS3.4 C.4.1.3.1.1); what else is named of higher levels is matched too.
    """
    if encoded is None:
        raise BadIdentifier("no identifier came with the command")
    try:
        identifier = decode(encoded, transfer_syntax == _IMPLICIT, transfer_syntax != _BIG)
        keys = dict(_keys(identifier))
    except Exception as error:  # whatever hostile bytes lead pydicom to
        raise BadIdentifier(f"unreadable identifier: {type(error).__name__}") from error
    said = keys.get("QueryRetrieveLevel", "").strip()
    try:
        level = QueryLevel(said)
    except ValueError:
        raise BadIdentifier(f"level {said[:16]!r} is none of STUDY, SERIES, IMAGE") from None
    wanted = tuple(keyword for keyword in keys if keyword not in NO_KEYS)
    match = {keyword: keys[keyword] for keyword in wanted if keys[keyword].strip() and keyword not in _OURS}
    request = QueryRequest(level, match, wanted)
    for above in _above(level):
        value = match.get(UNIQUE_KEYS[above], "")
        if not value or any(letter in value for letter in "\\*?"):
            raise BadIdentifier(f"{UNIQUE_KEYS[above]} must be one UID on level {level}")
    return request


def require_uids(request: QueryRequest) -> None:
    """Raises :class:`BadIdentifier` where a retrieval names nothing on its own level (PS3.4 C.4.2.1.4)."""
    if not request.uids or any(letter in uid for uid in request.uids for letter in "*?"):
        raise BadIdentifier(f"{UNIQUE_KEYS[request.level]} must name what is retrieved")


def write_match(request: QueryRequest, values: Mapping[str, object], ae_title: str, transfer_syntax: str) -> io.BytesIO:
    """The identifier of a pending response: the keys that were asked for, empty where nothing is known."""
    found = Dataset()
    _put(found, "QueryRetrieveLevel", str(request.level))
    for keyword in (*request.wanted, *(UNIQUE_KEYS[level] for level in (*_above(request.level), request.level))):
        _put_key(found, keyword, values.get(keyword))
    _put(found, "RetrieveAETitle", ae_title)
    _put(found, "InstanceAvailability", "ONLINE")
    if not all(str(value).isascii() for value in values.values()):
        _put(found, "SpecificCharacterSet", "ISO_IR 192")
    return _encoded(found, transfer_syntax)


def write_failed(uids: Iterable[str], transfer_syntax: str) -> io.BytesIO:
    """The identifier of a final response: Failed SOP Instance UID List (PS3.4 C.4.2.1.4.2)."""
    found = Dataset()
    found.FailedSOPInstanceUIDList = list(uids)
    return _encoded(found, transfer_syntax)


def _above(level: QueryLevel) -> tuple[QueryLevel, ...]:
    levels = tuple(QueryLevel)
    return levels[: levels.index(level)]


def _keys(identifier: Dataset) -> Iterator[tuple[str, str]]:
    for element in identifier:
        if element.VR == "SQ":
            for item in element.value[:1]:
                yield from ((f"{element.keyword}.{inner}", value) for inner, value in _keys(item))
            if not element.value or not len(element.value[0]):
                yield element.keyword, ""
        elif element.keyword:
            value = element.value
            several = isinstance(value, list | tuple) or type(value).__name__ == "MultiValue"
            yield element.keyword, "\\".join(map(str, value)) if several else str("" if value is None else value)


def _put_key(found: Dataset, keyword: str, value: object) -> None:
    outer, _, inner = keyword.partition(".")
    if not inner:
        _put(found, keyword, value)
        return
    items = found.get(outer)
    item = items[0] if items else Dataset()
    _put(item, inner, value)
    _put(found, outer, [item])


def _put(found: Dataset, keyword: str, value: object) -> None:
    """Sets an element, as it was received even where its VR forbids that; empty where it cannot be written at all."""
    tag = tag_for_keyword(keyword)
    if tag is None:
        return
    vr = dictionary_VR(tag)
    if vr == "SQ" and not isinstance(value, list):
        value = []
    try:
        element = DataElement(tag, vr, value, validation_mode=pydicom_config.IGNORE)
    except (ValueError, TypeError, OverflowError):
        element = DataElement(tag, vr, None)
    found[tag] = element


def _encoded(found: Dataset, transfer_syntax: str) -> io.BytesIO:
    encoded = encode(found, transfer_syntax == _IMPLICIT, transfer_syntax != _BIG)
    if encoded is None:
        raise QueryFailure("a match cannot be written")
    return io.BytesIO(encoded)
