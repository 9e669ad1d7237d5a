"""Predictions and policy in, assessment out: a pure decision, without clock, database or files.

The priority that is sent is the highest of what was ordered, of every earlier revision and of this result. It never
falls, and a negative result raises nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from firstread.models.findings import FINDING_BY_LABEL, LABELS, NO_FINDING, PATHOLOGIES, ReasonCode
from firstread.models.prediction import (
    Assessment,
    FindingResult,
    ImageOutcome,
    ModelIdentity,
    Prediction,
    Priority,
    Reason,
)


@dataclass(frozen=True)
class FindingPolicy:
    """What one finding does: from which probability it counts, and which priority it then asks for."""

    threshold: float | None
    priority: Priority | None
    experimental: bool = False
    """The bundle does not vouch for it; every reader is told."""
    experimental_may_raise: bool = False
    """The site's policy lets it raise nevertheless."""

    @property
    def raises(self) -> Priority | None:
        """The priority that it really asks for."""
        return None if self.experimental and not self.experimental_may_raise else self.priority


@dataclass(frozen=True)
class Patient:
    """Whose film it is, as its header says. Two films without an identifier are told apart by name and birth date."""

    identifier: str
    name: str = ""
    birth_date: str = ""

    def differs_from(self, other: Patient) -> bool:
        """True when both cannot be the same person's: an empty identifier is unknown, not another one."""
        if self.identifier and other.identifier:
            return self.identifier != other.identifier
        return (self.name, self.birth_date) != (other.name, other.birth_date)


@dataclass(frozen=True)
class ImageFact:
    """What became of one image: exactly one of ``prediction`` and ``reason`` is set, neither while it is unfinished."""

    outcome: ImageOutcome
    patient: Patient
    prediction: Prediction | None = None

    @property
    def eligible_but_failed(self) -> bool:
        """True for an image that should have been analysed and was not: then nobody may say "nothing found"."""
        if self.prediction is not None:
            return False
        return self.outcome.reason is None or self.outcome.reason.code in _FAILURES


_FAILURES = frozenset(
    {
        ReasonCode.CANNOT_DECODE,
        ReasonCode.PROCESSING_FAILED,
        ReasonCode.NO_PIXEL_DATA,
        ReasonCode.OUTSIDE_EXPERIENCE,
        ReasonCode.TOO_SMALL,
        ReasonCode.SEVERAL_FRAMES,
    }
)

_SPEAKING_ORDER = (
    ReasonCode.PROCESSING_FAILED,
    ReasonCode.CANNOT_DECODE,
    ReasonCode.OUTSIDE_EXPERIENCE,
    ReasonCode.NO_PIXEL_DATA,
    ReasonCode.TOO_SMALL,
    ReasonCode.SEVERAL_FRAMES,
    ReasonCode.PRIOR_STUDY,
    ReasonCode.BELOW_MINIMUM_AGE,
    ReasonCode.FOR_PROCESSING,
    ReasonCode.ANIMAL,
    ReasonCode.LATERAL_VIEW,
    ReasonCode.NOT_A_CHEST,
    ReasonCode.NOT_A_RADIOGRAPH,
)
"""Which reason speaks for a study whose images have several: what somebody can mend comes first."""


def assess(
    *,
    study_instance_uid: str,
    revision: int,
    created_at: datetime,
    images: Sequence[ImageFact],
    policy: Mapping[str, FindingPolicy],
    ordered: Priority | None,
    earlier: Sequence[Assessment],
    unfinished_s: float | None = None,
    note: str = "",
    limits: Sequence[str] = (),
) -> Assessment:
    """The assessment of one revision of a study.

    ``unfinished_s``: set when the study was open for so long that it is summed up without its unfinished images.
    ``note``: a sentence about this revision that a reader must see (a replay says so).
    ``limits``: sentences on what the model in force cannot say, for results that hold findings.
    """
    notes = [note] if note else []
    outcomes = tuple(image.outcome for image in images)
    analysed = [image.prediction for image in images if image.prediction is not None]
    reason = _study_reason(images, analysed, unfinished_s)
    if reason is not None:
        priority, why = _highest(Priority.ROUTINE, "", ordered, earlier)
        return Assessment(
            study_instance_uid=study_instance_uid,
            revision=revision,
            created_at=created_at,
            reason=reason,
            priority=priority,
            priority_reason=why,
            notes=tuple(notes),
            images=outcomes,
        )
    failed = [image for image in images if image.eligible_but_failed]
    findings = _without_contradiction([_finding(label, analysed, policy, bool(failed)) for label in LABELS])
    notes += _image_notes(images)
    notes += [f"one image: {said}" for one in analysed for said in one.notes]
    notes += limits
    asked, causes, why = _raised(findings)
    if failed and not causes:
        why = f"incomplete: {why} in the {len(analysed)} of {len(images)} images that could be analysed"
    priority, why = _highest(asked, why, ordered, earlier)
    return Assessment(
        study_instance_uid=study_instance_uid,
        revision=revision,
        created_at=created_at,
        findings=findings,
        priority=priority,
        priority_reason=why,
        causes=causes,
        notes=tuple(notes),
        images=outcomes,
        model=_model(analysed),
    )


def looks_the_same(old: Assessment, new: Assessment) -> bool:
    """True when a reader would see no difference: such a revision is recorded and not sent again."""

    def visible(assessment: Assessment) -> object:
        return (
            assessment.priority,
            assessment.causes,
            assessment.reason,
            assessment.model,
            assessment.notes,
            [
                (one.label, None if one.probability is None else round(one.probability, 2), one.present, one.threshold)
                for one in assessment.findings
            ],
            sorted((one.sop_instance_uid, one.reason) for one in assessment.images),
        )

    return visible(old) == visible(new)


def _study_reason(
    images: Sequence[ImageFact], analysed: Sequence[Prediction], unfinished_s: float | None
) -> Reason | None:
    if not images:
        return Reason(ReasonCode.NO_IMAGE)
    if _several_patients([image.patient for image in images]):
        return Reason(
            ReasonCode.CONFLICTING_PATIENTS,
            "films of different patients under one Study Instance UID: correct the study in the archive, send it again",
        )
    if analysed:
        return None
    reasons = [image.outcome.reason for image in images if image.outcome.reason is not None]
    if unfinished_s is not None and len(reasons) < len(images):
        return Reason(
            ReasonCode.PROCESSING_FAILED,
            f"analysis had not ended after {unfinished_s:.0f} s; it goes on, and a new result follows",
        )
    for code in _SPEAKING_ORDER:
        for reason in reasons:
            if reason.code is code:
                return reason
    return reasons[0]


def _several_patients(patients: Sequence[Patient]) -> bool:
    return any(one.differs_from(other) for one in patients for other in patients)


def _finding(
    label: str, analysed: Sequence[Prediction], policy: Mapping[str, FindingPolicy], failed: bool
) -> FindingResult:
    rule = policy[label]
    scored = [prediction for prediction in analysed if label in prediction.probabilities]
    if label == NO_FINDING and failed:  # said of models without this label too: readers tell incomplete results by it
        return FindingResult(label, None, not_assessed="not claimed: an image of this study could not be analysed")
    if not scored:
        return FindingResult(label, None, experimental=rule.experimental, not_assessed="not assessed by this model")
    if label == NO_FINDING:
        chosen = min(scored, key=lambda prediction: prediction.probabilities[label])
    else:
        chosen = max(scored, key=lambda prediction: prediction.probabilities[label])
    probability = chosen.probabilities[label]
    present = rule.threshold is not None and probability >= rule.threshold
    raises = rule.raises if present and label != NO_FINDING else None
    return FindingResult(
        label=label,
        probability=probability,
        threshold=rule.threshold,
        present=present,
        raises=raises,
        experimental=rule.experimental,
        sop_instance_uid=chosen.sop_instance_uid,
        box=chosen.boxes.get(label) if present else None,
    )


def _without_contradiction(findings: Sequence[FindingResult]) -> tuple[FindingResult, ...]:
    """ "None of the assessed findings" is never present beside a finding that is."""
    seen = any(one.present for one in findings if one.label in PATHOLOGIES)
    return tuple(replace(one, present=False) if seen and one.label == NO_FINDING else one for one in findings)


def _raised(findings: Sequence[FindingResult]) -> tuple[Priority, tuple[str, ...], str]:
    raising = [one for one in findings if one.raises is not None and one.probability is not None]
    if not raising:
        seen = [one for one in findings if one.present and one.label in PATHOLOGIES]
        if any(one.experimental for one in seen):
            return Priority.ROUTINE, (), "only experimental findings above threshold: they raise nothing"
        if seen:
            return Priority.ROUTINE, (), "the findings above threshold raise nothing at this site"
        return Priority.ROUTINE, (), nothing_above(findings)
    highest = max(one.raises for one in raising if one.raises is not None)
    causes = sorted(
        (one for one in raising if one.raises == highest), key=lambda one: one.probability or 0, reverse=True
    )
    words = ", ".join(
        f"{FINDING_BY_LABEL[one.label].display} {one.probability:.2f} at or above {one.threshold:.2f}" for one in causes
    )
    return highest, tuple(one.label for one in causes), words


def nothing_above(findings: Sequence[FindingResult]) -> str:
    """What may be said of a study with nothing above threshold: only what the model assesses is spoken of."""
    pathologies = [one for one in findings if one.label in PATHOLOGIES]
    assessed = sum(one.probability is not None for one in pathologies)
    if assessed == 0:
        return "no single finding is assessed by this model: it raises nothing"
    if assessed < len(PATHOLOGIES):
        return f"none of the {assessed} assessed findings above threshold ({len(PATHOLOGIES) - assessed} not assessed)"
    return "none of the assessed findings above threshold"


def _highest(
    asked: Priority, why: str, ordered: Priority | None, earlier: Sequence[Assessment]
) -> tuple[Priority, str]:
    """The highest of result, order and earlier revisions, with the reason in words."""
    best, words = asked, why
    if ordered is not None and ordered > best:
        best, words = ordered, _joined(f"ordered as {ordered.name}", why)
    for one in earlier:
        if one.priority > best:
            best, words = one.priority, _joined(f"kept from revision {one.revision}", why)
    return best, words


def _joined(first: str, second: str) -> str:
    return f"{first}; this result: {second}" if second else first


def _image_notes(images: Sequence[ImageFact]) -> list[str]:
    left_out = [image for image in images if image.prediction is None]
    if not left_out:
        return []
    words: dict[str, int] = {}
    for image in left_out:
        text = image.outcome.reason.text if image.outcome.reason is not None else "analysis has not ended"
        words[text] = words.get(text, 0) + 1
    total = len(images)
    return [f"{count} of {total} images not analysed: {text}" for text, count in words.items()]


def _model(analysed: Sequence[Prediction]) -> ModelIdentity | None:
    return analysed[-1].model if analysed else None
