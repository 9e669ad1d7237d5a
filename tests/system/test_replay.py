"""Doing it once more: a new revision that says so, or the same bytes again; and what a replay would change."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import dcmread

from tests.models.tiny import make_tiny_bundle
from tests.peers import require_peer
from tests.system.agent import Agent, wait_for
from tests.system.films import film, write
from tests.system.pacs import StoreScp, send, storescp
from tests.system.ris import Ris, ris, value
from tests.system.ways import WAYS_OUT, Receiver, StowPacs, stow_pacs

EVERYTHING_IS_STAT = {"use_experimental": True, "findings": {"Pneumothorax": {"threshold": 0.0, "priority": "STAT"}}}
NOTHING_RAISES = {"findings": {"Pneumothorax": {"priority": "none"}, "Pneumonia": {"priority": "none"}}}


class Archive:
    """An agent with one analysed study, its PACS by DIMSE and by DICOMweb, its RIS, and another bundle."""

    def __init__(self, agent: Agent, pacs: StoreScp, web: StowPacs, his: Ris, tmp: Path) -> None:
        self.agent, self.pacs, self.his = agent, pacs, his
        self.archives: dict[str, Receiver] = {"pacs": pacs, "web": web}
        self.other_bundle = make_tiny_bundle(tmp / "other", seed=8, version="0.0.2")
        one = film()
        self.uid, self.accession = str(one.StudyInstanceUID), str(one.AccessionNumber)
        send(agent.dicom_port, *write(tmp / "films", one))
        agent.wait_delivered(self.uid, "pacs", "web", "ris")

    def replay(self, *arguments: str, code: int = 0) -> str:
        """``firstread replay``."""
        return self.agent.run("replay", *arguments, code=code).stdout


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path) -> Iterator[Archive]:
    tmp = tmp_path_factory.mktemp("archive")
    with storescp(tmp / "pacs") as pacs, stow_pacs(tmp / "web") as web, ris() as his:
        agent = Agent(
            tmp / "agent",
            bundle=tiny_bundle,
            triage=EVERYTHING_IS_STAT,
            destinations=[pacs.destination, web.destination, his.destination],
        )
        try:
            yield Archive(agent.start(), pacs, web, his, tmp)
        finally:
            agent.close()


def test_a_dry_run_prints_the_differences_and_changes_nothing(archive: Archive) -> None:
    before, received = archive.agent.study(archive.uid), archive.pacs.receptions()
    said = archive.replay(archive.accession, "--bundle", str(archive.other_bundle), "--dry-run")
    assert "model tiny 0.0.1 -> tiny 0.0.2" in said and " -> " in said.split("0.0.2", 1)[1]
    same = archive.replay(archive.uid, "--dry-run")
    assert "nothing a reader would see" in same
    would = archive.replay(archive.uid, "--from", "deliver", "--dry-run")
    assert would.count("would send") == 5
    assert archive.agent.study(archive.uid) == before
    assert (archive.pacs.receptions(), len(archive.his.received)) == (received, 1)


@WAYS_OUT
def test_delivering_again_sends_the_same_bytes_under_the_same_uids(archive: Archive, to: str) -> None:
    receiver = archive.archives[to]
    messages = len(archive.his.about(archive.uid))
    files = {path.name: path.read_bytes() for path in receiver.paths(archive.uid)}
    assert len(files) == 2
    for path in receiver.paths(archive.uid):
        path.unlink()
    assert archive.replay(archive.uid, "--from", "deliver").count("sends ") == 5
    study = archive.agent.wait_delivered(archive.uid, "pacs", "web", "ris")
    assert {path.name: path.read_bytes() for path in receiver.paths(archive.uid)} == files
    first, *_, last = archive.his.about(archive.uid)
    assert len(archive.his.about(archive.uid)) == messages + 1 and str(first) == str(last)
    assert study["revision"] == 1


def test_delivering_again_to_one_destination_leaves_the_others_alone(archive: Archive) -> None:
    objects, messages = archive.pacs.receptions(), len(archive.his.received)
    archive.replay(archive.uid, "--from", "deliver", "--to", "ris")
    wait_for(lambda: len(archive.his.received) == messages + 1, "the message came again")
    archive.agent.wait_delivered(archive.uid, "pacs", "ris")
    assert archive.pacs.receptions() == objects


def test_analysing_again_makes_a_revision_that_says_so_and_whose_priority_does_not_fall(archive: Archive) -> None:
    agent = archive.agent
    assert agent.study(archive.uid)["result"]["priority"] == "STAT"
    assert agent.stop() == 0
    agent.change(triage={**NOTHING_RAISES, "use_experimental": False})
    agent.start()
    bundle = str(archive.other_bundle)
    said = archive.replay(archive.uid, "--bundle", bundle, "--why", "the old model was retired")
    assert "revision 2: 1 images are analysed again" in said
    study = agent.wait_delivered(archive.uid, "pacs", "web", "ris", revision=2)
    result = study["result"]
    assert (study["revision"], result["model"], result["priority"]) == (2, "tiny 0.0.2", "STAT")
    assert "kept from revision 1" in result["priority_reason"]
    sent = {name: [str(one.SOPInstanceUID) for one in of.objects(archive.uid)] for name, of in archive.archives.items()}
    assert len(sent["pacs"]) == 4 and sent["web"] == sent["pacs"], "both ways out carry the same objects"
    newest = [path for path in archive.pacs.paths(archive.uid) if dcmread(path).Modality == "SR"]
    dumps = [subprocess.run([require_peer("dsrdump"), "+Pl", str(path)], capture_output=True, text=True).stdout
             for path in sorted(newest, key=lambda path: int(dcmread(path).InstanceNumber))]  # fmt: skip
    assert "Replayed" not in dumps[0] and "Replayed with model other: the old model was retired" in dumps[1]
    messages = archive.his.about(archive.uid)
    assert value(messages[-1], "TQ1", 9) == "S" and value(messages[-1], "MSH", 10) != value(messages[0], "MSH", 10)


def test_replays_that_mean_nothing_are_refused_with_their_exit_code(archive: Archive) -> None:
    run = archive.agent.run
    assert "say which studies" in run("replay", code=2).stderr
    assert "no destination 'nobody'" in run("replay", archive.uid, "--from", "deliver", "--to", "nobody", code=2).stderr
    assert "--bundle goes with" in run("replay", archive.uid, "--from", "deliver", "--bundle", "x", code=2).stderr
    assert "no study 1.2.3.4" in run("replay", "1.2.3.4", code=1).stderr
    assert "no study is meant by that" in run("replay", "--accession", "NONE").stdout
    missing = run("replay", archive.uid, "--bundle", str(archive.other_bundle / "none"), code=1).stderr
    assert "none" in missing and "Traceback" not in missing


def test_a_replay_by_model_version_and_date_finds_its_studies(archive: Archive) -> None:
    found = archive.agent.json("replay", "--model", "0.0.2", "--since", "20200101", "--from", "deliver", "--dry-run")
    assert [one["study_instance_uid"] for one in found] == [archive.uid]
    assert archive.agent.json("replay", "--model", "9.9.9", "--from", "deliver", "--dry-run") == []


def test_what_a_film_s_owner_may_ask_is_printed(archive: Archive) -> None:
    run = archive.agent.run
    assert "Imaging Measurement Report" in run("sr", archive.accession, "--dump").stdout
    assert Path(run("sr", archive.uid).stdout.strip().splitlines()[-1]).is_file()
    frozen, built = run("oru", archive.uid).stdout, run("oru", archive.uid, "--dry-run").stdout
    assert frozen.startswith("MSH|") and built.startswith("MSH|") and "ORU^R01^ORU_R01" in frozen
    trail = run("study", archive.accession).stdout
    assert "revision 2" in trail and "kept from revision 1" in trail


def test_echo_and_send_speak_to_this_agent_as_a_scanner_would(archive: Archive, tmp_path: Path) -> None:
    assert "127.0.0.1" in archive.agent.run("echo").stdout
    one = film()
    said = archive.agent.run("send", str(write(tmp_path, one)[0])).stdout
    assert said
    archive.agent.wait_ended(str(one.StudyInstanceUID))
    assert "Traceback" not in archive.agent.run("echo", "--port", "1", code=1).stderr
