"""One run: an agent as real processes, every edge in turn, and a look after each batch at whether it still lives."""

from __future__ import annotations

import hashlib
import platform
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import httpx

from firstread.integration.hl7.mllp import AckKind, MllpClient
from tests.faults.fuzz import material
from tests.faults.fuzz.edges import HANG_S, Edge, Found, Late, all_edges
from tests.integration.dicom_wire import Film, RawPeer
from tests.models.tiny import make_tiny_bundle
from tests.system.agent import Agent, psutil_gone, wait_for

BATCH = 600
"""Inputs between two looks, for the edge that gets most of them."""
AGAIN = 3
"""A machine that does other work stalls anybody for seconds; what an input stalls, it stalls every time."""

MEMORY_MB = 100.0
SETTLED_S = 90.0


class House:
    """The agent under attack."""

    def __init__(self, folder: Path) -> None:
        self.agent = Agent(
            folder / "agent",
            bundle=make_tiny_bundle(folder / "tiny"),
            worklist={"enabled": True},
            analysis={"film_timeout_s": 20, "max_attempts": 1},
            dicom={"maximum_associations": 100, "maximum_per_calling_ae": 100, "acse_timeout_s": 3},
        ).start()
        self.agent.wait_all_roles()
        self._at_work()
        self._settle()
        self._processes = self._pids()
        self._memory = self._resident_mb()

    def findings(self) -> list[str]:
        """What is wrong now: a role that is another process, or one that does not do its work."""
        found = []
        for name, pid in self._pids().items():
            if self._processes.get(name) != pid:
                found.append(f"role {name} died")
        self._processes = self._pids()
        for what, works in (("C-STORE", self._stores), ("HL7", self._takes_messages), ("HTTP", self._answers)):
            began = time.monotonic()
            try:
                fine = works()
            except Exception as error:
                found.append(f"{what}: {type(error).__name__}: {error}")
                continue
            if not fine or time.monotonic() - began > HANG_S:
                found.append(f"{what}: well-formed work got {fine} after {time.monotonic() - began:.1f} s")
        return found

    def memory_growth_mb(self) -> dict[str, float]:
        """By role, since the start, when what was sent has been worked off."""
        self._settle()
        return self.memory_growth_now_mb()

    def memory_growth_now_mb(self) -> dict[str, float]:
        """By role, since the start, in the middle of work."""
        now = self._resident_mb()
        return {name: round(now[name] - before, 1) for name, before in self._memory.items() if name in now}

    def close(self) -> None:
        """Ends it."""
        self.agent.close()

    def _at_work(self) -> None:
        """Every role has done its work once: what is loaded at the first page or film is no growth."""
        self._stores()
        self._takes_messages()
        for path in ("/", "/off", "/system", "/metrics"):
            httpx.get(f"http://127.0.0.1:{self.agent.web_port}{path}", timeout=30)

    def _settle(self) -> None:
        def idle() -> bool:
            queue = self.agent.health()["queue"]["images"]
            return not queue.get("waiting") and not queue.get("analysing")

        wait_for(idle, "what was sent is worked off", SETTLED_S * 4)

    def _pids(self) -> dict[str, int]:
        return {name: role.pid for name, role in self.agent.roles().items()}

    def _resident_mb(self) -> dict[str, float]:
        found = {}
        for name, role in self.agent.roles().items():
            with psutil_gone():
                found[name] = role.memory_info().rss / 1e6
        return found

    def _stores(self) -> bool:
        """A film is taken in time, as a sender sees it: who is refused for the moment comes again."""
        deadline = time.monotonic() + HANG_S
        while True:
            try:
                return self._stores_once()
            except Found:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def _stores_once(self) -> bool:
        with RawPeer(("127.0.0.1", self.agent.dicom_port), timeout_s=HANG_S) as peer:
            kind, answer = peer.associate()
            if kind != 2:
                raise Found(f"the association was answered by PDU {kind} {answer[:4].hex()}")
            status, comment = peer.store(Film())
            if status != 0:
                raise Found(f"the film was answered {status:04X} {comment}")
            return peer.release() == 6

    def _takes_messages(self) -> bool:
        control_id = f"OK{time.time_ns() % 10**12}"
        with MllpClient("127.0.0.1", self.agent.mllp_port, 5.0, HANG_S) as client:
            message = material.ORDER.replace(b"|M1|", f"|{control_id}|".encode())
            return client.send(message, control_id).kind is AckKind.DELIVERED

    def _answers(self) -> bool:
        return httpx.get(f"http://127.0.0.1:{self.agent.web_port}/health", timeout=HANG_S).status_code == 200


def run(
    folder: Path,
    seconds: float,
    inputs: int,
    seed: int,
    wanted: Sequence[str] | None,
    keep: Path,
    *,
    batch: int = BATCH,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Plays until the time or the inputs are over; the log, with every finding and where its input was kept."""
    house = House(folder)
    edges: list[Edge] = []
    counts: Counter[str] = Counter()
    took: defaultdict[str, float] = defaultdict(float)
    findings: list[str] = []
    peak: dict[str, float] = {}
    began = time.monotonic()
    try:
        sent, answered, film = material.captures(house.agent.dicom_port, folder / "captured")
        edges = [each for each in all_edges(house.agent, sent, answered, film) if not wanted or each.name in wanted]
        turn = 0
        while time.monotonic() - began < seconds and sum(counts.values()) < inputs:
            turn += 1
            for edge in edges:
                left = min(max(1, batch * edge.weight // 20), inputs - sum(counts.values()))
                random = Random(f"{seed}/{edge.name}/{turn}")
                made = [edge.make(random) for _ in range(left)]
                counts[edge.name] += len(made)
                before = time.monotonic()
                broken = _tried(edge, made)
                took[edge.name] += time.monotonic() - before
                findings += [_kept(keep, edge.name, what, content) for what, content in broken]
                if edge.real:
                    for what in house.findings():
                        findings.append(f"after turn {turn} of {edge.name} (seed {seed}): {what}")
                if time.monotonic() - began > seconds:
                    break
            peak = {name: max(mb, peak.get(name, 0.0)) for name, mb in house.memory_growth_now_mb().items()}
            say(f"{sum(counts.values())} inputs, {time.monotonic() - began:.0f} s, {len(findings)} findings")
        growth = house.memory_growth_mb()
        findings += [f"role {name} holds {mb:.0f} MB more" for name, mb in growth.items() if mb > MEMORY_MB]
        contained = sum(getattr(edge, "contained", 0) for edge in edges)
    finally:
        for edge in edges:
            edge.close()
        house.close()
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "seed": seed,
        "seconds": round(time.monotonic() - began),
        "inputs": sum(counts.values()),
        "by_edge": {
            edge.name: {
                "inputs": counts[edge.name],
                "seconds": round(took[edge.name]),
                "into_a_running_role": edge.real,
            }
            for edge in edges
        },
        "late_once": sum(edge.late for edge in edges),
        "readers_of_films_that_died_of_one": contained,
        "memory_growth_mb": growth,
        "memory_growth_between_turns_mb": peak,
        "findings": findings,
    }


def replay(folder: Path, path: Path) -> dict[str, Any]:
    """Tries one kept input at its edge."""
    name, content = path.name.split("--")[0].replace("-", " "), path.read_bytes()
    house = House(folder)
    try:
        sent, answered, film = material.captures(house.agent.dicom_port, folder / "captured")
        edges = {each.name: each for each in all_edges(house.agent, sent, answered, film)}
        findings = [what for what, _ in _tried(edges[name], [content])] + house.findings()
        for edge in edges.values():
            edge.close()
    finally:
        house.close()
    return {"input": path.name, "findings": findings}


def _tried(edge: Edge, made: Sequence[bytes]) -> list[tuple[str, bytes]]:
    """Gives the inputs to the edge; what was found, with its input."""

    def one(content: bytes) -> str:
        try:
            try:
                edge.try_(content)
            except Late:
                late.append(content)
        except Found as found:
            return str(found)
        except ConnectionRefusedError:
            return "nobody listens"
        except Exception as error:
            return f"{type(error).__name__}: {error} ({traceback.extract_tb(error.__traceback__)[-1].name})"
        return ""

    late: list[bytes] = []
    with ThreadPoolExecutor(edge.at_once) as pool:
        words = list(pool.map(one, made))
    edge.late += len(late)
    for content in late:
        words[made.index(content)] = _alone(edge, content)
    return [(what, content) for what, content in zip(words, made, strict=True) if what]


def _alone(edge: Edge, content: bytes) -> str:
    """What is found when a late input is tried alone; empty as soon as it is in time."""
    said = ""
    for _ in range(AGAIN):
        time.sleep(1.0)
        try:
            edge.try_(content)
        except Late as late:
            said = f"{late}, and so each of {AGAIN} times that it was tried alone"
        except Found as found:
            return str(found)
        else:
            return ""
    return said


def _kept(folder: Path, edge: str, what: str, content: bytes) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{edge.replace(' ', '-')}--{hashlib.sha256(content).hexdigest()[:12]}.bin"
    path.write_bytes(content)
    return f"{edge}: {what} ({path})"
