"""What the command line shows of studies and deliveries, as plain JSON objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.engine import Row

from firstread.agent.store import deliveries, events, results, studies
from firstread.agent.store.codec import assessment_from_json, identity_from_json
from firstread.models.prediction import Assessment, Priority


def study_objects(connection: Connection, rows: Sequence[Row[Any]]) -> list[dict[str, Any]]:
    """Studies as ``firstread studies --json`` prints them (docs/administrator.md lists the fields)."""
    keys = [row.id for row in rows]
    newest = results.newest_of(connection, keys)
    images = studies.image_states(connection, keys)
    sent = deliveries.states_of(connection, keys)
    return [_study(row, newest.get(row.id), images.get(row.id, {}), sent.get(row.id, {})) for row in rows]


def _study(
    row: Row[Any], newest: Row[Any] | None, images: Mapping[str, int], sent: Mapping[str, int]
) -> dict[str, Any]:
    identity = identity_from_json(row.identity)
    assessment = assessment_from_json(newest.assessment) if newest is not None else None
    return {
        "study_instance_uid": row.study_instance_uid,
        "state": row.state,
        "revision": row.revision,
        "accession_number": identity.accession_number,
        "patient_id": identity.patient_id,
        "study_date": identity.study_date,
        "calling_ae_title": row.calling_ae_title,
        "received_at": row.received_at.isoformat(),
        "ended_at": row.ended_at and row.ended_at.isoformat(),
        "ordered_priority": row.ordered_priority and Priority(row.ordered_priority).name,
        "trial_run": row.trial_run_id,
        "images": dict(images),
        "result": None if assessment is None else assessment_object(assessment),
        "deliveries": dict(sent),
    }


def assessment_object(assessment: Assessment) -> dict[str, Any]:
    """One result: priority and why, the reason where nothing was analysed, every label with its probability."""
    return {
        "revision": assessment.revision,
        "created_at": assessment.created_at.isoformat(),
        "priority": assessment.priority.name,
        "priority_reason": assessment.priority_reason,
        "causes": list(assessment.causes),
        "reason_code": assessment.reason and assessment.reason.code.value,
        "reason": assessment.reason and assessment.reason.text,
        "notes": list(assessment.notes),
        "model": assessment.model and f"{assessment.model.name} {assessment.model.version}",
        "findings": [
            {
                "label": one.label,
                "probability": one.probability,
                "threshold": one.threshold,
                "present": one.present,
                "raises": one.raises and one.raises.name,
                "experimental": one.experimental,
                "not_assessed": one.not_assessed or None,
            }
            for one in assessment.findings
        ],
    }


def trail_object(connection: Connection, row: Row[Any]) -> dict[str, Any]:
    """A study with its images, every revision, every delivery and the whole trail."""
    return {
        **study_objects(connection, [row])[0],
        "image_list": [
            {
                "sop_instance_uid": image.sop_instance_uid,
                "state": str(image.state),
                "reason": image.reason and image.reason.text,
                "path": image.path,
                "purged": not image.path,
                "probabilities": dict(image.prediction.probabilities) if image.prediction else None,
            }
            for image in studies.images_of(connection, row.id)
        ],
        "revisions": [
            {**assessment_object(assessment_from_json(one.assessment)), "cause": one.cause, "sent": one.sent}
            for one in studies.results_of(connection, row.id)
        ],
        "delivery_list": [
            delivery_object(one)
            for one in reversed(deliveries.listed(connection, study_instance_uid=row.study_instance_uid, limit=1000))
        ],
        "trail": [
            {"at": one.at.isoformat(), "what": one.kind, "who": one.actor, "detail": one.detail}
            for one in events.of_study(connection, row.id)
        ],
    }


def delivery_object(row: Row[Any]) -> dict[str, Any]:
    """One delivery as ``firstread deliveries list --json`` prints it."""
    return {
        "id": row.id,
        "destination": row.destination,
        "kind": row.kind,
        "state": row.state,
        "revision": row.revision,
        "identity": row.identity,
        "study_instance_uid": row.study_instance_uid,
        "accession_number": row.accession_number,
        "attempts": row.attempts,
        "status": row.status,
        "detail": row.detail,
        "due_at": row.due_at.isoformat(),
        "created_at": row.created_at.isoformat(),
        "ended_at": row.ended_at and row.ended_at.isoformat(),
        "path": row.path,
    }
