"""DICOMweb against others: Orthanc stores by STOW-RS, dicomweb-client asks and fetches; schemathesis finds no 5xx."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from dicomweb_client.api import DICOMwebClient
from PIL import Image
from pydicom import dcmread

from tests.peers import real_films
from tests.stow import BOUNDARY, DICOM_PARTS
from tests.stow import send as stow
from tests.system.agent import Agent, wait_for
from tests.system.films import NOTHING, PNEUMOTHORAX, film, new_uid, write
from tests.system.orthanc import Orthanc, orthanc
from tests.system.pacs import StoreScp, storescp

ROOT = Path(__file__).parents[2]


class Site:
    """An agent, a PACS for its results, and an Orthanc that stores by STOW-RS."""

    def __init__(self, tmp: Path, agent: Agent, pacs: StoreScp, sender: Orthanc) -> None:
        self.tmp, self.agent, self.pacs, self.sender = tmp, agent, pacs, sender
        self.client = DICOMwebClient(f"http://127.0.0.1:{agent.web_port}/dicom-web")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path) -> Iterator[Site]:
    tmp = tmp_path_factory.mktemp("dicomweb")
    with storescp(tmp / "pacs") as pacs:
        agent = Agent(tmp / "agent", bundle=tiny_bundle, destinations=[pacs.destination])
        us = {"firstread": [f"http://127.0.0.1:{agent.web_port}/dicom-web/"]}
        with orthanc(tmp / "orthanc", agent.dicom_port, dicomweb=us) as sender:
            try:
                yield Site(tmp, agent.start(), pacs, sender)
            finally:
                agent.close()


def test_orthanc_stores_a_study_and_gets_its_result_from_it(site: Site) -> None:
    uid = new_uid()
    names = {
        site.sender.upload(path) for path in write(site.tmp / "films", film(PNEUMOTHORAX, uid), film(NOTHING, uid))
    }
    (study,) = names
    site.sender.stow_study(study, "firstread")
    ended = site.agent.wait_delivered(uid, "pacs")
    assert ended["images"] == {"analysed": 2} and ended["revision"] == 1
    site.sender.stow_study(study, "firstread")
    assert site.agent.study(uid)["revision"] == 1, "the same study again changes nothing"


def test_a_client_finds_the_study_with_our_results_and_fetches_every_object(site: Site) -> None:
    uid = new_uid()
    (path,) = write(site.tmp / "films", film(PNEUMOTHORAX, uid))
    site.client.store_instances([dcmread(path)])
    site.agent.wait_delivered(uid, "pacs")
    (found,) = site.client.search_for_studies(search_filters={"StudyInstanceUID": uid})
    assert set(found["00080061"]["Value"]) >= {"SR", "OT"} and found["00201208"]["Value"] == [3]
    objects = site.client.retrieve_study(uid)
    delivered = {one.SOPInstanceUID: one for one in site.pacs.objects(uid)}
    made = [one for one in objects if one.SOPInstanceUID in delivered]
    assert len(objects) == 3 and len(made) == 2
    assert all(one == delivered[one.SOPInstanceUID] for one in made), "what a viewer gets is what the PACS got"
    source = dcmread(path)
    names = (uid, str(source.SeriesInstanceUID), str(source.SOPInstanceUID))
    (frame,) = site.client.retrieve_instance_frames(*names, frame_numbers=[1])
    assert frame == source.PixelData
    assert site.client.retrieve_instance_metadata(*names)["00080018"]["Value"] == [names[2]]
    shown = Image.open(io.BytesIO(site.client.retrieve_instance_rendered(*names, media_types=("image/png",))))
    assert shown.size == (source.Columns, source.Rows) and np.asarray(shown).std() > 10


def test_a_sender_that_goes_away_in_the_middle_leaves_nothing_and_holds_up_nobody(site: Site) -> None:
    content = film(NOTHING, new_uid())
    (path,) = write(site.tmp / "films", content)
    head = (
        f"POST /dicom-web/studies HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {DICOM_PARTS}\r\n"
        f"Transfer-Encoding: chunked\r\n\r\n"
    )
    part = f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode() + path.read_bytes()[:5000]
    with socket.create_connection(("127.0.0.1", site.agent.web_port), timeout=30) as sender:
        sender.sendall(head.encode() + f"{len(part):x}\r\n".encode() + part + b"\r\n")
        wait_for(lambda: list((site.agent.spool / "incoming").iterdir()), "the film has begun to come in")
        stow(site.agent.web_port, [path])
    wait_for(lambda: not list((site.agent.spool / "incoming").iterdir()), "nothing is left of it")


def test_a_large_film_is_streamed_and_costs_little_memory(site: Site) -> None:
    (path,) = write(site.tmp / "films", film(NOTHING, new_uid()))
    stow(site.agent.web_port, [path])  # whatever is loaded once is loaded now
    web = site.agent.roles()["web"]
    reset_peak(web)
    before = peak_bytes(web)
    large = film(NOTHING, new_uid())
    large.add_new(0x00091001, "UN", bytes(96 << 20))
    large.add_new(0x00090010, "LO", "TESTS")
    (path,) = write(site.tmp / "films", large)
    stow(site.agent.web_port, [path])
    more = peak_bytes(web) - before
    print(f"a film of 100 MB cost {more / 2**20:.1f} MiB")
    assert more < 8 << 20


def peak_bytes(process: psutil.Process) -> int:
    """Most memory that a process held at once since the last reset."""
    text = Path(f"/proc/{process.pid}/status").read_text()
    return int(next(line for line in text.splitlines() if line.startswith("VmHWM")).split()[1]) * 1024


def reset_peak(process: psutil.Process) -> None:
    Path(f"/proc/{process.pid}/clear_refs").write_text("5")


def test_real_films_come_back_as_they_were_sent_and_can_be_looked_at(site: Site) -> None:
    for path in sorted((real_films() / "dicom").glob("*.dcm")):
        stow(site.agent.web_port, [path])
        sent = dcmread(path)
        uid = str(sent.StudyInstanceUID)
        (back,) = [
            one
            for one in site.client.retrieve_study(uid, media_types=(("application/dicom", "*"),))
            if one.SOPInstanceUID == sent.SOPInstanceUID
        ]
        assert back.file_meta.TransferSyntaxUID == sent.file_meta.TransferSyntaxUID and back == sent, path.name
        names = (uid, str(sent.SeriesInstanceUID), str(sent.SOPInstanceUID))
        if "PixelData" in sent:
            shown = Image.open(io.BytesIO(site.client.retrieve_instance_rendered(*names, media_types=("image/jpeg",))))
            assert shown.size == (sent.Columns, sent.Rows), path.name


def test_no_request_that_the_description_allows_is_answered_5xx(site: Site) -> None:
    uid = new_uid()
    one = film(NOTHING, uid)
    stow(site.agent.web_port, write(site.tmp / "films", one))
    held = {"study": uid, "series": str(one.SeriesInstanceUID), "instance": str(one.SOPInstanceUID), "frames": "1"}
    named = "\n".join(f'"path.{name}" = "{value}"' for name, value in held.items())
    for folder, parameters in (("made-up", ""), ("held", f"[parameters]\n{named}\n")):
        place = site.tmp / folder
        place.mkdir()
        (place / "schemathesis.toml").write_text(parameters)
        done = subprocess.run(
            [str(Path(sys.executable).with_name("schemathesis")), "run",
             f"http://127.0.0.1:{site.agent.web_port}/openapi.json", "--checks", "not_a_server_error",
             "--max-examples", "6", "--include-path-regex", "^/dicom-web/", "--phases", "fuzzing", "--seed", "1",
             "--no-color", "--request-timeout", "60", "--generation-database", "none"],
            capture_output=True, text=True, timeout=300, cwd=place,
            env={**os.environ, "PYTHONPATH": str(ROOT), "SCHEMATHESIS_HOOKS": "tests.system.schemathesis_hooks"},
        )  # fmt: skip
        assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
