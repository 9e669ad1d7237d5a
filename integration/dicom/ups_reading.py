"""The reading of a study as a Unified Procedure Step: one item for one radiologist (PS3.3 B.26, C.30).

What a priority of the house becomes: STAT and URGENT are HIGH ("urgent or emergent", PS3.3 C.30.2); everything else
is MEDIUM. LOW means "routine or non-urgent", which nobody may say of a study whose order is not known here: it would
lower an order that the RIS holds as urgent. Between STAT and URGENT, Expected Completion DateTime tells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from pydicom.dataset import Dataset

from firstread.integration.dicom.ups import PUSH, Json, Readiness, State, UpsPriority, first
from firstread.integration.dicom.ups_rules import PERFORMED, PROGRESS, dicom_time, is_uid
from firstread.integration.dicom.values import mend
from firstread.models.prediction import StudyIdentity

_EMPTY = (
    PROGRESS,
    PERFORMED,
    "ScheduledStationNameCodeSequence",
    "ScheduledStationClassCodeSequence",
    "ScheduledStationGeographicLocationCodeSequence",
    "ScheduledProcessingParametersSequence",
    "IssuerOfAdmissionIDSequence",
    "AdmittingDiagnosesCodeSequence",
    "InputInformationSequence",
)

WORKLIST_LABEL = "Reading"
"""Worklist Label (0074,1202) of the items that are made here."""


@dataclass(frozen=True)
class Reference:
    """One instance that an item refers to."""

    series_instance_uid: str
    sop_class_uid: str
    sop_instance_uid: str


def reading_item(
    sop_instance_uid: str, identity: StudyIdentity, priority: UpsPriority, arrived_at: datetime
) -> Dataset:
    """The whole item as it is when a study's first film came: SCHEDULED, inputs incomplete, without references."""
    item = Dataset()
    item.SpecificCharacterSet = "ISO_IR 192"
    item.SOPClassUID, item.SOPInstanceUID = PUSH, sop_instance_uid
    item.ProcedureStepState = State.SCHEDULED.value
    for keyword in _EMPTY:
        setattr(item, keyword, [])
    item.AdmissionID = item.AdmittingDiagnosesDescription = item.CommentsOnTheScheduledProcedureStep = ""
    item.WorklistLabel = WORKLIST_LABEL
    item.ScheduledWorkitemCodeSequence = [_code("110005", "DCM", "Interpretation")]
    item.ScheduledProcedureStepStartDateTime = dicom_time(arrived_at)
    item.ScheduledProcedureStepModificationDateTime = dicom_time(arrived_at)
    item.ScheduledProcedureStepPriority = priority.value
    item.InputReadinessState = Readiness.INCOMPLETE.value
    say_whose(item, identity)
    return item


def once_more(ended: Dataset, sop_instance_uid: str, now: datetime) -> Dataset:
    """A new item for what an item that has ended was for: SCHEDULED, with nothing performed."""
    item = Dataset()
    item.update(ended)
    item.SOPInstanceUID = sop_instance_uid
    item.ProcedureStepState = State.SCHEDULED.value
    for keyword in (PROGRESS, PERFORMED):
        setattr(item, keyword, [])
    item.ScheduledProcedureStepStartDateTime = dicom_time(now)
    item.ScheduledProcedureStepModificationDateTime = dicom_time(now)
    return item


def say_whose(item: Dataset, identity: StudyIdentity) -> None:
    """Writes into an item whose study it is of, each value made valid for its VR."""
    item.PatientName = _valid("PN", identity.patient_name)
    item.PatientID = _identifier("LO", identity.patient_id)
    item.IssuerOfPatientID = _valid("LO", identity.issuer_of_patient_id)
    item.PatientBirthDate = _valid("DA", identity.birth_date)
    item.PatientSex = identity.sex if identity.sex in ("M", "F", "O") else ""
    item.StudyInstanceUID = identity.study_instance_uid if is_uid(identity.study_instance_uid) else ""
    item.ReferencedRequestSequence = [_request(identity)]
    item.ProcedureStepLabel = _valid("LO", f"Read {identity.study_description.strip() or 'chest radiograph'}")


def say_why(item: Dataset, comment: str) -> None:
    """Writes into an item why it stands where it stands."""
    item.CommentsOnTheScheduledProcedureStep = _valid("LT", comment)


def references(study_instance_uid: str, referenced: Sequence[Reference], retrieve_ae_title: str) -> list[Json]:
    """An Input or Output Information Sequence: one item for each series, to be had from an AE (PS3.3 Table 10-3b)."""
    by_series: dict[str, list[Json]] = {}
    for one in referenced:
        sop = {"00081150": _element("UI", one.sop_class_uid), "00081155": _element("UI", one.sop_instance_uid)}
        by_series.setdefault(one.series_instance_uid, []).append(sop)
    return [
        {
            "0020000D": _element("UI", study_instance_uid),
            "0020000E": _element("UI", series),
            "00081199": _element("SQ", *instances),
            "0040E020": _element("CS", "DICOM"),
            "0040E021": _element("SQ", {"00080054": _element("AE", retrieve_ae_title)}),
        }
        for series, instances in by_series.items()
    ]


def with_references(attributes: Json, inputs: list[Json], outputs: list[Json], due_at: datetime) -> Json:
    """A reading item with what follows from its study: films and results to read, and until when the site wants it.

    While nobody has claimed it, what the analysis has put out stands as performed; then that part is its owner's.
    """
    whole = {
        **attributes,
        "00404021": _element("SQ", *inputs, *outputs),
        "00404011": _element("DT", dicom_time(due_at)),
    }
    if outputs and first(attributes, "00741000") == State.SCHEDULED:
        whole["00741216"] = _element("SQ", {"00404033": _element("SQ", *outputs)})
    return whole


def performed_elsewhere(began: datetime, ended: datetime) -> Dataset:
    """What is known of a reading that was done without a word to us: a final report ended it."""
    performed = Dataset()
    performed.PerformedStationNameCodeSequence = [_code("elsewhere", "99FIRSTREAD", "Not known: reported elsewhere")]
    performed.PerformedWorkitemCodeSequence = [_code("110005", "DCM", "Interpretation")]
    performed.PerformedProcedureStepStartDateTime = dicom_time(began)
    performed.PerformedProcedureStepEndDateTime = dicom_time(ended)
    performed.OutputInformationSequence = []
    return performed


def _request(identity: StudyIdentity) -> Dataset:
    request = Dataset()
    request.StudyInstanceUID = identity.study_instance_uid if is_uid(identity.study_instance_uid) else ""
    request.AccessionNumber = _identifier("SH", identity.accession_number)
    request.IssuerOfAccessionNumberSequence = []
    if identity.issuer_of_accession_number:
        issuer = Dataset()
        issuer.LocalNamespaceEntityID = mend("ST", identity.issuer_of_accession_number).value
        request.IssuerOfAccessionNumberSequence = [issuer]
    request.PlacerOrderNumberImagingServiceRequest = _identifier("LO", identity.placer_order_number)
    request.FillerOrderNumberImagingServiceRequest = _identifier("LO", identity.filler_order_number)
    request.OrderPlacerIdentifierSequence = []
    request.OrderFillerIdentifierSequence = []
    request.RequestedProcedureID = ""
    request.RequestedProcedureDescription = _valid("LO", identity.study_description)
    request.RequestedProcedureCodeSequence = []
    if identity.procedure_code and identity.procedure_scheme:
        request.RequestedProcedureCodeSequence = [
            _code(identity.procedure_code, identity.procedure_scheme, identity.procedure_meaning)
        ]
    return request


def _element(vr: str, *values: object) -> Json:
    return {"vr": vr, "Value": list(values)}


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    code = Dataset()
    value = value.strip()
    if len(value) <= 16:
        code.CodeValue = value
    else:
        code.LongCodeValue = value
    code.CodingSchemeDesignator = _valid("SH", scheme)
    code.CodeMeaning = _valid("LO", meaning) or value
    return code


def _valid(vr: str, text: str) -> str:
    return mend(vr, text).value


def _identifier(vr: str, text: str) -> str:
    """An identifier whole or not at all: a cut one may be another's."""
    return mend(vr, text, may_cut=False).value
