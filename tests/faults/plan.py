"""What one round does: drawn from its seed alone, so that a round that failed can be played again."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from random import Random
from typing import Any

from firstread.agent.crashpoints import POINTS
from tests.faults.receivers import Pacs, Ris

ROLES = ("receive", "analyse", "studies", "deliver", "web")
WINDOW_S = 4.0
"""Faults begin within so long after the first film was sent."""


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong, ``at_s`` after the round's beginning."""

    kind: str
    at_s: float
    detail: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        words = " ".join(f"{key}={value}" for key, value in self.detail.items())
        return f"{self.at_s:.1f}s {self.kind} {words}".strip()


@dataclass(frozen=True)
class StudyPlan:
    """One study: how many films, and what is odd about its sending."""

    films: int
    after_s: float
    dies_in: int | None = None
    """The sender dies in the middle of this film and comes back."""
    twice: bool = False
    """Two senders send it at once."""
    late_after_s: float | None = None
    """Another film comes so much later."""
    deadly: str = ""
    """One more film that kills who reads it."""


@dataclass(frozen=True)
class Round:
    """A round as it was drawn."""

    number: int
    studies: tuple[StudyPlan, ...]
    faults: tuple[Fault, ...]

    def as_json(self) -> dict[str, Any]:
        """For the log of a campaign."""
        return {
            "round": self.number,
            "studies": [asdict(one) for one in self.studies],
            "faults": list(map(str, self.faults)),
        }


def draw(seed: int, number: int) -> Round:
    """Round ``number`` of a seed."""
    random = Random(f"{seed}/{number}")
    studies = tuple(_study(random) for _ in range(random.randint(2, 4)))
    kinds = list(_KINDS)
    faults: list[Fault] = []
    for _ in range(random.randint(2, 5)):
        kind = random.choices(kinds, [_KINDS[each] for each in kinds])[0]
        if kind in _ALONE:
            kinds = [each for each in kinds if each not in _ALONE]
        latest = WINDOW_S / 4 if kind == "crash at" else WINDOW_S
        faults.append(Fault(kind, round(random.uniform(0.0, latest), 1), _detail(kind, random)))
    # Drawn last: rounds of campaigns that were played before it was thought of have the faults that their logs tell of.
    if random.random() < 0.15 and not any(one.kind in _ALONE for one in faults):
        kind = "crash before fsync"
        faults.append(Fault(kind, round(random.uniform(0.0, WINDOW_S / 2), 1), _detail(kind, random)))
    return Round(number, studies, tuple(sorted(faults, key=lambda one: one.at_s)))


_KINDS = {
    "kill role": 4,
    "kill all": 2,
    "kill supervisor": 1,
    "crash at": 6,
    "stop role": 2,
    "pacs misbehaves": 4,
    "ris misbehaves": 4,
    "pacs down": 1,
    "ris down": 1,
    "disk full": 2,
    "read-only": 1,
    "fsync fails": 2,
    "database fails": 2,
    "database locked": 2,
    "clock jumps": 1,
}
"""Kinds and how often each is drawn."""

_ALONE = ("kill all", "kill supervisor", "disk full", "read-only", "fsync fails", "crash before fsync", "clock jumps")
"""At most one of these in a round: two would hide each other."""


def _detail(kind: str, random: Random) -> dict[str, Any]:
    seconds = round(random.uniform(0.5, 3.0), 1)
    if kind == "kill role":
        return {"role": random.choice(ROLES)}
    if kind == "crash at":
        return {"point": random.choice(list(POINTS)), "count": random.choice((1, 1, 2, 3))}
    if kind == "stop role":
        return {"role": random.choice(ROLES), "seconds": round(random.uniform(1.0, 6.0), 1)}
    if kind == "pacs misbehaves":
        return {"ways": random.choices(Pacs.WAYS, k=random.randint(1, 3))}
    if kind == "ris misbehaves":
        return {"ways": random.choices(Ris.WAYS, k=random.randint(1, 3))}
    if kind == "crash before fsync":
        return {"role": random.choice(("receive", "receive", "studies"))}
    if kind == "fsync fails":
        return {
            "error": random.choice(("EIO", "ENOSPC")),
            "role": random.choice(("receive", "studies")),
            "seconds": seconds,
        }
    if kind == "database fails":
        call = random.choice(("fdatasync,fsync:error=EIO", "pwrite64:error=ENOSPC", "pwrite64:error=EIO"))
        return {
            "role": random.choice(ROLES),
            "call": f"{call}:when={random.randint(1, 4)}{random.choice(('', '+'))}",
            "seconds": seconds,
        }
    if kind == "clock jumps":
        return {"seconds_off": random.choice((-86400, -3600, 3600, 400 * 86400)), "seconds": seconds}
    if kind in ("disk full", "read-only", "database locked", "pacs down", "ris down"):
        return {"seconds": seconds}
    return {}


def _study(random: Random) -> StudyPlan:
    odd = random.random()
    films = random.randint(1, 3)
    after_s = round(random.uniform(0.0, WINDOW_S), 1)
    if odd < 0.15:
        return StudyPlan(films, after_s, dies_in=random.randrange(films))
    if odd < 0.3:
        return StudyPlan(films, after_s, twice=True)
    if odd < 0.55:
        return StudyPlan(films, after_s, late_after_s=round(random.uniform(0.5, 4.0), 1))
    if odd < 0.65:
        return StudyPlan(films, after_s, deadly="SEGV")
    if odd < 0.68:
        return StudyPlan(films, after_s, deadly="KILL")
    return StudyPlan(films, after_s)
