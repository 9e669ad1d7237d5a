"""Made-up studies for the tests of results: headers as real senders write them, and assessments of them."""

from __future__ import annotations

import io
import re
import subprocess
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset

from firstread.integration.dicom import identity
from firstread.integration.dicom.report import Encoded, Predecessor, ReportSettings, build_report
from firstread.models.findings import LABELS, NO_FINDING, PATHOLOGIES, ReasonCode
from firstread.models.prediction import (
    Assessment,
    Box,
    FindingResult,
    ImageOutcome,
    ModelIdentity,
    Priority,
    Reason,
)
from tests.peers import require_peer

SITE = "2.25.329800735698586629295641978511506172918"
STUDY = "1.2.826.0.1.3680043.8.498.1"
SERIES = "1.2.826.0.1.3680043.8.498.1.1"
FILM = "1.2.826.0.1.3680043.8.498.1.1.1"
LATERAL = "1.2.826.0.1.3680043.8.498.1.1.2"
DX = "1.2.840.10008.5.1.4.1.1.1.1"
NOON = datetime(2025, 3, 1, 12, 0, 5)
SETTINGS = ReportSettings(device_uid=SITE, software_versions="1.2.3")
MODEL = ModelIdentity("reference", "1.0.0", "0123456789abcdef" * 4)

PROBABILITIES = dict(
    zip(PATHOLOGIES, (0.12, 0.3, 0.04, 0.08, 0.72, 0.01, 0.02, 0.03, 0.2, 0.05, 0.06, 0.11, 0.4, 0.8123), strict=True)
)


def film(**changes: object) -> Dataset:
    """The header of a well-made film; ``changes`` by keyword, None removes."""
    header = Dataset()
    values: dict[str, object] = {
        "SpecificCharacterSet": "ISO_IR 100",
        "SOPClassUID": DX,
        "SOPInstanceUID": FILM,
        "StudyInstanceUID": STUDY,
        "SeriesInstanceUID": SERIES,
        "StudyDate": "20250301",
        "StudyTime": "115500",
        "StudyID": "S1",
        "AccessionNumber": "ACC1",
        "ReferringPhysicianName": "Ward^North",
        "PatientName": "Doe^Jane",
        "PatientID": "P1",
        "PatientBirthDate": "19600101",
        "PatientSex": "F",
        "PatientAge": "065Y",
        "Modality": "DX",
        "ViewPosition": "PA",
        "PatientOrientation": ["L", "F"],
        "Rows": 2000,
        "Columns": 1600,
        "PixelSpacing": ["0.2", "0.2"],
        "BodyPartExamined": "CHEST",
    }
    for keyword, value in {**values, **changes}.items():
        if value is not None:
            setattr(header, keyword, value)
    return header


def written(header: Dataset, folder: Path, syntax: str = "1.2.840.10008.1.2.1") -> Path:
    """The header as a Part 10 file."""
    header.file_meta = pydicom.dataset.FileMetaDataset()
    header.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
    header.file_meta.MediaStorageSOPClassUID = header.get("SOPClassUID", DX)
    header.file_meta.MediaStorageSOPInstanceUID = header.get("SOPInstanceUID", FILM)
    path = folder / "film.dcm"
    pydicom.dcmwrite(path, header, enforce_file_format=True)
    return path


def finding(label: str, probability: float | None, **changes: object) -> FindingResult:
    """A finding with the operating point 0.60, present above it."""
    present = probability is not None and probability >= 0.6
    result = FindingResult(label, probability, 0.6, present, sop_instance_uid=FILM if probability is not None else None)
    return replace(result, **changes)  # type: ignore[arg-type]


def positive(**changes: object) -> Assessment:
    """Pneumothorax with a region and effusion above, the others below; a lateral view left out."""
    findings = [finding(label, probability) for label, probability in PROBABILITIES.items()]
    findings[-1] = replace(findings[-1], raises=Priority.STAT, box=Box(200.0, 300.0, 700.5, 900.25))
    findings.append(finding(NO_FINDING, 0.05))
    assessment = Assessment(
        STUDY,
        1,
        NOON,
        tuple(findings),
        priority=Priority.STAT,
        priority_reason="pneumothorax 0.81 above 0.60",
        causes=("Pneumothorax",),
        notes=("one of 2 images not analysed: lateral view",),
        images=(
            ImageOutcome(FILM, DX, SERIES),
            ImageOutcome(LATERAL, DX, SERIES, Reason(ReasonCode.LATERAL_VIEW, "ViewPosition LL")),
        ),
        model=MODEL,
    )
    return replace(assessment, **changes)  # type: ignore[arg-type]


def negative() -> Assessment:
    """Nothing above its operating point, nothing raised."""
    findings = tuple(finding(label, 0.1) for label in LABELS if label != NO_FINDING)
    return positive(
        findings=(*findings, finding(NO_FINDING, 0.9)),
        priority=Priority.ROUTINE,
        priority_reason="",
        causes=(),
        notes=(),
        images=(ImageOutcome(FILM, DX, SERIES),),
    )


def not_analysed(code: ReasonCode = ReasonCode.NOT_A_CHEST, detail: str = "BodyPartExamined HIP") -> Assessment:
    """A study of which nothing was analysed."""
    return Assessment(
        STUDY, 1, NOON, reason=Reason(code, detail), images=(ImageOutcome(FILM, DX, SERIES, Reason(code, detail)),)
    )


def uids(assessment: Assessment, kind: str) -> tuple[str, str]:
    """SOP and Series Instance UID of a result of ours."""
    study = assessment.study_instance_uid
    return identity.derive_uid(SITE, study, assessment.revision, kind), identity.series_uid(SITE, study, kind)


def report(assessment: Assessment, *sources: Path | Dataset, predecessor: Predecessor | None = None) -> Encoded:
    """The report of an assessment, of the well-made film where no other is given."""
    return build_report(
        assessment,
        sources or (film(),),
        uids(assessment, identity.SR),
        SETTINGS,
        predecessor=predecessor,
        content_datetime=NOON,
    )


def parsed(encoded: Encoded) -> Dataset:
    """The data set of an instance, read back from its bytes."""
    return pydicom.dcmread(io.BytesIO(encoded.part10))


def items(dataset: Dataset, code: str) -> list[Dataset]:
    """All content items of that concept name, at any depth, in order."""
    found = []
    for item in dataset.get("ContentSequence") or []:
        name = item.ConceptNameCodeSequence[0]
        if code in (name.get("CodeValue"), name.get("LongCodeValue")):
            found.append(item)
        found += items(item, code)
    return found


def groups(dataset: Dataset) -> dict[str, Dataset]:
    """Measurement groups by the meaning of their finding."""
    return {items(group, "121071")[0].ConceptCodeSequence[0].CodeMeaning: group for group in items(dataset, "125007")}


def texts(dataset: Dataset) -> list[str]:
    """Every text and every code meaning in the content tree."""
    said = []
    for item in dataset.get("ContentSequence") or []:
        said += [str(item.get("TextValue") or "")]
        said += [code.CodeMeaning for code in item.get("ConceptCodeSequence") or []]
        said += texts(item)
    return [text for text in said if text]


def number(group: Dataset, code: str) -> float:
    """The measured value of a NUM item below a group."""
    return float(items(group, code)[0].MeasuredValueSequence[0].NumericValue)


_TOO_LONG = re.compile(r"<(.*)> - Length invalid for this VR = \d+, expected <= (\d+)$")
_SUMMED_UP = "Error - Dicom dataset contains invalid data values"


def dciodvfy(encoded: Encoded, folder: Path) -> tuple[list[str], list[str]]:
    """Errors and warnings of dciodvfy.

    Left out: the warning that a private scheme is none of the standard's, and the error that a value is too long
    where it is so in bytes of UTF-8 only. PS3.5 6.2 limits characters; dciodvfy counts bytes whatever the character
    set, and for PN those of all component groups together.
    """
    path = folder / "instance.dcm"
    path.write_bytes(encoded.part10)
    run = subprocess.run([require_peer("dciodvfy"), str(path)], capture_output=True, check=False)
    lines = (run.stdout + run.stderr).decode("utf-8", "replace").splitlines()
    errors = [line for line in lines if line.startswith("Error") and not _is_short_in_characters(line)]
    if all(line.startswith(_SUMMED_UP) for line in errors):
        errors = []
    warnings = [line for line in lines if line.startswith("Warning") and "<99FIRSTREAD>" not in line]
    return errors, warnings


def _is_short_in_characters(line: str) -> bool:
    said = _TOO_LONG.search(line)
    return bool(said) and all(len(group) <= int(said[2]) for group in said[1].split("=")) and not said[1].isascii()


def dsrdump(encoded: Encoded, folder: Path) -> str:
    """What dsrdump prints, with long values in full; it must find nothing to complain of."""
    path = folder / "instance.dcm"
    path.write_bytes(encoded.part10)
    run = subprocess.run([require_peer("dsrdump"), "+Pl", "+U8", str(path)], capture_output=True, check=False)
    assert run.returncode == 0, run.stderr
    complaints = [line for line in run.stderr.decode("utf-8", "replace").splitlines() if "Character Set" not in line]
    assert complaints == []
    return run.stdout.decode("utf-8")
