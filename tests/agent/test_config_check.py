"""``firstread config check``: what the settings name is asked, and nothing is changed by asking."""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from firstread.agent.config import Settings, load_settings
from firstread.agent.config_check import CheckLine, Level, check, problems
from firstread.agent.store.engine import Store
from firstread.agent.store.migrate import upgrade
from tests.peers import free_port, require_peer


def settings_for(folder: Path, more: str = "", **environ: str) -> Settings:
    path = folder / "site.toml"
    path.write_text(
        f'[dicom]\nhost = "127.0.0.1"\nport = {free_port()}\n[web]\nport = {free_port()}\n'
        f'[worklist]\nmllp_port = {free_port()}\n[storage]\npath = "spool"\nreserve_mb = 1\n{more}'
    )
    return load_settings(path, environ)


def line(settings: Settings, subject: str) -> CheckLine:
    return next(each for each in check(settings) if each.subject == subject)


@pytest.fixture
def mllp_port() -> Iterator[int]:
    """A port that takes connections."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_agent_that_was_never_started_is_fit_and_nothing_is_made_by_asking(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    lines = check(settings)
    assert [each.text for each in problems(lines) if each.subject != "[analysis] bundle"] == []
    assert {each.subject for each in lines} >= {"[storage] path", "[database] url", "[dicom] port", "worklist"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["site.toml"]


def test_storage_below_its_reserve_is_a_problem(tmp_path: Path) -> None:
    settings = settings_for(tmp_path, FIRSTREAD_STORAGE__RESERVE_MB="1000000000")
    answer = line(settings, "[storage] path")
    assert answer.level is Level.PROBLEM
    assert "every film would be refused" in answer.text


def test_storage_that_is_no_folder_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "spool").write_text("a file where the folder should be")
    answer = line(settings_for(tmp_path), "[storage] path")
    assert answer.level is Level.PROBLEM
    assert "cannot be written" in answer.text


def test_storage_of_another_user_is_noted(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may give a folder away")
    (tmp_path / "spool").mkdir()
    os.chown(tmp_path / "spool", 12345, -1)
    answer = line(settings_for(tmp_path), "[storage] path")
    assert answer.level is Level.NOTE
    assert "belongs to user 12345" in answer.text


def test_database_says_which_schema_it_has(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    settings.spool.mkdir()
    store = Store(settings.database_url)
    upgrade(store)
    store.close()
    answer = line(settings, "[database] url")
    assert answer.ok
    assert "schema 0" in answer.text


def test_database_that_cannot_be_reached_is_a_problem_without_its_password(tmp_path: Path) -> None:
    url = f"postgresql+psycopg://agent:hunter2@127.0.0.1:{free_port()}/firstread"
    answer = line(settings_for(tmp_path, FIRSTREAD_DATABASE__URL=url), "[database] url")
    assert answer.level is Level.PROBLEM
    assert "hunter2" not in answer.text


def test_database_on_postgresql_is_asked(tmp_path: Path, postgres_url: str) -> None:
    answer = line(settings_for(tmp_path, FIRSTREAD_DATABASE__URL=postgres_url), "[database] url")
    assert answer.ok
    assert "is empty: tables are made when the agent starts" in answer.text


def test_missing_bundle_is_a_problem(tmp_path: Path) -> None:
    answer = line(settings_for(tmp_path, FIRSTREAD_ANALYSIS__BUNDLE=str(tmp_path / "none")), "[analysis] bundle")
    assert answer.level is Level.PROBLEM
    assert "there is no folder" in answer.text


def test_spellings_that_cannot_be_used_are_a_problem(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('[words]\nelbow = ["x"]\n')
    answer = line(settings_for(tmp_path, '[study]\neligibility_file = "mine.toml"\n'), "[study] eligibility_file")
    assert answer.level is Level.PROBLEM
    assert "elbow" in answer.text


def test_port_in_use_is_a_problem_unless_the_agent_itself_uses_it(tmp_path: Path, mllp_port: int) -> None:
    settings = settings_for(tmp_path, FIRSTREAD_WEB__PORT=str(mllp_port))
    assert "stop what uses it" in line(settings, "[web] port").text
    settings.spool.mkdir()
    with (settings.spool / "agent.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        answer = line(settings, "[web] port")
    assert answer.ok
    assert "an agent runs on this spool" in answer.text


def test_destination_that_answers_is_told_from_one_that_does_not(tmp_path: Path, mllp_port: int) -> None:
    ris = '[[destinations]]\nname = "{}"\ntype = "hl7"\nhost = "127.0.0.1"\nport = {}\nhold = true\n'
    settings = settings_for(tmp_path, ris.format("RIS", mllp_port) + ris.format("GONE", free_port()))
    answers = {each.subject: each for each in check(settings)}
    assert answers["RIS"].ok
    assert "on hold" in answers["RIS"].text
    assert not answers["GONE"].ok
    assert "nothing listens on" in answers["GONE"].text


def test_pacs_is_asked_by_c_echo(tmp_path: Path) -> None:
    port = free_port()
    pacs = f'[[destinations]]\nname = "PACS"\ntype = "dicom"\nhost = "127.0.0.1"\nport = {port}\nae_title = "PACS"\n'
    settings = settings_for(tmp_path, pacs)
    assert not line(settings, "PACS").ok
    process = subprocess.Popen([require_peer("storescp"), "--ignore", "-aet", "PACS", str(port)])
    try:
        deadline = time.monotonic() + 10
        while not (answer := line(settings, "PACS")).ok and time.monotonic() < deadline:
            time.sleep(0.1)
    finally:
        process.terminate()
        process.wait()
    assert answer.ok, answer.text


def test_tls_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    pacs = '[[destinations]]\nname = "PACS"\ntype = "dicom"\nhost = "127.0.0.1"\nport = 104\nae_title = "PACS"\n'
    answer = line(settings_for(tmp_path, pacs + 'tls = true\ntls_ca_file = "none.pem"\n'), "PACS")
    assert answer.level is Level.PROBLEM
    assert "[[destinations]] PACS tls_ca_file" in answer.text and "No such file" in answer.text
