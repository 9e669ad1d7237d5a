"""Real films through the whole chain: DCMTK sends and receives, python-hl7 is the RIS, dciodvfy judges."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from firstread.models.findings import ReasonCode
from tests.peers import real_films, require_peer
from tests.system.agent import Agent
from tests.system.pacs import StoreScp, send, storescp
from tests.system.ris import Ris, ris, value

CHEST = ("966_fixed", "RG1_J2KI", "rsna_cr_jpeg_baseline")
NOT_ANALYSED = {
    "RG2_JPLL": {ReasonCode.NOT_A_CHEST},
    "RG3_J2KR": {ReasonCode.NOT_A_CHEST},
    "chrJapMulti": {ReasonCode.TOO_SMALL, ReasonCode.NO_PIXEL_DATA, ReasonCode.NOT_A_CHEST},
    "dx_veterinary": {ReasonCode.ANIMAL},
}
STORESCU_PROPOSES = {"966_fixed": "-xv", "RG1_J2KI": "-xw", "rsna_cr_jpeg_baseline": "-xy", "RG2_JPLL": "-xs"}


class Hospital:
    """A PACS and a RIS around an agent with the shipped bundle, and the films that went through it."""

    def __init__(self, agent: Agent, pacs: StoreScp, his: Ris, folder: Path) -> None:
        self.agent, self.pacs, self.his = agent, pacs, his
        self.files = {path.stem: path for path in sorted(folder.glob("*.dcm"))}
        self.uids = {
            name: str(dcmread(path, specific_tags=["StudyInstanceUID"]).StudyInstanceUID)
            for name, path in self.files.items()
        }


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospital]:
    folder = real_films() / "dicom"
    tmp = tmp_path_factory.mktemp("hospital")
    with storescp(tmp / "pacs") as pacs, ris() as his:
        agent = Agent(tmp / "agent", bundle="reference", destinations=[pacs.destination, his.destination])
        try:
            agent.start()
            made = Hospital(agent, pacs, his, folder)
            send(agent.dicom_port, *made.files.values())
            for uid in made.uids.values():
                agent.wait_ended(uid)
            yield made
        finally:
            agent.close()


def errors_of(path: Path) -> list[str]:
    """What dciodvfy holds against an object."""
    said = subprocess.run([require_peer("dciodvfy"), str(path)], capture_output=True, text=True, timeout=60)
    return [line for line in (said.stdout + said.stderr).splitlines() if line.startswith("Error")]


def test_every_file_of_the_collection_came_to_its_end(hospital: Hospital) -> None:
    assert set(CHEST) | set(NOT_ANALYSED) == set(hospital.files)
    listed = {one["study_instance_uid"]: one for one in hospital.agent.studies()}
    assert {listed[uid]["state"] for uid in hospital.uids.values()} <= {"analysed", "not_analysed"}
    assert hospital.agent.alarms() == {}


@pytest.mark.parametrize("name", CHEST)
def test_a_chest_film_comes_back_with_report_heat_map_and_message(hospital: Hospital, name: str) -> None:
    uid = hospital.uids[name]
    study = hospital.agent.study(uid)
    assert study["state"] == "analysed", study["result"]
    assert study["deliveries"] == {"delivered": 3}
    report, heat_map = hospital.pacs.objects(uid)
    assert (report.Modality, heat_map.Modality) == ("SR", "OT")
    source = dcmread(hospital.files[name], stop_before_pixels=True)
    for one in (report, heat_map):
        assert one.StudyInstanceUID == uid and one.PatientID == source.PatientID
        assert one.SeriesInstanceUID != source.SeriesInstanceUID
    assert max(heat_map.Rows, heat_map.Columns) <= 1024
    assert {path.name: errors_of(path) for path in hospital.pacs.paths(uid) if errors_of(path)} == {}
    dump = subprocess.run(
        [require_peer("dsrdump"), str(next(p for p in hospital.pacs.paths(uid) if dcmread(p).Modality == "SR"))],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert dump.returncode == 0 and "Imaging Measurement Report" in dump.stdout
    (message,) = hospital.his.about(uid)
    assert value(message, "MSH", 9, 3) == "ORU_R01" and str(message.segment("OBX")[5]) == uid
    numbers = [str(obx[5]) for obx in message.segments("OBX") if str(obx[6]) == "1^^UCUM"]
    assert len(numbers) == 15 and all(0 <= float(number) <= 1 for number in numbers)


@pytest.mark.parametrize("name", NOT_ANALYSED)
def test_what_is_no_chest_film_comes_back_with_its_reason_and_no_heat_map(hospital: Hospital, name: str) -> None:
    uid = hospital.uids[name]
    study = hospital.agent.study(uid)
    assert study["state"] == "not_analysed"
    code = ReasonCode(study["result"]["reason_code"])
    assert code in NOT_ANALYSED[name]
    (report,) = hospital.pacs.objects(uid)
    assert report.Modality == "SR"
    assert [errors_of(path) for path in hospital.pacs.paths(uid)] == [[]]
    (message,) = hospital.his.about(uid)
    assert code.value in str(message)
    with pytest.raises(KeyError):
        message.segment("TQ1")
    findings = [obx for obx in message.segments("OBX") if str(obx[3]).endswith("^SCT")]
    assert len(findings) == 12 and {(str(obx[5]), str(obx[11])) for obx in findings} == {("", "X")}


def test_the_same_films_again_change_nothing(hospital: Hospital) -> None:
    messages, objects = len(hospital.his.received), hospital.pacs.receptions()
    send(hospital.agent.dicom_port, *hospital.files.values())
    for uid in hospital.uids.values():
        study = hospital.agent.study(uid)
        assert study["revision"] == 1 and study["state"] != "receiving"
        assert "received again" in [event["what"] for event in study["trail"]]
    assert (len(hospital.his.received), hospital.pacs.receptions()) == (messages, objects)


def test_storescu_s_other_encoding_of_the_same_films_is_kept_and_sends_nothing_out(hospital: Hospital) -> None:
    messages, objects = len(hospital.his.received), hospital.pacs.receptions()
    for name, option in STORESCU_PROPOSES.items():
        command = [require_peer("storescu"), option, "-aec", "FIRSTREAD", "127.0.0.1", str(hospital.agent.dicom_port)]
        done = subprocess.run([*command, str(hospital.files[name])], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
    for name in STORESCU_PROPOSES:
        study = hospital.agent.wait_ended(hospital.uids[name])
        assert all(not one["sent"] for one in study["revisions"][1:])
    assert (len(hospital.his.received), hospital.pacs.receptions()) == (messages, objects)


def test_what_is_kept_is_what_was_sent(hospital: Hospital) -> None:
    for name, path in hospital.files.items():
        image = hospital.agent.study(hospital.uids[name])["image_list"][0]
        sent, kept = dcmread(path), dcmread(hospital.agent.spool / image["path"])
        assert kept.file_meta.TransferSyntaxUID == sent.file_meta.TransferSyntaxUID, name
        pixels = sent.get("PixelData", b"")
        assert kept.get("PixelData", b"")[: len(pixels)] == pixels, name  # DCMTK pads an odd length
        assert kept.get("PatientName") == sent.get("PatientName"), name


def test_logs_and_health_name_no_patient(hospital: Hospital) -> None:
    log = hospital.agent.log.read_text()
    health: Any = str(hospital.agent.health())
    for path in hospital.files.values():
        patient = dcmread(path, stop_before_pixels=True)
        for secret in (str(patient.PatientName), str(patient.PatientID)):
            if len(secret) > 4:
                assert secret not in log and secret not in health
