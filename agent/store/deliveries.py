"""Transitions of a delivery: claimed by lease, delivered, retried, rejected; and what an administrator may do."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, exists, func, not_, or_, select, update
from sqlalchemy.engine import Row

from firstread.agent.clock import Moment
from firstread.agent.store import events
from firstread.agent.store.engine import count_by_study, has_passed, moment_values
from firstread.agent.store.tables import DeliveryState, artifact, delivery, study

OPEN = (DeliveryState.PENDING, DeliveryState.SENDING)
UNFINISHED = (*OPEN, DeliveryState.STORED)
"""States from which the object may have to be sent once more."""

_BY_HAND = {"released": True, "kept_back": False}
"""What somebody sends by hand goes past a hold, and stays sent when the hold is taken off."""


@dataclass(frozen=True)
class DeliveryClaim:
    """The right to send one frozen object to one destination until the lease ends."""

    id: int
    study_id: int
    study_instance_uid: str
    accession_number: str
    revision: int
    destination: str
    kind: str
    attempts: int
    refusals: int
    """How often the receiver has said no (outages do not count)."""
    created_at: datetime
    token: str
    identity: str
    path: str | None
    message: bytes | None
    sha256: str


def told_of(connection: Connection, held: DeliveryClaim) -> tuple[str, str]:
    """Patient identifier and SOP Class UID of what a claim sends."""
    row = connection.execute(
        select(study.c.patient_id, artifact.c.sop_class_uid)
        .select_from(delivery)
        .join(study, study.c.id == delivery.c.study_id)
        .join(artifact, artifact.c.id == delivery.c.artifact_id)
        .where(delivery.c.id == held.id)
    ).one()
    return str(row.patient_id), str(row.sop_class_uid or "")


def any_due(connection: Connection, destination: str, *, on_hold: bool, now: Moment) -> bool:
    """True when there may be something to claim; a look without a lock."""
    query = select(delivery.c.id).where(
        delivery.c.destination == destination,
        delivery.c.state == DeliveryState.PENDING,
        has_passed(delivery, "due", now),
    )
    return connection.execute(query.where(may_leave(on_hold)).limit(1)).first() is not None


def claim(
    connection: Connection, destination: str, *, on_hold: bool, owner: str, lease_s: float, now: Moment
) -> DeliveryClaim | None:
    """pending -> sending: the oldest due delivery whose study has no older one open at this destination."""
    older = delivery.alias("older")
    blocked = exists().where(
        older.c.study_id == delivery.c.study_id,
        older.c.destination == delivery.c.destination,
        older.c.state.in_(OPEN),
        or_(
            older.c.revision < delivery.c.revision,
            and_(
                older.c.revision == delivery.c.revision,
                older.c.id < delivery.c.id,
                older.c.state == DeliveryState.SENDING,
            ),
        ),
    )
    query = (
        select(
            delivery.c.id,
            delivery.c.study_id,
            delivery.c.revision,
            delivery.c.kind,
            delivery.c.attempts,
            delivery.c.refusals,
            delivery.c.created_at,
            artifact.c.identity,
            artifact.c.path,
            artifact.c.message,
            artifact.c.sha256,
            study.c.study_instance_uid,
            study.c.accession_number,
        )
        .join(artifact, artifact.c.id == delivery.c.artifact_id)
        .join(study, study.c.id == delivery.c.study_id)
        .where(
            delivery.c.destination == destination,
            delivery.c.state == DeliveryState.PENDING,
            has_passed(delivery, "due", now),
            may_leave(on_hold),
            ~blocked,
        )
        .order_by(delivery.c.id)
        .limit(1)
        .with_for_update(skip_locked=True, of=delivery)
    )
    row = connection.execute(query).one_or_none()
    if row is None:
        return None
    token = f"{owner}#{uuid.uuid4().hex}"
    connection.execute(
        update(delivery)
        .where(delivery.c.id == row.id, delivery.c.state == DeliveryState.PENDING)
        .values(
            state=DeliveryState.SENDING,
            attempts=row.attempts + 1,
            lease_owner=token,
            **moment_values("lease", now.plus(lease_s)),
        )
    )
    return DeliveryClaim(
        id=row.id,
        study_id=row.study_id,
        study_instance_uid=row.study_instance_uid,
        accession_number=row.accession_number,
        revision=row.revision,
        destination=destination,
        kind=row.kind,
        attempts=row.attempts + 1,
        refusals=row.refusals,
        created_at=row.created_at,
        token=token,
        identity=row.identity,
        path=row.path,
        message=row.message,
        sha256=row.sha256,
    )


def end_delivered(
    connection: Connection, held: DeliveryClaim, *, status: str, detail: str, actor: str, now: Moment
) -> bool:
    """sending -> delivered: the receiver's own status said so."""
    return end_claimed(connection, held, DeliveryState.DELIVERED, status, detail, actor, now)


def end_rejected(
    connection: Connection, held: DeliveryClaim, *, status: str, detail: str, actor: str, now: Moment
) -> bool:
    """sending -> rejected(detail): the receiver said no for good."""
    return end_claimed(connection, held, DeliveryState.REJECTED, status, detail, actor, now)


def retry_later(
    connection: Connection,
    held: DeliveryClaim,
    *,
    delay_s: float,
    refused: bool,
    status: str,
    detail: str,
    actor: str,
    now: Moment,
) -> bool:
    """sending -> pending, due ``delay_s`` from now; superseded when a newer revision waits already."""
    newer = connection.execute(
        select(delivery.c.revision).where(
            delivery.c.study_id == held.study_id,
            delivery.c.destination == held.destination,
            delivery.c.kind == held.kind,
            delivery.c.revision > held.revision,
        )
    ).first()
    if newer is not None:
        return end_claimed(
            connection, held, DeliveryState.SUPERSEDED, status, f"by revision {newer.revision}; {detail}", actor, now
        )
    changed = connection.execute(
        update(delivery)
        .where(*_held(held))
        .values(
            state=DeliveryState.PENDING,
            lease_owner=None,
            refusals=held.refusals + int(refused),
            status=status,
            detail=detail,
            **moment_values("due", now.plus(delay_s)),
        )
    ).rowcount
    if changed:
        _event(connection, held, "delivery retried", actor, now, status=status, why=detail, delay_s=round(delay_s, 1))
    return bool(changed)


def free_leases(connection: Connection, *, dead_prefix: str | None, actor: str, now: Moment) -> int:
    """sending -> pending where the lease ran out or its owner is dead. A second send is the same object."""
    ended = has_passed(delivery, "lease", now)
    if dead_prefix is not None:
        ended = or_(ended, delivery.c.lease_owner.startswith(dead_prefix, autoescape=True))
    rows = connection.execute(
        select(delivery.c.id, delivery.c.study_id).where(delivery.c.state == DeliveryState.SENDING, ended)
    ).all()
    for row in rows:
        connection.execute(
            update(delivery)
            .where(delivery.c.id == row.id, delivery.c.state == DeliveryState.SENDING)
            .values(state=DeliveryState.PENDING, lease_owner=None, **moment_values("due", now))
        )
        events.record(connection, now, "delivery lease freed", actor, study_id=row.study_id, delivery_id=row.id)
    return len(rows)


def listed(
    connection: Connection,
    *,
    destination: str | None = None,
    states: Sequence[DeliveryState] = (),
    study_instance_uid: str | None = None,
    limit: int = 200,
) -> list[Row[Any]]:
    """Deliveries with study and identity, newest first."""
    query: Select[Any] = (
        select(
            delivery,
            artifact.c.identity,
            artifact.c.path,
            artifact.c.message,
            study.c.study_instance_uid,
            study.c.accession_number,
        )
        .join(artifact, artifact.c.id == delivery.c.artifact_id)
        .join(study, study.c.id == delivery.c.study_id)
        .order_by(delivery.c.id.desc())
        .limit(limit)
    )
    if destination is not None:
        query = query.where(delivery.c.destination == destination)
    if states:
        query = query.where(delivery.c.state.in_(states))
    if study_instance_uid is not None:
        query = query.where(study.c.study_instance_uid == study_instance_uid)
    return list(connection.execute(query))


def states_of(connection: Connection, study_ids: Sequence[int]) -> dict[int, dict[str, int]]:
    """How many deliveries of each state studies have, by study."""
    return count_by_study(connection, delivery.c.study_id, delivery.c.state, study_ids)


def retry_now(connection: Connection, delivery_id: int, actor: str, now: Moment) -> bool:
    """pending | stored | rejected | cancelled -> pending, due at once, also past a hold. False from any other state.

    Where a newer revision was made for the destination, an older one never follows it: then it is superseded, False.
    """
    newer = newest_revision(connection, delivery_id)
    if newer is not None:
        values = {"state": DeliveryState.SUPERSEDED, "detail": f"by revision {newer}", "ended_at": now.at}
        ended = (DeliveryState.PENDING, DeliveryState.STORED, DeliveryState.REJECTED, DeliveryState.CANCELLED)
        _by_hand(connection, delivery_id, ended, values, "delivery superseded", actor, now, by_revision=newer)
        return False
    return _by_hand(
        connection,
        delivery_id,
        (DeliveryState.PENDING, DeliveryState.STORED, DeliveryState.REJECTED, DeliveryState.CANCELLED),
        {
            "state": DeliveryState.PENDING,
            "attempts": 0,
            "refusals": 0,
            "ended_at": None,
            **_BY_HAND,
            **moment_values("due", now),
        },
        "delivery retried by hand",
        actor,
        now,
    )


def send_again(connection: Connection, delivery_id: int, actor: str, now: Moment) -> bool:
    """Any end -> pending, due at once, also past a hold: the frozen bytes go out again under the same identity."""
    return _by_hand(
        connection,
        delivery_id,
        (
            DeliveryState.PENDING,
            DeliveryState.STORED,
            DeliveryState.DELIVERED,
            DeliveryState.REJECTED,
            DeliveryState.CANCELLED,
        ),
        {
            "state": DeliveryState.PENDING,
            "attempts": 0,
            "ended_at": None,
            **_BY_HAND,
            **moment_values("due", now),
        },
        "delivery replayed",
        actor,
        now,
    )


def cancel(connection: Connection, delivery_id: int, why: str, actor: str, now: Moment) -> bool:
    """pending | stored | rejected -> cancelled, with the administrator's reason."""
    return _by_hand(
        connection,
        delivery_id,
        (DeliveryState.PENDING, DeliveryState.STORED, DeliveryState.REJECTED),
        {"state": DeliveryState.CANCELLED, "detail": why, "ended_at": now.at},
        "delivery cancelled",
        actor,
        now,
        why=why,
    )


def release(connection: Connection, destination: str, *, on_hold: bool, send: bool, actor: str, now: Moment) -> int:
    """What a hold kept back is sent, or dropped (cancelled); answers how many. What merely waits is left alone."""
    rows = connection.execute(
        select(delivery.c.id).where(
            delivery.c.destination == destination,
            delivery.c.state == DeliveryState.PENDING,
            not_(may_leave(on_hold)),
        )
    ).all()
    for row in rows:
        if send:
            values: dict[str, Any] = {**_BY_HAND, **moment_values("due", now)}
            _by_hand(connection, row.id, (DeliveryState.PENDING,), values, "delivery released", actor, now)
        else:
            cancel(connection, row.id, "dropped when the hold was released", actor, now)
    return len(rows)


def may_leave(on_hold: bool) -> ColumnElement[bool]:
    """What a destination may get: on hold, what was released by hand; else, what no earlier hold keeps back.

    One column each, so that an index leads past the tens of thousands of deliveries that a hold of weeks keeps back.
    """
    return delivery.c.released if on_hold else ~delivery.c.kept_back


def newest_revision(connection: Connection, delivery_id: int) -> int | None:
    """The newest revision after this delivery's own that was made for its destination, None when there is none."""
    asked, newer = delivery.alias("asked"), delivery.alias("newer")
    found: int | None = connection.execute(
        select(func.max(newer.c.revision)).where(
            asked.c.id == delivery_id,
            newer.c.study_id == asked.c.study_id,
            newer.c.destination == asked.c.destination,
            newer.c.revision > asked.c.revision,
        )
    ).scalar()
    return found


def _by_hand(
    connection: Connection,
    delivery_id: int,
    leaves: Sequence[DeliveryState],
    values: dict[str, Any],
    kind: str,
    actor: str,
    now: Moment,
    **detail: Any,
) -> bool:
    row = connection.execute(
        select(delivery.c.study_id, delivery.c.state).where(delivery.c.id == delivery_id)
    ).one_or_none()
    if row is None:
        return False
    changed = connection.execute(
        update(delivery).where(delivery.c.id == delivery_id, delivery.c.state.in_(leaves)).values(**values)
    ).rowcount
    if changed:
        events.record(
            connection, now, kind, actor, study_id=row.study_id, delivery_id=delivery_id, was=row.state, **detail
        )
    return bool(changed)


def _held(held: DeliveryClaim) -> tuple[Any, ...]:
    return (
        delivery.c.id == held.id,
        delivery.c.state == DeliveryState.SENDING,
        delivery.c.lease_owner == held.token,
    )


def end_claimed(
    connection: Connection,
    held: DeliveryClaim,
    state: DeliveryState,
    status: str,
    detail: str,
    actor: str,
    now: Moment,
) -> bool:
    """sending -> ``state``, for the named transitions."""
    changed = connection.execute(
        update(delivery)
        .where(*_held(held))
        .values(state=state, status=status, detail=detail, ended_at=now.at, lease_owner=None)
    ).rowcount
    if changed:
        _event(connection, held, f"delivery {state}", actor, now, status=status, why=detail)
    return bool(changed)


def _event(connection: Connection, held: DeliveryClaim, kind: str, actor: str, now: Moment, **detail: Any) -> None:
    events.record(
        connection,
        now,
        kind,
        actor,
        study_id=held.study_id,
        delivery_id=held.id,
        destination=held.destination,
        object=held.kind,
        revision=held.revision,
        attempt=held.attempts,
        **detail,
    )
