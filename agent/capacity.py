"""What one machine carries: stages with measured CPU seconds, a busiest hour, and the wait that comes of both.

A film passes the stages one after the other. All share the machine's cores (M/G/c with c cores and the sum of their
CPU seconds); besides, a stage that is one process with Python in it never has more than one core (M/G/1 each). Films
come at random (Poisson) at the rate of the day's busiest hour. With a GPU the network leaves the cores and is a queue
of its own. The wait told is the sum of the waits of the machine and of its narrowest stage: an upper bound, since both
count the same films. Formulas and their sources: :mod:`firstread.agent.queueing`.

What the model leaves out: the disk, PostgreSQL on another machine, and bursts sharper than Poisson, as when a whole
ward's films are pushed at once.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from firstread.agent.queueing import mean_wait_s, wait_percentile_s

SPREADING = frozenset({"decode"})
"""Stages that are several processes, as many as are wanted."""
NETWORK = "analyse"
"""The stage that a GPU takes over; it runs on several cores by threads of its own."""

MEASURED_ON = "x86_64 AMD EPYC, 2 cores, 2026-11-26"
MEASURED: Mapping[str, float] = {
    "receive": 0.041,
    "decode": 0.036,
    "analyse": 0.155,
    "studies": 0.074,
    "deliver": 0.046,
    "web": 0.007,
}
"""CPU seconds a film: ``benchmarks.end_to_end --short``, native films of 15 MB, ResNet50 at 224 px, no peers."""

PEAK_SHARE = 0.12
"""Of the day's films in its busiest hour: half as many again as if they came evenly over twelve hours."""
CV2 = 0.25
"""Squared coefficient of variation of a film's service time: films of one department differ by half of their mean."""
MOST_BUSY = 0.8
"""Up to this utilisation a machine is said to carry its films: beyond, waits grow steeply with every film more."""


@dataclass(frozen=True)
class Carried:
    """What a machine of ``cores`` does with ``films_per_day``.

    ``utilisation`` of the busiest resource, named ``limit``; waits in seconds in the busiest hour, infinite where more
    comes than goes. ``most_films_per_day``: at MOST_BUSY of that resource. ``machines``: how many are needed.
    """

    cores: int
    gpu: bool
    films_per_day: float
    utilisation: float
    limit: str
    mean_wait_s: float
    p99_wait_s: float
    work_s: float
    most_films_per_day: float
    machines: int


def carried(
    films_per_day: float,
    cores: int,
    *,
    stages: Mapping[str, float] = MEASURED,
    gpu_films_per_s: float | None = None,
    peak_share: float = PEAK_SHARE,
    cv2: float = CV2,
) -> Carried:
    """What one machine does with so many films a day. ``stages``: CPU seconds a film.

    Raises ValueError for less than a film a day, a core, or shares that are none.
    """
    if films_per_day <= 0 or cores < 1 or not 0 < peak_share <= 1 or cv2 < 0 or not stages:
        raise ValueError("films, cores, stages and the peak's share are more than nothing, the share at most 1")
    if min(stages.values()) < 0 or sum(stages.values()) <= 0 or (gpu_films_per_s or 1.0) <= 0:
        raise ValueError("seconds of a stage are not below nothing, and together more than nothing")
    rate = films_per_day * peak_share / 3600
    on_cores = {name: spent for name, spent in stages.items() if gpu_films_per_s is None or name != NETWORK}
    stations = {f"the {cores} cores" if cores > 1 else "the core": (sum(on_cores.values()), cores)}
    for name, spent in on_cores.items():
        if name not in SPREADING and name != NETWORK:
            stations[f"{name} (one process)"] = (spent, 1)
    if gpu_films_per_s is not None:
        stations["the GPU"] = (1 / gpu_films_per_s, 1)
    busy = {name: rate * spent / servers for name, (spent, servers) in stations.items()}
    limit = max(busy, key=lambda name: busy[name])
    machine, *others = stations.values()
    narrowest = max(others, key=lambda station: station[0]) if others else (0.0, 1)
    per_machine = films_per_day * MOST_BUSY / busy[limit]
    return Carried(
        cores=cores,
        gpu=gpu_films_per_s is not None,
        films_per_day=films_per_day,
        utilisation=busy[limit],
        limit=limit,
        mean_wait_s=sum(mean_wait_s(rate, spent, servers, cv2) for spent, servers in (machine, narrowest)),
        p99_wait_s=sum(wait_percentile_s(0.99, rate, spent, servers, cv2) for spent, servers in (machine, narrowest)),
        work_s=sum(on_cores.values()) + (1 / gpu_films_per_s if gpu_films_per_s is not None else 0.0),
        most_films_per_day=per_machine,
        machines=max(1, math.ceil(films_per_day / per_machine - 1e-9)),
    )


def measured_stages(file: Path) -> Mapping[str, float]:
    """CPU seconds a film from what ``benchmarks.end_to_end --json`` wrote. Raises ValueError where it is not that."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))["burst"]["CPU s a film"]
        stages = {name: float(found[name]) for name in MEASURED}
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ValueError(f"{file} is no result of `python -m benchmarks.end_to_end --json FILE`: {error}") from error
    return stages
