"""A stand-in PACS for the demo: takes every object and keeps it in a folder per study."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

from firstread.integration.dicom.receive import SUCCESS, ReceivedInstance, Receiver, ReceiveSettings, StoreStatus

_SR = "1.2.840.10008.5.1.4.1.1.88."


class StandInPacs:
    """Listens on 127.0.0.1 while it is used as a context."""

    def __init__(self, port: int, folder: Path) -> None:
        self._folder = folder
        self._kept: dict[str, dict[str, Path]] = {}
        self._lock = threading.Lock()
        settings = ReceiveSettings(
            ae_title="DEMOPACS", host="127.0.0.1", port=port, spool=folder / "incoming", disk_reserve_bytes=0
        )
        self._receiver = Receiver(settings, self._keep)

    def __enter__(self) -> StandInPacs:
        self._receiver.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._receiver.stop(2)

    def objects_of(self, study_instance_uid: str) -> tuple[Path | None, Path | None]:
        """The newest report and the newest heat map of a study."""
        with self._lock:
            kept = dict(self._kept.get(study_instance_uid, {}))
        return kept.get("sr"), kept.get("heatmap")

    def _keep(self, received: ReceivedInstance) -> StoreStatus:
        kind = "sr" if received.sop_class_uid.startswith(_SR) else "heatmap"
        study, instance = _name(received.study_instance_uid), _name(received.sop_instance_uid)
        target = self._folder / study / f"{kind}-{instance}.dcm"
        target.parent.mkdir(parents=True, exist_ok=True)
        received.path.rename(target)
        with self._lock:
            self._kept.setdefault(received.study_instance_uid, {})[kind] = target
        return SUCCESS


def _name(uid: str) -> str:
    """A file name for a received UID: paths are never made of received text."""
    return hashlib.sha256(uid.encode()).hexdigest()[:12]
