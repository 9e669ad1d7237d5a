"""Orthanc sends films and gets report and heat map back into the same study; forwarding everything makes no loop."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.agent import Agent, wait_for
from tests.system.films import LATERAL, NOTHING, film, new_uid, write
from tests.system.orthanc import FORWARD_EVERYTHING, Orthanc, orthanc


class Department:
    """An Orthanc and an agent that send each other what they have."""

    def __init__(self, agent: Agent, pacs: Orthanc, tmp: Path) -> None:
        self.agent, self.pacs, self.tmp = agent, pacs, tmp


def department(tmp: Path, bundle: Path, lua: str = "") -> Iterator[Department]:
    agent = Agent(tmp / "agent", bundle=bundle)
    with orthanc(tmp / "orthanc", agent.dicom_port, lua) as pacs:
        agent.change(destinations=[pacs.destination])
        try:
            yield Department(agent.start(), pacs, tmp)
        finally:
            agent.close()


@pytest.fixture(scope="module")
def sending(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path) -> Iterator[Department]:
    yield from department(tmp_path_factory.mktemp("sending"), tiny_bundle)


@pytest.fixture(scope="module")
def forwarding(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path) -> Iterator[Department]:
    yield from department(tmp_path_factory.mktemp("forwarding"), tiny_bundle, FORWARD_EVERYTHING)


def test_orthanc_gets_report_and_heat_map_into_the_study_that_it_sent(sending: Department) -> None:
    uid = new_uid()
    films = [film(NOTHING, uid), film(LATERAL, uid, SeriesInstanceUID=new_uid())]
    names = {sending.pacs.upload(path) for path in write(sending.tmp / "films", *films)}
    (study,) = names
    sending.pacs.send_study(study)
    ended = sending.agent.wait_delivered(uid, "orthanc")
    assert ended["images"] == {"analysed": 1, "not_analysed": 1} and ended["state"] == "analysed"
    series = sending.pacs.series(study)
    assert len(series["SR"]) == len(series["OT"]) == 1
    assert {one["StudyInstanceUID"] for of_one in series.values() for one in of_one} == {uid}
    assert {one["PatientID"] for of_one in series.values() for one in of_one} == {"PH0001"}
    assert len(sending.pacs.get("/studies")) == 1, "nothing landed in a new study"
    assert series["SR"][0]["CompletionFlag"] == "COMPLETE"


def test_orthanc_sends_the_study_once_more_with_our_results_in_it_and_nothing_changes(sending: Department) -> None:
    (study,) = sending.pacs.get("/studies")
    uid = sending.pacs.get(f"/studies/{study}")["MainDicomTags"]["StudyInstanceUID"]
    sending.pacs.send_study(study)
    trail = sending.agent.study(uid)
    assert trail["revision"] == 1 and trail["state"] == "analysed"
    came_back = [event for event in trail["trail"] if event["what"] == "own result came back"]
    assert len(came_back) == 2 and trail["images"] == {"analysed": 1, "not_analysed": 1}


def test_an_orthanc_that_forwards_everything_to_us_makes_no_loop(forwarding: Department) -> None:
    uid = new_uid()
    (path,) = write(forwarding.tmp / "films", film(NOTHING, uid))
    study = forwarding.pacs.upload(path)
    forwarding.agent.wait_delivered(uid, "orthanc")

    def settled() -> bool:
        events = [event["what"] for event in forwarding.agent.study(uid)["trail"]]
        return events.count("own result came back") == 2

    wait_for(settled, "both results were forwarded to us")
    late = write(forwarding.tmp / "films", film(NOTHING, uid))
    forwarding.pacs.upload(*late)
    forwarding.agent.wait_ended(uid, revision=2)
    wait_for(
        lambda: all(job["State"] in ("Success", "Failure") for job in forwarding.pacs.get("/jobs?expand")),
        "Orthanc has forwarded all it had",
    )
    trail = forwarding.agent.wait_ended(uid, revision=2)
    assert trail["revision"] == 2, "results coming back reopen nothing"
    sent = sum(1 for one in trail["delivery_list"] if one["state"] == "delivered")
    assert trail["images"] == {"analysed": 2}
    held = forwarding.pacs.series(study)
    assert sum(len(of_one) for of_one in held.values()) == 2 + sent
    assert all(one["attempts"] == 1 for one in trail["delivery_list"])
