"""What tests of the agent are made of: a store, settings, films on disk and received instances."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.filereader import dcmread
from pydicom.uid import UID, ExplicitVRLittleEndian

from firstread.agent.clock import Moment
from firstread.agent.config import Settings
from firstread.agent.evidence import freeze
from firstread.agent.intake import Intake
from firstread.agent.spool import INCOMING, prepare
from firstread.agent.store import images
from firstread.agent.store.engine import Store
from firstread.agent.store.images import ImageClaim
from firstread.agent.store.migrate import site_uid, upgrade
from firstread.integration.dicom.part10 import data_set_offset
from firstread.integration.dicom.received import ReceivedInstance
from firstread.models.findings import LABELS, NO_FINDING
from firstread.models.prediction import Box, ModelIdentity, Prediction
from firstread.models.preprocess import Placement

DX = "1.2.840.10008.5.1.4.1.1.1.1"
GSPS = "1.2.840.10008.5.1.4.1.1.11.1"
MODEL = ModelIdentity("test", "1", "0" * 64)


def moment(seconds: float = 0.0, *, boot: str = "boot-1", wall: float | None = None) -> Moment:
    """An instant ``seconds`` after noon; ``wall`` sets the wall clock apart from the boot clock."""
    noon = datetime(2026, 3, 1, 12, 0, tzinfo=UTC).timestamp()
    return Moment(datetime.fromtimestamp(noon + (seconds if wall is None else wall), UTC), boot, 1000.0 + seconds)


def fresh_store(url: str) -> Store:
    """A store with its schema made."""
    store = Store(url)
    upgrade(store)
    return store


def settings_at(folder: Path, bundle: Path | None = None, **sections: Any) -> Settings:
    """Settings of an agent on ``folder``, with a PACS and a RIS to send to."""
    values: dict[str, Any] = {
        "storage": {"path": str(folder), "reserve_mb": 0},
        "worklist": {"enabled": False},
        "destinations": [
            {"name": "pacs", "type": "dicom", "host": "127.0.0.1", "port": 1, "ae_title": "PACS"},
            {"name": "ris", "type": "hl7", "host": "127.0.0.1", "port": 2},
        ],
    }
    if bundle is not None:
        values["analysis"] = {"bundle": str(bundle)}
    for name, section in sections.items():
        values[name] = {**values.get(name, {}), **section} if isinstance(section, dict) else section
    prepare(folder)
    return Settings.model_validate(values)


class Bench:
    """An agent without processes: intake, store and settings on one folder."""

    def __init__(self, folder: Path, url: str | None = None, bundle: Path | None = None, **sections: Any) -> None:
        self.settings = settings_at(folder, bundle, **sections)
        self.store = fresh_store(url or self.settings.database_url)
        self.site_uid = site_uid(self.store)
        self.intake = Intake(self.settings, self.store, self.site_uid)
        self.count = 0

    def receive(self, **values: Any) -> ReceivedInstance:
        """A film arrives on disk and is taken in."""
        received = self.arrive(**values)
        self.intake.take(received)
        return received

    def arrive(
        self,
        *,
        study: str = "1.2.3",
        sop: str = "",
        series: str = "1.2.3.1",
        sop_class: str = DX,
        calling: str = "PACS",
        **attributes: Any,
    ) -> ReceivedInstance:
        """A complete file in the incoming folder, as the receiver hands it over."""
        self.count += 1
        dataset = chest_film()
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, series
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = sop or f"1.2.3.1.{self.count}"
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = sop_class
        for keyword, value in attributes.items():
            setattr(dataset, keyword, value)
        path = self.settings.spool / INCOMING / f"film-{self.count}.part"
        dataset.save_as(path, enforce_file_format=True)
        whole = path.read_bytes()
        content = whole[data_set_offset(whole) :]  # a receiver tells of the data set, without the meta header
        return ReceivedInstance(
            path=path,
            sop_class_uid=sop_class,
            sop_instance_uid=str(dataset.SOPInstanceUID),
            study_instance_uid=study,
            series_instance_uid=series,
            transfer_syntax_uid=str(ExplicitVRLittleEndian),
            size_bytes=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
            calling_ae_title=calling,
            called_ae_title="FIRSTREAD",
            peer_address="127.0.0.1",
            association_id="a1",
            message_id=1,
            priority=0,
            move_originator_ae_title="",
            move_originator_message_id=None,
            header=dcmread(path, stop_before_pixels=True),
        )

    def claim(self, now: Moment, limit: int = 10) -> list[ImageClaim]:
        """What an analyser would claim."""
        with self.store.write() as connection:
            return images.claim(connection, owner="test/analyse/1", lease_s=60, limit=limit, now=now)

    def end_analysed(self, claim: ImageClaim, now: Moment, **probabilities: float) -> bool:
        """What an analyser would write for a claim."""
        preview = self.settings.spool / "previews" / f"{claim.id}.png"
        write_preview(preview)
        with self.store.write() as connection:
            return images.end_analysed(
                connection,
                claim,
                predict(claim.sop_instance_uid, **probabilities),
                preview_path=str(preview.relative_to(self.settings.spool)),
                saliency=freeze(LABELS, np.ones((15, 7, 7), np.float32), Placement(64, 64, 0, 0, 64, 64, 64)),
                actor="test",
                now=now,
            )


def predict(sop_instance_uid: str = "1.2.3.1.1", **probabilities: float) -> Prediction:
    """A prediction in which everything is low but what is named (``No_Finding`` for No Finding)."""
    values = dict.fromkeys(LABELS, 0.05) | {NO_FINDING: 0.5}
    values |= {(NO_FINDING if name == "No_Finding" else name): value for name, value in probabilities.items()}
    return Prediction(sop_instance_uid, values, {label: Box(1, 2, 30, 40) for label in LABELS}, MODEL)


def write_preview(path: Path) -> None:
    """A small grey picture."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.tile(np.arange(64, dtype=np.uint8) * 4, (64, 1))).save(path)


def chest_film() -> Dataset:
    """A small DX of an invented patient with all that a report needs."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = UID(DX)
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.PatientName, dataset.PatientID = "PHANTOM^ANNA", "PH0001"
    dataset.PatientBirthDate, dataset.PatientSex = "19600229", "F"
    dataset.StudyDate, dataset.StudyTime = "20260301", "113000"
    dataset.AccessionNumber, dataset.StudyID = "ACC1", "S1"
    dataset.ReferringPhysicianName = ""
    dataset.Modality, dataset.BodyPartExamined, dataset.ViewPosition = "DX", "CHEST", "PA"
    dataset.PatientOrientation = ["L", "F"]
    dataset.InstanceNumber = 1
    dataset.SeriesNumber = 1
    rows = columns = 160
    dataset.Rows, dataset.Columns = rows, columns
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = 16
    dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 12, 11, 0
    ramp = np.add.outer(np.arange(rows), np.arange(columns)) * 10
    dataset.PixelData = ramp.astype(np.uint16).tobytes()
    return dataset
