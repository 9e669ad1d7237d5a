"""Who and what a film is, as its header says: values as received, text in UTF-8, nothing invented."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence

from firstread.agent.triage import Patient
from firstread.models.prediction import StudyIdentity, years_between

_LONGEST = 1024
"""Characters of a header value that are kept; the film itself keeps all of it."""


def identify(
    header: Dataset,
    *,
    assigning_authority: str = "",
    accession_from: Sequence[str] = ("AccessionNumber", "RequestAttributesSequence"),
) -> StudyIdentity:
    """The identity in a header. Values that break their VR are kept as they came (at most 1024 characters).

    ``assigning_authority``: issuer of the patient identifier where the film names none.
    ``accession_from``: where the accession number is looked for, in this order.
    """
    requests = items(header, "RequestAttributesSequence")
    accessions = _accessions(header, requests, accession_from)
    code = next(iter(items(header, "ProcedureCodeSequence") + items(header, "RequestedProcedureCodeSequence")), None)
    return StudyIdentity(
        study_instance_uid=text(header, "StudyInstanceUID"),
        patient_id=text(header, "PatientID"),
        issuer_of_patient_id=text(header, "IssuerOfPatientID") or assigning_authority,
        patient_name=text(header, "PatientName"),
        birth_date=text(header, "PatientBirthDate"),
        sex=text(header, "PatientSex"),
        accession_number=accessions[0] if accessions else "",
        accession_numbers=tuple(accessions),
        issuer_of_accession_number=_issuer(header),
        placer_order_number=text(header, "PlacerOrderNumberImagingServiceRequest")
        or _first(requests, "PlacerOrderNumberImagingServiceRequest"),
        filler_order_number=text(header, "FillerOrderNumberImagingServiceRequest")
        or _first(requests, "FillerOrderNumberImagingServiceRequest"),
        study_date=text(header, "StudyDate"),
        study_time=text(header, "StudyTime"),
        study_description=text(header, "StudyDescription") or text(header, "SeriesDescription"),
        procedure_code=text(code, "CodeValue") if code is not None else "",
        procedure_scheme=text(code, "CodingSchemeDesignator") if code is not None else "",
        procedure_meaning=text(code, "CodeMeaning") if code is not None else "",
        modality=text(header, "Modality"),
        body_part=text(header, "BodyPartExamined"),
        view_position=text(header, "ViewPosition"),
        patient_age_years=age_years(header),
        institution=text(header, "InstitutionName"),
        station=text(header, "StationName"),
    )


def patient_key(identity: StudyIdentity) -> str:
    """Identifier, name and birth date as they are compared within a study; ``patient_of`` reads it back."""
    name = " ".join(identity.patient_name.replace("^", " ").split())
    parts = (identity.patient_id.upper()[:120], name.upper()[:120], identity.birth_date[:16])
    return "|".join(part.replace("|", "/") for part in parts)


def patient_of(key: str) -> Patient:
    """The patient that ``patient_key`` wrote."""
    identifier, name, birth_date = [*key.split("|"), "", ""][:3]
    return Patient(identifier, name, birth_date)


def age_years(header: Dataset) -> float | None:
    """Age in years from PatientAge (nnnD, nnnW, nnnM, nnnY) or from birth and study date; None when unknown."""
    stated = text(header, "PatientAge").upper()
    if len(stated) == 4 and stated[:3].isdigit() and stated[3] in "DWMY":
        return int(stated[:3]) / {"D": 365.2425, "W": 52.1775, "M": 12.0, "Y": 1.0}[stated[3]]
    born = parse_date(text(header, "PatientBirthDate"))
    seen = parse_date(text(header, "StudyDate")) or parse_date(text(header, "AcquisitionDate"))
    if born is None or seen is None or seen < born:
        return None
    return years_between(born, seen)


def parse_date(value: str) -> date | None:
    """YYYYMMDD (and the old YYYY.MM.DD) as a date; None when it is anything else."""
    digits = value.strip().replace(".", "").replace("-", "")
    if len(digits) != 8 or not digits.isdigit():
        return None
    try:
        return date(int(digits[:4]), int(digits[4:6]), int(digits[6:]))
    except ValueError:
        return None


def text(header: Dataset, keyword: str) -> str:
    """The value as text, without the padding; several values joined by a backslash; never raises."""
    try:
        value: Any = header.get(keyword)
        if value is None:
            return ""
        if isinstance(value, str | bytes) or not hasattr(value, "__iter__") or hasattr(value, "original_string"):
            shown = value.decode("latin-1") if isinstance(value, bytes) else str(value)
        else:
            shown = "\\".join(str(one) for one in value)
    except Exception:  # pydicom raises many kinds on values that break their VR; the film keeps the value
        return ""
    if not shown.isprintable():
        shown = "".join(letter for letter in shown if letter.isprintable())
    return shown.strip(" \0")[:_LONGEST]


def items(header: Dataset, keyword: str) -> list[Dataset]:
    """The items of a sequence; empty when it is absent or cannot be read."""
    try:
        value = header.get(keyword)
    except Exception:
        return []
    return list(value) if isinstance(value, DicomSequence) else []


def _first(items: Sequence[Dataset], keyword: str) -> str:
    return next((value for value in (text(item, keyword) for item in items) if value), "")


def _accessions(header: Dataset, requests: Sequence[Dataset], sources: Sequence[str]) -> list[str]:
    found: list[str] = []
    for source in sources:
        values = (
            [text(item, "AccessionNumber") for item in requests]
            if source == "RequestAttributesSequence"
            else [text(header, source)]
        )
        found += [value for value in values if value and value not in found]
    return found


def _issuer(header: Dataset) -> str:
    return _first(items(header, "IssuerOfAccessionNumberSequence"), "LocalNamespaceEntityID")
