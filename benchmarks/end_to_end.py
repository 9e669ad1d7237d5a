"""The whole agent: films from the first byte to the acknowledged ORU and the stored report, on this machine.

    python -m benchmarks.end_to_end [--short] [--json FILE] [--megabytes 15]

A real agent with all its roles and its reading list, with the settings that ``firstread init`` gives but for a quiet
period of 0.5 s; DCMTK's storescp as PACS, light stand-ins as modality and RIS, all on this machine. Every film is a
study of its own: a native phantom of 3000 x 2460 pixels, 12 bits, with a pneumothorax. The network is the reference's
ResNet50 at 224 px with random weights (``--side 0``: the shipped bundle, which reads fewer pixels).

- burst: 200 films at once over 4 associations (60 with ``--short``): films/s from the first byte to the last
  acknowledgement, CPU seconds a film and share of a core for each role and each peer, and which one limits.
- latency, first byte to acknowledged ORU, for one idle film, and for films that arrive at random (Poisson) at 10, 50
  and 90 % of the rate reached.

Every acknowledgement, report and heat map is counted before a figure is printed. ``ratio``: the rate reached to
cores / (CPU seconds a film of all stages, peers included): 1 would be no waiting anywhere.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
from pydicom import dcmread

from benchmarks.harness import PeerMissing, WrongResult, arguments, machine, program, require
from benchmarks.standins import ACCESSION, INSTANCE, SERIES, STUDY, Standin, placeholder, uid
from firstread.models.bundle import load_bundle, reference_bundle
from firstread.models.phantoms.cohort import demo_cohort
from tests.models.tiny import make_tiny_bundle
from tests.system.agent import Agent
from tests.system.pacs import StoreScp, storescp

QUIET_PERIOD_S = 0.5
PATIENCE_S = 180.0
ASSOCIATIONS = 4
PNEUMOTHORAX = 21
GOALS = {"ratio": 0.85, "CPU s a film": 0.35, "idle, over the quiet period": 0.8, "p99 at half load, over it": 2.0}


def write_film(path: Path, megabytes: float) -> None:
    """The film that all others are made of: a phantom's pixels, identifiers of fixed length."""
    side = round(3000 * (megabytes / 14.76) ** 0.5)
    film = demo_cohort(now=datetime.now(), longest_side=side)[PNEUMOTHORAX].dataset()
    film.StudyInstanceUID, film.SeriesInstanceUID = placeholder(STUDY), placeholder(SERIES)
    film.SOPInstanceUID = film.file_meta.MediaStorageSOPInstanceUID = placeholder(INSTANCE)
    film.AccessionNumber = film.PatientID = ACCESSION
    film.save_as(path, enforce_file_format=True)


@dataclass(frozen=True)
class SentFilm:
    """Monotonic moments: its first byte was due, Success came, the RIS acknowledged its message."""

    due: float
    stored: float
    acknowledged: float


class Ward:
    """The agent with its peers, and what each of their processes has cost so far."""

    def __init__(self, agent: Agent, pacs: StoreScp, modality: Standin, ris: Standin) -> None:
        self.agent = agent
        self.pacs = pacs
        self._modality = modality
        self._ris = ris
        self._next = 1
        assert agent.process is not None
        assert pacs._process is not None
        supervisor = psutil.Process(agent.process.pid)
        self.processes = {"supervisor": supervisor, **agent.roles()}
        self.processes["PACS (storescp)"] = psutil.Process(pacs._process.pid)
        self.processes["modality"] = psutil.Process(modality.pid)
        self.processes["RIS"] = psutil.Process(ris.pid)

    def cpu_s(self) -> dict[str, float]:
        """CPU seconds of each process until now; the analyser's decoders are told apart from it."""
        found = {"decode": 0.0}
        for name, process in self.processes.items():
            own = process.cpu_times()
            found[name] = own.user + own.system
            if name != "supervisor":
                children = [_cpu_times(one) for one in process.children(recursive=True)]
                below = sum(each.user + each.system for each in children) + own.children_user + own.children_system
                found["decode" if name == "analyse" else name] += below
        return found

    def send(self, gaps_s: Sequence[float], associations: int = ASSOCIATIONS) -> dict[str, float]:
        """Sends a film after each gap; latency in seconds for each study, to its acknowledged ORU."""
        found = self.send_timed(gaps_s, associations)
        return {study: film.acknowledged - film.due for study, film in found.items()}

    def send_timed(self, gaps_s: Sequence[float], associations: int = ASSOCIATIONS) -> dict[str, SentFilm]:
        """Sends a film after each gap; what became of each study's.

        Raises WrongResult where a film was not stored or a study not acknowledged in time.
        """
        moment, moments = time.monotonic() + 0.2, []
        for gap in gaps_s:
            moment += gap
            moments.append(moment)
        first, self._next = self._next, self._next + len(moments)
        sent = self._modality.ask([first, moments, associations])
        require(all(one[3] == 0 for one in sent) and len(sent) == len(moments), "a film was not stored")
        due, stored = {one[0]: one[1] for one in sent}, {one[0]: one[2] for one in sent}
        deadline = time.monotonic() + PATIENCE_S
        while True:
            acknowledged: dict[str, float] = self._ris.ask("who?")
            missing = due.keys() - acknowledged.keys()
            if not missing:
                return {study: SentFilm(due[study], stored[study], acknowledged[study]) for study in due}
            if time.monotonic() > deadline:
                raise WrongResult(f"{len(missing)} of {len(due)} studies have no acknowledged ORU")
            time.sleep(0.25)

    def count_objects(self) -> None:
        """Raises WrongResult unless the PACS holds one report and one heat map of every study."""
        studies = {uid(STUDY, number) for number in range(1, self._next)}
        deadline = time.monotonic() + 60
        while len(list(self.pacs.folder.iterdir())) < 2 * len(studies) and time.monotonic() < deadline:
            time.sleep(0.25)
        kinds: dict[str, list[str]] = {}
        for path in self.pacs.folder.iterdir():
            held = dcmread(path, specific_tags=["StudyInstanceUID", "Modality"])
            kinds.setdefault(str(held.StudyInstanceUID), []).append(str(held.Modality))
        require(kinds.keys() == studies, f"the PACS has results of {len(kinds)} of {len(studies)} studies")
        require(all(sorted(each) == ["OT", "SR"] for each in kinds.values()), "a report or heat map is missing")


def bundle_of(folder: Path, side: int) -> Path | str:
    """A bundle of the reference's network with random weights that reads squares of that side; its name for 0."""
    if side == 0:
        return "reference"
    known = load_bundle(reference_bundle()).architecture
    network = {one.name: getattr(known, one.name) for one in fields(known) if one.name not in ("outputs", "input_size")}
    return make_tiny_bundle(folder / "bundle", input_size=side, **network)


def _cpu_times(process: psutil.Process) -> Any:
    return process.cpu_times()


@contextmanager
def ward(folder: Path, film: Path, bundle: Path | str = "reference", **sections: Any) -> Iterator[Ward]:
    """The agent, ready and warm, between its peers."""
    program("storescp", "dcmtk")
    ris = Standin("ris")
    with storescp(folder / "pacs") as pacs:
        settings = {
            "study": {"quiet_period_s": QUIET_PERIOD_S},
            "analysis": {"threads": os.cpu_count(), "decode_workers": 2, "device": "auto"},
            "worklist": {"enabled": True},
            "destinations": [
                pacs.destination,
                {"name": "ris", "type": "hl7", "host": "127.0.0.1", "port": ris.hello},
            ],
        }
        agent = Agent(folder / "agent", bundle=bundle, **(settings | sections))
        try:
            agent.start()
            agent.wait_all_roles()
            modality = Standin("modality", str(agent.dicom_port), str(film))
            try:
                made = Ward(agent, pacs, modality, ris)
                made.send([0.0] * 3)  # the model is loaded, connections are open
                yield made
            finally:
                modality.close()
        finally:
            agent.close()
            ris.close()


def percentile(values: Sequence[float], share: float) -> float:
    """By nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def spread(latencies: Sequence[float]) -> str:
    """Least, median, 90th and 99th percentile, most."""
    found = (min(latencies), statistics.median(latencies), percentile(latencies, 0.9), percentile(latencies, 0.99))
    return " | ".join(f"{value:.2f}" for value in (*found, max(latencies)))


def burst(one: Ward, films: int) -> dict[str, Any]:
    """Films/s and CPU seconds a film of every process."""
    before, machine_before = one.cpu_s(), psutil.cpu_times()
    began = time.monotonic() + 0.2
    latencies = one.send([0.0] * films)
    took = max(latencies.values())
    # what follows the last acknowledgement (the last objects to the PACS) belongs to these films too
    one.count_objects()
    settled = time.monotonic() - began
    after, machine_after = one.cpu_s(), psutil.cpu_times()
    cpu = {name: (after[name] - before[name]) / films for name in before}
    busy = _busy_s(machine_after) - _busy_s(machine_before)
    return {
        "films/s": films / took,
        "took_s": took,
        "CPU s a film": cpu,
        "films": films,
        "others_cores": max(0.0, busy - sum(cpu.values()) * films) / settled,
    }


def _busy_s(times: Any) -> float:
    """CPU seconds of the whole machine that were not idle."""
    return float(sum(times) - times.idle - times.iowait - times.guest - times.guest_nice)


def limiting(cpu: Mapping[str, float], rate: float) -> str:
    """Which stage holds up the others."""
    cores = os.cpu_count() or 1
    busy = sum(cpu.values()) * rate / cores
    name = max(cpu, key=lambda each: cpu[each])
    if busy >= 0.85:
        return f"the processors ({busy:.0%} busy), of which {name} takes {cpu[name] / sum(cpu.values()):.0%}"
    return f"{name} ({cpu[name] * rate:.2f} cores); the machine is {busy:.0%} busy"


def main() -> None:
    """Runs it."""
    parser = arguments(__doc__)
    parser.add_argument("--megabytes", type=float, default=15, help="size of a film")
    parser.add_argument("--films", type=int, help="films of the burst")
    parser.add_argument("--side", type=int, default=224, help="pixels of the network's input; 0: the shipped bundle")
    parser.add_argument("--no-load", action="store_true", help="the burst and idle films alone")
    try:
        measure(parser.parse_args())
    except PeerMissing as error:
        print(f"no ratio: {error}", file=sys.stderr)
        sys.exit(1)


def measure(asked: argparse.Namespace) -> None:
    """All phases, and the report of them."""
    films = asked.films or (60 if asked.short else 200)
    loads = {0.1: 6, 0.5: 40, 0.9: 60} if asked.short else {0.1: 40, 0.5: 300, 0.9: 400}
    if asked.no_load:
        loads = {}
    chance = random.Random(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        film = folder / "film.dcm"
        write_film(film, asked.megabytes)
        size = film.stat().st_size / 1e6
        with ward(folder, film, bundle_of(folder, asked.side)) as one:
            idle = [next(iter(one.send([1.0]).values())) for _ in range(5 if asked.short else 15)]
            found = burst(one, films)
            rate = found["films/s"]
            waits = {
                load: list(one.send([chance.expovariate(load * rate) for _ in range(count)], 8).values())
                for load, count in loads.items()
            }
            one.count_objects()
    where = machine("onnxruntime", "pydicom", "pynetdicom", "highdicom", "sqlalchemy")
    cpu: dict[str, float] = found["CPU s a film"]
    total = sum(cpu.values())
    cores = os.cpu_count() or 1
    side = asked.side or load_bundle(reference_bundle()).input_size
    print(
        f"{films} films of {size:.1f} MB at once, network at {side} px: {found['took_s']:.1f} s, {rate:.2f} films/s\n"
    )
    print("| stage | CPU s a film | of one core |\n|---|---|---|")
    for stage, spent in sorted(cpu.items(), key=lambda pair: -pair[1]):
        print(f"| {stage} | {spent:.3f} | {spent * rate:.0%} |")
    print(f"| together | {total:.3f} | {total * rate:.0%} |")
    print(f"\nWhat limits: {limiting(cpu, rate)}")
    others: float = found["others_cores"]
    print(f"Other work on the machine took {others:.2f} of its {cores} cores meanwhile: ", end="")
    print(f"of what was left, the rate is {rate * total / max(cores - others, 0.01):.0%}\n")
    print("Seconds from the first byte to the acknowledged ORU (quiet period 0.5 s):\n")
    print("| arrivals | films | least | median | 90 % | 99 % | most |\n|---|---|---|---|---|---|---|")
    print(f"| one idle film | {len(idle)} | {spread(idle)} |")
    for load, latencies in waits.items():
        print(f"| {load:.0%} of the rate | {len(latencies)} | {spread(latencies)} |")
    print(f"\n{where}")
    reached = {
        "ratio": rate / (cores / total),
        "CPU s a film": total,
        "idle, over the quiet period": statistics.median(idle) - QUIET_PERIOD_S,
    }
    if 0.5 in waits:
        reached["p99 at half load, over it"] = percentile(waits[0.5], 0.99) - QUIET_PERIOD_S
    for name, value in reached.items():
        print(f"{name}: {value:.2f}, goal {GOALS[name]}")
    if asked.json is not None:
        kept = {"machine": where, "burst": found, "idle": idle, "latency": waits, "reached": reached}
        asked.json.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    print(f"ratio: {reached['ratio']:.2f}")


if __name__ == "__main__":
    main()
