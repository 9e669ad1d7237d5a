"""QIDO-RS: the query of a URL in, data sets in the JSON model out (PS3.18 8.3.4, 10.6)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword

from firstread.integration.dicomweb.errors import BadRequest

LARGEST_OFFSET = 2**31 - 1
_LONGEST_VALUE = 16 * 1024
_NAME_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")
_LISTS = ("ModalitiesInStudy",)


@dataclass(frozen=True)
class SearchQuery:
    """``match``: keyword (``Sequence.Attribute`` inside a sequence) -> matching value as PS3.4 C.2.2.2 writes it."""

    match: Mapping[str, str]
    include: tuple[str, ...]
    limit: int | None
    offset: int
    fuzzy: bool


def search_query(parameters: Iterable[tuple[str, str]]) -> SearchQuery:
    """What a query asks for. Raises BadRequest for an attribute that DICOM does not know, and senseless numbers."""
    match: dict[str, str] = {}
    include: list[str] = []
    limit, offset, fuzzy = None, 0, False
    for name, value in parameters:
        if len(value) > _LONGEST_VALUE:
            raise BadRequest(f"{name[:60]}: more than {_LONGEST_VALUE} characters")
        if name == "includefield":
            include += [one if one == "all" else _keyword(one) for one in value.split(",") if one]
        elif name == "limit":
            limit = _number(name, value)
        elif name == "offset":
            offset = min(_number(name, value), LARGEST_OFFSET)
        elif name == "fuzzymatching":
            if value.lower() not in ("true", "false"):
                raise BadRequest(f"fuzzymatching={value[:20]!r} is neither true nor false")
            fuzzy = value.lower() == "true"
        elif name != "accept":
            keyword = _keyword(name)
            if keyword in match:
                raise BadRequest(f"{keyword} is asked for twice")
            match[keyword] = _value(keyword, value)
    return SearchQuery(MappingProxyType(match), tuple(include), limit, offset, fuzzy)


def data_set(found: Mapping[str, Any]) -> dict[str, Any]:
    """A match, values by keyword, in the JSON model; ``Sequence.Attribute`` becomes one item of the sequence."""
    result: dict[str, Any] = {}
    for keyword, value in found.items():
        outer, _, inner = keyword.partition(".")
        if inner:
            sequence = result.setdefault(_tag(outer), {"vr": "SQ", "Value": [{}]})
            sequence["Value"][0].update(data_set({inner: value}))
        else:
            result[_tag(keyword)] = _element(keyword, value)
    return dict(sorted(result.items()))


def _keyword(name: str) -> str:
    return ".".join(_one_keyword(part, name) for part in name.split("."))


def _one_keyword(part: str, name: str) -> str:
    if re.fullmatch("[0-9A-Fa-f]{8}", part):
        keyword: str = keyword_for_tag(int(part, 16))
        if keyword:
            return keyword
        if int(part[:4], 16) % 2:
            return part.upper()  # a private attribute: known, and not matched here
    elif part.isascii() and tag_for_keyword(part) is not None:
        return part
    raise BadRequest(f"{name[:60]!r} is no attribute that DICOM knows, by keyword or by tag (8 digits)")


def _value(keyword: str, value: str) -> str:
    last = keyword.rpartition(".")[2]
    tag = tag_for_keyword(last)
    is_list = last in _LISTS or (tag is not None and dictionary_VR(tag) == "UI")
    return value.replace(",", "\\") if is_list else value


def _number(name: str, value: str) -> int:
    if not value.isascii() or not value.isdigit() or len(value) > 18:
        raise BadRequest(f"{name}={value[:20]!r} is no whole number")
    return int(value)


def _tag(keyword: str) -> str:
    tag = tag_for_keyword(keyword)
    assert tag is not None, keyword
    return f"{tag:08X}"


def _element(keyword: str, value: Any) -> dict[str, Any]:
    vr = dictionary_VR(_tag_number(keyword))
    if vr == "PN":
        groups = zip(_NAME_GROUPS, str(value).split("="), strict=False)
        return {"vr": vr, "Value": [{group: text for group, text in groups if text}]}
    if vr in ("IS", "US") and not isinstance(value, list):
        try:
            return {"vr": vr, "Value": [int(value)]}
        except ValueError:
            return {"vr": vr}  # what a film says there is no number
    values: Sequence[Any] = value if isinstance(value, list) else str(value).split("\\")
    return {"vr": vr, "Value": list(values)}


def _tag_number(keyword: str) -> int:
    tag: int | None = tag_for_keyword(keyword)
    assert tag is not None, keyword
    return tag
