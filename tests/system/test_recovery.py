"""The commands of docs/recovery.md, taken from the page and run on a real agent: every film comes back."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from firstread.agent.inspection import inspect
from firstread.agent.store.migrate import schema_version
from tests.models.tiny import make_tiny_bundle
from tests.system.agent import Agent, environment
from tests.system.films import film, write
from tests.system.pacs import send
from tests.system.ways import bring

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parents[2] / "docs" / "recovery.md"
BACKUP = "/backup/2026-03-01"


def blocks(heading: str) -> list[list[str]]:
    """The commands below a heading of the page, block by block."""
    (section,) = re.findall(rf"(?ms)^## {heading}\n(.*?)(?=^## |\Z)", PAGE.read_text(encoding="utf-8"))
    return [block.splitlines() for block in re.findall(r"(?ms)^```sh\n(.*?)^```", section)]


@dataclass
class Hospital:
    """A machine with the agent, a scanner, and a place for backups."""

    agent: Agent
    folder: Path
    before: Path
    after: Path
    """A film of before and one of after the backup, as the scanner has them."""

    def do(self, lines: list[str], agent: Agent | None = None) -> str:
        """Runs lines of the page, in a shell that stops at the first that fails; answers what they said."""
        agent, said, script = agent or self.agent, [], []
        for line in [*lines, "systemctl end"]:
            if not line.startswith("systemctl "):
                script.append(line)
                continue
            said.append(self._shell(agent, script))
            script = []
            if line == "systemctl start firstread":
                agent.start()
            elif line == "systemctl stop firstread" and agent.process is not None and agent.process.poll() is None:
                assert agent.stop() == 0
        return "\n".join(said)

    def _shell(self, agent: Agent, script: list[str]) -> str:
        text = "\n".join(script).replace("/var/lib/firstread", str(agent.spool))
        text = text.replace("/backup/", f"{self.folder / 'backup'}/")
        programs = self.folder / "bin"
        programs.mkdir(exist_ok=True)
        (programs / "firstread").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m firstread.agent.cli "$@"\n')
        (programs / "firstread").chmod(0o755)
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text],
            env={
                **environment(),
                "FIRSTREAD_CONFIG": str(agent.config),
                "PATH": f"{programs}:{os.environ['PATH']}",
            },
            capture_output=True,
            text=True,
            timeout=300,
            cwd=self.folder,
        )
        assert done.returncode == 0, (
            text,
            done.stdout,
            done.stderr,
            agent.log.read_text()[-2000:] if agent.log.exists() else "",
        )
        return done.stdout

    def study(self, path: Path) -> str:
        """The study of a film."""
        return path.stem.split("-")[0]

    def must_know(self, *films: Path, agent: Agent | None = None) -> None:
        """Every film is analysed, and its file is there bit for bit."""
        agent = agent or self.agent
        for path in films:
            agent.wait_ended(self.study(path), delivered=False)
        with agent.store() as store:
            found = inspect(agent.settings, store, settled_s=-1)
        assert found.faults == () and not [name for name in found.unlisted if name.startswith("films")]
        assert found.films == len(films)


@pytest.fixture(scope="module")
def yesterday(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospital]:
    """An agent that has taken a film by C-STORE, was backed up as the page says, has taken one by STOW-RS, and was
    stopped."""
    folder = tmp_path_factory.mktemp("hospital")
    (folder / "backup").mkdir()
    agent = Agent(folder / "agent", bundle=make_tiny_bundle(folder / "tiny"))
    paths = []
    for name in ("before", "after"):
        dataset = film()
        (written,) = write(folder / name, dataset)
        paths.append(written.rename(written.with_name(f"{dataset.StudyInstanceUID}-{name}.dcm")))
    hospital = Hospital(agent, folder, *paths)
    try:
        agent.start()
        bring(agent, "dimse", [hospital.before])
        agent.wait_ended(hospital.study(hospital.before), delivered=False)
        hospital.do(blocks("Every night")[0])
        bring(agent, "dicomweb", [hospital.after])
        agent.wait_ended(hospital.study(hospital.after), delivered=False)
        agent.stop()
        yield hospital
    finally:
        agent.close()


@pytest.fixture
def hospital(yesterday: Hospital, tmp_path: Path) -> Iterator[Hospital]:
    """The same, for one disaster."""
    shutil.copytree(yesterday.folder / "backup", tmp_path / "backup")
    shutil.copytree(yesterday.agent.spool, tmp_path / "agent" / "data")
    agent = Agent(tmp_path / "agent", bundle=yesterday.folder / "tiny")
    yield Hospital(agent, tmp_path, yesterday.before, yesterday.after)
    agent.close()


def test_after_the_loss_of_the_disk_the_backup_and_the_pacs_bring_everything_back(hospital: Hospital) -> None:
    for path in hospital.agent.spool.glob("films/*"):
        shutil.rmtree(path)
    (hospital.agent.spool / "firstread.sqlite3").write_bytes(b"half of it")
    (commands,) = blocks("The disk is lost")
    hospital.do(commands)
    assert (hospital.folder / "backup" / "left-over" / "firstread.sqlite3").read_bytes() == b"half of it"
    hospital.must_know(hospital.before)
    for path in (hospital.before, hospital.after):  # "an hour more rather than less"
        send(hospital.agent.dicom_port, path)
    hospital.must_know(hospital.before, hospital.after)


def test_after_damage_to_the_database_the_films_of_today_come_back_from_the_folder(hospital: Hospital) -> None:
    database = hospital.agent.spool / "firstread.sqlite3"
    content = bytearray(database.read_bytes())
    content[0:4096] = os.urandom(4096)
    database.write_bytes(content)
    assert "cannot be used" in hospital.agent.run("studies", code=1).stderr
    (commands,) = blocks("The database is damaged")
    hospital.do(commands)
    hospital.must_know(hospital.before, hospital.after)


def test_after_a_loss_of_films_the_backup_brings_back_what_it_has_and_the_pacs_the_rest(hospital: Hospital) -> None:
    shutil.rmtree(hospital.agent.spool / "films")
    hospital.agent.start()
    (commands,) = blocks("Films are lost")
    said = hospital.do(commands)
    last = said[said.rindex("were compared") :]
    assert hospital.study(hospital.after) in last and hospital.study(hospital.before) not in last
    send(hospital.agent.dicom_port, hospital.after)
    hospital.must_know(hospital.before, hospital.after)


def test_another_machine_goes_on_where_the_old_one_stopped(hospital: Hospital) -> None:
    new = Agent(hospital.folder / "new", bundle=hospital.agent.values["analysis"]["bundle"])
    old, there = blocks("Another machine")
    hospital.agent.start()
    try:
        hospital.do(old)
        hospital.do(there, new)
        hospital.must_know(hospital.before, hospital.after, agent=new)
    finally:
        new.close()


def test_the_older_release_goes_on_from_the_copy_and_gets_what_the_newer_one_received(hospital: Hospital) -> None:
    spool = hospital.agent.spool
    with hospital.agent.store() as store:
        version = schema_version(store)
        with store.write() as connection:
            connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    # The copy that an upgrade makes: the database of before, under this release's version.
    shutil.copy(
        hospital.folder / "backup" / "2026-03-01" / "firstread.sqlite3",
        spool / f"firstread.sqlite3.{version}.20260301T120000.copy",
    )
    assert "schema version 9999" in hospital.agent.run("run", code=1).stderr
    (commands,) = blocks("The wrong release")
    hospital.do(commands)
    hospital.must_know(hospital.before, hospital.after)


def test_every_disaster_of_the_page_is_played() -> None:
    headings = re.findall(r"(?m)^## (.*)$", PAGE.read_text(encoding="utf-8"))
    source = Path(__file__).read_text(encoding="utf-8")
    assert [heading for heading in headings if f'blocks("{heading}")' not in source] == []
