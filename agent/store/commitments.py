"""Transitions of a request for storage commitment that others made of us: asked, verified, reported."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, delete, insert, or_, select, update

from firstread.agent.clock import Moment
from firstread.agent.store import events
from firstread.agent.store.engine import has_passed, moment_values
from firstread.agent.store.tables import CommitmentState, commitment, instance

Pair = tuple[str, str]
"""SOP Class UID and SOP Instance UID."""


@dataclass(frozen=True)
class Asked:
    """A request, and what is known of it. ``failed``: SOP Instance UID to failure reason."""

    id: int
    transaction_uid: str
    calling_ae_title: str
    asked_for: tuple[Pair, ...]
    failed: Mapping[str, int]
    attempts: int
    asked_at: datetime
    token: str = ""


def ask(
    connection: Connection,
    transaction_uid: str,
    calling_ae_title: str,
    association_id: str,
    asked_for: Sequence[Pair],
    *,
    actor: str,
    now: Moment,
) -> bool:
    """-> asked. The same request again begins anew; False when its transaction was used for other instances."""
    pairs = [list(pair) for pair in asked_for]
    fresh = {
        "association_id": association_id,
        "failed": {},
        "state": CommitmentState.ASKED,
        "attempts": 0,
        "lease_owner": None,
        "detail": None,
        "asked_at": now.at,
        "ended_at": None,
        **moment_values("due", now),
    }
    known = connection.execute(
        select(commitment.c.id, commitment.c.asked_for).where(
            commitment.c.transaction_uid == transaction_uid, commitment.c.calling_ae_title == calling_ae_title
        )
    ).one_or_none()
    if known is not None and known.asked_for != pairs:
        return False
    if known is not None:
        connection.execute(update(commitment).where(commitment.c.id == known.id).values(**fresh))
    else:
        connection.execute(
            insert(commitment).values(
                transaction_uid=transaction_uid, calling_ae_title=calling_ae_title, asked_for=pairs, **fresh
            )
        )
    events.record(
        connection, now, "commitment requested", actor, calling_ae_title=calling_ae_title, transaction=transaction_uid,
        instances=len(pairs),
    )  # fmt: skip
    return True


def to_verify(connection: Connection, limit: int) -> list[Asked]:
    """Requests that nobody has looked at yet, oldest first."""
    query = select(commitment).where(commitment.c.state == CommitmentState.ASKED).order_by(commitment.c.id)
    return [_asked(row) for row in connection.execute(query.limit(limit))]


def verified(connection: Connection, one: Asked, failed: Mapping[str, int], *, due_s: float, now: Moment) -> bool:
    """asked -> verified; on an association of our own it is told ``due_s`` from now at the earliest."""
    return bool(
        connection.execute(
            update(commitment)
            .where(
                commitment.c.id == one.id,
                commitment.c.state == CommitmentState.ASKED,
                commitment.c.asked_at == one.asked_at,
            )
            .values(state=CommitmentState.VERIFIED, failed=dict(failed), **moment_values("due", now.plus(due_s)))
        ).rowcount
    )


def claim_of_association(
    connection: Connection, association_id: str, *, owner: str, lease_s: float, now: Moment
) -> Asked | None:
    """verified -> reporting, for the association that asked."""
    return _claim(connection, commitment.c.association_id == association_id, owner, lease_s, now)


def claim_due(connection: Connection, *, owner: str, lease_s: float, now: Moment) -> Asked | None:
    """verified -> reporting: the oldest that is due."""
    return _claim(connection, has_passed(commitment, "due", now), owner, lease_s, now)


def any_open(connection: Connection, now: Moment) -> bool:
    """True when there is something to verify or to tell, or a lease that ran out; a look without a lock."""
    due = (commitment.c.state == CommitmentState.VERIFIED) & has_passed(commitment, "due", now)
    lost = (commitment.c.state == CommitmentState.REPORTING) & has_passed(commitment, "lease", now)
    query = select(commitment.c.id).where(or_(commitment.c.state == CommitmentState.ASKED, due, lost))
    return connection.execute(query.limit(1)).first() is not None


def any_of_association(connection: Connection, association_id: str) -> bool:
    """True when a verdict waits for the association that asked for it."""
    query = select(commitment.c.id).where(
        commitment.c.state == CommitmentState.VERIFIED, commitment.c.association_id == association_id
    )
    return connection.execute(query.limit(1)).first() is not None


def end_reported(connection: Connection, one: Asked, *, detail: str, actor: str, now: Moment) -> bool:
    """reporting -> reported: the requester knows."""
    return _end(connection, one, CommitmentState.REPORTED, detail, actor, now)


def give_up(connection: Connection, one: Asked, *, detail: str, actor: str, now: Moment) -> bool:
    """reporting -> given up: it could not be told for days."""
    return _end(connection, one, CommitmentState.GIVEN_UP, detail, actor, now)


def report_later(connection: Connection, one: Asked, *, delay_s: float, detail: str, now: Moment) -> bool:
    """reporting -> verified, due ``delay_s`` from now."""
    return bool(
        connection.execute(
            update(commitment)
            .where(*_held(one))
            .values(
                state=CommitmentState.VERIFIED,
                lease_owner=None,
                detail=detail,
                **moment_values("due", now.plus(delay_s)),
            )
        ).rowcount
    )


def free_leases(connection: Connection, now: Moment) -> int:
    """reporting -> verified where the lease ran out: a second report says the same."""
    return int(
        connection.execute(
            update(commitment)
            .where(commitment.c.state == CommitmentState.REPORTING, has_passed(commitment, "lease", now))
            .values(state=CommitmentState.VERIFIED, lease_owner=None, **moment_values("due", now))
        ).rowcount
    )


def forget_before(connection: Connection, before: datetime) -> None:
    """Deletes requests that ended before; their events stay."""
    connection.execute(delete(commitment).where(commitment.c.ended_at < before))


def kept(connection: Connection, sop_instance_uid: str) -> Row[Any] | None:
    """Class, path, size (bytes) and hash of what we hold under a UID, None when it is unknown."""
    query: Select[Any] = select(
        instance.c.sop_class_uid, instance.c.path, instance.c.size_bytes, instance.c.sha256
    ).where(instance.c.sop_instance_uid == sop_instance_uid, instance.c.current)
    return connection.execute(query).one_or_none()


def _claim(connection: Connection, which: ColumnElement[bool], owner: str, lease_s: float, now: Moment) -> Asked | None:
    row = connection.execute(
        select(commitment)
        .where(commitment.c.state == CommitmentState.VERIFIED, which)
        .order_by(commitment.c.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    ).one_or_none()
    if row is None:
        return None
    token = f"{owner}#{uuid.uuid4().hex}"
    connection.execute(
        update(commitment)
        .where(commitment.c.id == row.id, commitment.c.state == CommitmentState.VERIFIED)
        .values(
            state=CommitmentState.REPORTING,
            attempts=row.attempts + 1,
            lease_owner=token,
            **moment_values("lease", now.plus(lease_s)),
        )
    )
    return _asked(row, token)


def _held(one: Asked) -> tuple[Any, ...]:
    return (
        commitment.c.id == one.id,
        commitment.c.state == CommitmentState.REPORTING,
        commitment.c.lease_owner == one.token,
    )


def _end(connection: Connection, one: Asked, state: CommitmentState, detail: str, actor: str, now: Moment) -> bool:
    changed = connection.execute(
        update(commitment).where(*_held(one)).values(state=state, lease_owner=None, detail=detail, ended_at=now.at)
    ).rowcount
    if changed:
        events.record(
            connection, now, f"commitment {state.replace('_', ' ')}", actor, calling_ae_title=one.calling_ae_title,
            transaction=one.transaction_uid, failed=len(one.failed), why=detail,
        )  # fmt: skip
    return bool(changed)


def _asked(row: Row[Any], token: str = "") -> Asked:
    return Asked(
        id=row.id,
        transaction_uid=row.transaction_uid,
        calling_ae_title=row.calling_ae_title,
        asked_for=tuple((str(pair[0]), str(pair[1])) for pair in row.asked_for),
        failed={str(uid): int(reason) for uid, reason in row.failed.items()},
        attempts=row.attempts + (1 if token else 0),
        asked_at=row.asked_at,
        token=token,
    )
