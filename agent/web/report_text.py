"""The content of a Structured Report as indented lines, as the page shows it (PS3.3 C.17.3)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LINES_AT_MOST = 2000


@dataclass(frozen=True)
class ReportLine:
    """One content item: how deep it stands, its concept, its value."""

    depth: int
    concept: str
    value: str


def report_lines(path: Path) -> tuple[ReportLine, ...]:
    """Every content item of the report in this file, in order. Raises OSError or ValueError when it cannot be read."""
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError

    try:
        report = dcmread(path, stop_before_pixels=True)
    except InvalidDicomError as error:
        raise ValueError(f"the report cannot be read: {error}") from error
    lines = []
    for line in _walk(report, 0):
        lines.append(line)
        if len(lines) == LINES_AT_MOST:
            break
    return tuple(lines)


def _walk(item: Any, depth: int) -> Iterator[ReportLine]:
    yield ReportLine(depth, _code(item, "ConceptNameCodeSequence"), _value(item))
    for child in item.get("ContentSequence", ()):
        yield from _walk(child, depth + 1)


def _code(item: Any, keyword: str) -> str:
    codes = item.get(keyword) or ()
    return str(codes[0].get("CodeMeaning", codes[0].get("CodeValue", ""))) if codes else ""


def _value(item: Any) -> str:
    kind = str(item.get("ValueType", ""))
    if kind == "CODE":
        codes = item.get("ConceptCodeSequence") or ()
        if not codes:
            return ""
        code, scheme = codes[0].get("CodeValue", ""), codes[0].get("CodingSchemeDesignator", "")
        return f"{_code(item, 'ConceptCodeSequence')} ({code}, {scheme})"
    if kind == "NUM":
        measured = (item.get("MeasuredValueSequence") or [None])[0]
        if measured is None:
            return "not obtained"
        unit = _code(measured, "MeasurementUnitsCodeSequence")
        return f"{measured.get('NumericValue', '')} {'' if unit == 'no units' else unit}".strip()
    if kind in ("IMAGE", "COMPOSITE"):
        referenced = item.get("ReferencedSOPSequence") or ()
        return f"image {referenced[0].get('ReferencedSOPInstanceUID', '')}" if referenced else "image"
    if kind in ("SCOORD", "SCOORD3D"):
        points = [f"{float(value):.0f}" for value in item.get("GraphicData", ())]
        return f"{str(item.get('GraphicType', '')).lower()} {', '.join(points)}"
    keyword = {
        "TEXT": "TextValue",
        "UIDREF": "UID",
        "PNAME": "PersonName",
        "DATETIME": "DateTime",
        "DATE": "Date",
        "TIME": "Time",
    }.get(kind)
    return str(item.get(keyword, "")) if keyword else ""
