"""DCMTK as a PACS: storescp takes results, storescu and dcmsend send films. And a PACS that answers as it is told."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset
from pynetdicom import AE, StoragePresentationContexts, evt

from tests.peers import free_port, require_peer

AE_TITLE = "PACS"


class StoreScp:
    """DCMTK's storescp, keeping what it gets in a folder."""

    def __init__(self, folder: Path, port: int | None = None) -> None:
        self.folder = folder
        self.port = port or free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> StoreScp:
        """Listens when this returns."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder.parent / f"{self.folder.name}.log").open("ab") as log:
            self._process = subprocess.Popen(
                [require_peer("storescp"), "-v", "-aet", AE_TITLE, "-od", str(self.folder), str(self.port)],
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return self
            except OSError:
                time.sleep(0.02)
        raise AssertionError("storescp does not listen")

    def stop(self) -> None:
        """Ends it."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)

    @property
    def destination(self) -> dict[str, Any]:
        """As [[destinations]] names it."""
        return destination(self.port)

    def objects(self, study: str) -> list[Dataset]:
        """What it holds of a study, in the order of revisions: reports, then heat maps."""
        held = [dcmread(path) for path in self.folder.iterdir()]
        mine = [one for one in held if one.StudyInstanceUID == study]
        return sorted(mine, key=lambda one: (one.Modality != "SR", int(one.InstanceNumber)))

    def paths(self, study: str) -> list[Path]:
        """The files of a study."""
        return [path for path in self.folder.iterdir() if dcmread(path).StudyInstanceUID == study]

    def receptions(self) -> int:
        """How often it was sent an object, repeated ones included."""
        log = (self.folder.parent / f"{self.folder.name}.log").read_text(errors="replace")
        return log.count("Received Store Request")


@contextmanager
def storescp(folder: Path) -> Iterator[StoreScp]:
    """A storescp while the block runs."""
    peer = StoreScp(folder).start()
    try:
        yield peer
    finally:
        peer.stop()


def destination(port: int, name: str = "pacs", **values: Any) -> dict[str, Any]:
    """A DICOM destination that is tried again soon."""
    return {
        "name": name,
        "type": "dicom",
        "host": "127.0.0.1",
        "port": port,
        "ae_title": AE_TITLE,
        "retry": {"first_s": 0.3, "max_s": 1.0},
        **values,
    }


class ScriptedPacs:
    """pynetdicom as a PACS that answers its first objects as the script says, and the rest with Success."""

    def __init__(self, *answers: int) -> None:
        self.answers = list(answers)
        self.received: list[tuple[str, int]] = []
        self._lock = threading.Lock()
        entity = AE(AE_TITLE)
        entity.supported_contexts = StoragePresentationContexts
        self._server = entity.start_server(
            ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, self._answer)]
        )
        self.port: int = self._server.socket.getsockname()[1]

    def _answer(self, event: Any) -> int:
        with self._lock:
            status = self.answers.pop(0) if self.answers else 0x0000
            self.received.append((str(event.request.AffectedSOPInstanceUID), status))
            return status

    def close(self) -> None:
        """Ends it."""
        self._server.shutdown()


def send(port: int, *paths: Path, calling: str = "SCANNER", called: str = "FIRSTREAD", ok: bool = True) -> str:
    """Sends films with DCMTK's dcmsend, each in the transfer syntax it has; answers with what dcmsend says."""
    command = [require_peer("dcmsend"), "-v", "-nuc", "-aet", calling, "-aec", called, "127.0.0.1", str(port)]
    done = subprocess.run([*command, *map(str, paths)], capture_output=True, text=True, timeout=120)
    assert not ok or done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr
