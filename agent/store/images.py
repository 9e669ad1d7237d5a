"""Transitions of an image: stored, claimed by lease, ended with a prediction or a reason."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, and_, insert, or_, select, update
from sqlalchemy.engine import Row

from firstread.agent.clock import Moment
from firstread.agent.store import events, studies
from firstread.agent.store.codec import identity_from_json, prediction_to_json
from firstread.agent.store.engine import has_passed, moment_values
from firstread.agent.store.tables import ImageState, instance, study
from firstread.models.findings import ReasonCode
from firstread.models.prediction import Prediction, Reason, StudyIdentity


@dataclass(frozen=True)
class StoredInstance:
    """An instance whose bytes are durable at ``path`` (relative to the storage folder)."""

    sop_instance_uid: str
    series_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    patient_key: str
    is_image: bool
    path: str
    size_bytes: int
    sha256: str
    association: dict[str, Any]
    """Calling AE title, address and command fields, as received."""


@dataclass(frozen=True)
class ImageClaim:
    """The right to analyse one image until the lease ends; ``token`` guards what is written."""

    id: int
    study_id: int
    token: str
    attempts: int
    path: str
    sop_instance_uid: str
    identity: StudyIdentity
    received_at: datetime
    bundle: str | None
    """Another bundle than the usual one, when a replay asked for it."""
    trial: bool = False
    """Of a study that a run over the archive brought: old studies are what it is for."""


def newest_version(connection: Connection, sop_instance_uid: str) -> Row[Any] | None:
    """The current row of an instance, None when it is unknown."""
    return connection.execute(
        select(instance).where(instance.c.sop_instance_uid == sop_instance_uid, instance.c.current)
    ).one_or_none()


def add(
    connection: Connection, stored: StoredInstance, study_id: int | None, replaces: Row[Any] | None, now: Moment
) -> int:
    """A new instance (or a new version of one): waiting when it is an image to be judged, kept otherwise."""
    if replaces is not None:
        connection.execute(update(instance).where(instance.c.id == replaces.id).values(current=False))
    key = connection.execute(
        insert(instance),
        {
            "study_id": study_id,
            "sop_instance_uid": stored.sop_instance_uid,
            "version": 1 if replaces is None else replaces.version + 1,
            "current": True,
            "series_instance_uid": stored.series_instance_uid,
            "sop_class_uid": stored.sop_class_uid,
            "transfer_syntax_uid": stored.transfer_syntax_uid,
            "patient_key": stored.patient_key,
            "state": ImageState.WAITING if stored.is_image else ImageState.KEPT,
            "path": stored.path,
            "size_bytes": stored.size_bytes,
            "sha256": stored.sha256,
            "association": stored.association,
            "received_at": now.at,
            "attempts": 0,
        },
    ).inserted_primary_key
    if key is None:
        raise RuntimeError("the database gave no key for a new instance")
    return int(key[0])


def file_again(connection: Connection, known: Row[Any], path: str, actor: str, now: Moment) -> None:
    """The same bytes came again, and the file of the first time is gone: the film lies at ``path`` from now on.

    What failed for want of the file is looked at again, so that its study goes back to receiving.
    """
    values: dict[str, Any] = {"path": path}
    # A purged film had its result; one that nobody tried to analyse was a trial's (see analyse_anew).
    failed = known.state == ImageState.NOT_ANALYSED and (bool(known.path) or not known.attempts)
    if failed or known.state == ImageState.ANALYSING:
        values |= {
            "state": ImageState.WAITING, "attempts": 0, "lease_owner": None, "reason_code": None,
            "reason_detail": None, "ended_at": None,
        }  # fmt: skip
    connection.execute(update(instance).where(instance.c.id == known.id).values(**values))
    events.record(connection, now, "missing file replaced", actor, study_id=known.study_id, instance_id=known.id)
    if failed and known.study_id is not None:
        studies.reopen(connection, known.study_id, "a film that was missing came again", actor, now)


def any_waiting(connection: Connection) -> bool:
    """True when there is something to claim; a look without a lock."""
    query = select(instance.c.id).where(instance.c.state == ImageState.WAITING, instance.c.current).limit(1)
    return connection.execute(query).first() is not None


def claim(
    connection: Connection, *, owner: str, lease_s: float, limit: int, now: Moment, busy: bool = False
) -> list[ImageClaim]:
    """waiting -> analysing, oldest first.

    An image that failed before is claimed alone, so that it fails alone; while the owner is ``busy`` with others it
    waits, and what came after it waits too.
    """
    waiting = (
        select(
            instance.c.id,
            instance.c.study_id,
            instance.c.attempts,
            instance.c.path,
            instance.c.sop_instance_uid,
            instance.c.received_at,
            study.c.identity,
            study.c.bundle,
            study.c.trial_run_id,
        )
        .join(study, study.c.id == instance.c.study_id)
        .where(instance.c.state == ImageState.WAITING, instance.c.current)
        .order_by(instance.c.id)
        .limit(limit)
        .with_for_update(skip_locked=True, of=instance)
    )
    rows = connection.execute(waiting).all()
    if any(row.attempts for row in rows):
        first_alone = [] if busy else rows[:1]
        rows = first_alone if rows[0].attempts else [row for row in rows if not row.attempts]
    claims = [
        ImageClaim(
            id=row.id,
            study_id=row.study_id,
            token=f"{owner}#{uuid.uuid4().hex}",
            attempts=row.attempts + 1,
            path=row.path,
            sop_instance_uid=row.sop_instance_uid,
            identity=identity_from_json(row.identity),
            received_at=row.received_at,
            bundle=row.bundle,
            trial=row.trial_run_id is not None,
        )
        for row in rows
    ]
    for one in claims:
        connection.execute(
            update(instance)
            .where(instance.c.id == one.id, instance.c.state == ImageState.WAITING)
            .values(
                state=ImageState.ANALYSING,
                attempts=one.attempts,
                lease_owner=one.token,
                **moment_values("lease", now.plus(lease_s)),
            )
        )
        events.record(
            connection, now, "claimed", owner, study_id=one.study_id, instance_id=one.id, attempt=one.attempts
        )
    return claims


def end_analysed(
    connection: Connection,
    held: ImageClaim,
    prediction: Prediction,
    *,
    preview_path: str,
    saliency: bytes | None,
    notes: Sequence[str] = (),
    gate: Mapping[str, float] | None = None,
    actor: str,
    now: Moment,
) -> bool:
    """analysing -> analysed. False when the lease was lost meanwhile: then nothing is written.

    ``notes``: what the file held against the standard and what was made of it; ``gate``: what the gate measured. Both
    go into the trail.
    """
    values = {
        "state": ImageState.ANALYSED,
        "prediction": prediction_to_json(prediction),
        "preview_path": preview_path,
        "saliency": saliency,
    }
    detail: dict[str, Any] = {"model": prediction.model.name, "version": prediction.model.version}
    detail |= _seen(notes, gate)
    return _end(connection, held, values, "image analysed", detail, actor, now)


def _seen(notes: Sequence[str], gate: Mapping[str, float] | None) -> dict[str, Any]:
    seen: dict[str, Any] = {"notes": list(notes)} if notes else {}
    return seen | ({"gate": {name: round(value, 3) for name, value in gate.items()}} if gate else {})


def end_not_analysed(
    connection: Connection,
    held: ImageClaim,
    reason: Reason,
    *,
    preview_path: str | None,
    notes: Sequence[str] = (),
    gate: Mapping[str, float] | None = None,
    actor: str,
    now: Moment,
) -> bool:
    """analysing -> not_analysed(reason). False when the lease was lost meanwhile. ``notes``, ``gate``: see above."""
    values = {
        "state": ImageState.NOT_ANALYSED,
        "reason_code": reason.code,
        "reason_detail": reason.detail,
        "preview_path": preview_path,
    }
    return _end(
        connection, held, values, "image not analysed", {"reason": reason.text, **_seen(notes, gate)}, actor, now
    )


def fail_attempt(
    connection: Connection, held: ImageClaim, error: str, *, max_attempts: int, actor: str, now: Moment
) -> bool:
    """analysing -> waiting, or not_analysed("processing failed") after the last attempt."""
    if held.attempts >= max_attempts:
        reason = Reason(ReasonCode.PROCESSING_FAILED, f"{held.attempts} attempts, the last one: {error}")
        return end_not_analysed(connection, held, reason, preview_path=None, actor=actor, now=now)
    changed = connection.execute(
        update(instance).where(*_held(held)).values(state=ImageState.WAITING, lease_owner=None)
    ).rowcount
    if changed:
        events.record(
            connection, now, "attempt failed", actor, study_id=held.study_id, instance_id=held.id, error=error
        )
    return bool(changed)


def give_back(connection: Connection, held: ImageClaim, *, why: str, actor: str, now: Moment) -> bool:
    """analysing -> waiting without counting the attempt: the film is not at fault (shutdown, device lost)."""
    changed = connection.execute(
        update(instance)
        .where(*_held(held))
        .values(state=ImageState.WAITING, lease_owner=None, attempts=instance.c.attempts - 1)
    ).rowcount
    if changed:
        events.record(connection, now, "given back", actor, study_id=held.study_id, instance_id=held.id, why=why)
    return bool(changed)


def free_leases(connection: Connection, *, dead_prefix: str | None, max_attempts: int, actor: str, now: Moment) -> int:
    """Leases that ran out, or whose owner is known to be dead: each counts as a failed attempt."""
    ended = has_passed(instance, "lease", now)
    if dead_prefix is not None:
        ended = or_(ended, instance.c.lease_owner.startswith(dead_prefix, autoescape=True))
    rows = connection.execute(
        select(
            instance.c.id,
            instance.c.study_id,
            instance.c.attempts,
            instance.c.lease_owner,
            instance.c.path,
            instance.c.sop_instance_uid,
            instance.c.received_at,
        ).where(and_(instance.c.state == ImageState.ANALYSING, instance.c.current, ended))
    ).all()
    for row in rows:
        held = ImageClaim(
            row.id,
            row.study_id,
            row.lease_owner,
            row.attempts,
            row.path,
            row.sop_instance_uid,
            StudyIdentity(""),
            row.received_at,
            None,
        )
        fail_attempt(
            connection,
            held,
            "its analyser stopped in the middle of it",
            max_attempts=max_attempts,
            actor=actor,
            now=now,
        )
    return len(rows)


def analyse_again(
    connection: Connection, study_id: int, image_ids: Sequence[int] | None = None, *, actor: str, now: Moment
) -> int:
    """analysed | not_analysed -> waiting, all images of a study or those named; answers how many."""
    wanted = [
        instance.c.study_id == study_id,
        instance.c.current,
        instance.c.state.in_((ImageState.ANALYSED, ImageState.NOT_ANALYSED)),
    ]
    if image_ids is not None:
        wanted.append(instance.c.id.in_(image_ids))
    count = connection.execute(
        update(instance)
        .where(*wanted)
        .values(
            state=ImageState.WAITING,
            attempts=0,
            prediction=None,
            saliency=None,
            reason_code=None,
            reason_detail=None,
            ended_at=None,
            lease_owner=None,
        )
    ).rowcount
    if count:
        connection.execute(update(study).where(study.c.id == study_id).values(changes=study.c.changes + 1))
        events.record(connection, now, "analysed again", actor, study_id=study_id, images=count)
    return count


def analyse_anew(connection: Connection, study_id: int, *, actor: str, now: Moment) -> None:
    """Any state -> waiting, whatever is being said of these images now: a trial became a study, or another run's trial.

    A film that was deleted since is not analysed until it comes again, and a lease on it is worth nothing.
    """
    judged = (instance.c.study_id == study_id, instance.c.current, instance.c.state != ImageState.KEPT)
    nothing = {
        "attempts": 0, "prediction": None, "saliency": None, "reason_code": None, "reason_detail": None,
        "ended_at": None, "lease_owner": None, "received_at": now.at,
    }  # fmt: skip
    lies_here = instance.c.path != ""
    connection.execute(update(instance).where(*judged, lies_here).values(**nothing, state=ImageState.WAITING))
    gone = {
        "state": ImageState.NOT_ANALYSED, "reason_code": ReasonCode.PROCESSING_FAILED, "ended_at": now.at,
        "reason_detail": "deleted after a trial, and not sent since",
    }  # fmt: skip
    connection.execute(update(instance).where(*judged, ~lies_here).values(nothing | gone))
    connection.execute(update(study).where(study.c.id == study_id).values(changes=study.c.changes + 1))
    events.record(connection, now, "analysed anew", actor, study_id=study_id)


def _held(held: ImageClaim) -> tuple[Any, ...]:
    return (
        instance.c.id == held.id,
        instance.c.state == ImageState.ANALYSING,
        instance.c.lease_owner == held.token,
        instance.c.current,
    )


def _end(
    connection: Connection,
    held: ImageClaim,
    values: dict[str, Any],
    kind: str,
    detail: dict[str, Any],
    actor: str,
    now: Moment,
) -> bool:
    changed = connection.execute(
        update(instance).where(*_held(held)).values(**values, ended_at=now.at, lease_owner=None)
    ).rowcount
    if changed:
        events.record(connection, now, kind, actor, study_id=held.study_id, instance_id=held.id, **detail)
        studies.image_ended(connection, held.study_id, actor, now)
    return bool(changed)
