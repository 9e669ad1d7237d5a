"""What is watched: each role's heartbeat, and the alarms that stand until their cause is gone."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from firstread.agent.clock import Moment
from firstread.agent.store import events
from firstread.agent.store.engine import moment_values, read_moment
from firstread.agent.store.tables import alarm, role


@dataclass(frozen=True)
class RoleBeat:
    """The last sign of life of a role."""

    name: str
    owner: str
    started_at: datetime
    beat: Moment
    status: dict[str, Any]


@dataclass(frozen=True)
class Alarm:
    """A condition that somebody must look at, and what they can do. ``cleared_at`` is None while it stands."""

    key: str
    severity: str
    text: str
    remedy: str
    since: datetime
    seen_at: datetime
    sightings: int
    cleared_at: datetime | None


def beat(connection: Connection, name: str, owner: str, status: dict[str, Any], now: Moment) -> None:
    """The role lives; ``status`` is what it wants to be known (listening, engine, batch sizes ...)."""
    row = connection.execute(select(role.c.owner).where(role.c.name == name)).one_or_none()
    values = {"owner": owner, "status": status, **moment_values("beat", now)}
    if row is None:
        connection.execute(insert(role).values(name=name, started_at=now.at, **values))
    elif row.owner != owner:
        connection.execute(update(role).where(role.c.name == name).values(started_at=now.at, **values))
    else:
        connection.execute(update(role).where(role.c.name == name).values(**values))


def forget_role(connection: Connection, name: str) -> None:
    """The role was stopped on purpose."""
    connection.execute(delete(role).where(role.c.name == name))


def roles(connection: Connection) -> list[RoleBeat]:
    """Every role that was started and not stopped on purpose."""
    rows = connection.execute(select(role).order_by(role.c.name))
    return [RoleBeat(row.name, row.owner, row.started_at, read_moment(row, "beat"), row.status) for row in rows]


def raise_alarm(
    connection: Connection, key: str, *, severity: str, text: str, remedy: str, actor: str, now: Moment
) -> None:
    """The condition holds: a new alarm, or one more sighting of a standing one."""
    row = connection.execute(select(alarm).where(alarm.c.key == key)).one_or_none()
    if row is None:
        connection.execute(
            insert(alarm).values(
                key=key, severity=severity, text=text, remedy=remedy, since=now.at, seen_at=now.at, sightings=1
            )
        )
    else:
        stands = row.cleared_at is None
        connection.execute(
            update(alarm)
            .where(alarm.c.key == key)
            .values(
                severity=severity,
                text=text,
                remedy=remedy,
                since=row.since if stands else now.at,
                seen_at=now.at,
                sightings=row.sightings + 1 if stands else 1,
                cleared_at=None,
            )
        )
        if stands:
            return
    events.record(connection, now, "alarm", actor, key=key, severity=severity, text=text)


def clear_alarm(connection: Connection, key: str, *, actor: str, now: Moment) -> None:
    """The condition is gone; nothing happens when it was not standing."""
    changed = connection.execute(
        update(alarm).where(alarm.c.key == key, alarm.c.cleared_at.is_(None)).values(cleared_at=now.at)
    ).rowcount
    if changed:
        events.record(connection, now, "alarm cleared", actor, key=key)


def alarms(connection: Connection, *, standing: bool = True) -> list[Alarm]:
    """Alarms, oldest first; only those that stand unless ``standing`` is False."""
    query = select(alarm).order_by(alarm.c.since)
    if standing:
        query = query.where(alarm.c.cleared_at.is_(None))
    return [Alarm(**row._mapping) for row in connection.execute(query)]
