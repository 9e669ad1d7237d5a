"""Transitions of a work item (Unified Procedure Step): made, written, claimed, ended (PS3.4 CC.1.1).

    SCHEDULED -> IN PROGRESS -> COMPLETED | CANCELED

A claim names a Transaction UID, and whoever does not know it changes nothing until the item has ended. What an item is
for a study is told in ``reading_items``; who hears of it in ``work_subscriptions``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, delete, exists, insert, select, update

from firstread.agent.clock import Moment
from firstread.agent.store import events, work_subscriptions
from firstread.agent.store.engine import StoreBusy
from firstread.agent.store.work_tables import work_item, work_subscription
from firstread.integration.dicom.ups import EventType, Json, State, Status, UpsPriority, UpsRefusal, first

STATE, READINESS, PRIORITY = "00741000", "00404041", "00741200"
URGENCY = {UpsPriority.LOW: 1, UpsPriority.MEDIUM: 2, UpsPriority.HIGH: 4}
"""In which order items are listed, the highest first. 3 is HIGH as well, behind a STAT: an item of ours that is URGENT.
What has ended keeps its urgency with a minus sign, behind all that is open."""


@dataclass(frozen=True)
class WorkItem:
    """One item as it is kept. ``study_id``: the study whose reading it is, None for what others made.

    ``number``: counts the items of a study; a study that is read, and then gets another film, is read again.
    """

    id: int
    sop_instance_uid: str
    study_id: int | None
    number: int
    state: State
    urgency: int
    transaction_uid: str | None
    cancel_requested: bool
    attributes: Json
    created_at: datetime
    ended_at: datetime | None
    version: int


class WorkItemMoved(StoreBusy):
    """Another transaction changed the item first; the whole step can be done again."""


def find(connection: Connection, sop_instance_uid: str) -> WorkItem | None:
    """The item of that UID, None when there is none."""
    row = connection.execute(select(work_item).where(work_item.c.sop_instance_uid == sop_instance_uid)).one_or_none()
    return None if row is None else from_row(row)


def require(connection: Connection, sop_instance_uid: str) -> WorkItem:
    """The item of that UID. Raises UpsRefusal (C307) when there is none."""
    item = find(connection, sop_instance_uid)
    if item is None:
        raise UpsRefusal(Status.UNKNOWN_INSTANCE, f"there is no work item {sop_instance_uid}")
    return item


def newest_of_study(connection: Connection, study_id: int) -> WorkItem | None:
    """The newest reading item of a study."""
    row = connection.execute(
        select(work_item).where(work_item.c.study_id == study_id).order_by(work_item.c.number.desc()).limit(1)
    ).one_or_none()
    return None if row is None else from_row(row)


def create(
    connection: Connection,
    attributes: Json,
    actor: str,
    now: Moment,
    *,
    urgency: int | None = None,
    study_id: int | None = None,
    number: int = 0,
) -> WorkItem:
    """A new item, SCHEDULED; whoever subscribed to all that comes hears of it. Raises UpsRefusal (0111) for a UID
    that is there already."""
    uid = str(first(attributes, "00080018", ""))
    if study_id is None and find(connection, uid) is not None:
        raise UpsRefusal(Status.DUPLICATE_SOP_INSTANCE, f"there is a work item {uid} already")
    item = WorkItem(
        id=0, sop_instance_uid=uid, study_id=study_id, number=number, state=State.SCHEDULED,
        urgency=urgency_of(attributes) if urgency is None else urgency, transaction_uid=None, cancel_requested=False,
        attributes=attributes, created_at=now.at, ended_at=None, version=1,
    )  # fmt: skip
    key = connection.execute(
        insert(work_item).values(
            sop_instance_uid=uid, study_id=study_id, number=number, state=item.state, urgency=item.urgency,
            cancel_requested=False, attributes=attributes, **_columns(attributes), created_at=now.at,
            updated_at=now.at, version=item.version,
        )
    ).inserted_primary_key  # fmt: skip
    if key is None:
        raise RuntimeError("the database gave no key for a new work item")
    item = replace(item, id=int(key[0]))
    events.record(connection, now, "work item made", actor, study_id=study_id, work_item=uid)
    if work_subscriptions.follow_new(connection, item.id, attributes, now):
        announce(connection, item, EventType.STATE_REPORT, now)
    return item


def write(
    connection: Connection, item: WorkItem, attributes: Json, actor: str, now: Moment, *, urgency: int | None = None
) -> WorkItem:
    """SCHEDULED | IN PROGRESS -> the same, with other attributes; tells of what subscribers must hear (PS3.4 CC.2.4).

    ``urgency`` None: as the attributes say. An item of ours that became more urgent is told of by a state report.
    """
    _require_open(item)
    wanted = urgency_of(attributes) if urgency is None else urgency
    values = {"attributes": attributes, "urgency": wanted, **_columns(attributes)}
    changed = _change(connection, item, values, now)
    joined = work_subscriptions.follow_changed(connection, item.id, item.attributes, attributes, now)
    if attributes.get(READINESS) != item.attributes.get(READINESS) or wanted > item.urgency:
        announce(connection, changed, EventType.STATE_REPORT, now)
    elif joined:
        told = event_information(attributes, EventType.STATE_REPORT)
        work_subscriptions.add_event(connection, item.sop_instance_uid, EventType.STATE_REPORT, told, joined, now)
    if attributes.get("00741002") != item.attributes.get("00741002"):
        announce(connection, changed, EventType.PROGRESS_REPORT, now)
    if any(attributes.get(tag) != item.attributes.get(tag) for tag in ("00404025", "00404034")):
        announce(connection, changed, EventType.ASSIGNED, now)
    events.record(connection, now, "work item written", actor, study_id=item.study_id, work_item=item.sop_instance_uid)
    return changed


def claim(connection: Connection, item: WorkItem, transaction_uid: str, actor: str, now: Moment) -> WorkItem:
    """SCHEDULED -> IN PROGRESS, owned by who knows ``transaction_uid``. Raises UpsRefusal for any other state."""
    if item.state is State.IN_PROGRESS:
        raise UpsRefusal(Status.ALREADY_IN_PROGRESS, "the work item is claimed already")
    _require_open(item)
    values = {
        "state": State.IN_PROGRESS,
        "transaction_uid": transaction_uid,
        "attributes": _in_state(item, "IN PROGRESS"),
    }
    return _moved(connection, item, values, "work item claimed", actor, now)


def end(connection: Connection, item: WorkItem, state: State, attributes: Json, actor: str, now: Moment) -> WorkItem:
    """IN PROGRESS -> COMPLETED | CANCELED, for good. Raises UpsRefusal for any other state."""
    if item.state is State.SCHEDULED:
        raise UpsRefusal(Status.NOT_IN_PROGRESS, "the work item is not claimed: claim it first")
    _require_open(item)
    values = {
        "state": state, "attributes": _in_state(replace(item, attributes=attributes), state), "urgency": -item.urgency,
        "transaction_uid": None, "ended_at": now.at,
    }  # fmt: skip
    return _moved(connection, item, values, f"work item {state.value.lower()}", actor, now)


def end_unclaimed(
    connection: Connection, item: WorkItem, state: State, attributes: Json, actor: str, now: Moment
) -> WorkItem:
    """SCHEDULED -> IN PROGRESS -> COMPLETED | CANCELED by ourselves, as PS3.4 CC.2.2.3 asks of an SCP."""
    claimed = claim(connection, item, "", actor, now)
    return end(connection, claimed, state, attributes, actor, now)


def ask_to_cancel(connection: Connection, item: WorkItem, information: Json, actor: str, now: Moment) -> WorkItem:
    """IN PROGRESS -> the same, and its owner is told that somebody wants it canceled (PS3.4 CC.2.2)."""
    changed = _change(connection, item, {"cancel_requested": True}, now)
    events.record(
        connection, now, "work item cancel requested", actor, study_id=item.study_id, work_item=item.sop_instance_uid
    )
    receivers = work_subscriptions.receivers_of(connection, item.id)
    work_subscriptions.add_event(
        connection, item.sop_instance_uid, EventType.CANCEL_REQUESTED, information, receivers, now
    )
    return changed


def forget_ended(connection: Connection, before: datetime) -> int:
    """Drops what others made and ended before ``before``, unless a subscriber locked it; answers how many.

    Reading items stay, as their studies do: the UID of one that was forgotten could be made again.
    """
    locked = exists().where(work_subscription.c.work_item_id == work_item.c.id, work_subscription.c.deletion_lock)
    old = select(work_item.c.id).where(work_item.c.ended_at < before, ~locked)
    connection.execute(delete(work_subscription).where(work_subscription.c.work_item_id.in_(old)))
    return connection.execute(
        delete(work_item).where(work_item.c.ended_at < before, work_item.c.study_id.is_(None), ~locked)
    ).rowcount


def announce(connection: Connection, item: WorkItem, kind: EventType, now: Moment) -> None:
    """Keeps an event of an item for its subscribers; it stands or falls with the caller's transaction."""
    receivers = work_subscriptions.receivers_of(connection, item.id)
    if receivers:
        information = event_information(item.attributes, kind)
        work_subscriptions.add_event(connection, item.sop_instance_uid, kind, information, receivers, now)


def event_information(attributes: Json, kind: EventType) -> Json:
    """What an event report says of an item (PS3.4 Table CC.2.4-1)."""
    if kind is EventType.PROGRESS_REPORT:
        return {"00741002": attributes.get("00741002", {"vr": "SQ"})}
    if kind is EventType.ASSIGNED:
        performers = first(attributes, "00404034", {})
        told = {"00404025": attributes.get("00404025", {"vr": "SQ"})}
        return told | {tag: performers[tag] for tag in ("00404009", "00404036") if tag in performers}
    told = {tag: attributes[tag] for tag in (STATE, READINESS) if tag in attributes}
    if first(attributes, STATE) == State.CANCELED:
        progress = first(attributes, "00741002", {})
        told |= {tag: progress[tag] for tag in ("00741238", "0074100E") if tag in progress}
    return told


def urgency_of(attributes: Json) -> int:
    """The place in the list that an item's priority asks for."""
    return URGENCY.get(first(attributes, PRIORITY, ""), URGENCY[UpsPriority.MEDIUM])


def from_row(row: Row[Any]) -> WorkItem:
    """A row of the table."""
    return WorkItem(
        id=row.id, sop_instance_uid=row.sop_instance_uid, study_id=row.study_id, number=row.number,
        state=State(row.state), urgency=row.urgency, transaction_uid=row.transaction_uid,
        cancel_requested=row.cancel_requested, attributes=row.attributes, created_at=row.created_at,
        ended_at=row.ended_at, version=row.version,
    )  # fmt: skip


def _require_open(item: WorkItem) -> None:
    if item.state.final:
        raise UpsRefusal(Status.NO_LONGER_UPDATED, f"the work item is {item.state.value} and may not be changed")


def _in_state(item: WorkItem, state: str) -> Json:
    return {**item.attributes, STATE: {"vr": "CS", "Value": [str(state)]}}


def _moved(
    connection: Connection, item: WorkItem, values: dict[str, Any], what: str, actor: str, now: Moment
) -> WorkItem:
    changed = _change(connection, item, values, now)
    events.record(connection, now, what, actor, study_id=item.study_id, work_item=item.sop_instance_uid)
    announce(connection, changed, EventType.STATE_REPORT, now)
    return changed


def _change(connection: Connection, item: WorkItem, values: dict[str, Any], now: Moment) -> WorkItem:
    changed = connection.execute(
        update(work_item)
        .where(work_item.c.id == item.id, work_item.c.state == item.state, work_item.c.version == item.version)
        .values(**values, updated_at=now.at, version=item.version + 1)
    ).rowcount
    if changed != 1:
        raise WorkItemMoved(f"work item {item.sop_instance_uid} was changed by somebody else meanwhile: do it again")
    return require(connection, item.sop_instance_uid)


def _columns(attributes: Json) -> dict[str, str]:
    return {
        "study_instance_uid": str(first(attributes, "0020000D", ""))[:64],
        "patient_id": str(first(attributes, "00100020", ""))[:64],
    }
