"""The worklist as a service: what a client of UPS-RS or of UPS over DIMSE may ask, each answered in one transaction.

Both transports end here; attributes come and go as DICOM JSON. A refusal is an ``UpsRefusal`` with the standard's
status. What is done to a reading item is done to the reading list in the same transaction: who completes it has read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TypeVar

from pydicom.uid import generate_uid
from sqlalchemy import Connection

from firstread.agent import clock
from firstread.agent.clock import Moment
from firstread.agent.config import Settings
from firstread.agent.store import reading_items, work_items, work_search, work_subscriptions, worklist
from firstread.agent.store.engine import Store, StoreBusy
from firstread.agent.store.tables import EntryState
from firstread.agent.store.work_items import WorkItem
from firstread.agent.store.worklist_match import Match
from firstread.integration.dicom.ups import (
    FILTERED_GLOBAL,
    GLOBAL,
    Asker,
    EventType,
    Json,
    State,
    Status,
    UpsEvent,
    UpsRefusal,
    first,
)
from firstread.integration.dicom.ups_reading import references, with_references
from firstread.integration.dicom.ups_rules import (
    canceled,
    changed,
    created,
    is_uid,
    read_json,
    require_completed,
    write_json,
)

TRIES = 3
RECENT = timedelta(days=1)
"""What ended so recently is told again to a subscriber that connects: it may have missed the end."""

Answer = TypeVar("Answer")


class WorkItems:
    """The service on an open store. ``now`` is asked once for each request."""

    def __init__(self, settings: Settings, store: Store, now: Callable[[], Moment] = clock.now) -> None:
        self._settings = settings
        self._store = store
        self._now = now

    def create(self, sop_instance_uid: str, attributes: Json, asker: Asker) -> tuple[str, Status]:
        """A new item, with this UID or (where it is empty) the one in its attributes, or one of ours; and SUCCESS or
        CREATED_WITH_MODIFICATIONS."""
        dataset = read_json(attributes)
        uid = sop_instance_uid or str(dataset.get("SOPInstanceUID") or "") or str(generate_uid(prefix=None))
        now = self._now()
        kept, modified = created(dataset, uid, now.at)
        written = write_json(kept)
        self._write(lambda connection: work_items.create(connection, written, asker.name, now))
        return uid, Status.CREATED_WITH_MODIFICATIONS if modified else Status.SUCCESS

    def retrieve(self, sop_instance_uid: str) -> Json:
        """An item's attributes, without its Transaction UID."""
        with self._store.read() as connection:
            return self._whole(connection, [work_items.require(connection, sop_instance_uid)])[0]

    def update(self, sop_instance_uid: str, changes: Json, transaction_uid: str, asker: Asker) -> Status:
        """Writes attributes into an item; COERCED where a reading item would have been lowered and was not."""
        wanted = read_json(changes)
        given = transaction_uid or str(wanted.get("TransactionUID") or "")
        now = self._now()

        def write(connection: Connection) -> Status:
            item = work_items.require(connection, sop_instance_uid)
            _may_write(item, given)
            dataset = changed(read_json(item.attributes), wanted, now.at)
            urgency = None
            lowered = False
            if item.study_id is not None:
                asked = work_items.urgency_of(write_json(dataset))
                had = work_items.urgency_of(item.attributes)
                lowered = asked < had
                urgency = max(item.urgency, asked)
                if lowered:
                    dataset.ScheduledProcedureStepPriority = first(item.attributes, work_items.PRIORITY)
            work_items.write(connection, item, write_json(dataset), asker.name, now, urgency=urgency)
            return Status.COERCED if lowered else Status.SUCCESS

        return self._write(write)

    def change_state(self, sop_instance_uid: str, state: str, transaction_uid: str, asker: Asker) -> Status:
        """Claims an item, completes it or cancels it (PS3.4 CC.2.1); ALREADY_... where it has ended so before."""
        now = self._now()

        def change(connection: Connection) -> Status:
            item = work_items.require(connection, sop_instance_uid)
            if state == State.SCHEDULED:
                raise UpsRefusal(Status.SCHEDULED_BY_CREATION_ALONE, "an item becomes SCHEDULED by its creation alone")
            if state not in list(State):
                raise UpsRefusal(
                    Status.INVALID_ATTRIBUTE_VALUE,
                    f"Procedure Step State is IN PROGRESS, COMPLETED or CANCELED, not {state[:32]!r}",
                )
            if not transaction_uid:
                raise UpsRefusal(Status.WRONG_TRANSACTION_UID, "the Transaction UID is missing")
            if not is_uid(transaction_uid):
                raise UpsRefusal(Status.WRONG_TRANSACTION_UID, "the Transaction UID is malformed")
            if item.state.final:
                return _ended_before(item, state)
            if state == State.IN_PROGRESS:
                work_items.claim(connection, item, transaction_uid, asker.name, now)
                return Status.SUCCESS
            if item.state is State.SCHEDULED:
                raise UpsRefusal(Status.NOT_IN_PROGRESS, "the work item is not claimed: claim it first")
            if transaction_uid != item.transaction_uid:
                raise UpsRefusal(Status.WRONG_TRANSACTION_UID, "the Transaction UID is incorrect")
            self._end(connection, item, State(state), asker, now)
            return Status.SUCCESS

        return self._write(change)

    def request_cancel(self, sop_instance_uid: str, information: Json, asker: Asker) -> Status:
        """What nobody claimed is canceled; the owner of what is claimed is told of the wish (PS3.4 CC.2.2).

        A reading item that is canceled so leaves the reading list.
        """
        told = read_json(information)
        now = self._now()

        def cancel(connection: Connection) -> Status:
            item = work_items.require(connection, sop_instance_uid)
            if item.state is State.COMPLETED:
                raise UpsRefusal(Status.IS_COMPLETED, "the work item is COMPLETED already")
            if item.state is State.CANCELED:
                return Status.ALREADY_CANCELED
            asked = write_json(told)
            if asker.ae_title:
                asked["00741236"] = {"vr": "AE", "Value": [asker.ae_title]}
            keep = ("00741236", "00741238", "0074100E", "0074100A", "0074100C")
            if item.state is State.IN_PROGRESS:
                said = {tag: asked[tag] for tag in keep if tag in asked}
                work_items.ask_to_cancel(connection, item, said, asker.name, now)
                return Status.SUCCESS
            reason = str(told.get("ReasonForCancellation") or "")
            ended = canceled(read_json(item.attributes), now.at, reason)
            work_items.end_unclaimed(connection, item, State.CANCELED, write_json(ended), asker.name, now)
            self._take_off(connection, item, EntryState.CANCELLED, asker, now)
            return Status.SUCCESS

        return self._write(cancel)

    def search(self, keys: Json, *, limit: int, offset: int = 0) -> tuple[list[Json], bool]:
        """The attributes of the items that match, most urgent first; and whether there are more."""
        with self._store.read() as connection:
            found, more = work_search.search(connection, keys, limit=limit, offset=offset)
            return self._whole(connection, found), more

    def subscribe(self, resource: str, ae_title: str, asker: Asker, *, lock: bool, keys: Json | None = None) -> None:
        """An AE hears of an item, of all of them or (with ``keys``) of those that match; first of all how they stand.

        ``resource``: an item's UID or one of the two well-known ones (PS3.4 CC.2.3.1).
        """
        now = self._now()

        def follow(connection: Connection) -> None:
            if resource in (GLOBAL, FILTERED_GLOBAL):
                if resource == FILTERED_GLOBAL and not keys:
                    raise UpsRefusal(Status.MISSING_ATTRIBUTE, "a filtered subscription needs matching keys")
                wanted = keys if resource == FILTERED_GLOBAL else None
                work_subscriptions.subscribe_globally(connection, ae_title, wanted, lock=lock, now=now)
                rows = work_subscriptions.items_of(connection, ae_title, now.at)
                for row in rows:
                    _tell_state(connection, work_items.from_row(row), ae_title, now)
                return
            item = work_items.require(connection, resource)
            work_subscriptions.subscribe(connection, ae_title, item.id, lock=lock, now=now)
            _tell_state(connection, item, ae_title, now)

        self._write(follow)

    def unsubscribe(self, resource: str, ae_title: str) -> bool:
        """An AE hears of an item no more, or of nothing; False when it was not subscribed."""

        def leave(connection: Connection) -> bool:
            if resource in (GLOBAL, FILTERED_GLOBAL):
                return work_subscriptions.unsubscribe_globally(connection, ae_title)
            return work_subscriptions.unsubscribe(connection, ae_title, work_items.require(connection, resource).id)

        return self._write(leave)

    def suspend(self, resource: str, ae_title: str) -> bool:
        """An AE hears of no item that comes from now on; False without a global subscription (PS3.4 CC.2.3.3)."""
        if resource not in (GLOBAL, FILTERED_GLOBAL):
            raise UpsRefusal(Status.ACTION_NOT_APPROPRIATE, "only a global subscription is suspended")
        return self._write(lambda connection: work_subscriptions.suspend_globally(connection, ae_title))

    def as_it_stands(self, ae_title: str) -> tuple[list[UpsEvent], int]:
        """A state report of every item that an AE is subscribed to, and the number of the event after which to go on.

        What a subscriber gets that connects (again): items that are open, and those that ended within a day.
        """
        with self._store.read() as connection:
            newest = work_subscriptions.newest_event(connection)
            rows = work_subscriptions.items_of(connection, ae_title, self._now().at - RECENT)
            items = [work_items.from_row(row) for row in rows]
        reports = [
            UpsEvent(
                number, item.sop_instance_uid, EventType.STATE_REPORT,
                work_items.event_information(item.attributes, EventType.STATE_REPORT),
            )
            for number, item in enumerate(items, start=1)
        ]  # fmt: skip
        return reports, newest

    def _end(self, connection: Connection, item: WorkItem, state: State, asker: Asker, now: Moment) -> None:
        dataset = read_json(item.attributes)
        if state is State.COMPLETED:
            require_completed(dataset)
            work_items.end(connection, item, state, write_json(dataset), asker.name, now)
            self._take_off(connection, item, EntryState.REPORTED, asker, now)
            return
        work_items.end(connection, item, state, write_json(canceled(dataset, now.at)), asker.name, now)
        if item.cancel_requested:
            self._take_off(connection, item, EntryState.CANCELLED, asker, now)
        else:
            # Whoever gives a reading up has not read: somebody else must.
            reading_items.read_again(connection, item.study_id, now)

    def _take_off(self, connection: Connection, item: WorkItem, end: EntryState, asker: Asker, now: Moment) -> None:
        uid = str(first(item.attributes, "0020000D", ""))
        if item.study_id is None or not uid:
            return
        words = "read: its work item was completed" if end is EntryState.REPORTED else "its work item was canceled"
        worklist.take_off(connection, Match(study_instance_uid=uid), end, now, asker.name, words)

    def _whole(self, connection: Connection, items: Sequence[WorkItem]) -> list[Json]:
        """What is kept of items, and for those of ours what follows from their studies."""
        ours = [item.study_id for item in items if item.study_id is not None]
        inputs = reading_items.inputs_of(connection, ours) if ours else {}
        outputs = reading_items.outputs_of(connection, ours) if ours else {}
        ae_title = self._settings.dicom.ae_title
        found = []
        for item in items:
            if item.study_id is None:
                found.append(item.attributes)
                continue
            study = str(first(item.attributes, "0020000D", ""))
            made, films = (references(study, each.get(item.study_id, []), ae_title) for each in (outputs, inputs))
            minutes = getattr(self._settings.worklist.longest_wait_min, reading_items.priority_of(item.urgency).name)
            due_at = item.created_at + timedelta(minutes=minutes)
            found.append(with_references(item.attributes, films, made, due_at))
        return found

    def _write(self, step: Callable[[Connection], Answer]) -> Answer:
        """One transaction; again where another one was quicker, so that its state decides."""
        for attempt in range(1, TRIES + 1):
            try:
                with self._store.write() as connection:
                    return step(connection)
            except StoreBusy:
                if attempt == TRIES:
                    raise
        raise AssertionError("unreachable")


def _may_write(item: WorkItem, transaction_uid: str) -> None:
    if item.state.final:
        raise UpsRefusal(Status.NO_LONGER_UPDATED, f"the work item is {item.state.value} and may not be changed")
    if item.state is State.SCHEDULED and transaction_uid:
        raise UpsRefusal(Status.NOT_IN_PROGRESS, "a Transaction UID was given, but nobody has claimed the work item")
    if item.state is State.IN_PROGRESS and not transaction_uid:
        raise UpsRefusal(Status.WRONG_TRANSACTION_UID, "the Transaction UID is missing")
    if item.state is State.IN_PROGRESS and transaction_uid != item.transaction_uid:
        raise UpsRefusal(Status.WRONG_TRANSACTION_UID, "the Transaction UID is incorrect")


def _ended_before(item: WorkItem, state: str) -> Status:
    if state == item.state:
        return Status.ALREADY_CANCELED if item.state is State.CANCELED else Status.ALREADY_COMPLETED
    raise UpsRefusal(Status.NO_LONGER_UPDATED, f"the work item is {item.state.value} and may not be changed")


def _tell_state(connection: Connection, item: WorkItem, ae_title: str, now: Moment) -> None:
    information = work_items.event_information(item.attributes, EventType.STATE_REPORT)
    work_subscriptions.add_event(
        connection, item.sop_instance_uid, EventType.STATE_REPORT, information, [ae_title], now
    )
