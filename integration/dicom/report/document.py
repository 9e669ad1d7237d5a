"""An assessment as a Comprehensive 3D SR document (PS3.3 A.35.13): content, evidence, and the modules around it."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pydicom.dataset import Dataset

from firstread.integration.dicom.report import concepts
from firstread.integration.dicom.report.instance import (
    Encoded,
    Predecessor,
    ReportSettings,
    apply_common_modules,
    part10,
    private_scheme_item,
)
from firstread.integration.dicom.report.source import Request, Source, empty_source, read_sources
from firstread.integration.dicom.values import is_uid
from firstread.models.findings import LABELS, Code
from firstread.models.prediction import Assessment, Box, FindingResult, ImageOutcome

if TYPE_CHECKING:
    from firstread.integration.dicom.report import content

COMPREHENSIVE_3D_SR = "1.2.840.10008.5.1.4.1.1.88.34"


def build_report(
    assessment: Assessment,
    sources: Sequence[Path | Dataset],
    identity: tuple[str, str],
    settings: ReportSettings,
    *,
    predecessor: Predecessor | None = None,
    content_datetime: datetime,
    templates: bool = True,
) -> Encoded:
    """The report of a study, by IHE AI Results: TID 1500, PRELIMINARY, COMPLETE, UNVERIFIED.

    ``sources``: headers of the study's images (files, or data sets without pixel data); patient and study are taken
    from the first that can be read, so the newest stands first. None, or broken ones, never stop a report.
    ``identity``: SOP Instance UID and Series Instance UID, both from ``firstread.integration.dicom.identity``.
    ``content_datetime``: the site's local time; an aware one is written in the source's time zone if it names one.
    ``templates``: False has highdicom build everything anew, which takes ten times as long.
    The same arguments give the same bytes.
    """
    read = read_sources(sources)
    first = read[0] if read else empty_source("no header of the study was given: patient and study are empty")
    notes = list(dict.fromkeys(note for source in (read or [first]) for note in source.notes))
    films = _films(assessment, read, notes)
    sop_instance_uid, series_instance_uid = identity
    from firstread.integration.dicom.report import content  # highdicom: 0.4 s, so not before the first report

    shown = {outcome.sop_instance_uid: content.Film(outcome, source) for outcome, source in films}
    procedure = first.procedure or _procedure(assessment)
    if templates:
        document = _copy(_hollow_document(settings))
        tree = _prepared(assessment, shown, settings, procedure, notes)
    else:
        document = _by_highdicom(settings)
        document.ContentSequence = content.document(assessment, shown, settings, procedure, notes).ContentSequence
        tree = b""
    document.SOPInstanceUID, document.SeriesInstanceUID = sop_instance_uid, series_instance_uid
    document.InstanceNumber = max(1, assessment.revision)
    if requested := _requested(assessment, first):
        document.ReferencedRequestSequence = requested
    if predecessor is not None:
        document.PredecessorDocumentsSequence = [_reference(predecessor)]
    if films:
        document.CurrentRequestedProcedureEvidenceSequence = [_evidence(assessment, [film for film, _ in films])]
    apply_common_modules(
        document,
        first,
        settings,
        study_instance_uid=assessment.study_instance_uid,
        content_datetime=content_datetime,
    )
    document.CodingSchemeIdentificationSequence = [private_scheme_item()]
    return Encoded(
        sop_class_uid=COMPREHENSIVE_3D_SR,
        sop_instance_uid=sop_instance_uid,
        series_instance_uid=series_instance_uid,
        part10=part10(document) + tree,  # Content Sequence has the highest tag of a report
        notes=tuple(notes),
    )


def _by_highdicom(settings: ReportSettings) -> Dataset:
    """A report of no study, as highdicom makes it, without its content."""
    from highdicom.sr import Comprehensive3DSR

    from firstread.integration.dicom.report import content

    made = Comprehensive3DSR(
        evidence=[_stand_in()],
        content=content.hollow_root(),
        series_instance_uid="1.2",
        series_number=settings.sr_series_number,
        sop_instance_uid="1.2",
        instance_number=1,
        manufacturer=settings.manufacturer[:64],
        is_complete=True,
        is_final=False,
        is_verified=False,
        series_description=settings.sr_series_description[:64],
        specific_character_set="ISO_IR 192",
    )
    document = Dataset()
    document.update(made)
    # The image is a stand-in, and highdicom writes the time of day into the equipment.
    for keyword in ("ContentSequence", "CurrentRequestedProcedureEvidenceSequence", "ContributingEquipmentSequence"):
        del document[keyword]
    return document


_hollow_document = functools.lru_cache(maxsize=8)(_by_highdicom)


def _copy(dataset: Dataset) -> Dataset:
    """The data set with elements of its own, whose values may be replaced (and not changed)."""
    found = Dataset()
    for element in dataset:
        found[element.tag] = copy.copy(element)
    return found


def _prepared(
    assessment: Assessment,
    films: Mapping[str, content.Film],
    settings: ReportSettings,
    procedure: Code,
    notes: list[str],
) -> bytes:
    """The Content Sequence of a report as it stands in its file."""
    from firstread.integration.dicom.report import content, prepared

    rows: list[Dataset | bytes] = [*_encoded_frame(settings, procedure)]
    rows += content.images_read(assessment, films)
    if assessment.analysed:
        groups = content.groups(assessment, films, settings, notes)
        rows.append(_encoded_measurements() + prepared.encoded_groups(groups))
    rows.append(content.overall(assessment, films))
    return prepared.encoded_sequence(rows)


@functools.lru_cache(maxsize=32)
def _encoded_frame(settings: ReportSettings, procedure: Code) -> tuple[bytes, ...]:
    from firstread.integration.dicom.report import content, prepared

    return tuple(prepared.encoded_item(row) for row in content.frame(settings, procedure))


@functools.cache
def _encoded_measurements() -> bytes:
    from firstread.integration.dicom.report import content, prepared

    return prepared.encoded_container(content.measurements_container())


def _films(
    assessment: Assessment, sources: Sequence[Source], notes: list[str]
) -> list[tuple[ImageOutcome, Source | None]]:
    """The images of the assessment with their headers; the headers' own references where it names no image."""
    headers = {source.sop_instance_uid: source for source in reversed(sources)}
    outcomes = assessment.images or tuple(
        ImageOutcome(source.sop_instance_uid, source.sop_class_uid, source.series_instance_uid, assessment.reason)
        for source in sources
    )
    films = []
    for outcome in {outcome.sop_instance_uid: outcome for outcome in outcomes}.values():
        uids = (outcome.sop_instance_uid, outcome.sop_class_uid, outcome.series_instance_uid)
        if all(is_uid(uid) for uid in uids):
            films.append((outcome, headers.get(outcome.sop_instance_uid)))
        else:
            notes.append("an image has no valid UIDs: it is not referenced")
    return films


def _procedure(assessment: Assessment) -> Code:
    """What was reported on: a chest film was read; of what was not analysed no more is known than that."""
    return concepts.CHEST_RADIOGRAPHY if assessment.analysed else concepts.IMAGING_PROCEDURE


def _stand_in() -> Dataset:
    """The image that highdicom insists on: of no patient, whose name it would log where it thinks it odd.

    It also raises on images of a class that it does not know, so the real ones are listed by _evidence().
    """
    item = Dataset()
    item.StudyInstanceUID = item.SeriesInstanceUID = item.SOPInstanceUID = "1.2"
    item.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    for keyword in ("PatientID", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID"):
        setattr(item, keyword, "")
    item.PatientName = "^"
    item.StudyDate = item.StudyTime = None
    return item


def _evidence(assessment: Assessment, outcomes: Sequence[ImageOutcome]) -> Dataset:
    """Item of the Current Requested Procedure Evidence Sequence: the study's images by series (PS3.3 C.17.2.3)."""
    by_series: dict[str, list[tuple[str, str]]] = {}
    for outcome in outcomes:
        by_series.setdefault(outcome.series_instance_uid, []).append((outcome.sop_class_uid, outcome.sop_instance_uid))
    return _references(assessment.study_instance_uid, by_series)


def _references(study_instance_uid: str, by_series: Mapping[str, Sequence[tuple[str, str]]]) -> Dataset:
    """Hierarchical SOP Instance Reference Macro (PS3.3 C.17-3): class and UID of instances by their series."""
    study = Dataset()
    study.StudyInstanceUID = study_instance_uid
    study.ReferencedSeriesSequence = []
    for series_instance_uid, instances in by_series.items():
        series = Dataset()
        series.SeriesInstanceUID = series_instance_uid
        series.ReferencedSOPSequence = []
        for sop_class_uid, sop_instance_uid in instances:
            reference = Dataset()
            reference.ReferencedSOPClassUID = sop_class_uid
            reference.ReferencedSOPInstanceUID = sop_instance_uid
            series.ReferencedSOPSequence.append(reference)
        study.ReferencedSeriesSequence.append(series)
    return study


def _requested(assessment: Assessment, source: Source) -> list[Dataset]:
    """Referenced Request Sequence (PS3.3 C.17.2): every order that the film answers, with its accession number."""
    return [_request_item(assessment, source, request) for request in source.requests]


def _request_item(assessment: Assessment, source: Source, request: Request) -> Dataset:
    only_one = len(source.requests) == 1
    item = Dataset()
    item.StudyInstanceUID = request.study_instance_uid or assessment.study_instance_uid
    item.ReferencedStudySequence = []
    item.AccessionNumber = request.accession_number or (source.patient_study.AccessionNumber if only_one else "")
    item.PlacerOrderNumberImagingServiceRequest = request.placer_order_number
    item.FillerOrderNumberImagingServiceRequest = request.filler_order_number
    item.RequestedProcedureID = request.requested_procedure_id
    item.RequestedProcedureDescription = request.description
    item.RequestedProcedureCodeSequence = []
    return item


def _reference(predecessor: Predecessor) -> Dataset:
    """Item of the Predecessor Documents Sequence (PS3.3 C.17.2)."""
    instance = (predecessor.sop_class_uid, predecessor.sop_instance_uid)
    return _references(predecessor.study_instance_uid, {predecessor.series_instance_uid: [instance]})


def warm() -> None:
    """Import highdicom and build a throw-away report, so that the first real one is as fast as those after it."""
    moment = datetime(2000, 1, 1)
    image = ImageOutcome("1.2.3.4", "1.2.840.10008.5.1.4.1.1.1", "1.2.3")
    findings = tuple(FindingResult(label, 0.5, 0.5, box=Box(0, 0, 1, 1)) for label in LABELS)
    build_report(
        Assessment("1.2", 1, moment, findings, images=(image,)),
        (),
        ("1.2.5", "1.2.6"),
        ReportSettings(device_uid="1.2.7"),
        content_datetime=moment,
    )
