"""What every instance we write has in common: who made it, whose it is, and its bytes, made once."""

from __future__ import annotations

import io
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import UID, ExplicitVRLittleEndian

from firstread.integration.dicom.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from firstread.integration.dicom.report.source import Source
from firstread.models.findings import PRIVATE_SCHEME


class ResultError(Exception):
    """A result that cannot be written; the message says what the caller has to change."""


@dataclass(frozen=True)
class ReportSettings:
    """What a site says of itself in its results.

    ``device_uid``: the site's own UID, the Device Observer UID of every report (TID 1004).
    ``language``: RFC 5646 tag of the sentences in a report; they are English, the tag may name a country's.
    """

    device_uid: str
    device_name: str = "Firstread"
    manufacturer: str = "Firstread"
    model_name: str = "Firstread chest radiograph triage"
    software_versions: str = "0"
    sr_series_number: int = 9901
    sr_series_description: str = "Firstread AI report, not a diagnosis"
    heatmap_series_number: int = 9902
    heatmap_series_description: str = "Firstread AI heat map, not for diagnosis"
    language: str = "en"
    institution: str = ""
    station_ae_title: str = ""


@dataclass(frozen=True)
class Predecessor:
    """The report that a corrected report replaces (Predecessor Documents Sequence, PS3.3 C.17.2)."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str = "1.2.840.10008.5.1.4.1.1.88.34"


@dataclass(frozen=True)
class Encoded:
    """An instance as it travels: Part 10 bytes in Explicit VR Little Endian, and what it had to leave out.

    ``notes``: one sentence for each value of the source that was cut, mended or left empty. They name attributes and
    lengths, never the value: they may stand in a log.
    """

    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    part10: bytes
    notes: tuple[str, ...] = ()


def apply_common_modules(
    dataset: Dataset, source: Source, settings: ReportSettings, *, study_instance_uid: str, content_datetime: datetime
) -> None:
    """Fill SOP Common, Patient, General Study, Patient Study and General Equipment (PS3.3 C.12.1, C.7).

    Dates and times are written in the source's own time zone where it names one (0008,0201), else as passed.
    """
    for element in source.patient_study:
        dataset[element.tag] = element
    moment = in_zone_of(source, content_datetime)
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.StudyInstanceUID = study_instance_uid
    dataset.InstanceCreationDate = moment.strftime("%Y%m%d")
    dataset.InstanceCreationTime = moment.strftime("%H%M%S")
    dataset.ContentDate = dataset.InstanceCreationDate
    dataset.ContentTime = dataset.InstanceCreationTime
    if source.timezone_offset:
        dataset.TimezoneOffsetFromUTC = source.timezone_offset
    dataset.Manufacturer = settings.manufacturer[:64]
    dataset.ManufacturerModelName = settings.model_name[:64]
    dataset.SoftwareVersions = settings.software_versions[:64]
    dataset.DeviceUID = settings.device_uid
    if settings.institution:
        dataset.InstitutionName = settings.institution[:64]
    if settings.station_ae_title:
        dataset.StationName = settings.station_ae_title[:16]


def in_zone_of(source: Source, moment: datetime) -> datetime:
    """``moment`` in the time zone that the source names; unchanged where it names none or ``moment`` has none."""
    if not source.timezone_offset or moment.tzinfo is None:
        return moment
    sign = -1 if source.timezone_offset[0] == "-" else 1
    hours, minutes = int(source.timezone_offset[1:3]), int(source.timezone_offset[3:5])
    return moment.astimezone(timezone(sign * timedelta(hours=hours, minutes=minutes)))


def private_scheme_item() -> Dataset:
    """Coding Scheme Identification Sequence item for our private codes (PS3.3 C.12.1)."""
    item = Dataset()
    item.CodingSchemeDesignator = PRIVATE_SCHEME
    item.CodingSchemeName = "Firstread private codes"
    item.CodingSchemeResponsibleOrganization = "Firstread"
    return item


def part10(dataset: Dataset) -> bytes:
    """The data set as a Part 10 file in Explicit VR Little Endian: the same data set gives the same bytes."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    plain = Dataset()
    plain.update(dataset)
    plain.file_meta = meta
    plain.preamble = b"\0" * 128
    buffer = io.BytesIO()
    dcmwrite(buffer, plain, enforce_file_format=True)
    return buffer.getvalue()
