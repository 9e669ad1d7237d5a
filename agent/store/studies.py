"""Transitions of a study: received, reopened, summed up; and what the summing up needs to know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, and_, case, exists, func, insert, not_, or_, select, update
from sqlalchemy.engine import Row

from firstread.agent.clock import Moment
from firstread.agent.store import events, reading_items
from firstread.agent.store.codec import assessment_from_json, identity_from_json, identity_to_json, prediction_from_json
from firstread.agent.store.engine import count_by_study, has_passed, moment_values
from firstread.agent.store.tables import ImageState, StudyState, entry, instance, result, study
from firstread.models.findings import ReasonCode
from firstread.models.prediction import Assessment, Prediction, Priority, Reason, StudyIdentity

UNFINISHED = (ImageState.WAITING, ImageState.ANALYSING)
FIRST = "first images"


@dataclass(frozen=True)
class ImageRecord:
    """One current image of a study, as the summing up sees it."""

    id: int
    sop_instance_uid: str
    sop_class_uid: str
    series_instance_uid: str
    patient_key: str
    state: ImageState
    reason: Reason | None
    path: str
    preview_path: str | None
    saliency: bytes | None
    prediction: Prediction | None


@dataclass(frozen=True)
class Trial:
    """A run over the archive: what it brings is analysed, by ``bundle`` where it names one, and goes nowhere."""

    run_id: int
    bundle: str | None = None


@dataclass(frozen=True)
class OpenStudy:
    """A study that is ready to be summed up. ``changes`` guards against what arrives meanwhile."""

    id: int
    revision: int
    changes: int
    identity: StudyIdentity
    calling_ae_title: str
    ordered_priority: Priority | None
    cause: str
    received_at: datetime
    images: tuple[ImageRecord, ...]
    earlier: tuple[Assessment, ...]
    """Results of earlier revisions, oldest first."""
    last_identity: StudyIdentity | None
    """Whom the newest earlier result was sent out for."""
    bundle: str | None
    """Another bundle than the usual one, when a replay asked for it."""
    source_paths: tuple[str, ...]
    """Files whose headers say who and what the study is: the newest image first, else any object."""
    trial_run_id: int | None = None
    """The run over the archive that it belongs to, None for a study that was really sent to us."""


def set_legal_hold(connection: Connection, study_id: int, reason: str | None, actor: str, now: Moment) -> None:
    """Keeps the study's films whatever retention says; None ends that."""
    connection.execute(update(study).where(study.c.id == study_id).values(legal_hold=reason))
    if reason is None:
        events.record(connection, now, "legal hold ended", actor, study_id=study_id)
    else:
        events.record(connection, now, "legal hold", actor, study_id=study_id, reason=reason)


def create(
    connection: Connection,
    identity: StudyIdentity,
    calling_ae_title: str,
    ordered: Priority | None,
    now: Moment,
    *,
    trial: Trial | None = None,
) -> int:
    """A study is heard of for the first time: it is receiving, revision 1."""
    key = connection.execute(
        insert(study),
        {
            "study_instance_uid": identity.study_instance_uid,
            "state": StudyState.RECEIVING,
            "revision": 1,
            "changes": 0,
            **identity_columns(identity),
            "calling_ae_title": calling_ae_title,
            "ordered_priority": ordered,
            "cause": FIRST,
            "bundle": trial and trial.bundle,
            "trial_run_id": trial and trial.run_id,
            "received_at": now.at,
            **moment_values("opened", now),
            **moment_values("touched", now),
        },
    ).inserted_primary_key
    if key is None:
        raise RuntimeError("the database gave no key for a new study")
    return int(key[0])


def find(connection: Connection, study_instance_uid: str) -> Row[Any] | None:
    """The row of a study, None when it is unknown."""
    return connection.execute(select(study).where(study.c.study_instance_uid == study_instance_uid)).one_or_none()


def touch(
    connection: Connection,
    row: Row[Any],
    identity: StudyIdentity,
    calling_ae_title: str,
    cause: str,
    actor: str,
    now: Moment,
) -> None:
    """An image arrived: the quiet period starts again; a study that had ended is received again, one revision on."""
    connection.execute(
        update(study)
        .where(study.c.id == row.id)
        .values(
            changes=study.c.changes + 1,
            calling_ae_title=calling_ae_title,
            **identity_columns(identity),
            **moment_values("touched", now),
        )
    )
    if row.state != StudyState.RECEIVING:
        reopen(connection, row.id, cause, actor, now)


def reopen(
    connection: Connection, study_id: int, cause: str, actor: str, now: Moment, *, bundle: str | None = None
) -> bool:
    """analysed | not_analysed -> receiving, revision + 1. False when the study was receiving already."""
    changed = connection.execute(
        update(study)
        .where(study.c.id == study_id, study.c.state != StudyState.RECEIVING)
        .values(
            state=StudyState.RECEIVING,
            revision=study.c.revision + 1,
            changes=study.c.changes + 1,
            cause=cause,
            # The model of a run stays with its trials; a study that was really sent goes back to the usual one.
            bundle=case((study.c.trial_run_id.is_not(None), func.coalesce(bundle, study.c.bundle)), else_=bundle),
            reason_code=None,
            ended_at=None,
            **moment_values("opened", now),
        )
    ).rowcount
    if changed:
        events.record(connection, now, "reopened", actor, study_id=study_id, cause=cause)
        reading_items.study_reopened(connection, study_id, now)
    return bool(changed)


def image_ended(connection: Connection, study_id: int, actor: str, now: Moment) -> None:
    """An image of the study ended: the summing up must look again, also where a result had gone out without it."""
    connection.execute(update(study).where(study.c.id == study_id).values(changes=study.c.changes + 1))
    reopen(connection, study_id, "an image ended after the result", actor, now)


def set_ordered_priority(
    connection: Connection, *, study_instance_uid: str, accession_number: str, priority: Priority, now: Moment
) -> int:
    """An order named a priority: kept with its studies, never lowered. Answers how many studies it raised."""
    names = []
    if study_instance_uid:
        names.append(study.c.study_instance_uid == study_instance_uid)
    if accession_number:
        names.append(study.c.accession_number == accession_number)
    if not names:
        return 0
    rows = connection.execute(
        select(study.c.id, study.c.ordered_priority).where(
            or_(*names), or_(study.c.ordered_priority.is_(None), study.c.ordered_priority < int(priority))
        )
    ).all()
    for row in rows:
        connection.execute(
            update(study)
            .where(study.c.id == row.id)
            .values(ordered_priority=int(priority), changes=study.c.changes + 1)
        )
        events.record(connection, now, "ordered priority", "worklist", study_id=row.id, priority=priority.name)
        reading_items.priority_ordered(connection, row.id, priority, now)
    return len(rows)


def ordered_priority_of(connection: Connection, identity: StudyIdentity) -> Priority | None:
    """What an order that came before the films asked for, None when none is known."""
    names = [entry.c.study_instance_uid == identity.study_instance_uid]
    if identity.accession_number:
        names.append(entry.c.accession_number == identity.accession_number)
    value = connection.execute(select(func.max(entry.c.ordered_priority)).where(or_(*names))).scalar()
    return None if value is None else Priority(value)


def any_receiving(connection: Connection) -> bool:
    """True when there is a study that has not ended; a look without a lock."""
    return (
        connection.execute(select(study.c.id).where(study.c.state == StudyState.RECEIVING).limit(1)).first() is not None
    )


def ready_to_sum_up(
    connection: Connection,
    *,
    quiet_period_s: float,
    max_open_s: float,
    limit: int,
    now: Moment,
    skip: Sequence[int] = (),
) -> list[OpenStudy]:
    """Receiving studies that are quiet and whose images have all ended, or that have been open for too long."""
    unfinished = exists().where(instance.c.study_id == study.c.id, instance.c.current, instance.c.state.in_(UNFINISHED))
    rows = connection.execute(
        select(study)
        .where(
            study.c.state == StudyState.RECEIVING,
            study.c.id.not_in(skip),
            or_(
                and_(has_passed(study, "touched", now.plus(-quiet_period_s)), not_(unfinished)),
                has_passed(study, "opened", now.plus(-max_open_s)),
            ),
        )
        .order_by(study.c.touched_at)
        .limit(limit)
    ).all()
    return [_open_study(connection, row) for row in rows]


def end(connection: Connection, ready: OpenStudy, reason: Reason | None, actor: str, now: Moment) -> bool:
    """receiving -> analysed | not_analysed. False when anything changed since ``ready`` was read."""
    state = StudyState.ANALYSED if reason is None else StudyState.NOT_ANALYSED
    changed = connection.execute(
        update(study)
        .where(
            study.c.id == ready.id,
            study.c.state == StudyState.RECEIVING,
            study.c.revision == ready.revision,
            study.c.changes == ready.changes,
        )
        .values(state=state, reason_code=reason and reason.code, ended_at=now.at)
    ).rowcount
    if changed:
        why = reason.text if reason else ""
        events.record(connection, now, state, actor, study_id=ready.id, revision=ready.revision, reason=why)
    return bool(changed)


@dataclass(frozen=True)
class StudyFilter:
    """Which studies are meant; everything that is given must hold. Dates are YYYYMMDD, both ends included."""

    study_instance_uid: str = ""
    accession_number: str = ""
    patient_id: str = ""
    state: str = ""
    received_from: datetime | None = None
    received_until: datetime | None = None
    study_date_from: str = ""
    study_date_until: str = ""
    station: str = ""
    model_version: str = ""
    """Of the newest result, as ``name version`` or ``version``."""


def selected(connection: Connection, wanted: StudyFilter, limit: int) -> list[Row[Any]]:
    """Rows of the studies that the filter means, newest first."""
    query = select(study).order_by(study.c.received_at.desc(), study.c.id.desc()).limit(limit)
    equal = (
        (study.c.study_instance_uid, wanted.study_instance_uid),
        (study.c.accession_number, wanted.accession_number),
        (study.c.patient_id, wanted.patient_id),
        (study.c.state, wanted.state),
        (study.c.station, wanted.station),
    )
    for column, value in equal:
        if value:
            query = query.where(column == value)
    if wanted.received_from is not None:
        query = query.where(study.c.received_at >= wanted.received_from)
    if wanted.received_until is not None:
        query = query.where(study.c.received_at < wanted.received_until)
    if wanted.study_date_from:
        query = query.where(study.c.study_date >= wanted.study_date_from)
    if wanted.study_date_until:
        query = query.where(study.c.study_date <= wanted.study_date_until)
    if wanted.model_version:
        later = result.alias("later")  # by another name, or the inner query takes its rows from the outer one
        newest = select(func.max(later.c.revision)).where(later.c.study_id == study.c.id).scalar_subquery()
        query = query.where(
            exists().where(
                result.c.study_id == study.c.id,
                result.c.revision == newest,
                or_(
                    result.c.model_version == wanted.model_version,
                    result.c.model_version.endswith(" " + wanted.model_version, autoescape=True),
                ),
            )
        )
    return list(connection.execute(query))


def load(connection: Connection, row: Row[Any]) -> OpenStudy:
    """A study with its images and earlier results, whatever its state."""
    return _open_study(connection, row)


def images_of(connection: Connection, study_id: int) -> list[ImageRecord]:
    """The current instances of a study that count as images, in the order of arrival."""
    rows = connection.execute(
        select(instance)
        .where(instance.c.study_id == study_id, instance.c.current, instance.c.state != ImageState.KEPT)
        .order_by(instance.c.id)
    )
    return [
        ImageRecord(
            id=row.id,
            sop_instance_uid=row.sop_instance_uid,
            sop_class_uid=row.sop_class_uid,
            series_instance_uid=row.series_instance_uid,
            patient_key=row.patient_key,
            state=ImageState(row.state),
            reason=Reason(ReasonCode(row.reason_code), row.reason_detail or "") if row.reason_code else None,
            path=row.path,
            preview_path=row.preview_path,
            saliency=row.saliency,
            prediction=prediction_from_json(row.prediction) if row.prediction else None,
        )
        for row in rows
    ]


def image_states(connection: Connection, study_ids: Sequence[int]) -> dict[int, dict[str, int]]:
    """How many images of each state studies have, by study."""
    judged = (instance.c.current, instance.c.state != ImageState.KEPT)
    return count_by_study(connection, instance.c.study_id, instance.c.state, study_ids, *judged)


def results_of(connection: Connection, study_id: int) -> list[Row[Any]]:
    """The results of a study, oldest revision first."""
    return list(connection.execute(select(result).where(result.c.study_id == study_id).order_by(result.c.revision)))


def _open_study(connection: Connection, row: Row[Any]) -> OpenStudy:
    earlier = results_of(connection, row.id)
    return OpenStudy(
        id=row.id,
        revision=row.revision,
        changes=row.changes,
        identity=identity_from_json(row.identity),
        calling_ae_title=row.calling_ae_title,
        ordered_priority=None if row.ordered_priority is None else Priority(row.ordered_priority),
        cause=row.cause,
        received_at=row.received_at,
        images=tuple(images_of(connection, row.id)),
        earlier=tuple(assessment_from_json(one.assessment) for one in earlier),
        last_identity=identity_from_json(earlier[-1].identity) if earlier else None,
        bundle=row.bundle,
        source_paths=_source_paths(connection, row.id),
        trial_run_id=row.trial_run_id,
    )


def _source_paths(connection: Connection, study_id: int) -> tuple[str, ...]:
    rows = connection.execute(
        select(instance.c.path, instance.c.state)
        .where(instance.c.study_id == study_id, instance.c.current)
        .order_by(instance.c.id.desc())
    ).all()
    images = tuple(row.path for row in rows if row.state != ImageState.KEPT)
    return images or tuple(row.path for row in rows[:1])


def identity_columns(identity: StudyIdentity) -> dict[str, Any]:
    """What a row of ``study`` says of whose it is."""
    return {
        "identity": identity_to_json(identity),
        "patient_id": identity.patient_id[:256],
        "accession_number": identity.accession_number[:256],
        "study_date": identity.study_date[:16],
        "station": identity.station[:256],
    }
