"""The ways in and out: films come by C-STORE or by STOW-RS, results leave by C-STORE or by STOW-RS."""

from __future__ import annotations

import io
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from tests.scripted_http import Asked, ScriptedHttp, document
from tests.stow import send as stow
from tests.system.agent import Agent
from tests.system.pacs import send

WAYS_IN = pytest.mark.parametrize("way", ["dimse", "dicomweb"])
WAYS_OUT = pytest.mark.parametrize("to", ["pacs", "web"])
"""Names of the destination and of the receiver behind it."""


def bring(agent: Agent, way: str, paths: list[Path]) -> None:
    """Files come ``dimse`` (C-STORE) or ``dicomweb`` (STOW-RS)."""
    if way == "dicomweb":
        stow(agent.web_port, paths)
    else:
        send(agent.dicom_port, *paths)


class Receiver(Protocol):
    """What a test asks of a PACS, whatever it speaks."""

    @property
    def destination(self) -> dict[str, Any]: ...

    def objects(self, study: str) -> list[Dataset]: ...

    def paths(self, study: str) -> list[Path]: ...

    def receptions(self) -> int: ...


class StowPacs:
    """A PACS by STOW-RS (PS3.18 10.5) that keeps what it gets in a folder and names it as stored."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self._service = ScriptedHttp(otherwise=self._store)

    def close(self) -> None:
        """Ends it."""
        self._service.__exit__()

    @property
    def destination(self) -> dict[str, Any]:
        """As [[destinations]] names it."""
        retry = {"first_s": 0.3, "max_s": 1.0}
        return {"name": "web", "type": "dicomweb", "url": self._service.url, "retry": retry}

    def objects(self, study: str) -> list[Dataset]:
        """What it holds of a study, in the order of revisions: reports, then heat maps."""
        held = [dcmread(path) for path in self.paths(study)]
        return sorted(held, key=lambda one: (one.Modality != "SR", int(one.InstanceNumber)))

    def paths(self, study: str) -> list[Path]:
        """The files of a study."""
        return [path for path in self.folder.iterdir() if dcmread(path).StudyInstanceUID == study]

    def receptions(self) -> int:
        """How often it was sent an object, repeated ones included."""
        return sum(one.method == "POST" for one in self._service.asked)

    def _store(self, connection: socket.socket, asked: Asked) -> None:
        content = asked.body.split(b"\r\n\r\n", 1)[1].rsplit(b"\r\n--", 1)[0]
        one = dcmread(io.BytesIO(content), stop_before_pixels=True)
        kept = self.folder / f"{one.SOPInstanceUID}.dcm"
        coming = self.folder.parent / f"{one.SOPInstanceUID}.part"
        coming.write_bytes(content)
        coming.rename(kept)
        named = {"00081150": one.SOPClassUID, "00081155": one.SOPInstanceUID}
        item = {tag: {"vr": "UI", "Value": [str(uid)]} for tag, uid in named.items()}
        document(200, {"00081199": {"vr": "SQ", "Value": [item]}})(connection, asked)


@contextmanager
def stow_pacs(folder: Path) -> Iterator[StowPacs]:
    """A StowPacs while the block runs."""
    peer = StowPacs(folder)
    try:
        yield peer
    finally:
        peer.close()
