"""The reading list as it stands now, computed once for everybody who looks: rows, both orders, and the facts on top."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from firstread.agent import clock
from firstread.agent.clock import Moment
from firstread.agent.config import Settings
from firstread.agent.store import overview as stand
from firstread.agent.store import reading_list
from firstread.agent.store.engine import Store
from firstread.agent.store.reading_list import ListedStudy
from firstread.agent.web.links import Link, links, worst
from firstread.agent.web.rows import RowView, ordering_entry, row_view
from firstread.agent.worklist.ordering import Placed, duration, in_order_of_arrival, next_change, order
from firstread.models.prediction import Priority

LONGEST_S = 5.0
"""So old may a snapshot be though nothing happened: links go stale by silence."""

SHARE = 4
"""Computing takes no more than one part in so many of the time, however busy the list is."""


@dataclass(frozen=True)
class Snapshot:
    """One look. ``rows`` in reading order; ``arrival``: ids in order of arrival. ``mark``: the last event in it."""

    generation: int
    mark: int
    at: datetime
    rows: tuple[RowView, ...]
    arrival: tuple[int, ...]
    ordered_only: tuple[ListedStudy, ...]
    links: tuple[Link, ...]
    oldest: datetime | None
    signatures: Mapping[int, str] = field(repr=False)

    @property
    def trouble(self) -> Link | None:
        """The worst of the links, None when all are up."""
        return worst(self.links)

    def why_empty(self) -> str:
        """Why nothing stands on the list."""
        if self.trouble is not None:
            return f"No study is waiting, but {self.trouble.name} has a problem: {self.trouble.words}."
        received = next((link for link in self.links if link.name == "PACS in"), None)
        if received is not None and received.last is None:
            return "No film has been received yet. Send one to this agent and it appears here."
        return "Every study that was received has been reported or taken off the list."


def longest_waits(settings: Settings) -> dict[Priority, timedelta]:
    """The site's longest waits, as the ordering wants them."""
    limits = settings.worklist.longest_wait_min
    return {priority: timedelta(minutes=getattr(limits, priority.name)) for priority in Priority}


def wait_limits(settings: Settings) -> str:
    """``STAT 30 min, URGENT 2 h, ROUTINE 8 h``"""
    limits = longest_waits(settings)
    return ", ".join(f"{priority.name} {duration(limits[priority])}" for priority in sorted(limits, reverse=True))


class Board:
    """Keeps the newest snapshot. Safe to use from several threads."""

    def __init__(self, settings: Settings, store: Store, now: Callable[[], Moment] = clock.now) -> None:
        self._settings = settings
        self._store = store
        self._now = now
        self._limits = longest_waits(settings)
        self._lock = threading.Lock()
        self._snapshot: Snapshot | None = None
        self._due: datetime | None = None
        self._made_s = 0.0
        self._cost_s = 0.0
        self._listed: dict[int, ListedStudy] = {}
        self._rows: dict[int, tuple[ListedStudy, Placed, RowView, str]] = {}

    def current(self, *, patient: bool = False) -> Snapshot:
        """The list as it stands. ``patient``: a little later is soon enough (the live feed on a busy list)."""
        now = self._now()
        with self._store.read() as connection:
            mark = reading_list.change_mark(connection)
        kept = self._snapshot
        if kept is not None and self._still_good(kept, mark, now, patient):
            return kept
        with self._lock:
            kept = self._snapshot
            if kept is not None and self._still_good(kept, mark, now, patient):
                return kept
            began = time.monotonic()
            self._snapshot = self._look(now, kept)
            self._made_s = time.monotonic()
            self._cost_s = self._made_s - began
            return self._snapshot

    def refresh(self) -> Snapshot:
        """Looks anew, whatever is kept."""
        with self._lock:
            self._snapshot = self._look(self._now(), self._snapshot)
            return self._snapshot

    def _still_good(self, kept: Snapshot, mark: int, now: Moment, patient: bool) -> bool:
        age_s = time.monotonic() - self._made_s
        if patient and age_s < SHARE * self._cost_s:
            return True
        if kept.mark != mark or (self._due is not None and now.at >= self._due):
            return False
        return age_s < LONGEST_S

    def _look(self, now: Moment, before: Snapshot | None) -> Snapshot:
        settings = self._settings
        names = [one.name for one in settings.all_destinations]
        held = [one.name for one in settings.all_destinations if one.hold]
        with self._store.read() as connection:
            mark = reading_list.change_mark(connection)
            listed = reading_list.open_entries(connection, self._listed) if settings.worklist.enabled else []
            facts = stand.overview(connection, names, held, now)
        self._listed = {one.id: one for one in listed}
        readable = {one.id: one for one in listed if one.readable}
        entries = [ordering_entry(one) for one in readable.values()]
        self._due = next_change(entries, now.at, self._limits)
        self._rows = {
            placed.entry.key: self._row(readable[placed.entry.key], placed)
            for placed in order(entries, now.at, self._limits)
        }
        arrival = tuple(entry.key for entry in in_order_of_arrival(entries))
        found = links(facts, settings, now.at)
        signatures = {key: signature for key, (_, _, _, signature) in self._rows.items()}
        same = before is not None and (
            list(before.signatures.items()) == list(signatures.items())
            and before.arrival == arrival
            and [(one.name, one.state) for one in before.links] == [(one.name, one.state) for one in found]
        )
        generation = (before.generation + (not same)) if before else 1
        return Snapshot(
            generation=generation,
            mark=mark,
            at=now.at,
            rows=tuple(view for _, _, view, _ in self._rows.values()),
            arrival=arrival,
            ordered_only=tuple(one for one in listed if not one.readable),
            links=found,
            oldest=min((entry.arrived_at for entry in entries), default=None),
            signatures=signatures,
        )

    def _row(self, listed: ListedStudy, placed: Placed) -> tuple[ListedStudy, Placed, RowView, str]:
        """The row of an entry and its signature; the one before where neither entry nor place changed."""
        placed = replace(placed, rank=0)
        kept = self._rows.get(listed.id)
        if kept is not None and kept[0] is listed and kept[1] == placed:
            return kept
        view = row_view(listed, placed, self._limits)
        return listed, placed, view, view.signature
