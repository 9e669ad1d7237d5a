"""What may be created and changed in a Unified Procedure Step, and when it may end (PS3.4 Table CC.2.5-3)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from firstread.integration.dicom.ups import PUSH, Json, Readiness, State, Status, UpsPriority, UpsRefusal
from firstread.integration.dicom.ups_match import is_moment

_UID = re.compile(r"[0-9]+(\.[0-9]+)*")

_WITH_VALUE = ("ScheduledProcedureStepPriority", "ProcedureStepLabel", "WorklistLabel", "InputReadinessState",
               "ScheduledProcedureStepStartDateTime")  # fmt: skip
"""Type 1 of an N-CREATE for the SCU; the state is looked at apart."""

_PRESENT = ("ScheduledStationNameCodeSequence", "ScheduledStationClassCodeSequence",
            "ScheduledStationGeographicLocationCodeSequence", "ScheduledWorkitemCodeSequence",
            "ScheduledProcessingParametersSequence", "CommentsOnTheScheduledProcedureStep", "InputInformationSequence",
            "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "AdmissionID", "IssuerOfAdmissionIDSequence",
            "AdmittingDiagnosesDescription", "AdmittingDiagnosesCodeSequence", "ReferencedRequestSequence",
            "UnifiedProcedureStepPerformedProcedureSequence", "ProcedureStepProgressInformationSequence",
            "StudyInstanceUID")  # fmt: skip
"""Type 2: present, and empty where nothing is known. What a client left out is added empty, which it is told of."""

_EMPTY_AT_FIRST = ("UnifiedProcedureStepPerformedProcedureSequence", "ProcedureStepProgressInformationSequence")

_NEVER_SET = frozenset(
    {"SOPClassUID", "SOPInstanceUID", "ProcedureStepState", "PatientName", "PatientID", "IssuerOfPatientID",
     "IssuerOfPatientIDQualifiersSequence", "OtherPatientIDsSequence", "PatientBirthDate", "PatientSex",
     "AdmissionID", "IssuerOfAdmissionIDSequence", "AdmittingDiagnosesDescription", "AdmittingDiagnosesCodeSequence",
     "ReferencedRequestSequence", "ReplacedProcedureStepSequence", "StudyInstanceUID"}
)  # fmt: skip
"""Whose and what for it is, and its state, which an action changes: an N-SET of these is not allowed."""

_BY_US = frozenset({"ScheduledProcedureStepModificationDateTime"})

PERFORMED = "UnifiedProcedureStepPerformedProcedureSequence"
PROGRESS = "ProcedureStepProgressInformationSequence"


def is_uid(text: str) -> bool:
    """Whether a text can stand as UID: at most 64 characters, components of digits (PS3.5 9.1)."""
    return 0 < len(text) <= 64 and _UID.fullmatch(text) is not None


def dicom_time(moment: datetime) -> str:
    """A DT value with milliseconds and its offset from UTC (PS3.5 6.2)."""
    return f"{moment:%Y%m%d%H%M%S}.{moment.microsecond // 1000:03d}{moment:%z}"


def read_json(attributes: Json) -> Dataset:
    """DICOM JSON to a data set. Raises UpsRefusal for what is none."""
    if not isinstance(attributes, dict):
        raise UpsRefusal(Status.INVALID_ATTRIBUTE_VALUE, "a data set is an object of attributes")
    try:
        dataset = Dataset.from_json(attributes)
        dataset.to_json_dict(suppress_invalid_tags=False)
        _look_at(dataset)
    except UpsRefusal:
        raise
    except Exception as error:  # pydicom raises whatever a malformed value leads it to
        raise UpsRefusal(Status.INVALID_ATTRIBUTE_VALUE, f"not a DICOM data set: {_short(error)}") from error
    return dataset


def write_json(dataset: Dataset) -> Json:
    """A data set as DICOM JSON. Raises UpsRefusal for values that it cannot say."""
    try:
        written: Json = dataset.to_json_dict()
    except Exception as error:  # the same
        raise UpsRefusal(Status.INVALID_ATTRIBUTE_VALUE, f"a value breaks its VR: {_short(error)}") from error
    return written


def created(dataset: Dataset, sop_instance_uid: str, now: datetime) -> tuple[Dataset, bool]:
    """A new item as it is kept, and whether the client's attributes were modified (PS3.4 CC.2.5.3).

    Raises UpsRefusal for what may not be created.
    """
    state = str(dataset.get("ProcedureStepState") or "")
    if state != State.SCHEDULED:
        raise UpsRefusal(Status.NOT_CREATED_SCHEDULED, f"Procedure Step State must be SCHEDULED, it is {state!r}")
    if dataset.get("TransactionUID"):
        raise UpsRefusal(Status.INVALID_ATTRIBUTE_VALUE, "Transaction UID is empty at creation: nobody owns it yet")
    for keyword in _WITH_VALUE:
        if keyword not in dataset:
            raise UpsRefusal(Status.MISSING_ATTRIBUTE, f"{keyword} is missing")
        if not dataset.get(keyword):
            raise UpsRefusal(Status.MISSING_ATTRIBUTE_VALUE, f"{keyword} has no value")
    _check_values(dataset)
    if not is_uid(sop_instance_uid):
        raise UpsRefusal(Status.INVALID_ATTRIBUTE_VALUE, "SOP Instance UID is malformed")
    kept = Dataset()
    kept.update(dataset)
    missing = [keyword for keyword in _PRESENT if keyword not in kept]
    for keyword in missing:
        setattr(kept, keyword, [] if dictionary_VR(_tag(keyword)) == "SQ" else "")
    emptied = [keyword for keyword in _EMPTY_AT_FIRST if kept.get(keyword)]
    for keyword in emptied:
        setattr(kept, keyword, [])
    kept.SOPClassUID, kept.SOPInstanceUID = PUSH, sop_instance_uid
    kept.SpecificCharacterSet = "ISO_IR 192"
    kept.ScheduledProcedureStepModificationDateTime = dicom_time(now)
    if "TransactionUID" in kept:
        del kept.TransactionUID
    return kept, bool(missing or emptied)


def changed(kept: Dataset, changes: Dataset, now: datetime) -> Dataset:
    """An item after an N-SET: each attribute that is named takes the new value (PS3.4 CC.2.6.3).

    Raises UpsRefusal for what an N-SET may not touch.
    """
    for element in changes:
        if element.keyword in _NEVER_SET:
            raise UpsRefusal(Status.INVALID_ATTRIBUTE_VALUE, f"{element.keyword} may not be changed")
        if element.keyword in _WITH_VALUE and not element.value:
            raise UpsRefusal(Status.MISSING_ATTRIBUTE_VALUE, f"{element.keyword} may not be emptied")
        if element.tag.group == 0x0000:
            raise UpsRefusal(Status.NO_SUCH_ATTRIBUTE, "command elements are no attributes of a work item")
    _check_values(changes)
    result = Dataset()
    result.update(kept)
    for element in changes:
        if element.keyword not in ("TransactionUID", "SpecificCharacterSet") and element.keyword not in _BY_US:
            result[element.tag] = element
    result.ScheduledProcedureStepModificationDateTime = dicom_time(now)
    return result


def require_completed(kept: Dataset) -> None:
    """Raises UpsRefusal unless the item says what was performed (final state requirements, Table CC.2.5-3)."""
    performed = kept.get(PERFORMED) or []
    if len(performed) != 1:
        raise UpsRefusal(Status.FINAL_STATE_REQUIREMENTS, f"{PERFORMED} needs one item before it is COMPLETED")
    for keyword in ("PerformedProcedureStepStartDateTime", "PerformedProcedureStepEndDateTime",
                    "PerformedStationNameCodeSequence", "PerformedWorkitemCodeSequence"):  # fmt: skip
        if not performed[0].get(keyword):
            raise UpsRefusal(Status.FINAL_STATE_REQUIREMENTS, f"{keyword} needs a value before it is COMPLETED")
    if "OutputInformationSequence" not in performed[0]:
        raise UpsRefusal(
            Status.FINAL_STATE_REQUIREMENTS, "OutputInformationSequence must be there (it may be empty) to be COMPLETED"
        )


def canceled(kept: Dataset, now: datetime, reason: str = "") -> Dataset:
    """An item with the time of its cancellation (Procedure Step Cancellation DateTime) where none was told."""
    result = Dataset()
    result.update(kept)
    progress = Dataset()
    told = result.get(PROGRESS) or []
    if told:
        progress.update(told[0])
    if not progress.get("ProcedureStepCancellationDateTime"):
        progress.ProcedureStepCancellationDateTime = dicom_time(now)
    if reason and not progress.get("ReasonForCancellation"):
        progress.ReasonForCancellation = reason[:10240]
    setattr(result, PROGRESS, [progress])
    return result


def _check_values(dataset: Dataset) -> None:
    allowed: dict[str, Sequence[str]] = {
        "ScheduledProcedureStepPriority": list(UpsPriority),
        "InputReadinessState": list(Readiness),
    }
    for keyword, values in allowed.items():
        value = dataset.get(keyword)
        if value is not None and value != "" and str(value) not in values:
            raise UpsRefusal(
                Status.INVALID_ATTRIBUTE_VALUE, f"{keyword} is one of {', '.join(values)}, not {str(value)[:32]!r}"
            )
    for keyword in ("ScheduledProcedureStepStartDateTime", "ExpectedCompletionDateTime"):
        moment = dataset.get(keyword)
        if moment and (isinstance(moment, MultiValue) or not is_moment(str(moment))):
            raise UpsRefusal(Status.INVALID_ATTRIBUTE_VALUE, f"{keyword} is not one date and time")
    study = dataset.get("StudyInstanceUID")
    if study and not (isinstance(study, str) and is_uid(study)):
        raise UpsRefusal(Status.INVALID_ATTRIBUTE_VALUE, "StudyInstanceUID is malformed")


def _look_at(dataset: Dataset) -> None:
    for element in dataset:
        known = keyword_for_tag(element.tag)
        if known and dictionary_VR(element.tag) != element.VR and " or " not in dictionary_VR(element.tag):
            raise UpsRefusal(
                Status.INVALID_ATTRIBUTE_VALUE, f"{known} has VR {dictionary_VR(element.tag)}, not {element.VR}"
            )
        if element.VR == "SQ":
            for item in element.value:
                _look_at(item)


def _tag(keyword: str) -> Any:
    return tag_for_keyword(keyword)


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:200]
