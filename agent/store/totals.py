"""How many rows of each state there are, the ended ones of years among them: counted seldom, since counting is dear."""

from __future__ import annotations

import enum
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, func, select

from firstread.agent.store.tables import EntryState, ImageState, StudyState, delivery, entry, instance, study

CHEAP_S = 0.02
"""What is counted in less is counted anew each time."""

SHARE = 100
"""Dear counts are kept for so many times the time that they took: a year's take a second, and are a minute old."""

DeliveryCounts = Mapping[tuple[str, str, str], int]
"""By destination, kind and state."""


@dataclass(frozen=True)
class Totals:
    """Counts by state. Those of what is under way may be old: the overview counts these itself."""

    images: Mapping[str, int]
    studies: Mapping[str, int]
    entries: Mapping[str, int]
    deliveries: DeliveryCounts


def totals(connection: Connection) -> Totals:
    """Every row counted, each table by an index that covers it."""

    columns = (delivery.c.destination, delivery.c.kind, delivery.c.state)
    return Totals(
        images=count_by_state(connection, instance.c.state, ImageState, instance.c.current),
        studies=count_by_state(connection, study.c.state, StudyState),
        entries=count_by_state(connection, entry.c.state, EntryState),
        deliveries={
            (row[0], row[1], row[2]): int(row[3])
            for row in connection.execute(select(*columns, func.count()).group_by(*columns))
        },
    )


def count_by_state(
    connection: Connection, column: Column[Any], states: Iterable[enum.StrEnum], *where: ColumnElement[bool]
) -> dict[str, int]:
    """How many rows there are of each of the states."""
    wanted = [state.value for state in states]
    rows = connection.execute(select(column, func.count()).where(column.in_(wanted), *where).group_by(column)).all()
    return dict.fromkeys(wanted, 0) | {row[0]: int(row[1]) for row in rows}


class KeptTotals:
    """The totals of one process, as old as they were dear. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._totals: Totals | None = None
        self._good_until = 0.0

    def get(self, connection: Connection) -> Totals:
        """Counts at most so old that counting takes no more than a hundredth of the time."""
        kept = self._totals
        if kept is not None and time.monotonic() < self._good_until:
            return kept
        if not self._lock.acquire(blocking=kept is None):
            assert kept is not None
            return kept  # somebody counts already
        try:
            began = time.monotonic()
            found = totals(connection)
            took = time.monotonic() - began
            self._good_until = began + (0.0 if took < CHEAP_S else SHARE * took)
            self._totals = found
        finally:
            self._lock.release()
        return found
