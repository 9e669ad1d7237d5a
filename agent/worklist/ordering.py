"""The order of the reading list: priority, then waiting time, and nothing waits for ever.

Five levels, the first read first:

1. STAT, ordered or raised by a result;
2. what has waited so long that only a STAT may go before it, in the order in which it rose;
3. URGENT;
4. ROUTINE that waited longer than its longest wait, in the order in which it rose;
5. ROUTINE.

A study rises one level when its wait passes the longest wait of its priority, and once more when it also passes the
longest wait of the priority it rose beside. So a routine study stands behind at most the STAT studies and those that
rose before it, once it has waited for the longest waits of ROUTINE and URGENT together. It never rises above STAT: a
night's backlog of routine films must not stand before a tension pneumothorax.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum

from firstread.models.prediction import Priority


class Level(IntEnum):
    """Where on the list a study stands; a smaller value is read earlier."""

    STAT = 1
    ROSE_TO_STAT = 2
    URGENT = 3
    ROSE_TO_URGENT = 4
    ROUTINE = 5


@dataclass(frozen=True)
class Entry:
    """What the order depends on. ``ordered``, ``result``: None where neither an order nor a result said anything.

    ``result_reason``: what the result says of its priority: ``raised: above 0.60``, ``kept from revision 1``.
    """

    key: int
    arrived_at: datetime
    ordered: Priority | None = None
    result: Priority | None = None
    result_reason: str = ""

    @property
    def priority(self) -> Priority:
        """The highest of what was ordered and what the result asks for."""
        return max(self.ordered or Priority.ROUTINE, self.result or Priority.ROUTINE)


@dataclass(frozen=True)
class Placed:
    """An entry in its place: ``rank`` counts from 1. ``why``: the words that explain the place.

    ``waited``: it rose because of its wait. ``overdue``: it waits longer than its priority may, whether or not that
    moves it (a STAT has nowhere to rise).
    """

    entry: Entry
    rank: int
    level: Level
    priority: Priority
    why: str
    waited: bool = False
    overdue: bool = False


def order(entries: Sequence[Entry], now: datetime, longest_wait: Mapping[Priority, timedelta]) -> list[Placed]:
    """The reading list: every entry exactly once, the one to read first at the front.

    ``longest_wait``: for each priority; what has waited longer rises (module docstring). The order is total: equal
    levels stand by the time since which they stand there, then by arrival, then by key.
    """
    judged = [(_level(entry, now, longest_wait), entry) for entry in entries]
    judged.sort(key=lambda pair: (pair[0].level, pair[0].since, pair[1].arrived_at, pair[1].key))
    return [
        Placed(
            entry=entry,
            rank=rank,
            level=standing.level,
            priority=entry.priority,
            why=_why(entry, standing, longest_wait),
            waited=standing.waited,
            overdue=now - entry.arrived_at >= longest_wait[entry.priority],
        )
        for rank, (standing, entry) in enumerate(judged, start=1)
    ]


def in_order_of_arrival(entries: Sequence[Entry]) -> list[Entry]:
    """The list as it would stand without priorities: first come, first read."""
    return sorted(entries, key=lambda entry: (entry.arrived_at, entry.key))


def next_change(entries: Sequence[Entry], now: datetime, longest_wait: Mapping[Priority, timedelta]) -> datetime | None:
    """When the order changes next by waiting alone; None when it does not."""
    moments = []
    for entry in entries:
        limit = entry.arrived_at + longest_wait[entry.priority]
        moments.append(limit)
        if entry.priority is Priority.ROUTINE:
            moments.append(limit + longest_wait[Priority.URGENT])
    return min((moment for moment in moments if moment > now), default=None)


@dataclass(frozen=True)
class _Standing:
    level: Level
    since: datetime
    waited: bool


def _level(entry: Entry, now: datetime, longest_wait: Mapping[Priority, timedelta]) -> _Standing:
    own = {Priority.STAT: Level.STAT, Priority.URGENT: Level.URGENT, Priority.ROUTINE: Level.ROUTINE}[entry.priority]
    standing = _Standing(own, entry.arrived_at, waited=False)
    if entry.priority is Priority.STAT:
        return standing
    rises_at = entry.arrived_at + longest_wait[entry.priority]
    if entry.priority is Priority.ROUTINE:
        if now >= rises_at:
            standing = _Standing(Level.ROSE_TO_URGENT, rises_at, waited=True)
        rises_at += longest_wait[Priority.URGENT]
    if now >= rises_at:
        standing = _Standing(Level.ROSE_TO_STAT, rises_at, waited=True)
    return standing


def _why(entry: Entry, standing: _Standing, longest_wait: Mapping[Priority, timedelta]) -> str:
    if standing.waited:
        limit = longest_wait[entry.priority]
        if standing.level is Level.ROSE_TO_STAT and entry.priority is Priority.ROUTINE:
            limit += longest_wait[Priority.URGENT]
        return f"rose: waited over {duration(limit)}"
    if entry.priority is Priority.ROUTINE:
        return "by arrival"
    if entry.ordered == entry.priority:
        return f"ordered {entry.priority.name}"
    return entry.result_reason or "raised by its result"


def duration(wait: timedelta) -> str:
    """``45 min``, ``2 h``, ``2 h 05 min``."""
    hours, minutes = divmod(round(wait.total_seconds() / 60), 60)
    if hours < 2 and (minutes or not hours):
        return f"{hours * 60 + minutes} min"
    return f"{hours} h {minutes:02d} min" if minutes else f"{hours} h"
