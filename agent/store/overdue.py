"""Queries about what is late, and the transition of a film whose days are over."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, exists, func, literal_column, or_, select, true, update
from sqlalchemy.engine import Row

from firstread.agent.clock import Moment
from firstread.agent.store import events, holdings
from firstread.agent.store.deliveries import UNFINISHED
from firstread.agent.store.engine import has_passed
from firstread.agent.store.tables import DeliveryState, ImageState, StudyState, delivery, instance, result, study
from firstread.models.prediction import Priority

PURGED = ""
"""The path of a film that was deleted when its days were over."""


def any_lease_ended(connection: Connection, now: Moment) -> bool:
    """True when a worker holds something past its lease."""
    image = select(instance.c.id).where(
        instance.c.state == ImageState.ANALYSING, instance.c.current, has_passed(instance, "lease", now)
    )
    sending = select(delivery.c.id).where(delivery.c.state == DeliveryState.SENDING, has_passed(delivery, "lease", now))
    return any(connection.execute(query.limit(1)).first() is not None for query in (image, sending))


def waiting(connection: Connection, at_most: int) -> int:
    """How many films wait for analysis, counted up to ``at_most``."""
    some = (
        select(instance.c.id)
        .where(instance.c.state == ImageState.WAITING, instance.c.current)
        .limit(at_most)
        .subquery()
    )
    return int(connection.execute(select(func.count()).select_from(some)).scalar_one())


def oldest_waiting(connection: Connection) -> datetime | None:
    """When the film that waits longest for analysis was received."""
    found: datetime | None = connection.execute(
        select(instance.c.received_at)
        .where(instance.c.state == ImageState.WAITING, instance.c.current)
        .order_by(instance.c.id)
        .limit(1)
    ).scalar()
    return found


def last_study(connection: Connection, calling_ae_title: str | None) -> datetime | None:
    """When the newest study began to come, of one sender or of all."""
    sent = study.c.trial_run_id.is_(None)  # what we fetched ourselves breaks no silence
    query = select(study.c.received_at).where(sent).order_by(study.c.received_at.desc()).limit(1)
    if calling_ae_title is not None:
        query = query.where(study.c.calling_ae_title == calling_ae_title)
    found: datetime | None = connection.execute(query).scalar()
    return found


def raised_between(connection: Connection, start: datetime, end: datetime) -> int:
    """Results above ROUTINE that were made in [start, end)."""
    return int(
        connection.execute(
            select(func.count())
            .select_from(result)
            .where(result.c.created_at >= start, result.c.created_at < end, result.c.priority > int(Priority.ROUTINE))
        ).scalar_one()
    )


def films_to_purge(connection: Connection, before: datetime, limit: int, *, trials: bool = False) -> list[Row[Any]]:
    """Films received before ``before`` of studies that ended and whose deliveries have all ended, oldest first.

    ``trials``: those alone that a run over the archive brought.
    """
    of_run = study.c.trial_run_id.is_not(None) if trials else true()
    pending = exists().where(delivery.c.study_id == study.c.id, delivery.c.state.in_(UNFINISHED))
    return list(
        connection.execute(
            select(instance.c.id, instance.c.study_id, instance.c.path, instance.c.preview_path)
            .outerjoin(study, study.c.id == instance.c.study_id)
            .where(
                of_run,
                instance.c.received_at < before,
                instance.c.path != literal_column("''"),  # as the index says it, or the planner does not take it
                or_(~instance.c.current, instance.c.state.not_in((ImageState.WAITING, ImageState.ANALYSING))),
                or_(
                    instance.c.study_id.is_(None),
                    (study.c.state != StudyState.RECEIVING) & study.c.legal_hold.is_(None) & ~pending,
                ),
            )
            .order_by(instance.c.received_at, instance.c.id)
            .limit(limit)
        )
    )


def mark_purged(connection: Connection, films: Sequence[Row[Any]], *, actor: str, now: Moment) -> list[Row[Any]]:
    """The files of these films are about to go, held no more; rows, results and trail stay. Answers those that may go.

    A study that was opened again, or put under a legal hold, since the films were looked up keeps them.
    """
    closed = exists().where(
        study.c.id == instance.c.study_id, study.c.state != StudyState.RECEIVING, study.c.legal_hold.is_(None)
    )
    gone = []
    for film in films:
        changed = connection.execute(
            update(instance)
            .where(instance.c.id == film.id, instance.c.path == film.path, or_(instance.c.study_id.is_(None), closed))
            .values(path=PURGED, preview_path=None)
        ).rowcount
        if changed:
            events.record(connection, now, "film purged", actor, study_id=film.study_id, instance_id=film.id)
            gone.append(film)
    holdings.let_go(connection, [film.id for film in gone])
    return gone
