"""UPS-RS on the wire: bodies and queries to attributes and back, and what HTTP calls a refusal (PS3.18 11)."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword

from firstread.integration.dicom.ups import Json, Status
from firstread.integration.dicom.ups_match import is_moment_key
from firstread.integration.dicom.ups_rules import is_uid
from firstread.integration.dicomweb.ups_xml import UnreadableXml, from_xml, to_xml

JSON_TYPE = "application/dicom+json"
XML_TYPE = "application/dicom+xml"
_XML_NAMES = (XML_TYPE, "application/xml", "text/xml")

LARGEST_PAGE = 1000
"""Most items that one answer holds; the rest is asked for with offset."""

HTTP_STATUS: Mapping[Status, int] = MappingProxyType(
    {
        Status.DUPLICATE_SOP_INSTANCE: 409,
        Status.UNKNOWN_INSTANCE: 404,
        Status.ALREADY_IN_PROGRESS: 409,
        Status.SCHEDULED_BY_CREATION_ALONE: 409,
        Status.FINAL_STATE_REQUIREMENTS: 409,
        Status.NOT_IN_PROGRESS: 409,
        Status.IS_COMPLETED: 409,
        Status.NO_LONGER_UPDATED: 409,
        Status.PROCESSING_FAILURE: 500,
    }
)
"""The code of a refusal; what is not named is 400 (a request that is wrong whatever the item's state)."""


class BadRequest(ValueError):
    """A request that is none; ``code`` is its HTTP status."""

    def __init__(self, why: str, code: int = 400) -> None:
        super().__init__(why)
        self.code = code


@dataclass(frozen=True)
class UpsQuery:
    """What a search asks for. ``fuzzy``: asked for, and not done here."""

    keys: Json = field(default_factory=dict)
    limit: int = LARGEST_PAGE
    offset: int = 0
    fuzzy: bool = False


def http_status(status: Status, *, update: bool = False) -> int:
    """The HTTP code of a refusal. An ``update`` of what has ended is 400, other requests for it 409 (11.6.2)."""
    if update and status is Status.NO_LONGER_UPDATED:
        return 400
    return HTTP_STATUS.get(status, 400)


def read_body(content_type: str, body: bytes) -> Json:
    """The one data set of a request body. Raises BadRequest."""
    media = content_type.partition(";")[0].strip().lower()
    if media in (JSON_TYPE, "application/json"):
        try:
            content = json.loads(body, parse_constant=_no_number)
            plain = json.dumps(content, ensure_ascii=False)
            plain.encode()
        except (ValueError, RecursionError) as error:
            raise BadRequest(f"the body is not JSON: {str(error)[:120]}") from None
        if isinstance(content, list):
            if len(content) != 1:
                raise BadRequest(f"the body holds {len(content)} data sets, one is wanted")
            content = content[0]
        if not isinstance(content, dict):
            raise BadRequest("the body is not an object of attributes")
        if "\\u0000" in plain:
            raise BadRequest("the body holds a NUL character")
        return content
    if media in _XML_NAMES:
        try:
            return from_xml(body)
        except UnreadableXml as error:
            raise BadRequest(str(error)) from None
    raise BadRequest(f"the body must be {JSON_TYPE} or {XML_TYPE}, it says {media or 'nothing'!r}", 415)


def chosen_type(accept: str) -> str:
    """JSON or XML, as the Accept header wants it. Raises BadRequest (406) when it wants neither."""
    wanted = [part.split(";") for part in accept.split(",") if part.strip()]
    if not wanted:
        return JSON_TYPE
    for first, *parameters in wanted:
        media = first.strip().lower()
        inner = next((word.partition("=")[2].strip(' "').lower() for word in parameters if "type=" in word), "")
        if media in (JSON_TYPE, "application/json", "*/*", "application/*"):
            return JSON_TYPE
        if media in _XML_NAMES or (media == "multipart/related" and inner in _XML_NAMES):
            return XML_TYPE
    raise BadRequest(f"an answer is {JSON_TYPE} or {XML_TYPE}", 406)


def write_body(items: Sequence[Json], media: str, *, several: bool) -> tuple[bytes, str]:
    """Data sets as a body, and its content type. ``several``: it is a list, even of one."""
    if media == JSON_TYPE:
        return json.dumps(list(items), ensure_ascii=False).encode(), JSON_TYPE
    if not several:
        return to_xml(items[0]), XML_TYPE
    boundary = secrets.token_hex(16)
    parts = [f"--{boundary}\r\nContent-Type: {XML_TYPE}\r\n\r\n".encode() + to_xml(one) + b"\r\n" for one in items]
    return b"".join(parts) + f"--{boundary}--\r\n".encode(), (
        f'multipart/related; type="{XML_TYPE}"; boundary={boundary}'
    )


def read_query(pairs: Sequence[tuple[str, str]]) -> UpsQuery:
    """The query of a search (8.3.4). Raises BadRequest for attributes that do not exist and senseless values."""
    keys: Json = {}
    limit, offset, fuzzy = LARGEST_PAGE, 0, False
    for name, value in pairs:
        if name == "limit":
            limit = min(_count(name, value), LARGEST_PAGE)
        elif name == "offset":
            offset = _count(name, value)
        elif name == "fuzzymatching":
            fuzzy = _truth(name, value)
        elif name == "includefield":
            for one in value.split(","):  # every attribute is returned in any case
                if one != "all":
                    _path(one)
        elif name not in ("accept", "charset"):
            add_key(keys, name, value)
    return UpsQuery(keys, limit, offset, fuzzy)


def read_filter(text: str) -> Json:
    """The keys of a filtered subscription: ``attribute=value,attribute=value`` (11.10.1.2). Raises BadRequest."""
    keys: Json = {}
    for part in text.split(","):
        name, sign, value = part.partition("=")
        if not sign:
            raise BadRequest(f"a filter is attribute=value, not {part[:64]!r}")
        add_key(keys, name.strip(), value.strip())
    return keys


def add_key(keys: Json, name: str, value: str) -> None:
    """Adds one matching key, by keyword or tag, nested with dots. Raises BadRequest."""
    *sequences, last = _path(name)
    level = keys
    for tag in sequences:
        items = level.setdefault(tag, {"vr": "SQ", "Value": [{}]})["Value"]
        level = items[0]
    vr = dictionary_VR(int(last, 16))
    if any(letter < " " for letter in value):
        raise BadRequest(f"{name} holds control characters")
    if vr == "SQ":
        raise BadRequest(f"{name} is a sequence: name an attribute in it")
    values = [part for part in value.replace("\\", ",").split(",") if part] if vr == "UI" else [value] if value else []
    if vr == "UI" and not all(is_uid(one) for one in values):
        raise BadRequest(f"{name} is a UID: digits and dots, at most 64 characters")
    if vr == "DT" and not all(is_moment_key(one) for one in values):
        raise BadRequest(f"{name} is a date and time or a range of them")
    written: list[Any] = [{"Alphabetic": one} for one in values] if vr == "PN" else list(values)
    level[last] = {"vr": vr, "Value": written}


def with_urls(attributes: Json, base: str, ae_title: str) -> Json:
    """The same item, with a WADO-RS address wherever instances are to be had from this AE (PS3.3 Table 10-3b)."""

    def referring(item: Json) -> Json:
        source = (item.get("0040E021", {}).get("Value") or [{}])[0]
        if source.get("00080054", {}).get("Value") != [ae_title]:
            return item
        study, series = (item[tag]["Value"][0] for tag in ("0020000D", "0020000E"))
        address = {"00081190": {"vr": "UR", "Value": [f"{base}/studies/{study}/series/{series}"]}}
        return {**item, "0040E025": {"vr": "SQ", "Value": [address]}}

    def with_items(holder: Json, tag: str) -> Json:
        items = holder.get(tag, {}).get("Value")
        return {**holder, tag: {"vr": "SQ", "Value": [referring(one) for one in items]}} if items else holder

    whole = with_items(attributes, "00404021")
    performed = whole.get("00741216", {}).get("Value")
    if performed:
        whole = {**whole, "00741216": {"vr": "SQ", "Value": [with_items(one, "00404033") for one in performed]}}
    return whole


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number")


def _path(name: str) -> list[str]:
    """Tags of eight hexadecimal digits, from the outermost sequence inwards."""
    tags = []
    for word in name.split("."):
        number: int | None
        if len(word) == 8 and all(letter in "0123456789abcdefABCDEF" for letter in word):
            number = int(word, 16)
            known = bool(keyword_for_tag(number))
        else:
            number = tag_for_keyword(word) if word else None
            known = number is not None
        if number is None or not known:
            raise BadRequest(f"{name[:64]!r} is no attribute: give a keyword or eight digits of its tag")
        if number >> 16 == 0 or f"{number:08X}" == "00081195":
            raise BadRequest(f"{name[:64]!r} cannot be asked for")
        tags.append(f"{number:08X}")
    for tag in tags[:-1]:
        if dictionary_VR(int(tag, 16)) != "SQ":
            raise BadRequest(f"{name[:64]!r}: {keyword_for_tag(int(tag, 16))} is no sequence")
    return tags


def _count(name: str, value: str) -> int:
    if not (value.isascii() and value.isdigit() and len(value) <= 9):
        raise BadRequest(f"{name} is a whole number, not {value[:32]!r}")
    if name == "limit" and int(value) == 0:
        raise BadRequest("limit is at least 1")
    return int(value)


def _truth(name: str, value: str) -> bool:
    if value.lower() not in ("true", "false"):
        raise BadRequest(f"{name} is true or false, not {value[:32]!r}")
    return value.lower() == "true"
