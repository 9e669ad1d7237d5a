"""Transitions of a delivery that is stored and waits for its receiver's commitment: asked, committed, sent again."""

from __future__ import annotations

import uuid
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, delete, insert, select, update

from firstread.agent.clock import Moment
from firstread.agent.store import events
from firstread.agent.store.deliveries import DeliveryClaim, end_claimed, newest_revision
from firstread.agent.store.engine import has_passed, moment_values
from firstread.agent.store.tables import DeliveryState, artifact, commitment_request, delivery, study


@dataclass(frozen=True)
class Awaited:
    """A delivery whose commitment is awaited."""

    id: int
    study_id: int
    study_instance_uid: str
    revision: int
    destination: str
    kind: str
    refusals: int
    sop_class_uid: str
    sop_instance_uid: str
    stored_at: datetime


_COLUMNS = (
    delivery.c.id,
    delivery.c.study_id,
    study.c.study_instance_uid,
    delivery.c.revision,
    delivery.c.destination,
    delivery.c.kind,
    delivery.c.refusals,
    artifact.c.sop_class_uid,
    artifact.c.identity,
    delivery.c.stored_at,
)


def await_commitment(
    connection: Connection, held: DeliveryClaim, *, status: str, detail: str, actor: str, now: Moment
) -> bool:
    """sending -> stored: the receiver has it; whether it keeps it is asked at once. What was asked before is void."""
    stored = end_claimed(connection, held, DeliveryState.STORED, status, detail, actor, now)
    if stored:
        connection.execute(delete(commitment_request).where(commitment_request.c.delivery_id == held.id))
        connection.execute(
            update(delivery)
            .where(delivery.c.id == held.id)
            .values(stored_at=now.at, ended_at=None, **moment_values("due", now))
        )
    return stored


def any_to_ask(connection: Connection, destination: str, now: Moment) -> bool:
    """True when there may be something to ask; a look without a lock."""
    return connection.execute(select(delivery.c.id).where(*_due(destination, now)).limit(1)).first() is not None


def begin_asking(
    connection: Connection, destination: str, *, limit: int, again_s: float, now: Moment
) -> tuple[str, list[Awaited]]:
    """A new transaction over what is due, durable before it is asked: a report may come before our next line.

    What is asked for now is due again ``again_s`` later: an answer that never comes is asked for anew.
    """
    query: Select[Any] = (
        select(*_COLUMNS)
        .join(artifact, artifact.c.id == delivery.c.artifact_id)
        .join(study, study.c.id == delivery.c.study_id)
        .where(*_due(destination, now))
        .order_by(delivery.c.id)
        .limit(limit)
        .with_for_update(skip_locked=True, of=delivery)
    )
    awaited = [_awaited(row) for row in connection.execute(query)]
    transaction_uid = f"2.25.{uuid.uuid4().int}"
    for one in awaited:
        connection.execute(
            insert(commitment_request).values(transaction_uid=transaction_uid, delivery_id=one.id, asked_at=now.at)
        )
        connection.execute(update(delivery).where(*_stored(one.id)).values(**moment_values("due", now.plus(again_s))))
    return transaction_uid, awaited


def asked(
    connection: Connection,
    transaction_uid: str,
    awaited: Collection[Awaited],
    *,
    taken: bool,
    again_s: float,
    detail: str,
    actor: str,
    now: Moment,
) -> None:
    """The receiver has taken a request, or not; it is asked again ``again_s`` from now. Stays stored."""
    for one in awaited:
        changed = connection.execute(
            update(delivery)
            .where(*_stored(one.id))
            .values(detail=f"commitment: {detail}", **moment_values("due", now.plus(again_s)))
        ).rowcount
        if changed and taken:
            _event(connection, one, "commitment asked", actor, now, transaction=transaction_uid)


def of_transaction(connection: Connection, transaction_uid: str) -> list[Awaited]:
    """The deliveries that a transaction asks about and that still wait; empty for one that is not ours."""
    query: Select[Any] = (
        select(*_COLUMNS)
        .join(commitment_request, commitment_request.c.delivery_id == delivery.c.id)
        .join(artifact, artifact.c.id == delivery.c.artifact_id)
        .join(study, study.c.id == delivery.c.study_id)
        .where(commitment_request.c.transaction_uid == transaction_uid, delivery.c.state == DeliveryState.STORED)
        .order_by(delivery.c.id)
        .with_for_update(of=delivery)
    )
    return [_awaited(row) for row in connection.execute(query)]


def is_known(connection: Connection, transaction_uid: str) -> bool:
    """True when we asked under this transaction, whatever became of it."""
    query = select(commitment_request.c.delivery_id).where(commitment_request.c.transaction_uid == transaction_uid)
    return connection.execute(query.limit(1)).first() is not None


def end_committed(connection: Connection, one: Awaited, *, actor: str, now: Moment) -> bool:
    """stored -> delivered: the receiver committed to keep it."""
    return _leave(
        connection, one, "delivery committed", actor, now, state=DeliveryState.DELIVERED, detail="committed",
        ended_at=now.at,
    )  # fmt: skip


def end_unasked(connection: Connection, destination: str, *, actor: str, now: Moment) -> int:
    """stored -> delivered for a destination that is not asked for commitment any more: it said that it stored them."""
    query: Select[Any] = (
        select(*_COLUMNS)
        .join(artifact, artifact.c.id == delivery.c.artifact_id)
        .join(study, study.c.id == delivery.c.study_id)
        .where(delivery.c.destination == destination, delivery.c.state == DeliveryState.STORED)
    )
    left = [_awaited(row) for row in connection.execute(query)]
    for one in left:
        _leave(
            connection, one, "delivery delivered", actor, now, state=DeliveryState.DELIVERED,
            detail="stored; commitment is not asked any more", ended_at=now.at,
        )  # fmt: skip
    return len(left)


def send_again(connection: Connection, one: Awaited, *, delay_s: float, detail: str, actor: str, now: Moment) -> bool:
    """stored -> pending, due ``delay_s`` from now: it is not kept there. Superseded when there is a newer revision."""
    newer = newest_revision(connection, one.id)
    if newer is not None:
        return _leave(
            connection, one, "delivery superseded", actor, now, state=DeliveryState.SUPERSEDED,
            detail=f"by revision {newer}; {detail}", ended_at=now.at, by_revision=newer,
        )  # fmt: skip
    return _leave(
        connection, one, "delivery not committed", actor, now, state=DeliveryState.PENDING, detail=detail,
        refusals=one.refusals + 1, **moment_values("due", now.plus(delay_s)),
    )  # fmt: skip


def end_rejected(connection: Connection, one: Awaited, *, detail: str, actor: str, now: Moment) -> bool:
    """stored -> rejected(detail): it was sent again and again, and is not kept there."""
    return _leave(
        connection, one, "delivery rejected", actor, now, state=DeliveryState.REJECTED, detail=detail,
        refusals=one.refusals + 1, ended_at=now.at,
    )  # fmt: skip


def oldest(connection: Connection, destination: str) -> Awaited | None:
    """What has waited longest for this receiver's commitment."""
    query: Select[Any] = (
        select(*_COLUMNS)
        .join(artifact, artifact.c.id == delivery.c.artifact_id)
        .join(study, study.c.id == delivery.c.study_id)
        .where(delivery.c.destination == destination, delivery.c.state == DeliveryState.STORED)
        .order_by(delivery.c.stored_at)
        .limit(1)
    )
    row = connection.execute(query).one_or_none()
    return None if row is None else _awaited(row)


def _due(destination: str, now: Moment) -> tuple[Any, ...]:
    return (
        delivery.c.destination == destination,
        delivery.c.state == DeliveryState.STORED,
        has_passed(delivery, "due", now),
    )


def _stored(delivery_id: int) -> tuple[Any, ...]:
    return (delivery.c.id == delivery_id, delivery.c.state == DeliveryState.STORED)


def _leave(connection: Connection, one: Awaited, kind: str, actor: str, now: Moment, **values: Any) -> bool:
    detail = {key: values.pop(key) for key in ("by_revision",) if key in values}
    changed = connection.execute(update(delivery).where(*_stored(one.id)).values(**values)).rowcount
    if changed:
        _event(connection, one, kind, actor, now, status="", why=values.get("detail", ""), **detail)
    return bool(changed)


def _event(connection: Connection, one: Awaited, kind: str, actor: str, now: Moment, **detail: Any) -> None:
    events.record(
        connection,
        now,
        kind,
        actor,
        study_id=one.study_id,
        delivery_id=one.id,
        destination=one.destination,
        object=one.kind,
        revision=one.revision,
        **detail,
    )


def _awaited(row: Row[Any]) -> Awaited:
    return Awaited(
        id=row.id,
        study_id=row.study_id,
        study_instance_uid=row.study_instance_uid,
        revision=row.revision,
        destination=row.destination,
        kind=row.kind,
        refusals=row.refusals,
        sop_class_uid=row.sop_class_uid or "",
        sop_instance_uid=row.identity,
        stored_at=row.stored_at,
    )
