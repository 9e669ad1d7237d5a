"""Runs over an archive and what they found: transitions of a run's studies, and the results that never leave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, and_, delete, exists, func, insert, select, update
from sqlalchemy.engine import Row

from firstread.agent.clock import Moment
from firstread.agent.store import events, studies
from firstread.agent.store.archive_tables import ArchiveState, archive_run, archive_study, trial_result
from firstread.agent.store.codec import (
    assessment_from_json,
    assessment_to_json,
    identity_from_json,
    prediction_from_json,
    prediction_to_json,
)
from firstread.agent.store.engine import moment_values
from firstread.agent.store.studies import OpenStudy, Trial
from firstread.agent.store.tables import StudyState, study
from firstread.models.prediction import Assessment, Prediction, Priority, StudyIdentity


@dataclass(frozen=True)
class Wanted:
    """What a run asks the archive for. Dates are YYYYMMDD, both included; ``most``: so many studies, None for all."""

    date_from: str
    date_until: str
    modalities: tuple[str, ...] = ("CR", "DX")
    body_part: str = ""
    most: int | None = None
    bundle: str | None = None


@dataclass(frozen=True)
class Run:
    """A run as it stands. ``listed_until``: the last day whose studies are all listed, empty before the first."""

    id: int
    wanted: Wanted
    created_at: datetime
    ended_at: datetime | None
    listed_until: str

    @property
    def trial(self) -> Trial:
        """What its studies are received as."""
        return Trial(self.id, self.wanted.bundle)


@dataclass(frozen=True)
class RunStudy:
    """One study of a run that waits to be fetched."""

    id: int
    study_instance_uid: str


@dataclass(frozen=True)
class Found:
    """What a run made of one study. ``predictions``: of the images that were analysed."""

    study_instance_uid: str
    identity: StudyIdentity
    assessment: Assessment
    predictions: tuple[Prediction, ...]


def begin(connection: Connection, wanted: Wanted, now: Moment) -> Run:
    """A new run, of which nothing is listed yet."""
    key = connection.execute(
        insert(archive_run).values(
            created_at=now.at, date_from=wanted.date_from, date_until=wanted.date_until,
            modalities=list(wanted.modalities), body_part=wanted.body_part, most=wanted.most, bundle=wanted.bundle,
            listed_until="",
        )
    ).inserted_primary_key  # fmt: skip
    if key is None:
        raise RuntimeError("the database gave no key for a new run")
    return Run(int(key[0]), wanted, now.at, None, "")


def runs(connection: Connection) -> list[Run]:
    """Every run, the newest first."""
    return [_run(row) for row in connection.execute(select(archive_run).order_by(archive_run.c.id.desc()))]


def find(connection: Connection, run_id: int) -> Run | None:
    """The run of that number, None when there is none."""
    row = connection.execute(select(archive_run).where(archive_run.c.id == run_id)).one_or_none()
    return None if row is None else _run(row)


def list_day(connection: Connection, run: Run, day: str, study_instance_uids: Sequence[str]) -> int:
    """A day's studies are listed, those that are known already once; answers how many are new."""
    known = set(
        connection.execute(select(archive_study.c.study_instance_uid).where(archive_study.c.run_id == run.id)).scalars()
    )
    fresh = [uid for uid in dict.fromkeys(study_instance_uids) if uid not in known]
    if run.wanted.most is not None:
        fresh = fresh[: max(0, run.wanted.most - len(known))]
    for uid in fresh:
        connection.execute(
            insert(archive_study).values(
                run_id=run.id, study_instance_uid=uid, state=ArchiveState.WAITING, reason="", films=0
            )
        )
    connection.execute(update(archive_run).where(archive_run.c.id == run.id).values(listed_until=day))
    return len(fresh)


def next_waiting(connection: Connection, run_id: int) -> RunStudy | None:
    """The study of a run that is to be fetched next."""
    row = connection.execute(
        select(archive_study)
        .where(archive_study.c.run_id == run_id, archive_study.c.state == ArchiveState.WAITING)
        .order_by(archive_study.c.id)
        .limit(1)
    ).one_or_none()
    return None if row is None else RunStudy(row.id, row.study_instance_uid)


def end_study(
    connection: Connection, one: RunStudy, state: ArchiveState, now: Moment, *, reason: str = "", films: int = 0
) -> bool:
    """waiting -> ``state``. False when it was not waiting any more."""
    changed = connection.execute(
        update(archive_study)
        .where(archive_study.c.id == one.id, archive_study.c.state == ArchiveState.WAITING)
        .values(state=state, reason=reason, films=films, ended_at=now.at)
    ).rowcount
    return bool(changed)


def resume(connection: Connection, run_id: int) -> int:
    """failed -> waiting, and the run is not over: what did not come is asked for again. Answers how many."""
    changed = connection.execute(
        update(archive_study)
        .where(archive_study.c.run_id == run_id, archive_study.c.state == ArchiveState.FAILED)
        .values(state=ArchiveState.WAITING, reason="", films=0, ended_at=None)
    ).rowcount
    connection.execute(update(archive_run).where(archive_run.c.id == run_id).values(ended_at=None))
    return int(changed)


def lies_here(connection: Connection, row: Row[Any]) -> bool:
    """True for a trial that a run has fetched in full and whose films were not deleted since."""
    fetched = select(archive_study.c.id).where(
        archive_study.c.run_id == row.trial_run_id,
        archive_study.c.study_instance_uid == row.study_instance_uid,
        archive_study.c.state == ArchiveState.FETCHED,
    )
    if row.trial_run_id is None or connection.execute(fetched).first() is None:
        return False
    return all(one.path for one in studies.images_of(connection, row.id))


def end(connection: Connection, run_id: int, now: Moment) -> bool:
    """The run is over. False while a study of it waits, or when it was over."""
    waiting = exists().where(archive_study.c.run_id == run_id, archive_study.c.state == ArchiveState.WAITING)
    changed = connection.execute(
        update(archive_run)
        .where(archive_run.c.id == run_id, archive_run.c.ended_at.is_(None), ~waiting)
        .values(ended_at=now.at)
    ).rowcount
    return bool(changed)


def counts(connection: Connection, run_id: int) -> dict[ArchiveState, int]:
    """How many studies of a run stand where."""
    rows = connection.execute(
        select(archive_study.c.state, func.count())
        .where(archive_study.c.run_id == run_id)
        .group_by(archive_study.c.state)
    )
    return dict.fromkeys(ArchiveState, 0) | {ArchiveState(row[0]): int(row[1]) for row in rows}


def reasons(connection: Connection, run_id: int, state: ArchiveState) -> list[tuple[str, str]]:
    """Study Instance UID and reason of a run's studies that ended so."""
    rows = connection.execute(
        select(archive_study.c.study_instance_uid, archive_study.c.reason)
        .where(archive_study.c.run_id == run_id, archive_study.c.state == state)
        .order_by(archive_study.c.id)
    )
    return [(row[0], row[1]) for row in rows]


def unfinished(connection: Connection, run_id: int) -> int:
    """How many trials of a run are being received or analysed."""
    of_run = exists().where(
        archive_study.c.run_id == run_id, archive_study.c.study_instance_uid == study.c.study_instance_uid
    )
    query = select(func.count()).where(study.c.state == StudyState.RECEIVING, study.c.trial_run_id == run_id, of_run)
    return int(connection.execute(query).scalar_one())


# A run's studies as studies


def really_sent(
    connection: Connection,
    row: Row[Any],
    identity: StudyIdentity,
    calling_ae_title: str,
    ordered: Priority | None,
    actor: str,
    now: Moment,
) -> None:
    """A trial was sent to us after all: it stands as if it had never been here, at its first revision.

    Nothing of a trial is a row of ``result``, so that no earlier result bears upon what is found now.
    """
    connection.execute(
        update(study)
        .where(study.c.id == row.id)
        .values(
            state=StudyState.RECEIVING,
            revision=1,
            changes=study.c.changes + 1,
            trial_run_id=None,
            bundle=None,
            cause=studies.FIRST,
            reason_code=None,
            ended_at=None,
            received_at=now.at,
            calling_ae_title=calling_ae_title,
            ordered_priority=ordered,
            **studies.identity_columns(identity),
            **moment_values("opened", now),
            **moment_values("touched", now),
        )
    )
    events.record(connection, now, "trial was really sent", actor, study_id=row.id, run=row.trial_run_id)


def take_over(connection: Connection, row: Row[Any], trial: Trial, actor: str, now: Moment) -> None:
    """A trial of an earlier run belongs to another one from now on; what is said of it there stays."""
    studies.reopen(connection, row.id, f"trial of run {trial.run_id}", actor, now)
    connection.execute(
        update(study)
        .where(study.c.id == row.id, study.c.trial_run_id.is_not(None))
        .values(trial_run_id=trial.run_id, bundle=trial.bundle, changes=study.c.changes + 1)
    )


# Results


def commit(connection: Connection, ready: OpenStudy, assessment: Assessment, actor: str, now: Moment) -> bool:
    """receiving -> analysed | not_analysed of a trial. False when the study changed meanwhile, as by being sent."""
    if ready.trial_run_id is None:
        raise ValueError("a study that was really sent has results, not trials")
    if not studies.end(connection, ready, assessment.reason, actor, now):
        return False
    same = and_(trial_result.c.study_id == ready.id, trial_result.c.run_id == ready.trial_run_id)
    connection.execute(delete(trial_result).where(same))
    connection.execute(
        insert(trial_result).values(
            study_id=ready.id,
            run_id=ready.trial_run_id,
            created_at=now.at,
            assessment=assessment_to_json(assessment),
            images=[prediction_to_json(one.prediction) for one in ready.images if one.prediction is not None],
        )
    )
    return True


def analysed(connection: Connection, run_id: int) -> int:
    """How many studies of a run have a result."""
    query = select(func.count()).select_from(trial_result).where(trial_result.c.run_id == run_id)
    return int(connection.execute(query).scalar_one())


def results_of(connection: Connection, run_id: int) -> list[Found]:
    """What a run found, in the order in which it was found."""
    rows = connection.execute(
        select(trial_result, study.c.study_instance_uid, study.c.identity)
        .join(study, study.c.id == trial_result.c.study_id)
        .where(trial_result.c.run_id == run_id)
        .order_by(trial_result.c.id)
    )
    return [
        Found(
            study_instance_uid=row.study_instance_uid,
            identity=identity_from_json(row.identity),
            assessment=assessment_from_json(row.assessment),
            predictions=tuple(prediction_from_json(one) for one in row.images),
        )
        for row in rows
    ]


def _run(row: Row[Any]) -> Run:
    wanted = Wanted(
        row.date_from, row.date_until, tuple(row.modalities), row.body_part, row.most, row.bundle
    )  # fmt: skip
    return Run(row.id, wanted, row.created_at, row.ended_at, row.listed_until)
