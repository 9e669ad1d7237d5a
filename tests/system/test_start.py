"""What keeps the agent from starting is a sentence that says what to do, and an exit code."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.models.tiny import make_tiny_bundle
from tests.system.agent import MakeAgent, wait_for
from tests.system.films import film, write
from tests.system.pacs import destination, send
from tests.system.ris import Ris


def refusal(agent, code: int, *arguments: str) -> str:
    """What ``firstread run`` says when it does not start."""
    done = agent.run("run", *arguments, code=code)
    assert "Traceback" not in done.stderr + done.stdout
    return done.stderr


def test_two_destinations_of_one_name_are_refused(make_agent: MakeAgent) -> None:
    agent = make_agent(destinations=[destination(104, "pacs"), destination(105, "PACS")])
    assert "2 [[destinations]] are named 'pacs': give each its own name" in refusal(agent, 2)


def test_a_folder_that_cannot_be_written_is_refused(make_agent: MakeAgent, tmp_path: Path) -> None:
    blocked = tmp_path / "blocked"
    blocked.write_text("a file, where a folder is wanted")
    agent = make_agent(storage={"path": str(blocked / "data")})
    said = refusal(agent, 1)
    assert f"the spool {blocked / 'data'} cannot be written" in said and "set another [storage] path" in said


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_write_access_is_refused(make_agent: MakeAgent, tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    assert "give its owner write access" in refusal(make_agent(storage={"path": str(locked / "data")}), 1)


def test_a_schema_of_a_newer_release_is_refused_and_left_alone(make_agent: MakeAgent) -> None:
    agent = make_agent()
    agent.run("db", "upgrade")
    with agent.store() as store, store.write() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    said = refusal(agent, 1)
    assert "schema version 9999" in said and "start the release that made it" in said
    assert agent.roles_left() == []
    assert "schema version 9999" in refusal(agent, 1, "--role", "analyse")


def test_a_role_alone_wants_the_schema_made_first(make_agent: MakeAgent) -> None:
    assert "run `firstread db upgrade`" in refusal(make_agent(), 1, "--role", "deliver")
    assert "use receive" in refusal(make_agent("other"), 2, "--role", "reception")


def test_a_database_that_cannot_be_reached_is_named_without_its_password(make_agent: MakeAgent) -> None:
    agent = make_agent(database={"url": "postgresql+psycopg://firstread:topsecret@127.0.0.1:1/nowhere"})
    said = refusal(agent, 1)
    assert "the database cannot be used" in said
    assert "topsecret" not in said + agent.run("config", "check", code=1).stdout


def test_settings_that_are_missing_or_misspelt_are_exit_code_2(make_agent: MakeAgent) -> None:
    agent = make_agent(dicom={"prot": 104})
    assert "port" in refusal(agent, 2)
    agent.config.unlink()
    assert "firstread init" in refusal(agent, 2)


def test_films_are_received_while_there_is_no_model_and_analysed_when_it_is_put_right(
    make_agent: MakeAgent, his: Ris, tmp_path: Path
) -> None:
    bundle = tmp_path / "bundle"
    agent = make_agent(bundle=bundle, destinations=[his.destination]).start()
    one = film()
    send(agent.dicom_port, *write(tmp_path / "films", one))
    uid = str(one.StudyInstanceUID)
    alarm = wait_for(lambda: agent.alarms().get("model"), "somebody is told")
    assert str(bundle) in alarm.text and "films wait" in alarm.remedy
    study = agent.study(uid)
    assert study["state"] == "receiving" and study["images"] == {"waiting": 1} and his.received == []
    assert agent.ready and agent.health()["problems"] == []
    whole = make_tiny_bundle(tmp_path / "elsewhere")
    weights = whole / "weights.safetensors"
    shutil.copytree(whole, bundle)
    (bundle / weights.name).write_bytes(weights.read_bytes()[:-1] + b"\x00")
    alarm = wait_for(
        lambda: (found := agent.alarms().get("model")) and "weights" in found.text and found, "the wrong hash is told"
    )
    assert agent.study(uid)["images"] == {"waiting": 1}
    shutil.copy(weights, bundle)
    study = agent.wait_delivered(uid, "ris")
    assert study["state"] == "analysed"
    assert "model" not in agent.alarms()
