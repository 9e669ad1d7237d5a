"""How real senders send: whole studies with all that belongs to them, a hundred at once, very large, in pieces."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from tests.peers import require_peer
from tests.system.agent import Agent
from tests.system.films import LATERAL, NOTHING, film, new_uid, write
from tests.system.pacs import send
from tests.system.ris import Ris, ris

OTHERS = {
    "Grayscale Softcopy Presentation State": ("1.2.840.10008.5.1.4.1.1.11.1", "PR"),
    "Key Object Selection": ("1.2.840.10008.5.1.4.1.1.88.59", "KO"),
    "Enhanced SR of another maker": ("1.2.840.10008.5.1.4.1.1.88.22", "SR"),
    "Encapsulated PDF": ("1.2.840.10008.5.1.4.1.1.104.1", "DOC"),
    "X-Ray Radiation Dose SR": ("1.2.840.10008.5.1.4.1.1.88.67", "SR"),
}


class Ward:
    """An agent and the RIS that hears of every result."""

    def __init__(self, agent: Agent, his: Ris, tmp: Path) -> None:
        self.agent, self.his, self.tmp = agent, his, tmp

    def send(self, *datasets: Dataset) -> None:
        """All in one association."""
        send(self.agent.dicom_port, *write(self.tmp / "films", *datasets))


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path) -> Iterator[Ward]:
    tmp = tmp_path_factory.mktemp("ward")
    with ris() as his:
        agent = Agent(tmp / "agent", bundle=tiny_bundle, destinations=[his.destination])
        try:
            yield Ward(agent.start(), his, tmp)
        finally:
            agent.close()


def beside(study: str, sop_class_uid: str, modality: str) -> Dataset:
    """An object that comes with a study and is no film."""
    one = film(NOTHING, study)
    other = Dataset()
    other.file_meta = one.file_meta
    other.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    for keyword in ("PatientID", "PatientName", "StudyDate", "AccessionNumber", "SpecificCharacterSet"):
        setattr(other, keyword, one.get(keyword, ""))
    other.SOPClassUID = other.file_meta.MediaStorageSOPClassUID = sop_class_uid
    other.SOPInstanceUID = other.file_meta.MediaStorageSOPInstanceUID = new_uid()
    other.StudyInstanceUID, other.SeriesInstanceUID, other.Modality = study, new_uid(), modality
    return other


def test_a_whole_study_with_all_that_belongs_to_it_is_taken_and_only_its_films_are_judged(ward: Ward) -> None:
    uid = new_uid()
    ward.send(film(NOTHING, uid), film(LATERAL, uid), *(beside(uid, *each) for each in OTHERS.values()))
    study = ward.agent.wait_delivered(uid, "ris")
    assert study["images"] == {"analysed": 1, "not_analysed": 1}
    received = [event for event in study["trail"] if event["what"] == "received"]
    assert len(received) == 2 + len(OTHERS)
    assert any("1 of 2" in note for note in study["result"]["notes"]), study["result"]["notes"]


def test_what_follows_a_result_and_is_no_film_opens_nothing(ward: Ward) -> None:
    uid = new_uid()
    ward.send(film(NOTHING, uid))
    ward.agent.wait_delivered(uid, "ris")
    ward.send(*(beside(uid, *each) for each in OTHERS.values()))
    study = ward.agent.study(uid)
    assert (study["state"], study["revision"]) == ("analysed", 1) and len(ward.his.about(uid)) == 1


def test_a_hundred_films_in_one_association_all_come_to_their_end(ward: Ward) -> None:
    films = [film() for _ in range(100)]
    ward.send(*films)
    for one in films:
        assert ward.agent.wait_ended(str(one.StudyInstanceUID), delivered=False)["state"] == "analysed"


def test_one_study_over_several_associations_is_one_study_with_one_result(ward: Ward) -> None:
    uid = new_uid()
    for _ in range(3):
        ward.send(film(NOTHING, uid))
    study = ward.agent.wait_delivered(uid, "ris")
    newest = ward.agent.wait_ended(uid)
    assert newest["images"] == {"analysed": 3}
    assert len(newest["image_list"]) == 3 and study["study_instance_uid"] == uid


def test_a_film_of_forty_megabytes_is_taken_beside_small_ones(ward: Ward) -> None:
    large, small = film(), film()
    large.Rows = large.Columns = 4500
    large.BitsAllocated, large.BitsStored, large.HighBit = 16, 12, 11
    large.PixelData = bytes(4500 * 4500 * 2)
    ward.send(large, small)
    assert ward.agent.wait_ended(str(small.StudyInstanceUID))["state"] == "analysed"
    study = ward.agent.wait_ended(str(large.StudyInstanceUID))
    assert study["result"]["reason_code"] == "OUTSIDE_MODEL", "all black"


def test_echoscu_is_answered(ward: Ward) -> None:
    command = [require_peer("echoscu"), "-v", "-aec", "FIRSTREAD", "127.0.0.1", str(ward.agent.dicom_port)]
    assert subprocess.run(command, capture_output=True, timeout=30).returncode == 0
