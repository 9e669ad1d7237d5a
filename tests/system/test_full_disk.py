"""A disk that is really full: films are refused for the moment, nothing is lost, and all goes on when there is room."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.agent import Agent, MakeAgent, wait_for
from tests.system.films import film, write
from tests.system.pacs import send
from tests.system.ris import Ris


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 32 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"no file system may be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(file: Path, leave: int) -> None:
    """Takes all the room but ``leave`` bytes."""
    with file.open("wb", buffering=0) as out, contextlib.suppress(OSError):
        while True:
            out.write(bytes(65536))
    assert shutil.disk_usage(file.parent).free < 65536
    os.truncate(file, max(0, file.stat().st_size - leave))


@pytest.fixture
def agent(small_disk: Path, make_agent: MakeAgent, his: Ris) -> Iterator[Agent]:
    made = make_agent(storage={"path": str(small_disk / "data")}, destinations=[his.destination])
    yield made.start()
    made.close()  # before the file system goes


def test_films_are_refused_while_the_disk_is_full_and_taken_when_there_is_room(
    agent: Agent, small_disk: Path, tmp_path: Path
) -> None:
    films = [film() for _ in range(4)]
    first, *others = write(tmp_path / "films", *films)
    send(agent.dicom_port, first)
    agent.wait_delivered(str(films[0].StudyInstanceUID), "ris")
    receiver = agent.roles()["receive"].pid
    filler = small_disk / "filler"
    fill(filler, leave=100_000)
    said = send(agent.dicom_port, *others, ok=False)
    assert "Success" not in said and "Refused: OutOfResources" in said.replace("Out of Resources", "OutOfResources")
    assert agent.roles()["receive"].pid == receiver, "the receiver lives on"
    assert [path for path in (agent.spool / "incoming").rglob("*") if path.is_file()] == []
    filler.unlink()
    wait_for(lambda: "with status SUCCESS  : 3" in send(agent.dicom_port, *others, ok=False), "the films are taken")
    for one in films:
        assert agent.wait_delivered(str(one.StudyInstanceUID), "ris")["state"] == "analysed"
    agent.wait_all_roles()


def test_below_its_reserve_the_agent_refuses_films_and_goes_on_with_what_it_has(
    small_disk: Path, make_agent: MakeAgent, his: Ris, tmp_path: Path
) -> None:
    agent = make_agent(
        storage={"path": str(small_disk / "data"), "reserve_mb": 8}, destinations=[his.destination]
    ).start()
    try:
        films = [film(), film()]
        paths = write(tmp_path / "films", *films)
        send(agent.dicom_port, paths[0])
        filler = small_disk / "filler"
        fill(filler, leave=6 << 20)
        said = send(agent.dicom_port, paths[1], ok=False)
        assert "Success" not in said
        agent.wait_delivered(str(films[0].StudyInstanceUID), "ris")
        alarm = wait_for(lambda: agent.alarms().get("disk"), "somebody is told of the disk")
        assert "the reserve is 8 MB: films are refused" in alarm.text and "free some disk" in alarm.remedy
        # Within the first second a film meets A700, after that the association is turned away for the moment.
        refused = [event.detail["status"] for event in agent.events("refused")]
        assert refused == ["A700"] or agent.events("association rejected")
        filler.unlink()
        wait_for(lambda: "Success" in send(agent.dicom_port, paths[1], ok=False), "the sender's retry is taken")
        assert agent.wait_delivered(str(films[1].StudyInstanceUID), "ris")["state"] == "analysed"
    finally:
        agent.close()
