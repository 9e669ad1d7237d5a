"""A report as a tree of text, for people who have no SR viewer at hand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset


def report_text(report: Path | Dataset) -> str:
    """The content of a Structured Report (PS3.3 C.17.3), a content item a line, indented by depth."""
    dataset = report if isinstance(report, Dataset) else dcmread(report)
    title = _meaning(dataset.get("ConceptNameCodeSequence"))
    head = [
        title,
        f"  completion {dataset.get('CompletionFlag', '?')}, verification {dataset.get('VerificationFlag', '?')}, "
        f"preliminary {dataset.get('PreliminaryFlag', '?')}",
        f"  SOP Instance UID {dataset.get('SOPInstanceUID', '?')}",
    ]
    for study in dataset.get("PredecessorDocumentsSequence", []):
        for series in study.ReferencedSeriesSequence:
            head += [f"  replaces {item.ReferencedSOPInstanceUID}" for item in series.ReferencedSOPSequence]
    return "\n".join([*head, *_lines(dataset, 1)])


def _lines(item: Dataset, depth: int) -> Iterator[str]:
    for child in item.get("ContentSequence", []):
        name = _meaning(child.get("ConceptNameCodeSequence"))
        value = _value(child)
        words = ": ".join(part for part in (name, value) if part)
        yield f"{'  ' * depth}{words or child.get('ValueType', '')}"
        yield from _lines(child, depth + 1)


def _value(item: Dataset) -> str:
    kind = item.get("ValueType", "")
    if kind == "CODE":
        return _meaning(item.get("ConceptCodeSequence"), with_code=True)
    if kind == "NUM":
        for measured in item.get("MeasuredValueSequence", []):
            unit = _meaning(measured.get("MeasurementUnitsCodeSequence"))
            return f"{measured.get('NumericValue', '')} {'' if unit in ('1', 'no units') else unit}".rstrip()
        return "no value: " + _meaning(item.get("NumericValueQualifierCodeSequence"))
    if kind in ("IMAGE", "COMPOSITE"):
        return ", ".join(str(one.ReferencedSOPInstanceUID) for one in item.get("ReferencedSOPSequence", []))
    if kind in ("SCOORD", "SCOORD3D"):
        points = ", ".join(f"{value:.0f}" for value in item.get("GraphicData", []))
        return f"{item.get('GraphicType', '')} at {points}"
    keyword = {"TEXT": "TextValue", "UIDREF": "UID", "PNAME": "PersonName", "DATETIME": "DateTime", "DATE": "Date"}
    return str(item.get(keyword.get(kind, ""), "")) if kind in keyword else ""


def _meaning(codes: object, *, with_code: bool = False) -> str:
    if not codes:
        return ""
    code: Dataset = codes[0]  # type: ignore[index]
    meaning = str(code.get("CodeMeaning", ""))
    if not with_code:
        return meaning
    value = code.get("CodeValue") or code.get("LongCodeValue") or code.get("URNCodeValue", "")
    return f"{meaning} ({value}, {code.get('CodingSchemeDesignator', '')})"
