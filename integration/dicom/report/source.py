"""The film that a result speaks of, made valid first: its patient, study and image as our instances copy them.

Real headers hold a hash as birth date, an accession number of 56 characters, names in ISO 2022 IR 87. Nothing of
that stops a report: each value is made valid for its VR, and what had to be cut or left empty is noted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydicom.dataset import Dataset

from firstread.integration.dicom.report.header import Header, read_header
from firstread.integration.dicom.values import is_uid, number_in
from firstread.models.findings import Code

# Patient (PS3.3 C.7.1.1), General Study (C.7.2.1) and Patient Study (C.7.2.2), Type 2: present though empty.
_IDENTIFIERS = ("StudyID", "AccessionNumber")
_TYPE_2 = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
    *_IDENTIFIERS,
)
_TYPE_3 = (
    "IssuerOfPatientID",
    "PatientBirthTime",
    "EthnicGroup",
    "PatientComments",
    "StudyDescription",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "Occupation",
    "AdditionalPatientHistory",
    "AdmissionID",
    "PatientSpeciesDescription",
)
_MEASURES = ("PatientSize", "PatientWeight")
"""Of which some senders write 0 where they do not know."""

_TYPE_3_SEVERAL = (
    "OtherPatientNames",
    "PhysiciansOfRecord",
    "NameOfPhysiciansReadingStudy",
    "AdmittingDiagnosesDescription",
    "MedicalAlerts",
    "Allergies",
)
_IMAGE = (
    "SpecificCharacterSet",
    "TimezoneOffsetFromUTC",
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "Modality",
    "AcquisitionDate",
    "AcquisitionTime",
    "BodyPartExamined",
    "ViewPosition",
    "ImageLaterality",
    "Laterality",
    "PatientOrientation",
    "Rows",
    "Columns",
    "PixelSpacing",
    "PixelSpacingCalibrationType",
    "PixelSpacingCalibrationDescription",
    "ImagerPixelSpacing",
    "NominalScannedPixelSpacing",
    "BurnedInAnnotation",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "PatientBreedDescription",
    "ResponsiblePerson",
    "ResponsiblePersonRole",
    "ResponsibleOrganization",
    "PatientSexNeutered",
    "ProcedureCodeSequence",
    "IssuerOfAccessionNumberSequence",
    "OtherPatientIDsSequence",
    "RequestAttributesSequence",
)
READ: tuple[str, ...] = (*_TYPE_2, *_TYPE_3, *_TYPE_3_SEVERAL, *_IMAGE)
"""Keywords of all that is read of a film's header."""


@dataclass(frozen=True)
class Request:
    """One requested procedure that the film answers (Request Attributes Sequence, PS3.3 10.6)."""

    study_instance_uid: str
    accession_number: str
    requested_procedure_id: str
    description: str
    placer_order_number: str
    filler_order_number: str


@dataclass(frozen=True)
class Source:
    """A film's header as our instances copy it. Absent or unusable values are empty or None.

    ``patient_study``: the elements of the Patient, General Study and Patient Study modules, valid, for ISO_IR 192.
    ``spacing_mm``: between the centres of rows, of columns, in stored pixels.
    ``notes``: what was cut, mended or left empty.
    """

    patient_study: Dataset
    study_instance_uid: str = ""
    series_instance_uid: str = ""
    sop_instance_uid: str = ""
    sop_class_uid: str = ""
    modality: str = ""
    acquisition_date: str = ""
    acquisition_time: str = ""
    view_position: str = ""
    laterality: str = ""
    patient_orientation: tuple[str, ...] = ()
    rows: int | None = None
    columns: int | None = None
    spacing_mm: tuple[float, float] | None = None
    spacing_calibration: tuple[str, str] = ("", "")
    burned_in_annotation: str = ""
    timezone_offset: str = ""
    procedure: Code | None = None
    requests: tuple[Request, ...] = ()
    notes: tuple[str, ...] = ()


def read_source(source: Path | Dataset) -> Source:
    """Read the film's header, from its file or a data set. Never raises for what the header holds.

    A file that cannot be opened, or is not DICOM at all, gives an empty source with a note that says so.
    """
    if isinstance(source, Dataset):
        return _source(Header(source))
    try:
        return _source(Header(read_header(source, READ)))
    except Exception as error:  # zlib.error, struct.error, RecursionError: a broken file has many ways to say so
        return empty_source(f"the header of the film cannot be read ({type(error).__name__}): patient and study empty")


def empty_source(note: str) -> Source:
    """A source of which nothing is known: the modules' Type 2 attributes are present and empty."""
    return replace(_source(Header(Dataset())), notes=(note,))


def _source(header: Header) -> Source:
    patient_study = _patient_study(header)
    calibration = header.mended("PixelSpacingCalibrationType")
    offset = header.text("TimezoneOffsetFromUTC").strip(" \0")
    return Source(
        patient_study=patient_study,
        study_instance_uid=header.mended("StudyInstanceUID"),
        series_instance_uid=header.mended("SeriesInstanceUID"),
        sop_instance_uid=header.mended("SOPInstanceUID"),
        sop_class_uid=header.mended("SOPClassUID"),
        modality=header.mended("Modality"),
        acquisition_date=header.mended("AcquisitionDate"),
        acquisition_time=header.mended("AcquisitionTime"),
        view_position=header.mended("ViewPosition"),
        laterality=header.mended("ImageLaterality") or header.mended("Laterality"),
        patient_orientation=tuple(header.mended_values("PatientOrientation")),
        rows=header.number("Rows"),
        columns=header.number("Columns"),
        spacing_mm=_spacing(header),
        spacing_calibration=(calibration, header.mended("PixelSpacingCalibrationDescription") if calibration else ""),
        burned_in_annotation=header.mended("BurnedInAnnotation"),
        timezone_offset=offset if _is_offset(offset) else "",
        procedure=next(_codes(header, "ProcedureCodeSequence"), None),
        requests=tuple(_requests(header)),
        notes=tuple(dict.fromkeys(header.notes)),
    )


def _patient_study(header: Header) -> Dataset:
    modules = Dataset()
    for keyword in _TYPE_2:
        setattr(modules, keyword, header.mended(keyword, may_cut=keyword not in _IDENTIFIERS))
    if modules.PatientSex not in ("", "M", "F", "O"):
        header.notes.append("PatientSex (0010,0040) is none of M, F, O: left empty")
        modules.PatientSex = ""
    for keyword in _TYPE_3:
        value = header.mended(keyword)
        if value and not (keyword in _MEASURES and not (number_in(value) or 0) > 0):
            setattr(modules, keyword, value)
    for keyword in _TYPE_3_SEVERAL:
        values = header.mended_values(keyword)
        if values:
            setattr(modules, keyword, values)
    _add_deidentification(header, modules)
    if "PatientSpeciesDescription" in modules:
        _add_animal(header, modules)
    _add_sequences(header, modules)
    return modules


def _add_deidentification(header: Header, modules: Dataset) -> None:
    """Patient Identity Removed asks for a method (Type 1C): without one, that it was removed cannot be said."""
    if header.mended("PatientIdentityRemoved") == "YES":
        methods = header.mended_values("DeidentificationMethod")
        if methods:
            modules.PatientIdentityRemoved = "YES"
            modules.DeidentificationMethod = methods
        else:
            header.notes.append("PatientIdentityRemoved (0012,0062) comes without a method: left out")


def _add_animal(header: Header, modules: Dataset) -> None:
    """What the Patient and Patient Study modules want of an animal: Type 2C, present though empty."""
    modules.PatientBreedDescription = header.mended("PatientBreedDescription")
    modules.PatientBreedCodeSequence = []
    modules.BreedRegistrationSequence = []
    role = header.mended("ResponsiblePersonRole")
    person = header.mended("ResponsiblePerson")
    modules.ResponsiblePerson = person if role else ""
    if modules.ResponsiblePerson:
        modules.ResponsiblePersonRole = role
    modules.ResponsibleOrganization = header.mended("ResponsibleOrganization")
    neutered = header.mended("PatientSexNeutered")
    modules.PatientSexNeutered = neutered if neutered in ("ALTERED", "UNALTERED") else ""


def _add_sequences(header: Header, modules: Dataset) -> None:
    procedures = [code_item(code) for code in _codes(header, "ProcedureCodeSequence")]
    if procedures:
        modules.ProcedureCodeSequence = procedures
    others = []
    for other in header.items("OtherPatientIDsSequence"):
        identifier = other.mended("PatientID", may_cut=False)
        if identifier:
            item = Dataset()
            item.PatientID = identifier
            item.IssuerOfPatientID = other.mended("IssuerOfPatientID")
            item.TypeOfPatientID = "TEXT"
            others.append(item)
    if others:
        modules.OtherPatientIDsSequence = others
    issuer = _issuer(header)
    if issuer is not None and modules.AccessionNumber:
        modules.IssuerOfAccessionNumberSequence = [issuer]


def _issuer(header: Header) -> Dataset | None:
    """HL7v2 Hierarchic Designator of who gave the accession number (PS3.3 10.17)."""
    for item in header.items("IssuerOfAccessionNumberSequence"):
        local = item.text("LocalNamespaceEntityID").strip(" \0")
        universal = item.text("UniversalEntityID").strip(" \0")
        kind = item.mended("UniversalEntityIDType")
        issuer = Dataset()
        if local and local.isprintable():
            issuer.LocalNamespaceEntityID = local
        if universal and universal.isprintable() and kind:
            issuer.UniversalEntityID = universal
            issuer.UniversalEntityIDType = kind
        if len(issuer):
            return issuer
    return None


def _codes(header: Header, keyword: str) -> Iterator[Code]:
    """The complete codes of a code sequence; a code that would have to be cut is another code and left out."""
    for item in header.items(keyword):
        value = item.mended("CodeValue", may_cut=False)
        scheme = item.mended("CodingSchemeDesignator", may_cut=False)
        meaning = item.mended("CodeMeaning")
        if value and scheme and meaning:
            yield Code(value, scheme, meaning)


def code_item(code: Code) -> Dataset:
    """A code sequence item (PS3.3 8.8); a value of more than 16 characters goes into Long Code Value."""
    item = Dataset()
    if len(code.value) > 16:
        item.LongCodeValue = code.value
    else:
        item.CodeValue = code.value
    item.CodingSchemeDesignator = code.scheme
    item.CodeMeaning = code.meaning
    return item


def _requests(header: Header) -> Iterator[Request]:
    for item in header.items("RequestAttributesSequence"):
        request = Request(
            study_instance_uid=item.mended("StudyInstanceUID"),
            accession_number=item.mended("AccessionNumber", may_cut=False),
            requested_procedure_id=item.mended("RequestedProcedureID", may_cut=False),
            description=item.mended("RequestedProcedureDescription"),
            placer_order_number=item.mended("PlacerOrderNumberImagingServiceRequest", may_cut=False),
            filler_order_number=item.mended("FillerOrderNumberImagingServiceRequest", may_cut=False),
        )
        if request.accession_number or request.requested_procedure_id:
            yield request


def _spacing(header: Header) -> tuple[float, float] | None:
    """Row and column spacing in mm, of the first attribute that holds two usable numbers."""
    for keyword in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"):
        numbers = header.numbers(keyword)
        if len(numbers) == 2 and all(1e-4 < number < 100 for number in numbers):
            return numbers[0], numbers[1]
    return None


def _is_offset(text: str) -> bool:
    return (
        len(text) == 5
        and text[0] in "+-"
        and text[1:].isascii()
        and text[1:].isdigit()
        and int(text[1:3]) <= 14
        and int(text[3:]) < 60
    )


def read_sources(sources: Sequence[Path | Dataset]) -> list[Source]:
    """All sources, those without usable UIDs at the end: the first gives the patient and the study."""
    read = [read_source(source) for source in sources]
    return sorted(read, key=lambda source: not is_uid(source.sop_instance_uid))
