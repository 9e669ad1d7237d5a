"""Processes that die, are killed, stopped or started twice: nothing that was acknowledged is lost."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from pathlib import Path

import psutil
import pytest

from firstread.agent.service import LONGEST_PAUSE_S, STEADY_S, pause_after
from tests.system import ris as ris_module
from tests.system.agent import Agent, MakeAgent, psutil_gone, wait_for
from tests.system.films import film, write
from tests.system.pacs import StoreScp, send
from tests.system.ris import Ris, value


class Scanner:
    """Sends films one after the other, each until it is acknowledged, while a test does harm."""

    def __init__(self, agent: Agent, folder: Path, count: int) -> None:
        self._agent = agent
        self._films = [film() for _ in range(count)]
        self._paths = write(folder, *self._films)
        self.acknowledged: list[str] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._given_up = threading.Event()

    def _run(self) -> None:
        for one, path in zip(self._films, self._paths, strict=True):
            while not self._given_up.is_set():
                if "with status SUCCESS  : 1" in send(self._agent.dicom_port, path, ok=False):
                    self.acknowledged.append(str(one.StudyInstanceUID))
                    break
                time.sleep(0.1)

    def start(self) -> Scanner:
        self._thread.start()
        return self

    def wait_for(self, count: int) -> None:
        wait_for(lambda: len(self.acknowledged) >= count, f"{count} films are acknowledged")

    def finish(self) -> list[str]:
        self._thread.join(120)
        assert not self._thread.is_alive()
        return self.acknowledged

    def give_up(self) -> list[str]:
        self._given_up.set()
        return self.finish()


def test_every_role_is_killed_while_films_flow_and_every_acknowledged_film_comes_to_its_end(
    make_agent: MakeAgent, pacs: StoreScp, his: Ris, tmp_path: Path
) -> None:
    agent = make_agent(destinations=[pacs.destination, his.destination]).start()
    roles = ("receive", "analyse", "studies", "deliver", "web")
    scanner = Scanner(agent, tmp_path / "films", 2 * len(roles)).start()
    for number, role in enumerate(roles):
        scanner.wait_for(2 * number + 1)
        killed = agent.kill_role(role)
        agent.wait_restarted(role, killed)
    for uid in scanner.finish():
        study = agent.wait_delivered(uid, "pacs", "ris")
        assert study["state"] == "analysed" and len(study["image_list"]) == 1
        assert len({value(one, "MSH", 10) for one in his.about(uid)}) == study["revision"]
    assert {event.detail["name"] for event in agent.events("role died")} == set(roles)
    agent.wait_all_roles()


def test_a_role_that_dies_young_is_started_after_ever_longer_pauses_and_soon_enough_to_receive_again() -> None:
    pauses = [0.0]
    for _ in range(20):
        pauses.append(pause_after(pauses[-1], lived_s=1.0))
    assert pauses[1:4] == [0.2, 0.4, 0.8]
    assert pauses[-1] == LONGEST_PAUSE_S < 10.0 / 2  # the rest is for the start itself
    assert pause_after(LONGEST_PAUSE_S, STEADY_S + 1) == 0.0


def test_a_deliverer_killed_before_the_answer_came_sends_the_same_message_again_at_once(
    make_agent: MakeAgent, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        agent = make_agent(destinations=[ris_module.destination(port, answer_timeout_s=600)]).start()
        one = film()
        send(agent.dicom_port, *write(tmp_path / "films", one))
        silent.settimeout(60)
        connection, _ = silent.accept()
        with connection:
            connection.settimeout(60)
            assert connection.recv(16)
            agent.kill_role("deliver")
    peer = Ris(port=port)
    try:
        study = agent.wait_delivered(str(one.StudyInstanceUID), "ris")  # its lease would have lasted for ten minutes
        (delivery,) = study["delivery_list"]
        assert [value(message, "MSH", 10) for message in peer.received] == [delivery["identity"]]
        assert delivery["attempts"] == 2
        assert "delivery lease freed" in [event["what"] for event in study["trail"]]
    finally:
        peer.close()


def test_an_analyser_killed_in_the_middle_of_a_film_loses_its_lease_at_once(
    make_agent: MakeAgent, tmp_path: Path
) -> None:
    agent = make_agent().start()
    first = film()
    send(agent.dicom_port, *write(tmp_path / "films", first))
    agent.wait_ended(str(first.StudyInstanceUID))

    def decoders() -> list[psutil.Process]:
        return [one for one in agent.roles()["analyse"].children() if "spawn_main" in " ".join(one.cmdline())]

    (decoder,) = decoders()
    decoder.suspend()
    one = film()
    send(agent.dicom_port, *write(tmp_path / "films", one))
    uid = str(one.StudyInstanceUID)
    wait_for(lambda: agent.study(uid).get("images") == {"analysing": 1}, "the film is being analysed")
    agent.kill_role("analyse")
    study = agent.wait_ended(uid)
    assert study["state"] == "analysed"
    (failed,) = [event for event in study["trail"] if event["what"] == "attempt failed"]
    assert failed["detail"]["error"] == "its analyser stopped in the middle of it"
    wait_for(lambda: not decoder.is_running() or decoder.status() == psutil.STATUS_ZOMBIE, "its decoder ended with it")


def test_sigterm_ends_the_agent_gracefully_while_films_flow_and_the_next_start_goes_on(
    make_agent: MakeAgent, his: Ris, tmp_path: Path
) -> None:
    agent = make_agent(destinations=[his.destination]).start()
    scanner = Scanner(agent, tmp_path / "films", 30).start()
    scanner.wait_for(5)
    agent.wait_all_roles()
    began = time.monotonic()
    assert agent.stop(signal.SIGTERM) == 0
    assert time.monotonic() - began < 30
    assert agent.log.read_text().count('"event": "stopped"') == 5, "every role ended by itself"
    assert "killed" not in agent.log.read_text()
    acknowledged = scanner.give_up()
    trails = agent.trails()
    assert set(acknowledged) <= set(trails)
    assert not {"analysing", "sending"} & {
        state for one in trails.values() for state in (*one["images"], *one["deliveries"])
    }
    agent.start()
    for uid in acknowledged:
        agent.wait_delivered(uid, "ris")


def test_a_machine_that_goes_dark_loses_nothing_acknowledged_and_goes_on_at_once(
    make_agent: MakeAgent, his: Ris, tmp_path: Path
) -> None:
    agent = make_agent(destinations=[his.destination]).start()
    scanner = Scanner(agent, tmp_path / "films", 30).start()
    scanner.wait_for(5)
    agent.kill()
    acknowledged = scanner.give_up()
    agent.start()
    for uid in acknowledged:
        study = agent.wait_delivered(uid, "ris")
        assert study["state"] == "analysed"
    incoming = agent.spool / "incoming"
    assert [path for path in incoming.rglob("*") if path.is_file()] == [], "half-received files are swept"


def test_roles_end_with_their_supervisor(make_agent: MakeAgent) -> None:
    agent = make_agent().start()
    agent.wait_all_roles()
    roles = agent.roles()
    assert agent.process is not None
    os.kill(agent.process.pid, signal.SIGKILL)
    agent.process.wait(10)
    gone, alive = psutil.wait_procs(roles.values(), timeout=60)
    for one in alive:
        with psutil_gone():
            one.kill()
    assert len(gone) == 5


@pytest.mark.parametrize("shared", ["[storage] path", "[dicom] port", "[web] port", "[worklist] mllp_port"])
def test_a_second_agent_is_refused_with_exit_code_3_and_the_first_one_goes_on(
    make_agent: MakeAgent, running: Agent, shared: str
) -> None:
    second = make_agent("second", worklist={"enabled": True})
    first = running.values
    if shared == "[storage] path":
        second.change(storage=first["storage"])
    else:
        section, key = shared.strip("[").split("] ")
        second.change(**{section: {key: first[section][key]}})
    done = second.run("run", code=3)
    assert ("another agent" in done.stderr) if shared == "[storage] path" else (f"set another {shared}" in done.stderr)
    assert "Traceback" not in done.stderr
    assert running.ready and running.process is not None and running.process.poll() is None


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path):
    """An agent that holds its spool and ports."""
    agent = Agent(tmp_path_factory.mktemp("first") / "agent", bundle=tiny_bundle, worklist={"enabled": True})
    try:
        yield agent.start()
    finally:
        agent.close()
