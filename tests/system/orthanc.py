"""Orthanc as the hospital's PACS: it sends films on, and takes results back into the same study."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.peers import absent, free_port, require_peer
from tests.system.agent import wait_for

AE_TITLE = "ORTHANC"
PLUGINS = ("/usr/share/orthanc/plugins", "/usr/lib/orthanc")

FORWARD_EVERYTHING = """
function OnStoredInstance(instance, tags, metadata, origin)
  SendToModality(instance, 'firstread')
end
"""
"""The worst auto-forward rule: whatever comes in, our own results among it, is sent to us."""


class Orthanc:
    """One Orthanc on 127.0.0.1 that knows one modality, ``firstread``."""

    def __init__(self, folder: Path, lua: str = "", dicomweb: Mapping[str, Any] | None = None) -> None:
        self.folder = folder
        self._dicomweb = dicomweb
        self.dicom_port, self.http_port = free_port(), free_port()
        self._lua = lua
        self._process: subprocess.Popen[bytes] | None = None
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.http_port}", timeout=60)

    def start(self, firstread_port: int) -> Orthanc:
        """Answers when this returns."""
        self.folder.mkdir(parents=True)
        configuration: dict[str, Any] = {
            "Name": "Hospital",
            "StorageDirectory": str(self.folder / "storage"),
            "IndexDirectory": str(self.folder / "storage"),
            "DicomAet": AE_TITLE,
            "DicomPort": self.dicom_port,
            "HttpPort": self.http_port,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomModalities": {"firstread": ["FIRSTREAD", "127.0.0.1", firstread_port]},
            "StableAge": 1,
            "Plugins": [],
        }
        if self._dicomweb is not None:
            configuration["Plugins"] = [require_plugin()]
            configuration["DicomWeb"] = {"Enable": True, "Servers": self._dicomweb}
        if self._lua:
            (self.folder / "forward.lua").write_text(self._lua)
            configuration["LuaScripts"] = [str(self.folder / "forward.lua")]
        (self.folder / "orthanc.json").write_text(json.dumps(configuration))
        with (self.folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [require_peer("Orthanc"), str(self.folder / "orthanc.json")], stdout=log, stderr=log, cwd=self.folder
            )
        wait_for(self._answers, "Orthanc answers")
        return self

    def stop(self) -> None:
        """Ends it."""
        self.client.close()
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    @property
    def destination(self) -> dict[str, Any]:
        """As [[destinations]] names it."""
        return {
            "name": "orthanc",
            "type": "dicom",
            "host": "127.0.0.1",
            "port": self.dicom_port,
            "ae_title": AE_TITLE,
            "retry": {"first_s": 0.3, "max_s": 1.0},
        }

    @property
    def dicomweb_url(self) -> str:
        """Base of its DICOMweb services."""
        return f"http://127.0.0.1:{self.http_port}/dicom-web"

    def get(self, path: str) -> Any:
        """What its REST interface answers."""
        return self.client.get(path).raise_for_status().json()

    def upload(self, film: Path) -> str:
        """A film reaches the PACS; answers with Orthanc's name of its study."""
        answer = self.client.post("/instances", content=film.read_bytes()).raise_for_status().json()
        return str(answer["ParentStudy"])

    def send_study(self, study: str) -> None:
        """The PACS sends a whole study to us, and waits until that is done."""
        self.client.post(
            "/modalities/firstread/store", json={"Resources": [study], "Synchronous": True}
        ).raise_for_status()

    def stow_study(self, study: str, server: str) -> None:
        """The PACS stores a whole study by STOW-RS, and waits until that is done."""
        self.client.post(
            f"/dicom-web/servers/{server}/stow", json={"Resources": [study], "Synchronous": True}
        ).raise_for_status()

    def series(self, study: str) -> Mapping[str, list[dict[str, Any]]]:
        """The instances of a study by modality of their series."""
        found: dict[str, list[dict[str, Any]]] = {}
        for one in self.get(f"/studies/{study}/series"):
            instances = [self.get(f"/instances/{name}/simplified-tags") for name in one["Instances"]]
            found.setdefault(one["MainDicomTags"]["Modality"], []).extend(instances)
        return found

    def _answers(self) -> bool:
        try:
            return self.client.get("/system").status_code == 200
        except httpx.HTTPError:
            return False


def require_plugin() -> str:
    """Orthanc's DICOMweb plug-in; skips where it is not installed."""
    found = next((path for folder in PLUGINS for path in Path(folder).glob("*OrthancDicomWeb.so")), None)
    return str(found or absent("Orthanc's DICOMweb plug-in is not installed: run deploy/install-peers.sh as root"))


@contextmanager
def orthanc(
    folder: Path, firstread_port: int, lua: str = "", dicomweb: Mapping[str, Any] | None = None
) -> Iterator[Orthanc]:
    """An Orthanc while the block runs. ``dicomweb``: the DICOMweb servers that it knows, with its plug-in."""
    peer = Orthanc(folder, lua, dicomweb)
    try:
        yield peer.start(firstread_port)
    finally:
        peer.stop()
