"""Who hears of which work item, and of what: subscriptions and the durable queue of events (PS3.4 CC.2.3).

A subscriber is an AE title. A global subscription subscribes it to every item that is open and to each that comes; a
filtered one to those that match its keys, from the moment at which they do. An event names its receivers when it
happens, in the transaction in which it happens; a transport (WebSocket, N-EVENT-REPORT) takes events in their order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, RowMapping, delete, func, insert, select, text, update

from firstread.agent.clock import Moment
from firstread.agent.store.work_tables import work_event, work_item, work_receiver, work_subscription
from firstread.integration.dicom.ups import GLOBAL, EventType, Json, ScpStatus, UpsEvent
from firstread.integration.dicom.ups_match import matches

_ORDER_LOCK = 4_711_001
"""PostgreSQL: events are numbered one transaction after the other, or a reader would pass over a late one."""

_MANY = 500


def subscribe(connection: Connection, ae_title: str, work_item_id: int, *, lock: bool, now: Moment) -> None:
    """An AE hears of one item; a second subscription takes or gives up the lock of the first."""
    changed = connection.execute(
        update(work_subscription)
        .where(work_subscription.c.ae_title == ae_title, work_subscription.c.work_item_id == work_item_id)
        .values(deletion_lock=lock)
    ).rowcount
    if not changed:
        connection.execute(
            insert(work_subscription).values(
                ae_title=ae_title, work_item_id=work_item_id, deletion_lock=lock, created_at=now.at
            )
        )


def subscribe_globally(
    connection: Connection, ae_title: str, keys: Json | None, *, lock: bool, now: Moment
) -> list[int]:
    """An AE hears of every item that comes and matches ``keys`` (None: of all), and of those that are open now.

    Takes the place of an earlier global subscription of the same AE. Answers with the ids of those that are open; of
    an item that has ended nothing more would be heard.
    """
    _drop_global(connection, ae_title)
    connection.execute(
        insert(work_subscription).values(ae_title=ae_title, keys=keys, deletion_lock=lock, created_at=now.at)
    )
    found = []
    for item_id, attributes in _open_items(connection):
        if keys is None or matches(attributes, keys):
            subscribe(connection, ae_title, item_id, lock=lock, now=now)
            found.append(item_id)
    return found


def unsubscribe(connection: Connection, ae_title: str, work_item_id: int) -> bool:
    """An AE hears of an item no more, its lock is gone; False when it was not subscribed."""
    condition = (work_subscription.c.ae_title == ae_title, work_subscription.c.work_item_id == work_item_id)
    return bool(connection.execute(delete(work_subscription).where(*condition)).rowcount)


def unsubscribe_globally(connection: Connection, ae_title: str) -> bool:
    """An AE hears of nothing any more; False when it was subscribed to nothing."""
    return bool(connection.execute(delete(work_subscription).where(work_subscription.c.ae_title == ae_title)).rowcount)


def suspend_globally(connection: Connection, ae_title: str) -> bool:
    """An AE hears of no item that comes; those that it is subscribed to stay. False without a global subscription."""
    return _drop_global(connection, ae_title)


def follow_new(connection: Connection, work_item_id: int, attributes: Json, now: Moment) -> int:
    """Subscribes to a new item everybody who wants to hear of it; answers how many."""
    wanting = [row for row in _global_subscriptions(connection) if not row["keys"] or matches(attributes, row["keys"])]
    for row in wanting:
        subscribe(connection, row["ae_title"], work_item_id, lock=row["deletion_lock"], now=now)
    return len(wanting)


def follow_changed(connection: Connection, work_item_id: int, before: Json, after: Json, now: Moment) -> list[str]:
    """Subscribes to an item those whose filter it matches since it was changed; answers with their AE titles.

    Who waits for urgent readings wants to hear of one that became urgent.
    """
    joined = [
        row
        for row in _global_subscriptions(connection)
        if row["keys"] is not None and matches(after, row["keys"]) and not matches(before, row["keys"])
    ]
    for row in joined:
        subscribe(connection, row["ae_title"], work_item_id, lock=row["deletion_lock"], now=now)
    return [row["ae_title"] for row in joined]


def receivers_of(connection: Connection, work_item_id: int) -> list[str]:
    """The AE titles that are subscribed to an item."""
    return list(
        connection.execute(
            select(work_subscription.c.ae_title)
            .where(work_subscription.c.work_item_id == work_item_id)
            .order_by(work_subscription.c.ae_title)
        ).scalars()
    )


def items_of(connection: Connection, ae_title: str, ended_after: datetime) -> list[Any]:
    """Rows of the items an AE is subscribed to that are open, or ended after this moment; oldest first."""
    return list(
        connection.execute(
            select(work_item)
            .join(work_subscription, work_subscription.c.work_item_id == work_item.c.id)
            .where(
                work_subscription.c.ae_title == ae_title,
                (work_item.c.ended_at.is_(None)) | (work_item.c.ended_at > ended_after),
            )
            .order_by(work_item.c.id)
        )
    )


def add_event(
    connection: Connection,
    sop_instance_uid: str,
    kind: EventType,
    information: Json,
    receivers: Sequence[str],
    now: Moment,
) -> None:
    """Keeps an event for its receivers."""
    if not receivers:
        return
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ORDER_LOCK})
    connection.execute(
        insert(work_event).values(
            at=now.at, sop_instance_uid=sop_instance_uid, type=int(kind), information=information,
            receivers=list(receivers),
        )
    )  # fmt: skip


def tell_status(connection: Connection, status: ScpStatus, now: Moment) -> None:
    """Keeps the event that this SCP goes down or is back, for everybody with a global subscription (PS3.4 CC.2.4)."""
    receivers = sorted({row["ae_title"] for row in _global_subscriptions(connection)})
    add_event(connection, GLOBAL, EventType.SCP_STATUS_CHANGE, status.information(), receivers, now)


def newest_status(connection: Connection) -> tuple[UpsEvent, list[str]] | None:
    """The newest SCP Status Change and who was to hear of it; None where there was none."""
    row = connection.execute(
        select(work_event)
        .where(work_event.c.type == int(EventType.SCP_STATUS_CHANGE))
        .order_by(work_event.c.id.desc())
        .limit(1)
    ).one_or_none()
    return None if row is None else (_event(row), row.receivers)


def newest_event(connection: Connection) -> int:
    """The number of the newest event, 0 when there was none."""
    return int(connection.execute(select(func.max(work_event.c.id))).scalar() or 0)


def events_after(connection: Connection, event_id: int) -> list[tuple[UpsEvent, list[str]]]:
    """Events after that number, in their order, with the AE titles that are to hear of each; 500 at most."""
    rows = connection.execute(
        select(work_event).where(work_event.c.id > event_id).order_by(work_event.c.id).limit(_MANY)
    )
    return [(_event(row), row.receivers) for row in rows]


def told(connection: Connection, ae_title: str) -> int:
    """The number of the event to which an AE has been told everything over DICOM."""
    number = connection.execute(
        select(work_receiver.c.told_event_id).where(work_receiver.c.ae_title == ae_title)
    ).scalar_one_or_none()
    return int(number or 0)


def mark_told(connection: Connection, ae_title: str, event_id: int) -> None:
    """An AE was told everything up to this event."""
    changed = connection.execute(
        update(work_receiver).where(work_receiver.c.ae_title == ae_title).values(told_event_id=event_id)
    ).rowcount
    if not changed:
        connection.execute(insert(work_receiver).values(ae_title=ae_title, told_event_id=event_id))


def forget_events(connection: Connection, before: datetime) -> int:
    """Drops events that happened before ``before``; answers how many."""
    return connection.execute(delete(work_event).where(work_event.c.at < before)).rowcount


def _event(row: Any) -> UpsEvent:
    return UpsEvent(row.id, row.sop_instance_uid, EventType(row.type), row.information)


def _global_subscriptions(connection: Connection) -> list[RowMapping]:
    return list(
        connection.execute(select(work_subscription).where(work_subscription.c.work_item_id.is_(None))).mappings()
    )


def _drop_global(connection: Connection, ae_title: str) -> bool:
    condition = (work_subscription.c.ae_title == ae_title, work_subscription.c.work_item_id.is_(None))
    return bool(connection.execute(delete(work_subscription).where(*condition)).rowcount)


def _open_items(connection: Connection) -> Iterator[tuple[int, Json]]:
    last = 0
    while True:
        rows = connection.execute(
            select(work_item.c.id, work_item.c.attributes)
            .where(work_item.c.id > last, work_item.c.ended_at.is_(None))
            .order_by(work_item.c.id)
            .limit(_MANY)
        ).all()
        if not rows:
            return
        for row in rows:
            yield row.id, row.attributes
        last = rows[-1].id
