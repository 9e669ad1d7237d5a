"""What the page shows of the reading list: entries, the studies behind them, and everything about one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, and_, case, func, select

from firstread.agent.store import events
from firstread.agent.store.codec import assessment_from_json, identity_from_json
from firstread.agent.store.events import Event
from firstread.agent.store.tables import (
    EntryState,
    ImageState,
    StudyState,
    artifact,
    delivery,
    entry,
    event,
    instance,
    result,
    study,
)
from firstread.agent.store.worklist import ListedResult, listed_result_from_json
from firstread.models.prediction import Assessment, Priority, StudyIdentity

MANY = 500
"""So many ids are no longer named one by one in a query."""

LIST_EVENTS = ("list order", "list result", "list cancelled", "list reported", "list removed", "list restored")
"""What can happen to an entry before its film comes."""


@dataclass(frozen=True)
class StudyFacts:
    """What reception knows of a study. ``unsent``: a result was made whose message has not reached the list."""

    id: int
    state: StudyState
    revision: int
    received_at: datetime
    images: int
    unfinished: int
    analysing: int
    preview_instance: int | None
    unsent: bool


@dataclass(frozen=True)
class ListedStudy:
    """One entry with what is known of its study (None: no film of it came here)."""

    id: int
    state: EntryState
    identity: StudyIdentity
    ordered: Priority | None
    raised: Priority | None
    arrived_at: datetime
    result: ListedResult | None
    result_at: datetime | None
    ended_at: datetime | None
    ended_by: str
    study: StudyFacts | None
    version: int

    @property
    def readable(self) -> bool:
        """True when there is something to read: a film here, or a result about one elsewhere."""
        return self.study is not None or self.result is not None


@dataclass(frozen=True)
class ShownImage:
    """One film of a study as the page shows it."""

    id: int
    sop_instance_uid: str
    state: ImageState
    reason: str
    has_preview: bool
    has_evidence: bool
    received_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True)
class ShownArtifact:
    """One frozen object of a result: where it lies, who got it."""

    id: int
    kind: str
    identity: str
    path: str | None
    message: bytes | None
    deliveries: tuple[Row[Any], ...]


@dataclass(frozen=True)
class StudyInFull:
    """Everything that the page shows of one entry. ``assessment``: our own newest result, None before it."""

    listed: ListedStudy
    images: tuple[ShownImage, ...]
    assessment: Assessment | None
    result_cause: str
    artifacts: tuple[ShownArtifact, ...]
    trail: tuple[Event, ...]


def change_mark(connection: Connection) -> int:
    """Grows with everything that happens: each transition writes an event."""
    return int(connection.execute(select(func.max(event.c.id))).scalar() or 0)


def open_entries(connection: Connection, known: Mapping[int, ListedStudy] | None = None) -> list[ListedStudy]:
    """Every open entry, in no particular order.

    ``known``: what an earlier call answered, by id. An entry that did not change since is the same object again, so
    that a long list costs little to look at.
    """
    known = known or {}
    wanted = entry.c.state == EntryState.OPEN
    stands = connection.execute(select(entry.c.id, entry.c.version, entry.c.study_instance_uid).where(wanted)).all()
    kept = {row.id: known[row.id] for row in stands if row.id in known and known[row.id].version == row.version}
    changed = [row.id for row in stands if row.id not in kept]
    fresh = {row.id: row for row in _rows(connection, changed, wanted if len(changed) > MANY else None)}
    told = {one.id: one.result.revision for one in kept.values() if one.result is not None}
    told |= {key: int((row.result or {}).get("revision") or 0) for key, row in fresh.items()}
    facts = _study_facts(connection, wanted, told)
    listed = []
    for row in stands:
        study_facts = facts.get(row.study_instance_uid) if row.study_instance_uid else None
        if row.id in kept:
            one = kept[row.id]
            listed.append(one if one.study == study_facts else replace(one, study=study_facts))
        elif row.id in fresh:
            listed.append(_listed(fresh[row.id], study_facts))
    return listed


def ended_entries(connection: Connection, limit: int) -> list[ListedStudy]:
    """Entries that were taken off, the latest first."""
    rows = connection.execute(
        select(entry)
        .where(entry.c.ended_at.is_not(None), entry.c.state != EntryState.OPEN)
        .order_by(entry.c.ended_at.desc())
        .limit(limit)
    ).all()
    told = {row.id: int((row.result or {}).get("revision") or 0) for row in rows}
    facts = _study_facts(connection, entry.c.id.in_([row.id for row in rows]), told)
    return [_listed(row, facts.get(row.study_instance_uid or "")) for row in rows]


def in_full(connection: Connection, entry_id: int) -> StudyInFull | None:
    """Everything about one entry, None when there is no such entry."""
    row = connection.execute(select(entry).where(entry.c.id == entry_id)).one_or_none()
    if row is None:
        return None
    told = {row.id: int((row.result or {}).get("revision") or 0)}
    listed = _listed(row, _study_facts(connection, entry.c.id == entry_id, told).get(row.study_instance_uid or ""))
    if listed.study is None:
        return StudyInFull(listed, (), None, "", (), tuple(_entry_trail(connection, entry_id)))
    study_id = listed.study.id
    newest = connection.execute(
        select(result).where(result.c.study_id == study_id).order_by(result.c.revision.desc()).limit(1)
    ).one_or_none()
    return StudyInFull(
        listed=listed,
        images=tuple(_images(connection, study_id)),
        assessment=None if newest is None else assessment_from_json(newest.assessment),
        result_cause="" if newest is None else newest.cause,
        artifacts=tuple(_artifacts(connection, study_id)),
        trail=tuple(_merged(events.of_study(connection, study_id), _entry_trail(connection, entry_id))),
    )


def preview_path(connection: Connection, instance_id: int) -> str | None:
    """Where the picture of a film lies, relative to the spool."""
    return connection.execute(select(instance.c.preview_path).where(instance.c.id == instance_id)).scalar()


def evidence_bytes(connection: Connection, instance_id: int) -> bytes | None:
    """The activation maps kept with a film (agent/evidence reads them)."""
    return connection.execute(select(instance.c.saliency).where(instance.c.id == instance_id)).scalar()


def _rows(connection: Connection, ids: list[int], wanted: Any) -> Sequence[Row[Any]]:
    """The rows of these ids; all that are ``wanted`` where there are too many to name."""
    if not ids:
        return ()
    return connection.execute(select(entry).where(entry.c.id.in_(ids) if wanted is None else wanted)).all()


def _listed(row: Row[Any], facts: StudyFacts | None) -> ListedStudy:
    listed = None if row.result is None else listed_result_from_json(row.result)
    return ListedStudy(
        id=row.id,
        state=EntryState(row.state),
        identity=identity_from_json(row.identity),
        ordered=Priority(row.ordered_priority) if row.ordered_priority else None,
        raised=Priority(row.result_priority) if row.result_priority else None,
        arrived_at=row.arrived_at,
        result=listed,
        result_at=row.result_at,
        ended_at=row.ended_at,
        ended_by=row.ended_by or "",
        study=facts,
        version=row.version,
    )


def _study_facts(connection: Connection, wanted: Any, told: Mapping[int, int]) -> dict[str, StudyFacts]:
    """Facts of the studies behind the wanted entries, by Study Instance UID: three queries, however many entries.

    ``told``: the revision whose result reached the list, by entry.
    """
    sent = study.c.trial_run_id.is_(None)  # a trial is not on the list, even where an order of its study is
    joined = study.join(entry, and_(entry.c.study_instance_uid == study.c.study_instance_uid, sent))
    studies = connection.execute(
        select(
            study.c.id,
            study.c.study_instance_uid,
            study.c.state,
            study.c.revision,
            study.c.received_at,
            entry.c.id.label("entry_id"),
        )
        .select_from(joined)
        .where(wanted)
    ).all()
    unfinished = (ImageState.WAITING, ImageState.ANALYSING)
    counts = {
        row.study_id: row
        for row in connection.execute(
            select(
                instance.c.study_id,
                func.count().label("images"),
                func.sum(case((instance.c.state.in_(unfinished), 1), else_=0)).label("unfinished"),
                func.sum(case((instance.c.state == ImageState.ANALYSING, 1), else_=0)).label("analysing"),
                func.min(case((instance.c.preview_path.is_not(None), instance.c.id))).label("preview"),
                func.min(case((instance.c.state == ImageState.ANALYSED, instance.c.id))).label("analysed"),
            )
            .select_from(joined.join(instance, instance.c.study_id == study.c.id))
            .where(wanted, instance.c.current, instance.c.state != ImageState.KEPT)
            .group_by(instance.c.study_id)
        )
    }
    newest_sent = {
        row.study_id: row.revision
        for row in connection.execute(
            select(result.c.study_id, func.max(result.c.revision).label("revision"))
            .select_from(joined.join(result, result.c.study_id == study.c.id))
            .where(wanted, result.c.sent)
            .group_by(result.c.study_id)
        )
    }
    facts = {}
    for row in studies:
        count = counts.get(row.id)
        facts[row.study_instance_uid] = StudyFacts(
            id=row.id,
            state=StudyState(row.state),
            revision=row.revision,
            received_at=row.received_at,
            images=count.images if count else 0,
            unfinished=int(count.unfinished or 0) if count else 0,
            analysing=int(count.analysing or 0) if count else 0,
            preview_instance=(count.analysed or count.preview) if count else None,
            unsent=newest_sent.get(row.id, 0) > told.get(row.entry_id, 0),
        )
    return facts


def _images(connection: Connection, study_id: int) -> list[ShownImage]:
    rows = connection.execute(
        select(
            instance.c.id,
            instance.c.sop_instance_uid,
            instance.c.state,
            instance.c.reason_code,
            instance.c.reason_detail,
            instance.c.preview_path,
            instance.c.saliency.is_not(None).label("has_evidence"),
            instance.c.received_at,
            instance.c.ended_at,
        )
        .where(and_(instance.c.study_id == study_id, instance.c.current, instance.c.state != ImageState.KEPT))
        .order_by(instance.c.id)
    )
    return [
        ShownImage(
            id=row.id,
            sop_instance_uid=row.sop_instance_uid,
            state=ImageState(row.state),
            reason=_reason(row.reason_code, row.reason_detail),
            has_preview=row.preview_path is not None,
            has_evidence=bool(row.has_evidence),
            received_at=row.received_at,
            ended_at=row.ended_at,
        )
        for row in rows
    ]


def _reason(code: str | None, detail: str | None) -> str:
    from firstread.models.findings import ReasonCode
    from firstread.models.prediction import Reason

    return Reason(ReasonCode(code), detail or "").text if code else ""


def _artifacts(connection: Connection, study_id: int) -> list[ShownArtifact]:
    """The newest result that was sent, its objects and what became of them."""
    newest = connection.execute(
        select(func.max(result.c.id)).where(result.c.study_id == study_id, result.c.sent)
    ).scalar()
    if newest is None:
        return []
    sent = connection.execute(select(delivery).where(delivery.c.result_id == newest).order_by(delivery.c.id)).all()
    rows = connection.execute(select(artifact).where(artifact.c.result_id == newest).order_by(artifact.c.id))
    return [
        ShownArtifact(
            id=row.id,
            kind=row.kind,
            identity=row.identity,
            path=row.path,
            message=None if row.message is None else bytes(row.message),
            deliveries=tuple(one for one in sent if one.artifact_id == row.id),
        )
        for row in rows
    ]


def _entry_trail(connection: Connection, entry_id: int) -> list[Event]:
    """Events of an entry that had no study yet: its order."""
    rows = connection.execute(
        select(event)
        .where(event.c.entry_id == entry_id, event.c.study_id.is_(None), event.c.kind.in_(LIST_EVENTS))
        .order_by(event.c.id)
    )
    return [Event(**row._mapping) for row in rows]


def _merged(one: list[Event], other: list[Event]) -> list[Event]:
    return sorted({event.id: event for event in (*one, *other)}.values(), key=lambda event: event.id)
