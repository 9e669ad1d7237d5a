"""The oracle: from what the senders were told and what the receivers hold, it says what was lost, doubled or lowered.

Of the agent it reads what an auditor would: the films on its disk, its outbox and its trail.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections import defaultdict
from collections.abc import Container, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

from firstread.agent.store.overdue import PURGED
from tests.faults.receivers import Held, priority_of
from tests.faults.rig import Rig
from tests.faults.senders import Sent
from tests.integration.dicom_wire import data_set_of

_Of = TypeVar("_Of", Sent, Held)

ENDS = ("delivered", "superseded")
"""How a delivery may end in a campaign: every receiver heals in time."""


def findings(rig: Rig, films: Sequence[Sent], seen: Container[str] = ()) -> list[str]:
    """Every invariant that does not hold, as a sentence; empty when all is well. The agent may go on running.

    ``seen``: hashes of films that lay on the disk before the agent's retention took them; others may not be gone.
    """
    with closing(sqlite3.connect(f"file:{rig.spool / 'firstread.sqlite3'}?mode=ro", uri=True, timeout=20)) as database:
        database.row_factory = sqlite3.Row
        found = list(_of_films(rig.spool, database, films, seen))
        at_pacs, at_ris = _by_study(rig.pacs.held), _by_study(rig.ris.held)
        for study, of_study in _by_study(films).items():
            if any(one.acknowledged for one in of_study):
                found += _of_study(at_pacs[study], at_ris[study], database, study, of_study)
        found += _of_outbox(rig, database)
        found += _of_strangers(rig, films)
        (state,) = database.execute("PRAGMA quick_check").fetchone()
    if state != "ok":
        found.append(f"the database is damaged: {state}")
    return found


def _of_films(spool: Path, database: sqlite3.Connection, films: Sequence[Sent], seen: Container[str]) -> Iterable[str]:
    """Acknowledged films lie on the disk bit for bit, and the agent claims none that nobody sent."""
    on_disk = defaultdict(list)
    for path in (spool / "films").rglob("*.dcm"):
        on_disk[hashlib.sha256(data_set_of(path)).hexdigest()].append(str(path.relative_to(spool)))
    rows = {row["sop_instance_uid"]: row for row in database.execute("select * from instance where current")}
    sent = {one.sop_instance_uid: one for one in films}
    for one in films:
        row = rows.get(one.sop_instance_uid)
        if not one.acknowledged:
            yield f"film {one.sop_instance_uid} was never acknowledged: {one.told[-3:]}"
            continue
        if row is not None and row["path"] == PURGED and one.sha256 in seen:
            continue
        if one.sha256 not in on_disk:
            yield f"LOST: film {one.sop_instance_uid} was acknowledged and is not on the disk"
        if row is None:
            yield f"LOST: film {one.sop_instance_uid} was acknowledged and is not in the database"
        elif row["path"] not in on_disk[one.sha256]:
            yield f"LOST: film {one.sop_instance_uid} does not lie where the database says"
    for uid, row in rows.items():
        if uid not in sent:
            yield f"FALSE: the agent claims film {uid}, which nobody sent"
        elif row["sha256"] != sent[uid].sha256:
            yield f"film {uid} was kept with other bytes than were sent"


def _by_study(many: Iterable[_Of]) -> dict[str, list[_Of]]:
    sorted_out: dict[str, list[_Of]] = defaultdict(list)
    for one in many:
        sorted_out[one.study].append(one)
    return sorted_out


def _of_study(
    at_pacs: Sequence[Held], messages: Sequence[Held], database: sqlite3.Connection, study: str, films: Sequence[Sent]
) -> Iterable[str]:
    row = database.execute("select * from study where study_instance_uid = ?", (study,)).fetchone()
    if row is None:
        yield f"LOST: study {study} is unknown"
        return
    if row["state"] not in ("analysed", "not_analysed"):
        yield f"study {study} came to no end: {row['state']}"
    trail = [
        one["kind"] for one in database.execute("select kind from event where study_id = ? order by id", (row["id"],))
    ]
    taken = trail.count("received") + trail.count("replaced")
    if taken < len([one for one in films if one.acknowledged]):
        yield f"the trail of study {study} tells of {taken} films received: {trail}"
    yield from _of_trail(database, row["id"])
    for needed in ("received", row["state"]):
        if needed not in trail:
            yield f"the trail of study {study} does not tell of {needed!r}"
    reports = [one for one in at_pacs if one.kind == "SR"]
    maps = [one for one in at_pacs if one.kind != "SR"]
    for name, held in (("report", reports), ("heat map", maps), ("message", messages)):
        yield from _of_one_kind(f"{name} of study {study}", held)
    if not reports or not messages:
        yield f"LOST: study {study} has {len(reports)} reports at the PACS and {len(messages)} messages at the RIS"
        return
    newest = max(reports, key=lambda one: one.revision)
    told = max(messages, key=lambda one: one.revision)
    if newest.revision != told.revision:
        yield f"study {study}: the PACS holds revision {newest.revision}, the RIS {told.revision}"
    if newest.identity.encode() not in told.content:
        yield f"study {study}: the message at the RIS does not name the report at the PACS"
    for one in films:
        if one.acknowledged and one.sop_instance_uid.encode() not in newest.content:
            yield f"the newest report of study {study} says nothing of film {one.sop_instance_uid}"
    if row["state"] == "analysed" and newest.revision not in {one.revision for one in maps}:
        yield f"study {study} was analysed, and the PACS holds no heat map of revision {newest.revision}"
    highest = max(priority_of(one.content) for one in messages)
    if priority_of(told.content) < highest:
        yield f"LOWERED: study {study} was raised and its newest message says less"
    yield from _of_list(database, study, highest)
    kept = [json.loads(one["assessment"])["priority"] for one in database.execute(
        "select assessment from result where study_id = ? order by revision", (row["id"],)
    )]  # fmt: skip
    if kept != sorted(kept):
        yield f"LOWERED: the results of study {study} have priorities {kept}"


def _of_trail(database: sqlite3.Connection, study_id: int) -> Iterable[str]:
    """The trail tells of each film that it came and how its analysis ended, and of each result."""
    told: dict[int, set[str]] = defaultdict(set)
    for one in database.execute("select instance_id, kind from event where instance_id is not null and study_id = ?",
                                (study_id,)):  # fmt: skip
        told[one["instance_id"]].add(one["kind"])
    rows = database.execute("select * from instance where study_id = ? and current", (study_id,)).fetchall()
    ends = {"analysed": {"image analysed"}, "not_analysed": {"image not analysed"}}
    for row in rows:
        uid = row["sop_instance_uid"]
        if not told[row["id"]] & {"received", "replaced"}:
            yield f"the trail does not tell that film {uid} came"
        if row["state"] in ends and not told[row["id"]] & ends[row["state"]]:
            yield f"the trail does not tell that film {uid} is {row['state']}: {sorted(told[row['id']])}"


def _of_strangers(rig: Rig, films: Sequence[Sent]) -> Iterable[str]:
    """Nobody is told of a study that no sender sent."""
    studies = {one.study for one in films}
    for one in (*rig.pacs.held, *rig.ris.held):
        if one.study not in studies:
            yield f"FALSE: {one.identity} speaks of study {one.study}, which nobody sent"


def _of_one_kind(name: str, held: Sequence[Held]) -> Iterable[str]:
    """Once by identity: one identity a revision, the same bytes whenever it came; no older one after a newer one."""
    by_identity: dict[str, Held] = {}
    by_revision: dict[int, str] = {}
    newest = 0
    for one in held:
        first = by_identity.setdefault(one.identity, one)
        if first.sha256 != one.sha256:
            yield f"DOUBLED: the {name}, {one.identity}, came with different bytes"
        if by_revision.setdefault(one.revision, one.identity) != one.identity:
            yield f"DOUBLED: the {name} came twice as revision {one.revision} under different identities"
        if first is one and one.revision < newest:
            yield f"the {name} of revision {one.revision} came after revision {newest}"
        newest = max(newest, one.revision)


def _of_list(database: sqlite3.Connection, study: str, highest: int) -> Iterable[str]:
    entry = database.execute("select * from worklist_entry where study_instance_uid = ?", (study,)).fetchone()
    if entry is None:
        yield f"study {study} is not on the reading list"
    elif (entry["result_priority"] or 1) - 1 < highest:
        yield f"LOWERED: study {study} stands on the reading list below what the RIS was told"


def _of_outbox(rig: Rig, database: sqlite3.Connection) -> Iterable[str]:
    """What is called delivered is held by the receiver, which said so; nothing waits, nothing was given up."""
    held = {one.identity for one in (*rig.pacs.held, *rig.ris.held)}
    archived = {path.name.split(".", 1)[1] for path in rig.archive.folder.iterdir()}  # storescp's names: SRe.UID
    rows = database.execute(
        "select d.id, d.state, d.destination, d.detail, a.identity, a.sha256 from delivery d "
        "join artifact a on a.id = d.artifact_id where d.destination in ('pacs', 'ris', 'archive')"
    ).fetchall()
    trail = {
        (row["delivery_id"], row["kind"])
        for row in database.execute("select delivery_id, kind from event where delivery_id is not null")
    }
    for row in rows:
        at_hand = archived if row["destination"] == "archive" else held
        if row["state"] == "delivered" and row["identity"] not in at_hand:
            yield f"FALSE: {row['identity']} is called delivered to {row['destination']}, which does not hold it"
        if row["state"] in ENDS and (row["id"], f"delivery {row['state']}") not in trail:
            yield f"the trail does not tell that {row['identity']} for {row['destination']} was {row['state']}"
        if row["state"] not in ENDS:
            yield f"{row['identity']} for {row['destination']} is {row['state']}: {row['detail']}"


def open_work(rig: Rig) -> dict[str, Any]:
    """What the agent has still to do; empty when its queues are."""
    try:
        with closing(
            sqlite3.connect(f"file:{rig.spool / 'firstread.sqlite3'}?mode=ro", uri=True, timeout=5)
        ) as database:
            counts = {
                "studies": "select count(*) from study where state = 'receiving'",
                "images": "select count(*) from instance where current and state in ('waiting', 'analysing')",
                "deliveries": "select count(*) from delivery where state in ('pending', 'sending')",
            }
            found = {name: database.execute(query).fetchone()[0] for name, query in counts.items()}
    except sqlite3.Error as error:
        return {"database": str(error)}
    return {name: count for name, count in found.items() if count}
