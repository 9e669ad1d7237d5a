"""Orthanc as the archive: its studies are analysed as trials, of which nothing leaves until one is really sent."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from firstread.agent.config_check import check
from firstread.agent.store import reading_list, trials
from firstread.agent.store.archive_tables import ArchiveState
from tests.system.agent import Agent, wait_for
from tests.system.films import NOTHING, PNEUMOTHORAX, film, new_uid, write
from tests.system.orthanc import AE_TITLE, Orthanc, orthanc

EVERYTHING_IS_STAT = {"use_experimental": True, "findings": {"Pneumothorax": {"threshold": 0.0, "priority": "STAT"}}}


@pytest.fixture
def house(tmp_path: Path, tiny_bundle: Path) -> Iterator[tuple[Agent, Orthanc]]:
    """An agent with its PACS, which is its archive as well, not started yet."""
    agent = Agent(
        tmp_path / "agent", bundle=tiny_bundle, triage=EVERYTHING_IS_STAT, study={"max_age_days": 7},
        worklist={"enabled": True},
    )  # fmt: skip
    with orthanc(tmp_path / "orthanc", agent.dicom_port, dicomweb={}) as pacs:
        agent.change(destinations=[pacs.destination])
        try:
            yield agent, pacs
        finally:
            agent.close()


def place(pacs: Orthanc, kind: str) -> dict[str, Any]:
    """The archive as [archive] names it."""
    if kind == "web":
        return {"url": pacs.dicomweb_url}
    return {"type": "dimse", "host": "127.0.0.1", "port": pacs.dicom_port, "ae_title": AE_TITLE, "retrieve": kind}


def shelve(pacs: Orthanc, folder: Path, *uids: str) -> list[str]:
    """Old studies reach the archive; answers with its names of them."""
    numbers = (NOTHING, PNEUMOTHORAX)
    made = [film(numbers[at % 2], uid, StudyDate="20250203") for at, uid in enumerate(uids)]
    return [pacs.upload(path) for path in write(folder, *made)]


def kill_in_the_middle(agent: Agent, *command: str) -> None:
    """The command is killed once it has fetched a study, while others wait."""

    def counts() -> dict[ArchiveState, int]:
        with agent.store() as store, store.read() as connection:
            return trials.counts(connection, 1)

    asking = agent.begin(*command)
    try:
        wait_for(lambda: counts()[ArchiveState.FETCHED], "a first study is fetched")
    finally:
        asking.kill()
        asking.wait()
    assert counts()[ArchiveState.WAITING], "the run had ended before the kill"


def kinds(pacs: Orthanc, name: str) -> set[str]:
    """Modalities of the series that a study has in the archive."""
    return set(pacs.series(name))


@pytest.mark.parametrize("kind", ["web", "get"])
def test_last_months_studies_are_trials_and_one_that_is_sent_is_reported(
    house: tuple[Agent, Orthanc], tmp_path: Path, kind: str
) -> None:
    agent, pacs = house
    agent.change(archive=place(pacs, kind))
    uids = [new_uid() for _ in range(3)]
    names = shelve(pacs, tmp_path / "films", *uids)
    agent.start()
    days = ("--from", "20250202", "--to", "20250204", "--per-hour", "36000")
    kill_in_the_middle(agent, "archive", "analyse", *days[:4], "--per-hour", "1200")
    said = agent.run("archive", "analyse", "--resume", "--per-hour", "36000")
    assert "fetched" in said.stdout and "failed" not in said.stdout, said.stdout + said.stderr
    rows = list(csv.DictReader(io.StringIO(agent.run("archive", "results", "1").stdout)))
    assert sorted(row["study_instance_uid"] for row in rows) == sorted(uids)
    assert {(row["outcome"], row["priority"]) for row in rows} == {("analysed", "STAT")}
    assert all(0 <= float(row["Pneumothorax"]) <= 1 for row in rows)

    # nothing has left: the archive is our PACS too, and would have got reports
    assert [kinds(pacs, name) for name in names] == [{"DX"}] * 3
    assert agent.outbox() == []
    with agent.store() as store, store.read() as connection:
        assert reading_list.open_entries(connection) == []

    # one of them is really sent: old, so that it is not analysed, and this time its report leaves
    pacs.send_study(names[0])
    agent.wait_delivered(uids[0], "orthanc")
    wait_for(lambda: "SR" in kinds(pacs, names[0]), "the report of the study that was sent")
    assert [kinds(pacs, name) for name in names[1:]] == [{"DX"}] * 2

    # a second run takes what lies here, and leaves alone what was really sent
    said = agent.run("archive", "analyse", *days)
    assert "here already" in said.stdout
    rows = list(csv.DictReader(io.StringIO(agent.run("archive", "results", "2").stdout)))
    assert {row["study_instance_uid"] for row in rows if row["outcome"] == "analysed"} == set(uids[1:])


@pytest.mark.parametrize("kind", ["web", "get", "move"])
def test_a_study_that_is_fetched_by_name_is_received_like_any_film(
    house: tuple[Agent, Orthanc], tmp_path: Path, kind: str
) -> None:
    agent, pacs = house
    agent.change(archive=place(pacs, kind), study={"max_age_days": 100_000})
    uid = new_uid()
    (name,) = shelve(pacs, tmp_path / "films", uid)
    agent.start()
    (line,) = [one for one in check(agent.settings) if one.subject == "[archive]"]
    assert line.ok and "answers" in line.text
    assert "1 films lie here" in agent.run("fetch", uid).stdout
    agent.wait_delivered(uid, "orthanc")
    assert {"DX", "SR"} <= kinds(pacs, name)
    missing = agent.run("fetch", new_uid(), code=1)
    assert "has no study" in missing.stderr
    if kind == "move":
        said = agent.run("archive", "analyse", "--from", "20250203", "--to", "20250203", "--per-hour", "36000")
        assert "here already" in said.stdout, "what was really sent is no trial"
