"""One work item for the reading of each study: made with its first film, raised by what is known of it, read once.

Nothing here lowers a priority. A study that was read, or given up, and must be read (again) gets a new item: what has
ended stays ended (PS3.4 CC.1.1). Whoever claimed an item owns what was performed; we go on telling it what it reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy import Connection, exists, select

from firstread.agent.clock import Moment
from firstread.agent.store import work_items
from firstread.agent.store.codec import assessment_from_json, identity_from_json
from firstread.agent.store.site import site_uid_in
from firstread.agent.store.tables import EntryState, ImageState, StudyState, artifact, entry, instance, result, study
from firstread.agent.store.work_items import READINESS, URGENCY, WorkItem
from firstread.agent.store.work_tables import work_item
from firstread.integration.dicom.identity import HEATMAP, SR, derive_uid
from firstread.integration.dicom.ups import Readiness, State, UpsPriority, first
from firstread.integration.dicom.ups_reading import (
    Reference,
    once_more,
    performed_elsewhere,
    reading_item,
    say_whose,
    say_why,
)
from firstread.integration.dicom.ups_rules import PERFORMED, canceled, dicom_time, read_json, write_json
from firstread.models.findings import ReasonCode
from firstread.models.prediction import Assessment, Priority, StudyIdentity

ACTOR = "reading"

_URGENCY = {Priority.ROUTINE: URGENCY[UpsPriority.MEDIUM], Priority.URGENT: 3, Priority.STAT: URGENCY[UpsPriority.HIGH]}


def priority_of(urgency: int) -> Priority:
    """The house's priority of a reading item, open or ended."""
    return max((one for one, value in _URGENCY.items() if value <= abs(urgency)), default=Priority.ROUTINE)


def study_came(
    connection: Connection,
    study_id: int,
    identity: StudyIdentity,
    ordered: Priority | None,
    now: Moment,
    site_uid: str | None = None,
) -> None:
    """The first film of a study came: its reading is to be done, as urgent as it was ordered.

    Called by intake in the transaction that stores the film.
    """
    urgency = _URGENCY[ordered or Priority.ROUTINE]
    uid = derive_uid(site_uid or site_uid_in(connection), identity.study_instance_uid, 1, "workitem")
    dataset = reading_item(uid, identity, _ups(urgency), now.at)
    say_why(dataset, _ordered(ordered))
    work_items.create(connection, write_json(dataset), ACTOR, now, urgency=urgency, study_id=study_id, number=1)


def film_came(
    connection: Connection,
    study_id: int,
    identity: StudyIdentity,
    ordered: Priority | None,
    now: Moment,
    known: StudyIdentity | None = None,
) -> None:
    """A further film of a study came: there is an open item for it, that says whose it is.

    ``known``: the identity that the study had before, where it is known.
    """
    item = work_items.newest_of_study(connection, study_id)
    if item is None:
        study_came(connection, study_id, identity, ordered, now)
        return
    if item.state.final:
        item = _again(connection, item, now)
    if identity != known or first(item.attributes, READINESS) != Readiness.INCOMPLETE:
        _revise(connection, item, now, identity=identity, readiness=Readiness.INCOMPLETE)


def priority_ordered(connection: Connection, study_id: int, ordered: Priority, now: Moment) -> None:
    """An order named a priority: the open item rises to it."""
    item = work_items.newest_of_study(connection, study_id)
    if item is not None and not item.state.final and _URGENCY[ordered] > item.urgency:
        _revise(connection, item, now, priority=ordered, comment=_ordered(ordered))


def result_came(
    connection: Connection, study_id: int, identity: StudyIdentity, assessment: Assessment, now: Moment
) -> None:
    """A result was made: the open item rises to its priority and is ready to be read. Never lower than before.

    The reading of a prior study that nobody ordered is off: it was read when it was new.
    """
    item = work_items.newest_of_study(connection, study_id)
    if item is None or item.state.final:
        return
    item = _revise(
        connection, item, now, identity=identity, priority=assessment.priority, readiness=Readiness.READY,
        comment=assessment.priority_reason or None,
    )  # fmt: skip
    prior = assessment.reason is not None and assessment.reason.code is ReasonCode.PRIOR_STUDY
    if prior and item.state is State.SCHEDULED and item.urgency <= _URGENCY[Priority.ROUTINE]:
        _cancel(connection, item, "a prior study, older than this site's limit", now)


def study_reopened(connection: Connection, study_id: int, now: Moment) -> None:
    """Images are being received or read again: what is there may not be all."""
    item = work_items.newest_of_study(connection, study_id)
    if item is not None and not item.state.final:
        _revise(connection, item, now, readiness=Readiness.INCOMPLETE)


def entry_ended(connection: Connection, study_id: int | None, end: EntryState, words: str, now: Moment) -> None:
    """The study left the reading list: an item that nobody claimed ends with it, an owner is told of a cancellation."""
    item = None if study_id is None else work_items.newest_of_study(connection, study_id)
    if item is None or item.state.final:
        return
    if item.state is State.IN_PROGRESS:
        if end is EntryState.CANCELLED:
            reason = {"00741238": {"vr": "LT", "Value": [words]}}
            work_items.ask_to_cancel(connection, item, reason, ACTOR, now)
        return
    if end is EntryState.REPORTED:
        done = read_json(item.attributes)
        setattr(done, PERFORMED, [performed_elsewhere(item.created_at, now.at)])
        work_items.end_unclaimed(connection, item, State.COMPLETED, write_json(done), ACTOR, now)
    else:
        _cancel(connection, item, words, now)


def read_again(connection: Connection, study_id: int | None, now: Moment) -> None:
    """The study is on the list again: it has an open item again."""
    item = None if study_id is None else work_items.newest_of_study(connection, study_id)
    if item is not None and item.state.final:
        _again(connection, item, now)


def make_missing(connection: Connection, now: Moment, limit: int) -> int:
    """Items for studies that stand on the reading list without one (an older release put them there); how many."""
    waiting = exists().where(entry.c.study_instance_uid == study.c.study_instance_uid, entry.c.state == EntryState.OPEN)
    known = exists().where(work_item.c.study_id == study.c.id)
    sent = study.c.trial_run_id.is_(None)
    rows = connection.execute(select(study).where(sent, waiting, ~known).order_by(study.c.id).limit(limit)).all()
    for row in rows:
        identity = identity_from_json(row.identity)
        ordered = None if row.ordered_priority is None else Priority(row.ordered_priority)
        study_came(connection, row.id, identity, ordered, replace(now, at=row.received_at))
        newest = connection.execute(
            select(result.c.assessment).where(result.c.study_id == row.id).order_by(result.c.revision.desc()).limit(1)
        ).scalar_one_or_none()
        if newest is not None and row.state != StudyState.RECEIVING:
            result_came(connection, row.id, identity, assessment_from_json(newest), now)
    return len(rows)


def inputs_of(connection: Connection, study_ids: Sequence[int]) -> dict[int, list[Reference]]:
    """The films of each study."""
    rows = connection.execute(
        select(
            instance.c.study_id, instance.c.series_instance_uid, instance.c.sop_class_uid, instance.c.sop_instance_uid
        )
        .where(instance.c.study_id.in_(study_ids), instance.c.current, instance.c.state != ImageState.KEPT)
        .order_by(instance.c.id)
    )
    found: dict[int, list[Reference]] = {}
    for study_id, *named in rows:
        found.setdefault(study_id, []).append(Reference(*named))
    return found


def outputs_of(connection: Connection, study_ids: Sequence[int]) -> dict[int, list[Reference]]:
    """The report and the heat map of each study's newest result that has any."""
    rows = connection.execute(
        select(
            result.c.study_id, result.c.revision, artifact.c.series_instance_uid, artifact.c.sop_class_uid,
            artifact.c.identity,
        )
        .join(result, result.c.id == artifact.c.result_id)
        .where(result.c.study_id.in_(study_ids), artifact.c.kind.in_((SR, HEATMAP)))
        .order_by(result.c.revision.desc(), artifact.c.id)
    ).all()  # fmt: skip
    found: dict[int, list[Reference]] = {}
    newest: dict[int, int] = {}
    for row in rows:
        if row.revision == newest.setdefault(row.study_id, row.revision):
            one = Reference(row.series_instance_uid or "", row.sop_class_uid or "", row.identity)
            found.setdefault(row.study_id, []).append(one)
    return found


def _again(connection: Connection, ended: WorkItem, now: Moment) -> WorkItem:
    """A new item for the same reading, as urgent as the one before or as what was ordered since."""
    row = connection.execute(select(study).where(study.c.id == ended.study_id)).one()
    number = ended.number + 1
    dataset = once_more(
        read_json(ended.attributes), _uid(connection, row.study_instance_uid, number), now.at
    )  # fmt: skip
    urgency = max(-ended.urgency, _URGENCY[Priority(row.ordered_priority or Priority.ROUTINE)])
    dataset.ScheduledProcedureStepPriority = _ups(urgency).value
    return work_items.create(
        connection, write_json(dataset), ACTOR, now, urgency=urgency, study_id=ended.study_id, number=number
    )  # fmt: skip


def _revise(
    connection: Connection,
    item: WorkItem,
    now: Moment,
    *,
    identity: StudyIdentity | None = None,
    priority: Priority | None = None,
    readiness: Readiness | None = None,
    comment: str | None = None,
) -> WorkItem:
    """Writes what is new into an open item; None leaves it as it was. Its priority only rises."""
    dataset = read_json(item.attributes)
    urgency = max(item.urgency, _URGENCY[priority] if priority is not None else 0)
    if identity is not None:
        say_whose(dataset, identity)
    if comment is not None:
        say_why(dataset, comment)
    if readiness is not None:
        dataset.InputReadinessState = readiness.value
    dataset.ScheduledProcedureStepPriority = _ups(urgency).value
    attributes = write_json(dataset)
    if attributes == item.attributes and urgency == item.urgency:
        return item
    dataset.ScheduledProcedureStepModificationDateTime = dicom_time(now.at)
    return work_items.write(connection, item, write_json(dataset), ACTOR, now, urgency=urgency)


def _cancel(connection: Connection, item: WorkItem, words: str, now: Moment) -> None:
    attributes = write_json(canceled(read_json(item.attributes), now.at, words))
    work_items.end_unclaimed(connection, item, State.CANCELED, attributes, ACTOR, now)


def _ups(urgency: int) -> UpsPriority:
    return UpsPriority.HIGH if urgency >= _URGENCY[Priority.URGENT] else UpsPriority.MEDIUM


def _uid(connection: Connection, study_instance_uid: str, number: int) -> str:
    return derive_uid(site_uid_in(connection), study_instance_uid, number, "workitem")


def _ordered(ordered: Priority | None) -> str:
    return f"ordered as {ordered.name}" if ordered is not None and ordered > Priority.ROUTINE else ""
