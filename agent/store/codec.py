"""Dataclasses that cross rooms to JSON columns and back."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from firstread.models.prediction import Assessment, Prediction, StudyIdentity

_ASSESSMENT = TypeAdapter(Assessment)
_PREDICTION = TypeAdapter(Prediction)
_IDENTITY = TypeAdapter(StudyIdentity)


def assessment_to_json(assessment: Assessment) -> dict[str, Any]:
    """A JSON object that assessment_from_json reads back to an equal value."""
    written: dict[str, Any] = _ASSESSMENT.dump_python(assessment, mode="json")
    return written


def assessment_from_json(stored: Any) -> Assessment:
    """The assessment that assessment_to_json wrote."""
    return _ASSESSMENT.validate_python(stored)


def prediction_to_json(prediction: Prediction) -> dict[str, Any]:
    """A JSON object that prediction_from_json reads back to an equal value."""
    written: dict[str, Any] = _PREDICTION.dump_python(prediction, mode="json")
    return written


def prediction_from_json(stored: Any) -> Prediction:
    """The prediction that prediction_to_json wrote."""
    return _PREDICTION.validate_python(stored)


def identity_to_json(identity: StudyIdentity) -> dict[str, Any]:
    """A JSON object that identity_from_json reads back to an equal value."""
    written: dict[str, Any] = _IDENTITY.dump_python(identity, mode="json")
    return written


def identity_from_json(stored: Any) -> StudyIdentity:
    """The identity that identity_to_json wrote."""
    return _IDENTITY.validate_python(stored)
