"""A result, its frozen bytes and its deliveries: committed together or not at all."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, insert, select, update
from sqlalchemy.engine import Row

from firstread.agent.clock import Moment
from firstread.agent.store import events, holdings, reading_items, studies
from firstread.agent.store.codec import assessment_to_json, identity_to_json
from firstread.agent.store.engine import moment_values, rows_of
from firstread.agent.store.holdings import Holding
from firstread.agent.store.studies import OpenStudy
from firstread.agent.store.tables import DeliveryState, artifact, delivery, result
from firstread.models.prediction import Assessment


@dataclass(frozen=True)
class Artifact:
    """One serialised object: DICOM in a file (``path``, relative to the storage folder), HL7 in the row.

    ``identity``: SOP Instance UID or message control id. ``destinations``: who gets these bytes.
    """

    kind: str
    identity: str
    destinations: tuple[str, ...]
    sha256: str
    size_bytes: int
    path: str | None = None
    message: bytes | None = None
    sop_class_uid: str | None = None
    series_instance_uid: str | None = None
    holding: Holding | None = None
    """What is kept of a DICOM object for searching; None for a message."""


def commit(
    connection: Connection,
    ready: OpenStudy,
    assessment: Assessment,
    artifacts: Sequence[Artifact],
    *,
    sent: bool,
    on_hold: Collection[str] = (),
    actor: str,
    now: Moment,
) -> bool:
    """receiving -> analysed | not_analysed, with result and deliveries. False when the study changed meanwhile.

    What waits of earlier revisions, at whatever destination and of whatever kind, is superseded by one that is sent.
    ``on_hold``: destinations that keep theirs back until released.
    """
    if ready.trial_run_id is not None:
        raise ValueError("a trial has no result that could leave")
    if not studies.end(connection, ready, assessment.reason, actor, now):
        return False
    result_id = _insert(
        connection,
        result,
        study_id=ready.id,
        revision=assessment.revision,
        created_at=assessment.created_at,
        priority=int(assessment.priority),
        reason_code=assessment.reason and assessment.reason.code,
        model_version=assessment.model and f"{assessment.model.name} {assessment.model.version}",
        assessment=assessment_to_json(assessment),
        identity=identity_to_json(ready.identity),
        cause=ready.cause,
        sent=sent,
    )
    if sent:
        _supersede(connection, ready.id, assessment.revision, actor, now)
    for one in artifacts:
        artifact_id = add_artifact(connection, result_id, one)
        for destination in one.destinations:
            _insert(
                connection,
                delivery,
                result_id=result_id,
                study_id=ready.id,
                artifact_id=artifact_id,
                revision=assessment.revision,
                destination=destination,
                kind=one.kind,
                state=DeliveryState.PENDING,
                kept_back=destination in on_hold,
                released=False,
                attempts=0,
                refusals=0,
                created_at=now.at,
                **moment_values("due", now),
            )
    reading_items.result_came(connection, ready.id, ready.identity, assessment, now)
    return True


def artifacts_of(connection: Connection, result_id: int) -> list[Row[Any]]:
    """The frozen objects of a result."""
    return list(connection.execute(select(artifact).where(artifact.c.result_id == result_id).order_by(artifact.c.id)))


def newest_artifact(connection: Connection, study_id: int, kind: str) -> Row[Any] | None:
    """The newest frozen object of a kind that a study has."""
    return connection.execute(
        select(artifact)
        .join(result, result.c.id == artifact.c.result_id)
        .where(result.c.study_id == study_id, artifact.c.kind == kind)
        .order_by(artifact.c.id.desc())
        .limit(1)
    ).one_or_none()


def newest(connection: Connection, study_id: int) -> Row[Any] | None:
    """The result of the newest revision that has one."""
    return connection.execute(
        select(result).where(result.c.study_id == study_id).order_by(result.c.revision.desc()).limit(1)
    ).one_or_none()


def newest_of(connection: Connection, study_ids: Sequence[int]) -> dict[int, Row[Any]]:
    """The result of the newest revision of each of these studies that has one, by study."""
    rows = rows_of(connection, select(result).order_by(result.c.revision), result.c.study_id, study_ids)
    return {row.study_id: row for row in rows}


def newest_sent(connection: Connection, study_id: int) -> Row[Any] | None:
    """The newest result of a study that went out."""
    return connection.execute(
        select(result).where(result.c.study_id == study_id, result.c.sent).order_by(result.c.revision.desc()).limit(1)
    ).one_or_none()


def add_delivery(
    connection: Connection, sent: Row[Any], artifact_id: int, kind: str, destination: str, actor: str, now: Moment
) -> int:
    """A destination gets frozen bytes that it was never sent (a replay to a new one); past any hold."""
    delivery_id = _insert(
        connection,
        delivery,
        result_id=sent.id,
        study_id=sent.study_id,
        artifact_id=artifact_id,
        revision=sent.revision,
        destination=destination,
        kind=kind,
        state=DeliveryState.PENDING,
        kept_back=False,
        released=True,
        attempts=0,
        refusals=0,
        created_at=now.at,
        **moment_values("due", now),
    )
    events.record(
        connection, now, "delivery added", actor, study_id=sent.study_id, delivery_id=delivery_id,
        destination=destination, object=kind,
    )  # fmt: skip
    return delivery_id


def add_artifact(connection: Connection, result_id: int, one: Artifact) -> int:
    """Freezes one more object of a result, which is held from now on; answers its id."""
    key = _insert(
        connection,
        artifact,
        result_id=result_id,
        kind=one.kind,
        identity=one.identity,
        sop_class_uid=one.sop_class_uid,
        series_instance_uid=one.series_instance_uid,
        path=one.path,
        message=one.message,
        sha256=one.sha256,
        size_bytes=one.size_bytes,
    )
    if one.holding is not None:
        holdings.enter_made(connection, one.holding, key)
    return key


def _supersede(connection: Connection, study_id: int, revision: int, actor: str, now: Moment) -> None:
    rows = connection.execute(
        select(delivery.c.id).where(
            delivery.c.study_id == study_id,
            delivery.c.revision < revision,
            delivery.c.state == DeliveryState.PENDING,
        )
    ).all()
    for row in rows:
        connection.execute(
            update(delivery)
            .where(delivery.c.id == row.id, delivery.c.state == DeliveryState.PENDING)
            .values(state=DeliveryState.SUPERSEDED, detail=f"by revision {revision}", ended_at=now.at)
        )
        events.record(
            connection, now, "delivery superseded", actor, study_id=study_id, delivery_id=row.id, by_revision=revision
        )


def _insert(connection: Connection, table: Any, **values: Any) -> int:
    key = connection.execute(insert(table).values(**values)).inserted_primary_key
    if key is None:
        raise RuntimeError(f"the database gave no key for {table.name}")
    return int(key[0])
