"""What the agent holds: what is kept of a header for searching, the bytes of each object, and entering older ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import structlog
from pydicom.dataset import Dataset

from firstread.agent.config import Settings
from firstread.agent.identify import items, text
from firstread.agent.names import name_key, name_words
from firstread.agent.store import holdings
from firstread.agent.store.engine import Store
from firstread.agent.store.holdings import HeldObject, Holding
from firstread.integration.dicom.header import read_header
from firstread.integration.dicom.identity import is_ours
from firstread.integration.dicom.part10 import FileMeta, NotPart10, read_meta
from firstread.integration.dicom.status import CannotUnderstand

log = structlog.get_logger()

ENTERED_AT_ONCE = 100


def holding_of(header: Dataset, transfer_syntax_uid: str) -> Holding:
    """What is kept of a data set for searching: values as received, cut; dates, times, numbers in their plain form."""
    requests = items(header, "RequestAttributesSequence")
    name, physician = text(header, "PatientName"), text(header, "ReferringPhysicianName")
    return Holding(
        study={
            "study_instance_uid": text(header, "StudyInstanceUID")[:128],
            "study_date": _date(header, "StudyDate"),
            "study_time": _time(header, "StudyTime"),
            "accession_number": text(header, "AccessionNumber")[:256],
            "study_id": text(header, "StudyID")[:256],
            "study_description": text(header, "StudyDescription")[:256],
            "referring_physician_name": physician[:256],
            "referring_physician_key": name_key(physician),
            "patient_name": name[:256],
            "patient_name_key": name_key(name),
            "patient_name_words": name_words(name) if name else "",
            "patient_id": text(header, "PatientID")[:256],
            "issuer_of_patient_id": text(header, "IssuerOfPatientID")[:256],
            "patient_birth_date": _date(header, "PatientBirthDate"),
            "patient_sex": text(header, "PatientSex")[:16],
            "timezone_offset_from_utc": text(header, "TimezoneOffsetFromUTC")[:16],
        },
        series={
            "series_instance_uid": text(header, "SeriesInstanceUID")[:128],
            "modality": text(header, "Modality")[:16],
            "series_number": _number_text(header, "SeriesNumber"),
            "series_description": text(header, "SeriesDescription")[:256],
            "body_part_examined": text(header, "BodyPartExamined")[:64],
            "performed_procedure_step_start_date": _date(header, "PerformedProcedureStepStartDate"),
            "performed_procedure_step_start_time": _time(header, "PerformedProcedureStepStartTime"),
            "scheduled_procedure_step_id": _first(requests, "ScheduledProcedureStepID"),
            "requested_procedure_id": _first(requests, "RequestedProcedureID"),
        },
        instance={
            "sop_instance_uid": text(header, "SOPInstanceUID")[:128],
            "sop_class_uid": text(header, "SOPClassUID")[:128],
            "transfer_syntax_uid": transfer_syntax_uid[:128],
            "instance_number": _number_text(header, "InstanceNumber"),
            "number_of_frames": _number(header, "NumberOfFrames"),
            "rows": _number(header, "Rows"),
            "columns": _number(header, "Columns"),
            "bits_allocated": _number(header, "BitsAllocated"),
        },
    )


def holding_of_part10(content: bytes) -> Holding:
    """The same of a Part 10 file that was made here."""
    from pydicom.filereader import dcmread

    header = dcmread(BytesIO(content), stop_before_pixels=True)
    return holding_of(header, str(header.file_meta.TransferSyntaxUID))


@dataclass(frozen=True)
class Holdings:
    """The way to the bytes of what is held, and the entering of what is older than its tables."""

    settings: Settings
    store: Store
    site_uid: str

    def path(self, held: HeldObject) -> Path:
        """The Part 10 file of an object. It may be gone by the time it is opened: then its days were over."""
        return self.settings.spool / held.path

    def open_data_set(self, held: HeldObject) -> tuple[Path, FileMeta]:
        """The file and where its data set begins. Raises FileNotFoundError or NotPart10."""
        path = self.path(held)
        return path, read_meta(path)

    def enter_older(self) -> int:
        """Enters a few of the objects that are older than the tables, newest first; how many were looked at.

        Run again and again until it answers 0; then it costs one look. An object whose file cannot be read is left out.
        """
        with self.store.read() as connection:
            if holdings.all_looked_at(connection):
                return 0
            received, made = holdings.not_entered_yet(connection, ENTERED_AT_ONCE)
        seen = [(row, self._read(row.path)) for row in received], [(row, self._read(row.path)) for row in made]
        with self.store.write() as connection:
            for row, found in seen[0]:
                if found is None or holdings.is_entered(connection, instance_id=row.id):
                    continue
                if holdings.is_current(connection, instance_id=row.id):
                    uids = (found.study["study_instance_uid"], found.series["series_instance_uid"])
                    ours = is_ours(self.site_uid, *uids, str(found.instance["sop_instance_uid"]))
                    holdings.enter_received(connection, found, row.id, ours=ours, older=True)
            for row, found in seen[1]:
                if found is not None:
                    holdings.enter_made(connection, found, row.id)
            holdings.looked_at(connection, "instance", received[-1].id if received else 0)
            holdings.looked_at(connection, "artifact", made[-1].id if made else 0)
        return len(received) + len(made)

    def _read(self, place: str) -> Holding | None:
        path = self.settings.spool / place
        try:
            meta = read_meta(path)
            header = read_header(path, meta.data_set_offset, meta.transfer_syntax_uid)
        except (OSError, NotPart10, CannotUnderstand) as error:
            log.warning("an older object cannot be entered among what is held", place=place, why=str(error))
            return None
        found = holding_of(header, meta.transfer_syntax_uid)
        return found if found.study["study_instance_uid"] and found.instance["sop_instance_uid"] else None


def _first(requests: Sequence[Dataset], keyword: str) -> str:
    return next((value[:256] for value in (text(item, keyword) for item in requests) if value), "")


def _date(header: Dataset, keyword: str) -> str:
    return text(header, keyword).replace(".", "")[:16]


def _time(header: Dataset, keyword: str) -> str:
    return text(header, keyword).replace(":", "")[:32]


def _number(header: Dataset, keyword: str) -> int | None:
    try:
        value = int(text(header, keyword))
    except ValueError:
        return None
    return value if 0 < value < 2**31 else None


def _number_text(header: Dataset, keyword: str) -> str:
    value = text(header, keyword)
    try:
        return str(int(value))[:32]
    except ValueError:
        return value[:32]
