"""TID 1500 walked row by row (PS3.16): what a report has to hold and what dciodvfy, which knows no templates, passes.

The codes are written out again here and not taken from the writer: a wrong one there must not be right here.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pydicom.dataset import Dataset

Concept = tuple[str, str]
"""Code value and coding scheme designator."""

COMPREHENSIVE_3D_SR = "1.2.840.10008.5.1.4.1.1.88.34"
TITLES = {("126000", "DCM"), ("126001", "DCM"), ("126002", "DCM"), ("126003", "DCM")}
"""CID 7021 "Measurement Report Document Title"."""

_TEXT, _CODE, _NUM, _UIDREF = "TEXT", "CODE", "NUM", "UIDREF"
_CONTAINER, _IMAGE, _SCOORD = "CONTAINER", "IMAGE", "SCOORD"
_CONTAINS, _OBSERVATION, _MODIFIER = "CONTAINS", "HAS OBS CONTEXT", "HAS CONCEPT MOD"

_VALUES = {"TEXT", "CODE", "NUM", "DATETIME", "DATE", "TIME", "UIDREF", "PNAME"}
_REFERENCES = {"IMAGE", "WAVEFORM", "COMPOSITE", "SCOORD", "SCOORD3D", "TCOORD"}
_STATEMENTS = {"TEXT", "CODE", "NUM"}
_EVERYTHING = _VALUES | _REFERENCES | {"CONTAINER"}
_ALLOWED: dict[str, tuple[set[str], set[str]]] = {
    _CONTAINS: ({"CONTAINER"}, _EVERYTHING),
    _OBSERVATION: (_STATEMENTS | {"CONTAINER"}, _VALUES | {"COMPOSITE"}),
    "HAS ACQ CONTEXT": (_REFERENCES | {"CONTAINER", "NUM"}, _VALUES | {"CONTAINER"}),
    _MODIFIER: (_EVERYTHING, {"TEXT", "CODE"}),
    "HAS PROPERTIES": (_STATEMENTS, _EVERYTHING),
    "INFERRED FROM": (_STATEMENTS, _EVERYTHING),
    "SELECTED FROM": ({"SCOORD", "TCOORD"}, {"IMAGE", "SCOORD", "WAVEFORM"}),
}
"""Relationship: value types it may start from, value types it may lead to (PS3.3 Table A.35.13-2)."""


@dataclass(frozen=True)
class Row:
    """One row of a template: how it hangs below its parent, what it is, how often it stands there."""

    where: str
    name: Concept
    meaning: str
    value_type: str
    relationship: str = _CONTAINS
    least: int = 0
    most: int | None = 1
    values: frozenset[Concept] | None = None
    """For CODE: the only values allowed. For NUM: the only units."""


def _set(*concepts: Concept) -> frozenset[Concept]:
    return frozenset(concepts)


ROOT: tuple[Row, ...] = (
    Row("TID 1204", ("121049", "DCM"), "Language of Content", _CODE, _MODIFIER, 1),
    Row("TID 1002", ("121005", "DCM"), "Observer Type", _CODE, _OBSERVATION, 1, 1, _set(("121007", "DCM"))),
    Row("TID 1004", ("121012", "DCM"), "Device Observer UID", _UIDREF, _OBSERVATION, 1),
    Row("TID 1004", ("121013", "DCM"), "Device Observer Name", _TEXT, _OBSERVATION, 1),
    Row("TID 1004", ("121014", "DCM"), "Device Observer Manufacturer", _TEXT, _OBSERVATION, 1),
    Row("TID 1004", ("121015", "DCM"), "Device Observer Model Name", _TEXT, _OBSERVATION, 1),
    Row("TID 1500 row 4", ("121058", "DCM"), "Procedure reported", _CODE, _MODIFIER, 1, None),
    Row("TID 1500 row 5", ("111028", "DCM"), "Image Library", _CONTAINER),
    Row("TID 1500 row 6", ("126010", "DCM"), "Imaging Measurements", _CONTAINER),
    Row("TID 1500 row 10", ("126011", "DCM"), "Derived Imaging Measurements", _CONTAINER),
    Row("TID 1500 row 12", ("C0034375", "UMLS"), "Qualitative Evaluations", _CONTAINER),
)
"""TID 1500 with what it includes, in its order, which is significant."""

GROUP: tuple[Row, ...] = (
    Row("TID 4108", ("112039", "DCM"), "Tracking Identifier", _TEXT, _OBSERVATION, 1),
    Row("TID 4108", ("112040", "DCM"), "Tracking Unique Identifier", _UIDREF, _OBSERVATION, 1),
    Row("TID 1501", ("121071", "DCM"), "Finding", _CODE, _CONTAINS, 1),
    Row("TID 4019", ("111001", "DCM"), "Algorithm Name", _TEXT, _MODIFIER, 1),
    Row("TID 4019", ("111003", "DCM"), "Algorithm Version", _TEXT, _MODIFIER, 1),
    Row("TID 4019", ("111000", "DCM"), "Algorithm Family", _CODE, _MODIFIER, 1, 1, _set(("123110", "DCM"))),
    Row("TID 300", ("122157", "DCM"), "Probability", _NUM, _CONTAINS, 0, 1, _set(("1", "UCUM"))),
    Row("TID 1501", ("705057003", "SCT"), "Presence", _CODE, _CONTAINS, 0, 1, _set(("52101004", "SCT"))),
    Row("TID 1501", ("121106", "DCM"), "Comment", _TEXT, _CONTAINS, 0, None),
    Row("TID 1501", ("121112", "DCM"), "Source of Measurement", _IMAGE, _CONTAINS, 0, None),
    Row("TID 1410", ("111030", "DCM"), "Image Region", _SCOORD, _CONTAINS, 0, 1),
)
"""TID 1501 Measurement and Qualitative Evaluation Group, or TID 1410 for a region, as IHE AI Results uses them."""

LIBRARY: tuple[Row, ...] = (Row("TID 1600", ("126200", "DCM"), "Image Library Group", _CONTAINER, _CONTAINS, 1, None),)


def walk(dataset: Dataset) -> list[str]:
    """What is wrong with a report, one sentence for each problem with its place; empty for a sound one.

    Title, language, observer device, procedure, image library, measurement groups with tracking, finding, algorithm
    and probability, overall evaluations, value types, relationships, complete codes, and that every instance that
    the content names stands in the Current Requested Procedure Evidence Sequence.
    """
    problems = list(_document(dataset))
    problems += _tree(dataset, "root")
    problems += _rows(dataset, ROOT, "root", ordered=True)
    by_name = {_name(item): item for item in _children(dataset)}
    measurements = by_name.get(("126010", "DCM"))
    evaluations = by_name.get(("C0034375", "UMLS"))
    if measurements is None and evaluations is None and ("126011", "DCM") not in by_name:
        problems.append("root: none of TID 1500 rows 6, 10 and 12 is there")
    if measurements is not None:
        problems += _measurements(measurements)
    if evaluations is not None:
        problems += _evaluations(evaluations)
    library = by_name.get(("111028", "DCM"))
    if library is not None:
        problems += _library(library)
    elif measurements is not None:
        problems.append("root: measurements without an Image Library (TID 1500 row 5)")
    problems += _evidence(dataset)
    return problems


def _document(dataset: Dataset) -> Iterator[str]:
    expected = {
        "SOPClassUID": COMPREHENSIVE_3D_SR,
        "Modality": "SR",
        "ValueType": _CONTAINER,
        "CompletionFlag": "COMPLETE",
        "VerificationFlag": "UNVERIFIED",
        "PreliminaryFlag": "PRELIMINARY",
    }
    for keyword, value in expected.items():
        if dataset.get(keyword) != value:
            yield f"document: {keyword} is {dataset.get(keyword)!r}, not {value}"
    if _name(dataset) not in TITLES:
        yield f"root: the title {_name(dataset)} is not in CID 7021 (TID 1500 row 1)"
    templates = [(item.get("TemplateIdentifier"), item.get("MappingResource")) for item in _template(dataset)]
    if templates != [("1500", "DCMR")]:
        yield f"root: the template is {templates}, not 1500 of DCMR"


def _template(item: Dataset) -> Sequence[Dataset]:
    return list(item.get("ContentTemplateSequence") or [])


def _children(item: Dataset) -> list[Dataset]:
    return list(item.get("ContentSequence") or [])


def _concept(codes: Sequence[Dataset] | None) -> Concept:
    """Of a code sequence's only item; ("", "") where there is none."""
    if not codes:
        return ("", "")
    code = codes[0]
    value = code.get("CodeValue") or code.get("LongCodeValue") or code.get("URNCodeValue") or ""
    return (str(value), str(code.get("CodingSchemeDesignator") or ""))


def _name(item: Dataset) -> Concept:
    return _concept(item.get("ConceptNameCodeSequence"))


def _unit(item: Dataset) -> Concept:
    measured = item.get("MeasuredValueSequence")
    return _concept(measured[0].get("MeasurementUnitsCodeSequence")) if measured else ("", "")


def _rows(parent: Dataset, rows: Sequence[Row], where: str, *, ordered: bool = False) -> Iterator[str]:
    """Each row of the template: there as often as it must be, of its value type, relationship and values."""
    children = _children(parent)
    places = {row.name: place for place, row in enumerate(rows)}
    for row in rows:
        found = [item for item in children if _name(item) == row.name]
        if len(found) < row.least:
            yield f"{where}: {row.meaning} is missing ({row.where})"
        if row.most is not None and len(found) > row.most:
            yield f"{where}: {row.meaning} stands there {len(found)} times ({row.where})"
        for item in found:
            if item.get("ValueType") != row.value_type:
                yield f"{where}: {row.meaning} is {item.get('ValueType')}, not {row.value_type} ({row.where})"
            elif item.get("RelationshipType") != row.relationship:
                yield f"{where}: {row.meaning} hangs by {item.get('RelationshipType')}, not {row.relationship}"
            elif row.values is not None:
                value = _unit(item) if row.value_type == _NUM else _concept(item.get("ConceptCodeSequence"))
                if value not in row.values:
                    yield f"{where}: {row.meaning} is {value}, which {row.where} does not allow"
    if ordered:
        order = [places[_name(item)] for item in children if _name(item) in places]
        if order != sorted(order):
            yield f"{where}: the rows are not in the template's order"


def _measurements(container: Dataset) -> Iterator[str]:
    groups = _children(container)
    if not groups:
        yield "Imaging Measurements: empty (TID 1500 rows 7 to 9)"
    for place, group in enumerate(groups, 1):
        where = f"Measurement Group {place}"
        if _name(group) != ("125007", "DCM") or group.get("ValueType") != _CONTAINER:
            yield f"Imaging Measurements: item {place} is no Measurement Group (125007, DCM)"
            continue
        yield from _rows(group, GROUP, where)
        yield from _group(group, where)
    for kind, concept in (("Tracking Unique Identifier", ("112040", "DCM")), ("Finding", ("121071", "DCM"))):
        values = [_said(item) for group in groups for item in _children(group) if _name(item) == concept]
        for value, times in Counter(values).items():
            if times > 1:
                yield f"Imaging Measurements: {kind} {value} stands in {times} groups"


def _said(item: Dataset) -> str:
    if item.get("ValueType") == _CODE:
        return " ".join(_concept(item.get("ConceptCodeSequence")))
    return str(item.get("UID") or item.get("TextValue") or "")


def _group(group: Dataset, where: str) -> Iterator[str]:
    children = _children(group)
    region = [item for item in children if item.get("ValueType") == _SCOORD]
    templates = [item.get("TemplateIdentifier") for item in _template(group)]
    if templates != ["1410" if region else "1501"]:
        yield f"{where}: the template is {templates}, for {'a region it is 1410' if region else 'no region it is 1501'}"
    numbers = [item for item in children if _name(item) == ("122157", "DCM")]
    sources = [item for item in children if item.get("ValueType") in (_IMAGE, _SCOORD)]
    present = any(_name(item) == ("705057003", "SCT") for item in children)
    for item in numbers:
        value = _numeric(item)
        if value is None or not 0 <= value <= 1:
            yield f"{where}: the probability is {value}, not within [0, 1]"
    if numbers and not sources:
        yield f"{where}: a probability without the image it comes from"
    if present and not numbers:
        yield f"{where}: Present without a probability"
    if not numbers and not any(item.get("ValueType") == _CODE and _is_evaluation(item) for item in children):
        yield f"{where}: neither a probability nor an evaluation that says why there is none"


def _is_evaluation(item: Dataset) -> bool:
    return item.get("RelationshipType") == _CONTAINS and _name(item) != ("121071", "DCM")


def _numeric(item: Dataset) -> float | None:
    measured = item.get("MeasuredValueSequence")
    value = measured[0].get("NumericValue") if measured else None
    return None if value is None or not math.isfinite(float(value)) else float(value)


def _evaluations(container: Dataset) -> Iterator[str]:
    children = _children(container)
    if not children:
        yield "Qualitative Evaluations: empty (TID 1500 rows 13 and 14)"
    for item in children:
        if item.get("RelationshipType") != _CONTAINS or item.get("ValueType") not in (_CODE, _TEXT):
            yield f"Qualitative Evaluations: {_name(item)} is no CODE or TEXT that it CONTAINS (rows 13 and 14)"


def _library(library: Dataset) -> Iterator[str]:
    yield from _rows(library, LIBRARY, "Image Library")
    for group in _children(library):
        images = [item for item in _children(group) if item.get("ValueType") == _IMAGE]
        if not images:
            yield "Image Library Group: no image in it (TID 1601)"
        for item in _children(group):
            if item.get("ValueType") != _IMAGE and item.get("RelationshipType") != "HAS ACQ CONTEXT":
                yield f"Image Library Group: {_name(item)} is neither an image nor a descriptor (TID 1600)"
        for item in (below for image in images for below in _children(image)):
            if item.get("RelationshipType") != "HAS ACQ CONTEXT":
                yield f"Image Library Entry: {_name(item)} hangs by {item.get('RelationshipType')} (TID 1601)"


def _tree(item: Dataset, where: str) -> Iterator[str]:
    """Whatever the template: relationships of the IOD, complete codes, and a value in every item."""
    yield from _item(item, where)
    for place, child in enumerate(_children(item), 1):
        below = f"{where}.{place}"
        relationship = str(child.get("RelationshipType") or "")
        source, target = str(item.get("ValueType") or ""), str(child.get("ValueType") or "")
        allowed = _ALLOWED.get(relationship)
        if allowed is None:
            yield f"{below}: {relationship!r} is no relationship of a Comprehensive 3D SR"
        elif source not in allowed[0] or target not in allowed[1]:
            yield f"{below}: {source} {relationship} {target} is not allowed (PS3.3 Table A.35.13-2)"
        yield from _tree(child, below)


def _item(item: Dataset, where: str) -> Iterator[str]:
    value_type = item.get("ValueType")
    if value_type not in (_IMAGE, "COMPOSITE", _SCOORD) or item.get("ConceptNameCodeSequence"):
        yield from _code(item.get("ConceptNameCodeSequence"), f"{where}: concept name")
    if value_type == _TEXT and not str(item.get("TextValue") or "").strip():
        yield f"{where}: an empty text"
    elif value_type == _CODE:
        yield from _code(item.get("ConceptCodeSequence"), f"{where}: code")
    elif value_type == _NUM:
        measured = item.get("MeasuredValueSequence")
        if (
            measured is None
            or len(measured) > 1
            or (not measured and not item.get("NumericValueQualifierCodeSequence"))
        ):
            yield f"{where}: a number without a value or the reason why there is none"
        elif measured:
            if _numeric(item) is None:
                yield f"{where}: a measured value that is no number"
            yield from _code(measured[0].get("MeasurementUnitsCodeSequence"), f"{where}: unit")
    elif value_type == _UIDREF and not re.fullmatch(r"[0-9.]{3,64}", str(item.get("UID") or "")):
        yield f"{where}: an UIDREF that holds no UID"
    elif value_type == _IMAGE and len(item.get("ReferencedSOPSequence") or []) != 1:
        yield f"{where}: an image that names no instance"
    elif value_type == _CONTAINER and item.get("ContinuityOfContent") not in ("SEPARATE", "CONTINUOUS"):
        yield f"{where}: a container without Continuity of Content"
    elif value_type == _SCOORD:
        yield from _coordinates(item, where)


def _code(codes: Sequence[Dataset] | None, where: str) -> Iterator[str]:
    """A code has a value, a scheme and a meaning within the lengths of PS3.3 8.8."""
    if not codes or len(codes) != 1:
        yield f"{where}: not exactly one code"
        return
    value, scheme = _concept(codes)
    meaning = str(codes[0].get("CodeMeaning") or "")
    if not value or not scheme or not meaning:
        yield f"{where}: an incomplete code ({value}, {scheme}, {meaning})"
    if len(str(codes[0].get("CodeValue") or "")) > 16 or len(scheme) > 16 or len(meaning) > 64:
        yield f"{where}: a code that is too long ({value}, {scheme}, {meaning})"


def _coordinates(item: Dataset, where: str) -> Iterator[str]:
    points = list(item.get("GraphicData") or [])
    if item.get("GraphicType") != "POLYLINE" or len(points) < 8 or len(points) % 2:
        yield f"{where}: a region that is no POLYLINE of at least three corners"
    elif points[:2] != points[-2:]:
        yield f"{where}: a region that is not closed (TID 1410)"
    elif min(points) < 0:
        yield f"{where}: a region that lies outside its image"
    if [child.get("RelationshipType") for child in _children(item)] != ["SELECTED FROM"]:
        yield f"{where}: a region that is not SELECTED FROM exactly one image"


def _references(item: Dataset) -> Iterator[Concept]:
    for reference in item.get("ReferencedSOPSequence") or []:
        yield str(reference.get("ReferencedSOPInstanceUID")), str(reference.get("ReferencedSOPClassUID"))
    for child in _children(item):
        yield from _references(child)


def _evidence(dataset: Dataset) -> Iterator[str]:
    """PS3.3 C.17.2.3: what the tree names of this study stands in the evidence, each instance once."""
    listed: Counter[Concept] = Counter()
    for study in dataset.get("CurrentRequestedProcedureEvidenceSequence") or []:
        if study.get("StudyInstanceUID") != dataset.get("StudyInstanceUID"):
            yield "evidence: a study other than the report's own"
        for series in study.get("ReferencedSeriesSequence") or []:
            listed.update(_references(series))
    for uid, times in listed.items():
        if times > 1:
            yield f"evidence: {uid[0]} stands there {times} times"
    for reference in sorted(set(_references(dataset)) - set(listed)):
        yield f"evidence: {reference[0]} is named in the content and not listed with its class"
