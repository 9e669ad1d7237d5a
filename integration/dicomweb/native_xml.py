"""The Native DICOM Model (PS3.19 A.1) to the DICOM JSON Model (PS3.18 F) and back: one model inside, two outside."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree

from pydicom.datadict import keyword_for_tag

from firstread.integration.dicomweb.errors import BadRequest

JsonObject = dict[str, Any]

_NAMESPACE = "http://dicom.nema.org/PS3.19/models/NativeDICOM"
_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")
_COMPONENTS = ("FamilyName", "GivenName", "MiddleName", "NamePrefix", "NameSuffix")
_NUMBERS = frozenset(("DS", "IS", "FL", "FD", "SL", "SS", "UL", "US", "SV", "UV"))
_DEEPEST = 16
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def to_xml(dataset: Mapping[str, Any]) -> bytes:
    """A data set of the JSON model as a NativeDicomModel document."""
    root = ElementTree.Element("NativeDicomModel", {"xml:space": "preserve", "xmlns": _NAMESPACE})
    _write(root, dataset)
    document: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return document


def from_xml(document: bytes) -> list[JsonObject]:
    """The data sets of a document: one NativeDicomModel, or several below one root. Raises BadRequest."""
    if b"<!DOCTYPE" in document or b"<!ENTITY" in document:
        raise BadRequest("a document type declaration has no place in DICOM metadata")
    try:
        root = ElementTree.fromstring(document)  # noqa: S314 (no declarations, so no entities)
    except (ElementTree.ParseError, ValueError) as error:
        raise BadRequest(f"the metadata is no well-formed XML: {error}") from error
    if _local(root.tag) == "NativeDicomModel":
        return [_read(root, 0)]
    found = [_read(one, 0) for one in root if _local(one.tag) == "NativeDicomModel"]
    if not found:
        raise BadRequest("the metadata holds no NativeDicomModel (PS3.19 A.1)")
    return found


def _write(parent: ElementTree.Element, dataset: Mapping[str, Any]) -> None:
    for tag, element in sorted(dataset.items()):
        attributes = {"tag": tag, "vr": element["vr"]}
        if keyword := keyword_for_tag(int(tag, 16)):
            attributes["keyword"] = keyword
        one = ElementTree.SubElement(parent, "DicomAttribute", attributes)
        if "BulkDataURI" in element:
            ElementTree.SubElement(one, "BulkData", {"uri": element["BulkDataURI"]})
        elif "InlineBinary" in element:
            ElementTree.SubElement(one, "InlineBinary").text = element["InlineBinary"]
        for number, value in enumerate(element.get("Value", ()), 1):
            _write_value(one, element["vr"], number, value)


def _write_value(parent: ElementTree.Element, vr: str, number: int, value: Any) -> None:
    attributes = {"number": str(number)}
    if vr == "SQ":
        _write(ElementTree.SubElement(parent, "Item", attributes), value or {})
    elif vr == "PN":
        name = ElementTree.SubElement(parent, "PersonName", attributes)
        for group in _GROUPS:
            if written := (value or {}).get(group):
                _write_name(ElementTree.SubElement(name, group), written)
    else:
        text = "" if value is None else str(value)
        ElementTree.SubElement(parent, "Value", attributes).text = _NOT_XML.sub("\ufffd", text)


def _write_name(group: ElementTree.Element, written: str) -> None:
    for component, text in zip(_COMPONENTS, written.split("^"), strict=False):
        if text:
            ElementTree.SubElement(group, component).text = _NOT_XML.sub("\ufffd", text)


def _read(parent: ElementTree.Element, depth: int) -> JsonObject:
    if depth > _DEEPEST:
        raise BadRequest(f"sequences within sequences, more than {_DEEPEST} deep")
    dataset: JsonObject = {}
    for one in parent:
        if _local(one.tag) != "DicomAttribute":
            continue
        tag, vr = one.get("tag", "").upper(), one.get("vr", "")
        if not re.fullmatch("[0-9A-F]{8}", tag) or not re.fullmatch("[A-Z]{2}", vr):
            raise BadRequest(f"DicomAttribute with tag {tag[:20]!r} and vr {vr[:5]!r}")
        dataset[tag] = _read_element(one, tag, vr, depth)
    return dataset


def _read_element(one: ElementTree.Element, tag: str, vr: str, depth: int) -> JsonObject:
    element: JsonObject = {"vr": vr}
    values: list[Any] = []
    for child in one:
        kind = _local(child.tag)
        if kind == "BulkData":
            element["BulkDataURI"] = child.get("uri") or child.get("uuid") or ""
        elif kind == "InlineBinary":
            element["InlineBinary"] = "".join((child.text or "").split())
        elif kind == "Item":
            values.append(_read(child, depth + 1))
        elif kind == "PersonName":
            values.append(_read_name(child))
        elif kind == "Value":
            values.append(_number(tag, child.text or "") if vr in _NUMBERS else child.text or "")
    if values:
        element["Value"] = values
    return element


def _read_name(name: ElementTree.Element) -> JsonObject:
    groups: JsonObject = {}
    for group in name:
        parts = {_local(part.tag): part.text or "" for part in group}
        groups[_local(group.tag)] = "^".join(parts.get(component, "") for component in _COMPONENTS).rstrip("^")
    return groups


def _number(tag: str, text: str) -> int | float | None:
    if not text.strip():
        return None
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError as error:
        raise BadRequest(f"({tag}): {text[:20]!r} is no number") from error


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]
