"""Attributes in the Native DICOM Model (XML, PS3.19 A.1) to DICOM JSON and back; no bulk data."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from pydicom.datadict import keyword_for_tag

from firstread.integration.dicom.ups import Json

_NAMESPACE = "http://dicom.nema.org/PS3.19/models/NativeDICOM"
_NUMBERS = frozenset({"FL", "FD", "SL", "SS", "UL", "US", "SV", "UV", "DS", "IS"})
_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")
_COMPONENTS = ("FamilyName", "GivenName", "MiddleName", "NamePrefix", "NameSuffix")
_DEEPEST = 16
_ILLEGAL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
"""Characters that XML 1.0 cannot hold."""


class UnreadableXml(ValueError):
    """A body that is no Native DICOM Model."""


def from_xml(body: bytes) -> Json:
    """The attributes of a document. Raises UnreadableXml."""
    if b"<!DOCTYPE" in body or b"<!ENTITY" in body or b"\x00" in body:
        raise UnreadableXml("a document type or entities are not taken, and the text must be UTF-8")
    try:
        root = ElementTree.fromstring(body)  # noqa: S314 - entities were refused above
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise UnreadableXml(f"the body is not XML: {str(error)[:120]}") from None
    if _name(root) != "NativeDicomModel":
        raise UnreadableXml(f"the root is NativeDicomModel, not {_name(root)[:32]!r}")
    return _attributes(root, 0)


def to_xml(attributes: Json) -> bytes:
    """The attributes as a document."""
    root = Element("NativeDicomModel", {"xmlns": _NAMESPACE, "xml:space": "preserve"})
    _write(root, attributes)
    written: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return written


def _attributes(parent: Element, depth: int) -> Json:
    if depth > _DEEPEST:
        raise UnreadableXml("sequences lie too deep in each other")
    found: Json = {}
    for element in parent:
        tag, vr = element.get("tag", ""), element.get("vr", "")
        if _name(element) != "DicomAttribute" or len(tag) != 8 or len(vr) != 2:
            raise UnreadableXml(f"{_name(element)[:32]!r}: a DicomAttribute has a tag of eight digits and a vr")
        found[tag.upper()] = {"vr": vr, "Value": _values(element, vr, depth)}
    return found


def _values(element: Element, vr: str, depth: int) -> list[Any]:
    children = sorted(element, key=_number)
    if vr == "SQ":
        return [_attributes(child, depth + 1) for child in children if _name(child) == "Item"]
    if vr == "PN":
        return [_person(child) for child in children if _name(child) == "PersonName"]
    if any(_name(child) in ("BulkData", "InlineBinary") for child in children):
        raise UnreadableXml("bulk data has no place in a work item")
    return [_value(child.text or "", vr) for child in children if _name(child) == "Value"]


def _value(text: str, vr: str) -> Any:
    if vr not in _NUMBERS:
        return text
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        raise UnreadableXml(f"{text[:32]!r} is no number") from None


def _person(element: Element) -> dict[str, str]:
    groups = {}
    for child in element:
        parts = {_name(part): part.text or "" for part in child}
        groups[_name(child)] = "^".join(parts.get(name, "") for name in _COMPONENTS).rstrip("^")
    return {name: groups[name] for name in _GROUPS if groups.get(name)}


def _write(parent: Element, attributes: Json) -> None:
    for tag in sorted(attributes):
        written = attributes[tag]
        keyword = keyword_for_tag(int(tag, 16))
        named = {"keyword": keyword} if keyword else {}
        element = SubElement(parent, "DicomAttribute", {"tag": tag, "vr": written["vr"], **named})
        for number, value in enumerate(written.get("Value") or [], start=1):
            if written["vr"] == "SQ":
                _write(SubElement(element, "Item", {"number": str(number)}), value)
            elif written["vr"] == "PN":
                _write_person(SubElement(element, "PersonName", {"number": str(number)}), value)
            elif value is not None:
                SubElement(element, "Value", {"number": str(number)}).text = _ILLEGAL.sub(" ", str(value))


def _write_person(element: Element, groups: dict[str, str]) -> None:
    for name in _GROUPS:
        if name in groups:
            group = SubElement(element, name)
            for component, text in zip(_COMPONENTS, groups[name].split("^"), strict=False):
                SubElement(group, component).text = _ILLEGAL.sub(" ", text)


def _name(element: Element) -> str:
    return element.tag.rpartition("}")[2]


def _number(element: Element) -> int:
    number = element.get("number", "0")
    return int(number) if number.isascii() and number.isdigit() and len(number) < 10 else 0
