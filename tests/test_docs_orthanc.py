"""The worked example in deploy/orthanc, run by a real Orthanc: radiographs are forwarded, our results are not."""

from __future__ import annotations

import json
from pathlib import Path

from tests.system.agent import wait_for
from tests.system.films import film, new_uid, write
from tests.system.orthanc import Orthanc
from tests.system.pacs import send, storescp

EXAMPLE = Path(__file__).parents[1] / "deploy" / "orthanc"


def test_the_example_sends_each_radiograph_at_once_and_nothing_that_came_from_us(tmp_path: Path) -> None:
    script = (EXAMPLE / "firstread.lua").read_text(encoding="utf-8")
    with storescp(tmp_path / "us") as us:
        peer = Orthanc(tmp_path / "orthanc", script)
        try:
            peer.start(us.port)
            ours, other, theirs = film(), film(Modality="OT"), film(study=new_uid())
            (from_us,) = write(tmp_path / "ours", ours)
            send(peer.dicom_port, from_us, calling="FIRSTREAD", called="ORTHANC")
            for path in write(tmp_path / "theirs", other, theirs):
                peer.upload(path)
            wait_for(lambda: us.paths(theirs.StudyInstanceUID), "the radiograph is forwarded")
            assert not us.paths(ours.StudyInstanceUID), "what we sent came back"
            assert not us.paths(other.StudyInstanceUID), "what is no radiograph was forwarded"
        finally:
            peer.stop()


def test_the_example_names_its_script_and_us_as_the_guide_does() -> None:
    example = json.loads((EXAMPLE / "orthanc.json").read_text(encoding="utf-8"))
    assert [(EXAMPLE / name).is_file() for name in example["LuaScripts"]] == [True]
    assert example["DicomModalities"] == {"firstread": ["FIRSTREAD", "127.0.0.1", 11112]}
    assert (example["DicomAet"], example["DicomPort"]) == ("ORTHANC", 4242)
