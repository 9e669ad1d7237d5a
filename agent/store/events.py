"""The audit trail: one row for each thing that happened, written in the transaction that did it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert, select

from firstread.agent.clock import Moment
from firstread.agent.store.tables import event


@dataclass(frozen=True)
class Event:
    """What happened, when, to whom; ``detail`` holds no more than a reader of the trail needs."""

    id: int
    at: datetime
    kind: str
    actor: str
    study_id: int | None
    instance_id: int | None
    delivery_id: int | None
    detail: dict[str, Any]
    entry_id: int | None = None


def record(
    connection: Connection,
    now: Moment,
    kind: str,
    actor: str,
    *,
    study_id: int | None = None,
    instance_id: int | None = None,
    delivery_id: int | None = None,
    **detail: Any,
) -> None:
    """Writes one event; it stands or falls with the caller's transaction. An ``entry_id`` in ``detail`` names an entry
    of the reading list."""
    connection.execute(
        insert(event),
        {
            "at": now.at,
            "kind": kind,
            "actor": actor,
            "study_id": study_id,
            "instance_id": instance_id,
            "delivery_id": delivery_id,
            "entry_id": detail.get("entry_id"),
            "detail": detail,
        },
    )


def of_study(connection: Connection, study_id: int) -> list[Event]:
    """The whole trail of a study, oldest first."""
    rows = connection.execute(select(event).where(event.c.study_id == study_id).order_by(event.c.id))
    return [Event(**row._mapping) for row in rows]


def newest(connection: Connection, kind: str, limit: int) -> list[Event]:
    """The newest events of a kind, newest first."""
    rows = connection.execute(
        select(event).where(event.c.kind == kind).order_by(event.c.at.desc(), event.c.id.desc()).limit(limit)
    )
    return [Event(**row._mapping) for row in rows]
