"""How the whole stands: links, queues, refusals, latencies. Read by the page's system view, /health and /metrics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, func, not_, select

from firstread.agent.clock import Moment
from firstread.agent.store import deliveries, events, overdue, watch
from firstread.agent.store.deliveries import may_leave
from firstread.agent.store.events import Event
from firstread.agent.store.tables import (
    DeliveryState,
    EntryState,
    ImageState,
    StudyState,
    delivery,
    entry,
    event,
    instance,
    result,
    study,
)
from firstread.agent.store.totals import Totals, count_by_state
from firstread.agent.store.watch import Alarm, RoleBeat

BEAT_LIMIT_S = 30.0
"""A role that gave no sign of life for so long is taken for dead; it beats every few seconds."""

LATE_S = 60.0
"""A delivery that waits longer than this, though due, says that nobody sends."""

UNFINISHED = (ImageState.WAITING, ImageState.ANALYSING)
OPEN_DELIVERIES = deliveries.UNFINISHED


@dataclass(frozen=True)
class RoleLife:
    """A role, its last sign of life, and whether that is recent enough."""

    name: str
    alive: bool
    beat_age_s: float
    started_at: datetime
    status: Mapping[str, Any]


@dataclass(frozen=True)
class DestinationFacts:
    """Deliveries of one destination. ``failing``: the receiver's words for what waits after a failed try."""

    name: str
    counts: Mapping[str, int]
    kept_back: int
    oldest_pending: datetime | None
    last_delivered: datetime | None
    failing_since: datetime | None
    failing_status: str
    failing_detail: str
    rejected_last_day: int


@dataclass(frozen=True)
class Overview:
    """One consistent look at the agent."""

    roles: tuple[RoleLife, ...]
    alarms: tuple[Alarm, ...]
    images: Mapping[str, int]
    studies: Mapping[str, int]
    entries: Mapping[str, int]
    oldest_waiting_image: datetime | None
    oldest_open_study: datetime | None
    oldest_entry: datetime | None
    last_received: datetime | None
    last_analysed: datetime | None
    destinations: tuple[DestinationFacts, ...]
    associations_rejected: int

    def role(self, name: str) -> RoleLife | None:
        """The role of that name, None when it was not started."""
        return next((one for one in self.roles if one.name == name), None)


@dataclass(frozen=True)
class Hour:
    """What happened in one hour: films received, results made, seconds from the first film to the list (median)."""

    start: datetime
    films: int
    results: int
    latency_s: float | None


def overview(
    connection: Connection,
    destinations: Sequence[str],
    on_hold: Iterable[str],
    now: Moment,
    ended: Totals | None = None,
) -> Overview:
    """How it stands at ``now``. ``destinations``: names in force; others are shown while they have open deliveries.

    Without ``ended`` only what is under way is counted: that takes as long after years as on the first day.
    """
    held = frozenset(on_hold)
    return Overview(
        roles=tuple(role_lives(connection, now)),
        alarms=tuple(watch.alarms(connection)),
        images=(dict(ended.images) if ended else {})
        | count_by_state(connection, instance.c.state, UNFINISHED, instance.c.current),
        studies=(dict(ended.studies) if ended else {})
        | count_by_state(connection, study.c.state, [StudyState.RECEIVING]),
        entries=(dict(ended.entries) if ended else {}) | count_by_state(connection, entry.c.state, [EntryState.OPEN]),
        oldest_waiting_image=overdue.oldest_waiting(connection),
        oldest_open_study=connection.execute(
            select(func.min(study.c.opened_at)).where(study.c.state == StudyState.RECEIVING)
        ).scalar(),
        oldest_entry=connection.execute(
            select(func.min(entry.c.arrived_at)).where(entry.c.state == EntryState.OPEN)
        ).scalar(),
        last_received=connection.execute(
            select(instance.c.received_at).order_by(instance.c.id.desc()).limit(1)
        ).scalar(),
        last_analysed=connection.execute(
            select(instance.c.ended_at)
            .where(instance.c.state == ImageState.ANALYSED, instance.c.current)
            .order_by(instance.c.id.desc())
            .limit(1)
        ).scalar(),
        destinations=tuple(_destinations(connection, destinations, held, now, ended)),
        associations_rejected=_since(connection, "association rejected", now.at - timedelta(days=1)),
    )


def role_lives(connection: Connection, now: Moment) -> list[RoleLife]:
    """Every role that was started, and whether it lives."""
    return [_life(one, now) for one in watch.roles(connection)]


def refusals(connection: Connection, limit: int) -> list[Event]:
    """The newest refusals of films and of associations, newest first."""
    found = events.newest(connection, "refused", limit) + events.newest(connection, "association rejected", limit)
    return sorted(found, key=lambda one: one.id, reverse=True)[:limit]


def refusals_by_status(connection: Connection, since: datetime) -> dict[str, int]:
    """How many films were refused since then, by DICOM status (four hexadecimal digits)."""
    counts: dict[str, int] = {}
    rows = connection.execute(select(event.c.detail).where(event.c.kind == "refused", event.c.at >= since)).scalars()
    for detail in rows:
        status = str(detail.get("status", "unknown"))
        counts[status] = counts.get(status, 0) + 1
    return counts


def stage_seconds(connection: Connection, since: datetime, destinations: Iterable[str]) -> dict[str, list[float]]:
    """Seconds that each stage took for what ended since then.

    ``analyse``: film stored to film ended; ``result``: first film to result; ``deliver:NAME``: result to delivered, for
    each of ``destinations``.
    """
    stages: dict[str, list[float]] = {"analyse": [], "result": []}
    for row in connection.execute(
        select(instance.c.received_at, instance.c.ended_at).where(instance.c.ended_at >= since, instance.c.current)
    ):
        stages["analyse"].append((row.ended_at - row.received_at).total_seconds())
    for made in connection.execute(
        select(study.c.opened_at, result.c.created_at)
        .join(study, study.c.id == result.c.study_id)
        .where(result.c.created_at >= since, result.c.revision == study.c.revision)
    ):
        stages["result"].append((made.created_at - made.opened_at).total_seconds())
    for sent in connection.execute(
        select(delivery.c.destination, delivery.c.created_at, delivery.c.ended_at).where(
            delivery.c.state == DeliveryState.DELIVERED,
            delivery.c.destination.in_(list(destinations)),
            delivery.c.ended_at >= since,
        )
    ):
        took = (sent.ended_at - sent.created_at).total_seconds()
        stages.setdefault(f"deliver:{sent.destination}", []).append(took)
    return {name: [max(0.0, value) for value in values] for name, values in stages.items()}


def deliveries_by_state(connection: Connection, ended: Totals) -> dict[tuple[str, str, str], int]:
    """Counts by destination, kind and state; what is open is counted now."""
    columns = (delivery.c.destination, delivery.c.kind, delivery.c.state)
    rows = connection.execute(
        select(*columns, func.count()).where(delivery.c.state.in_(OPEN_DELIVERIES)).group_by(*columns)
    )
    counts = {key: count for key, count in ended.deliveries.items() if key[2] not in OPEN_DELIVERIES}
    return counts | {(row[0], row[1], row[2]): int(row[3]) for row in rows}


def last_hours(connection: Connection, hours: int, now: datetime) -> list[Hour]:
    """The last ``hours`` hours, oldest first; the newest one ends now."""
    start = now - timedelta(hours=hours)
    films, results_made = [0] * hours, [0] * hours
    latencies: list[list[float]] = [[] for _ in range(hours)]

    def slot(at: datetime) -> int:
        return min(hours - 1, max(0, int((at - start).total_seconds() // 3600)))

    for at in connection.execute(
        select(instance.c.received_at).where(instance.c.received_at >= start, instance.c.state != ImageState.KEPT)
    ).scalars():
        films[slot(at)] += 1
    for row in connection.execute(
        select(result.c.created_at, study.c.opened_at)
        .join(study, study.c.id == result.c.study_id)
        .where(result.c.created_at >= start)
    ):
        number = slot(row.created_at)
        results_made[number] += 1
        latencies[number].append(max(0.0, (row.created_at - row.opened_at).total_seconds()))
    return [
        Hour(start + timedelta(hours=number), films[number], results_made[number], median(latencies[number]))
        for number in range(hours)
    ]


def median(values: Sequence[float]) -> float | None:
    """The middle value, None of nothing."""
    return quantile(values, 0.5)


def quantile(values: Sequence[float], share: float) -> float | None:
    """The value below which ``share`` of them lie (nearest rank), None of nothing."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _life(one: RoleBeat, now: Moment) -> RoleLife:
    age = max(0.0, now.since(one.beat))
    return RoleLife(one.name, age <= BEAT_LIMIT_S, age, one.started_at, one.status)


def _since(connection: Connection, kind: str, since: datetime) -> int:
    query = select(func.count()).select_from(event).where(event.c.kind == kind, event.c.at >= since)
    return int(connection.execute(query).scalar() or 0)


def _destinations(
    connection: Connection, names: Sequence[str], held: frozenset[str], now: Moment, ended: Totals | None
) -> list[DestinationFacts]:
    counts: dict[str, dict[str, int]] = {name: {} for name in names}
    for row in connection.execute(
        select(delivery.c.destination, delivery.c.state, func.count())
        .where(delivery.c.state.in_(OPEN_DELIVERIES))
        .group_by(delivery.c.destination, delivery.c.state)
    ):
        counts.setdefault(row[0], {})[row[1]] = int(row[2])
    for (name, _, state), count in (ended.deliveries if ended else {}).items():
        if name in counts and state not in OPEN_DELIVERIES:
            counts[name][state] = counts[name].get(state, 0) + count
    return [_destination(connection, name, counts[name], name in held, now) for name in counts]


def _destination(
    connection: Connection, name: str, counts: dict[str, int], on_hold: bool, now: Moment
) -> DestinationFacts:
    mine = delivery.c.destination == name
    pending = (mine, delivery.c.state == DeliveryState.PENDING)
    query = select(func.count()).select_from(delivery).where(*pending, not_(may_leave(on_hold)))
    kept_back = int(connection.execute(query).scalar() or 0)
    sendable = (*pending, may_leave(on_hold))
    # Ids ascend with time, and the index that leads past what is kept back ends with them.
    oldest = connection.execute(
        select(delivery.c.created_at).where(*sendable).order_by(delivery.c.id).limit(1)
    ).scalar()
    failing = connection.execute(
        select(delivery.c.created_at, delivery.c.status, delivery.c.detail)
        .where(*sendable, delivery.c.attempts > 0, delivery.c.detail.is_not(None))
        .order_by(delivery.c.id)
        .limit(1)
    ).one_or_none()
    delivered = (mine, delivery.c.state == DeliveryState.DELIVERED, delivery.c.ended_at.is_not(None))
    rejected = (mine, delivery.c.state == DeliveryState.REJECTED, delivery.c.ended_at >= now.at - timedelta(days=1))
    return DestinationFacts(
        name=name,
        counts={state.value: counts.get(state.value, 0) for state in DeliveryState},
        kept_back=kept_back,
        oldest_pending=oldest,
        last_delivered=connection.execute(select(func.max(delivery.c.ended_at)).where(*delivered)).scalar(),
        failing_since=failing.created_at if failing else None,
        failing_status=(failing.status or "") if failing else "",
        failing_detail=(failing.detail or "") if failing else "",
        rejected_last_day=int(
            connection.execute(select(func.count()).select_from(delivery).where(*rejected)).scalar() or 0
        ),
    )
