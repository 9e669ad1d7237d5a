"""Transitions of the reading list: an entry comes, is raised, is taken off, and comes back.

Two principles run through it. Raising needs any match between a message and an entry; taking off needs that nothing
which both name contradicts. A priority only rises.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy import Connection, Row, and_, delete, insert, select, update

from firstread.agent.clock import Moment
from firstread.agent.store import events, reading_items
from firstread.agent.store.codec import identity_from_json, identity_to_json
from firstread.agent.store.engine import StoreBusy
from firstread.agent.store.tables import EntryState, entry, event, study
from firstread.agent.store.worklist_match import (
    Match,
    accessions,
    find_entries,
    keep_accessions,
    key_columns,
    match_of,
    merge_identity,
    patients_agree,
)
from firstread.models.prediction import FindingResult, ModelIdentity, Priority, Reason, StudyIdentity

BY_FILM = "intake"


@dataclass(frozen=True)
class ListedResult:
    """What a result message said of a study, as the list keeps it.

    ``revision`` 0: the message named none. ``ours``: an AI result, not a radiologist's preliminary report.
    """

    priority: Priority | None = None
    priority_reason: str = ""
    causes: tuple[str, ...] = ()
    findings: tuple[FindingResult, ...] = ()
    reason: Reason | None = None
    model: ModelIdentity | None = None
    notes: tuple[str, ...] = ()
    revision: int = 0
    ours: bool = True
    sender: str = ""
    control_id: str = ""


@dataclass(frozen=True)
class EntryChange:
    """An entry that a transition looked at: whether anything changed, and in words what."""

    entry_id: int
    changed: bool
    study_instance_uid: str = ""
    words: str = ""


class EntryMoved(StoreBusy):
    """Another transaction changed the entry first; the whole step can be done again."""


_RESULT = TypeAdapter(ListedResult)


def listed_result_from_json(stored: Any) -> ListedResult:
    """The result that an entry keeps."""
    return _RESULT.validate_python(stored)


def ensure_entry(
    connection: Connection, identity: StudyIdentity, arrived_at: datetime, *, new_film: bool = False
) -> int:
    """The id of the study's entry, made when there is none; called by intake in the transaction that stores a film.

    An order that came before the film is adopted with its priority; waiting counts from the first film. With
    ``new_film`` (a film to be judged that was not stored before; never a resend, a report or a presentation state) an
    entry that was taken off earlier is opened again: nobody has read that film.
    """
    now = Moment(arrived_at, "", 0.0)
    first_film, study_id = _study(connection, identity.study_instance_uid)
    first_at = first_film or arrived_at
    row = connection.execute(
        select(entry).where(entry.c.study_instance_uid == identity.study_instance_uid)
    ).one_or_none()
    if row is None:
        return _adopt_or_insert(connection, identity, first_at, now, study_id)
    values = _identity_values(row, merge_identity(identity, identity_from_json(row.identity)))
    if row.state == EntryState.OPEN:
        if row.arrived_at < first_at:
            values["arrived_at"] = first_at  # the order came first: nobody waits for a film that was not made
    elif arrived_at > row.ended_at and (new_film or first_at > row.ended_at):
        values |= _open_values() | {"arrived_at": arrived_at}
        why = "a film came after the study was taken off the list"
        events.record(
            connection, now, "list reopened", BY_FILM, study_id=study_id, entry_id=row.id, was=row.state, why=why
        )
        reading_items.read_again(connection, study_id, now)
    if values:
        _change(connection, row, values, now)
    return int(row.id)


def apply_order(
    connection: Connection, match: Match, identity: StudyIdentity, priority: Priority | None, now: Moment, actor: str
) -> list[EntryChange]:
    """Writes an order into every entry that it names; without one, keeps the order until its film comes.

    ``priority`` None: the order says nothing of it. The ordered priority never falls. An entry whose earlier order was
    cancelled is opened again. Where the patients differ only the priority is taken.
    """
    matched = find_entries(connection, match)
    if not matched:
        return [_insert_order(connection, match, identity, priority, now, actor)]
    changes = []
    for row in matched:
        values: dict[str, Any] = {}
        words = []
        if priority is not None and priority > (row.ordered_priority or 0):
            values["ordered_priority"] = int(priority)
            words.append(f"ordered {priority.name}")
        if patients_agree(match, row):
            merged = merge_identity(identity_from_json(row.identity), identity)
            numbers = tuple(dict.fromkeys((*accessions(merged), *match.accession_numbers)))
            values |= _identity_values(row, replace(merged, accession_numbers=numbers if len(numbers) > 1 else ()))
            if row.study_instance_uid is None and match.study_instance_uid:
                values["study_instance_uid"] = match.study_instance_uid
        else:
            words.append("the order names another patient, so only its priority was taken")
        if row.state == EntryState.CANCELLED:
            values |= _open_values()
            words.append("ordered again after it was cancelled")
            reading_items.read_again(connection, _study(connection, row.study_instance_uid)[1], now)
        if values:
            _change(connection, row, values, now)
            events.record(
                connection, now, "list order", actor, study_id=_study(connection, row.study_instance_uid)[1],
                entry_id=row.id, priority=priority and priority.name, words="; ".join(words),
            )  # fmt: skip
        changes.append(EntryChange(row.id, bool(values), row.study_instance_uid or "", "; ".join(words)))
    return changes


def apply_result(
    connection: Connection, match: Match, identity: StudyIdentity, listed: ListedResult, now: Moment, actor: str
) -> list[EntryChange]:
    """Writes a result into the entry that it names, or makes one; the result's priority only rises.

    A result of an earlier revision than the one that stands is not shown in its place. What is not ours can raise, but
    its findings are not shown.
    """
    matched = find_entries(connection, match)
    if not matched and not listed.ours:
        return []  # a report on what we never heard of: a RIS tells of every modality
    if not matched:
        entry_id = _insert(connection, match, identity, now.at, now.at, ordered=None)
        matched = [connection.execute(select(entry).where(entry.c.id == entry_id)).one()]
    changes = []
    for row in matched:
        values: dict[str, Any] = {}
        if listed.priority is not None and listed.priority > (row.result_priority or 0):
            values["result_priority"] = int(listed.priority)
        if listed.ours and (row.result is None or listed.revision >= int(row.result.get("revision", 0))):
            values |= {"result": _RESULT.dump_python(listed, mode="json"), "result_at": now.at}
        if values:
            _change(connection, row, values, now)
            events.record(
                connection, now, "list result", actor, study_id=_study(connection, row.study_instance_uid)[1],
                entry_id=row.id, priority=listed.priority and listed.priority.name, revision=listed.revision,
                reason=listed.reason.code if listed.reason else "",
            )  # fmt: skip
        changes.append(EntryChange(row.id, bool(values), row.study_instance_uid or ""))
    return changes


def take_off(
    connection: Connection,
    match: Match,
    end: EntryState,
    now: Moment,
    actor: str,
    words: str,
    *,
    unordered: bool = False,
) -> list[EntryChange]:
    """Ends every open entry that a final report or a cancelled order names, where the patients agree.

    A study of several accession numbers stays until each of them was reported or cancelled. ``unordered``: what
    somebody ordered stays too.
    """
    changes = []
    for row in find_entries(connection, match):
        uid = row.study_instance_uid or ""
        if row.state != EntryState.OPEN:
            changes.append(EntryChange(row.id, False, uid, f"is off the list already ({row.state})"))
            continue
        if unordered and (row.ordered_priority or row.placer_order_number):
            changes.append(EntryChange(row.id, False, uid, "was ordered, so it stays"))
            continue
        study_id = _study(connection, row.study_instance_uid)[1]
        if not patients_agree(match, row):
            why = "names another patient than the film, so the study stays on the list"
            events.record(connection, now, "list not ended", actor, study_id=study_id, entry_id=row.id, why=why)
            changes.append(EntryChange(row.id, False, uid, why))
            continue
        left = _accessions_left(connection, row, match, now, actor, study_id)
        if left:
            changes.append(EntryChange(row.id, False, uid, f"{words}; still waiting for {', '.join(left)}"))
            continue
        _end(connection, row, end, now, actor, words, study_id)
        changes.append(EntryChange(row.id, True, uid, words))
    return changes


def remove_entry(connection: Connection, entry_id: int, why: str, now: Moment, actor: str) -> bool:
    """open -> removed, by hand; False when it is not there or not open."""
    row = connection.execute(select(entry).where(entry.c.id == entry_id)).one_or_none()
    if row is None or row.state != EntryState.OPEN:
        return False
    _end(connection, row, EntryState.REMOVED, now, actor, why, _study(connection, row.study_instance_uid)[1])
    return True


def restore_entry(connection: Connection, entry_id: int, now: Moment, actor: str) -> bool:
    """Any end -> open; waiting time goes on from the study's arrival. False when it is not there or open."""
    row = connection.execute(select(entry).where(entry.c.id == entry_id)).one_or_none()
    if row is None or row.state == EntryState.OPEN:
        return False
    _change(connection, row, _open_values(), now)
    events.record(
        connection, now, "list restored", actor, study_id=_study(connection, row.study_instance_uid)[1],
        entry_id=entry_id, was=row.state, was_ended_by=row.ended_by,
    )  # fmt: skip
    reading_items.read_again(connection, _study(connection, row.study_instance_uid)[1], now)
    return True


def forget_ended(connection: Connection, before: datetime) -> int:
    """Drops entries that ended before ``before``, and orders of that age whose film never came; answers how many."""
    sent = study.c.trial_run_id.is_(None)
    film = select(study.c.id).where(study.c.study_instance_uid == entry.c.study_instance_uid, sent).exists()
    old_order = and_(entry.c.state == EntryState.OPEN, entry.c.result.is_(None), entry.c.updated_at < before, ~film)
    ended = connection.execute(delete(entry).where(entry.c.ended_at < before)).rowcount
    return ended + connection.execute(delete(entry).where(old_order)).rowcount


def _adopt_or_insert(
    connection: Connection, identity: StudyIdentity, first_at: datetime, now: Moment, study_id: int | None
) -> int:
    match = replace(match_of(identity), study_instance_uid="")
    related = find_entries(connection, match)
    ordered = max((row.ordered_priority or 0 for row in related), default=0) or None
    agreeing = [row for row in related if patients_agree(match, row)]
    for row in agreeing:
        known = replace(identity_from_json(row.identity), study_instance_uid="", accession_numbers=())
        identity = merge_identity(identity, known)
    orders = [row for row in agreeing if row.study_instance_uid is None]
    if not orders:
        entry_id = _insert(connection, match_of(identity), identity, first_at, now.at, ordered=ordered)
        events.record(connection, now, "list added", BY_FILM, study_id=study_id, entry_id=entry_id)
        return entry_id
    kept, *others = orders
    values: dict[str, Any] = {
        **_open_values(), **_identity_values(kept, identity), "study_instance_uid": identity.study_instance_uid,
        "ordered_priority": ordered, "arrived_at": first_at,
    }  # fmt: skip
    told = [row for row in orders if row.result is not None]
    if told:
        values |= {"result": told[-1].result, "result_at": told[-1].result_at}
        values["result_priority"] = max(row.result_priority or 0 for row in told) or None
    if others:
        connection.execute(delete(entry).where(entry.c.id.in_([row.id for row in others])))
    _change(connection, kept, values, now)
    events.record(
        connection, now, "list order met its film", BY_FILM, study_id=study_id, entry_id=kept.id, was=kept.state,
        merged=[row.id for row in others],
    )  # fmt: skip
    return int(kept.id)


def _insert_order(
    connection: Connection, match: Match, identity: StudyIdentity, priority: Priority | None, now: Moment, actor: str
) -> EntryChange:
    numbers = match.accession_numbers
    if not identity.accession_number and numbers:
        identity = replace(identity, accession_number=numbers[0], accession_numbers=numbers if len(numbers) > 1 else ())
    entry_id = _insert(connection, match, identity, now.at, now.at, ordered=priority and int(priority))
    events.record(
        connection, now, "list order", actor, study_id=_study(connection, match.study_instance_uid)[1],
        entry_id=entry_id, priority=priority and priority.name, words="came before its film",
    )  # fmt: skip
    return EntryChange(entry_id, True, match.study_instance_uid, "kept until its film comes")


def _insert(
    connection: Connection, match: Match, identity: StudyIdentity, arrived: datetime, at: datetime, ordered: int | None
) -> int:
    key = connection.execute(
        insert(entry).values(
            study_instance_uid=match.study_instance_uid or None, identity=identity_to_json(identity),
            ordered_priority=ordered, arrived_at=arrived, updated_at=at, version=1, state=EntryState.OPEN,
            **key_columns(identity, match),
        )
    ).inserted_primary_key  # fmt: skip
    if key is None:
        raise RuntimeError("the database gave no key for a new entry")
    keep_accessions(connection, int(key[0]), identity)
    return int(key[0])


def _accessions_left(
    connection: Connection, row: Row[Any], match: Match, now: Moment, actor: str, study_id: int | None
) -> Sequence[str]:
    numbers = accessions(identity_from_json(row.identity))
    if len(numbers) < 2 or not match.accession_numbers:
        return ()
    told = connection.execute(
        select(event.c.detail).where(event.c.kind == "list part ended", event.c.at >= row.arrived_at)
    ).scalars()
    done = {number for detail in told if detail.get("entry_id") == row.id for number in detail["accession_numbers"]}
    left = [number for number in numbers if number not in done | set(match.accession_numbers)]
    if left:
        events.record(
            connection, now, "list part ended", actor, study_id=study_id, entry_id=row.id,
            accession_numbers=list(match.accession_numbers),
        )  # fmt: skip
    return left


def _end(
    connection: Connection, row: Row[Any], end: EntryState, now: Moment, actor: str, words: str, study_id: int | None
) -> None:
    said = f"{actor}: {words}" if words else actor
    _change(connection, row, {"state": end, "ended_at": now.at, "ended_by": said}, now)
    events.record(connection, now, f"list {end}", actor, study_id=study_id, entry_id=row.id, words=words)
    reading_items.entry_ended(connection, study_id, end, words, now)


def _open_values() -> dict[str, Any]:
    return {"state": EntryState.OPEN, "ended_at": None, "ended_by": None}


def _identity_values(row: Row[Any], identity: StudyIdentity) -> dict[str, Any]:
    if identity == identity_from_json(row.identity):
        return {}
    return {"identity": identity_to_json(identity), **key_columns(identity, match_of(identity))}


def _change(connection: Connection, row: Row[Any], values: Mapping[str, Any], now: Moment) -> None:
    changed = connection.execute(
        update(entry)
        .where(entry.c.id == row.id, entry.c.state == row.state, entry.c.version == row.version)
        .values(**values, updated_at=now.at, version=row.version + 1)
    ).rowcount
    if changed != 1:
        raise EntryMoved(f"entry {row.id} of the reading list was changed by somebody else meanwhile: do it again")
    if "identity" in values:
        keep_accessions(connection, row.id, identity_from_json(values["identity"]))


def _study(connection: Connection, uid: str | None) -> tuple[datetime | None, int | None]:
    """When the study's first film came, and its row; (None, None) when no film came."""
    if not uid:
        return None, None
    row = connection.execute(
        select(study.c.id, study.c.received_at).where(study.c.study_instance_uid == uid, study.c.trial_run_id.is_(None))
    ).one_or_none()
    return (None, None) if row is None else (row.received_at, row.id)
