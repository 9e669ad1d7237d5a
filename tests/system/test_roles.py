"""Roles started one by one, as on several machines, and the whole chain on PostgreSQL."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from firstread.agent.roles import ANALYSE_NICE
from tests.system.agent import Agent, MakeAgent, environment, wait_for
from tests.system.films import LATERAL, NOTHING, film, new_uid, write
from tests.system.pacs import StoreScp, send
from tests.system.ris import Ris, value


@contextmanager
def roles(agent: Agent, *names: str) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """``firstread run --role NAME`` for each, ended gracefully."""
    running: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for number, name in enumerate(names):
            with (agent.folder / f"{name}-{number}.log").open("wb") as log:
                running[f"{name} {number}"] = subprocess.Popen(
                    [sys.executable, "-m", "firstread.agent.cli", "run", "--role", name, "-c", str(agent.config)],
                    stdout=log, stderr=log, env=environment(),
                )  # fmt: skip
        yield running
    finally:
        for one in running.values():
            one.send_signal(signal.SIGTERM)
        for one in running.values():
            one.wait(60)


@pytest.fixture(params=["sqlite", "postgresql"])
def site(request: pytest.FixtureRequest, make_agent: MakeAgent, pacs: StoreScp, his: Ris) -> Agent:
    """An agent's settings on either database, nothing started."""
    agent = make_agent(destinations=[pacs.destination, his.destination], worklist={"enabled": True})
    if request.param == "postgresql":
        agent.change(database={"url": request.getfixturevalue("postgres_url")})
    return agent


def test_roles_that_run_one_by_one_do_the_whole_work_and_several_analysers_share_it(
    site: Agent, pacs: StoreScp, his: Ris, tmp_path: Path
) -> None:
    site.run("db", "upgrade")
    with roles(site, "receive", "web", "analyse", "analyse", "studies", "deliver") as running:
        site.wait_all_roles()
        usual, yields = os.nice(0), min(os.nice(0) + ANALYSE_NICE, 19)
        nice = {name: os.getpriority(os.PRIO_PROCESS, one.pid) for name, one in running.items()}
        assert nice == {name: yields if name.startswith("analyse") else usual for name in running}
        assert "another agent" in site.run("run", code=3).stderr, "all roles beside single ones"
        films = [film(number, new_uid()) for number in (NOTHING, NOTHING, LATERAL, NOTHING)]
        send(site.dicom_port, *write(tmp_path / "films", *films))
        for one in films:
            study = site.wait_delivered(str(one.StudyInstanceUID), "pacs", "ris", "worklist")
            claims = [event for event in study["trail"] if event["what"] == "claimed"]
            assert len(claims) == 1, "no film is analysed twice"
            assert len({value(message, "MSH", 10) for message in his.about(str(one.StudyInstanceUID))}) == 1
        assert {one["result"]["reason_code"] for one in site.trails().values()} == {None, "LATERAL_VIEW"}
    assert {name: one.returncode for name, one in running.items()} == dict.fromkeys(running, 0)


def test_the_supervised_agent_does_the_whole_chain_on_postgresql_and_frees_what_a_dead_role_held(
    make_agent: MakeAgent, pacs: StoreScp, his: Ris, tmp_path: Path, postgres_url: str
) -> None:
    agent = make_agent(destinations=[pacs.destination, his.destination], database={"url": postgres_url}).start()
    films = [film() for _ in range(6)]
    paths = write(tmp_path / "films", *films)
    send(agent.dicom_port, *paths[:3])
    killed = agent.kill_role("analyse")
    send(agent.dicom_port, *paths[3:])
    agent.wait_restarted("analyse", killed)
    for one in films:
        study = agent.wait_delivered(str(one.StudyInstanceUID), "pacs", "ris")
        assert study["state"] == "analysed" and study["revision"] == 1
    listed = agent.studies("--state", "analysed")
    assert {one["study_instance_uid"] for one in listed} == {str(one.StudyInstanceUID) for one in films}
    assert "firstread.sqlite3" not in {path.name for path in agent.spool.iterdir()}
    wait_for(lambda: agent.health()["problems"] == [], "every role lives")
    assert agent.stop() == 0
