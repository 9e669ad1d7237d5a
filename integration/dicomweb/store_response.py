"""The answer to a store request: which instances were stored, which were not and why (PS3.18 10.5.3, I.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from firstread.integration.dicom.status import NoSpace, OutOfResources, StoreFailure, TooLong


@dataclass(frozen=True)
class Outcome:
    """What became of one instance. The UIDs are empty where they could not be read."""

    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    failure: StoreFailure | None
    warning: int | None = None
    """Warning Reason (0008,1196) of an instance that was stored nevertheless."""


def status_of(outcomes: Sequence[Outcome]) -> int:
    """The HTTP status: 200 all stored, 202 some or with warnings, 409 none; 413, 503 or 507 for that reason alone."""
    failures = [one.failure for one in outcomes if one.failure is not None]
    if not failures:
        return 202 if any(one.warning is not None for one in outcomes) else 200
    if len(failures) < len(outcomes):
        return 202
    if all(isinstance(one, TooLong) for one in failures):
        return 413
    if all(isinstance(one, NoSpace) for one in failures):
        return 507
    if all(isinstance(one, OutOfResources) and not isinstance(one, TooLong) for one in failures):
        return 503
    return 409


def response_document(outcomes: Sequence[Outcome], base_url: str) -> dict[str, Any]:
    """The response in the DICOM JSON model. ``base_url``: of the service, without a slash at its end."""
    stored = [one for one in outcomes if one.failure is None]
    document: dict[str, Any] = {}
    studies = list(dict.fromkeys(one.study_instance_uid for one in stored))
    if studies:
        document["00081190"] = (
            {"vr": "UR", "Value": [f"{base_url}/studies/{studies[0]}"]} if len(studies) == 1 else {"vr": "UR"}
        )
        document["00081199"] = {"vr": "SQ", "Value": [_stored(one, base_url) for one in stored]}
    failed = [one for one in outcomes if one.failure is not None]
    named = [_failed(one) for one in failed if one.sop_instance_uid]
    others = [_failed(one) for one in failed if not one.sop_instance_uid]
    if named:
        document["00081198"] = {"vr": "SQ", "Value": named}
    if others:
        document["0008119A"] = {"vr": "SQ", "Value": others}
    return document


def _named(one: Outcome) -> dict[str, Any]:
    return {
        "00081150": {"vr": "UI", "Value": [one.sop_class_uid]},
        "00081155": {"vr": "UI", "Value": [one.sop_instance_uid]},
    }


def _stored(one: Outcome, base_url: str) -> dict[str, Any]:
    place = f"{base_url}/studies/{one.study_instance_uid}"
    if one.series_instance_uid:
        place += f"/series/{one.series_instance_uid}/instances/{one.sop_instance_uid}"
    warned = {} if one.warning is None else {"00081196": {"vr": "US", "Value": [one.warning]}}
    return {**_named(one), "00081190": {"vr": "UR", "Value": [place]}, **warned}


def _failed(one: Outcome) -> dict[str, Any]:
    """With the Error Comment that C-STORE would have carried; the standard has no other place for words."""
    assert one.failure is not None
    status = one.failure.status
    reason = {
        "00000902": {"vr": "LO", "Value": [status.error_comment]},
        "00081197": {"vr": "US", "Value": [status.code]},
    }
    return {**reason, **(_named(one) if one.sop_instance_uid else {})}
