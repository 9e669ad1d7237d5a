"""What the scores of films with labels come to: per label, normal against abnormal, per group, on pairs made alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from firstread.models.bundle import Bundle
from firstread.models.data.film import DataError, Film
from firstread.models.evaluation import figures, matching
from firstread.models.evaluation.delong import delong_figure
from firstread.models.evaluation.figures import (
    CalibrationFigures,
    Figure,
    Flags,
    Numbers,
    OperatingFigures,
    Share,
    too_few,
)
from firstread.models.evaluation.groups import by_gate, groups_of, in_order
from firstread.models.evaluation.score import Scores
from firstread.models.findings import LABELS, NO_FINDING, PATHOLOGIES

SENSITIVITIES = (0.95, 0.98, 0.99)
"""At which normal is told from abnormal, besides the bundle's own operating point."""


@dataclass(frozen=True)
class Matched:
    """AUROC on ``pairs`` of films made alike in ``nuisances``; ``figure`` is None where there are too few pairs."""

    pairs: int
    calliper: float
    nuisances: tuple[str, ...]
    figure: Figure | None


@dataclass(frozen=True)
class LabelEvaluation:
    """One label of the bundle on the films that know it.

    ``positives``, ``negatives``: films with the label and without, among those that could be read. ``reason``: why
    there is no figure (then ``auroc`` and all below are None), empty when there is. ``threshold``: the bundle's
    operating point, None when it has none. ``delong``: a check of ``auroc``'s interval.
    """

    label: str
    experimental: bool
    threshold: float | None
    positives: int
    negatives: int
    reason: str
    auroc: Figure | None = None
    delong: Figure | None = None
    auprc: Figure | None = None
    operating: OperatingFigures | None = None
    calibration: CalibrationFigures | None = None
    matched: Matched | None = None


@dataclass(frozen=True)
class AtSensitivity:
    """Normal against abnormal with the threshold that calls ``wanted`` of the abnormal films on these very films."""

    wanted: float
    figures: OperatingFigures


@dataclass(frozen=True)
class NormalAbnormal:
    """Films with any finding against films with none. ``score_is``: what ranks them, in words.

    ``operating``: abnormal is called where No Finding is not, at the bundle's operating point (None without one).
    ``any_finding``: abnormal is called where any finding that is not experimental reaches its operating point.
    """

    score_is: str
    positives: int
    negatives: int
    reason: str
    auroc: Figure | None = None
    delong: Figure | None = None
    operating: OperatingFigures | None = None
    any_finding: OperatingFigures | None = None
    at: tuple[AtSensitivity, ...] = ()


@dataclass(frozen=True)
class GroupLabel:
    """One label within one group: no figure where ``reason`` says why."""

    positives: int
    negatives: int
    reason: str
    auroc: Figure | None = None
    sensitivity: Share | None = None
    specificity: Share | None = None


@dataclass(frozen=True)
class Group:
    """The films of one ``level`` of ``by`` (``sex``: ``F``)."""

    by: str
    level: str
    films: int
    patients: int
    labels: Mapping[str, GroupLabel]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """All figures of a bundle on a set of films; ``scores`` is what they were made of."""

    bundle: Bundle
    scores: Scores
    labels: tuple[LabelEvaluation, ...]
    normal_abnormal: NormalAbnormal
    groups: tuple[Group, ...]
    draws: int


def evaluate(
    bundle: Bundle,
    scores: Scores,
    by: Sequence[str] = (),
    draws: int = figures.DRAWS,
    calliper: float = matching.CALLIPER,
) -> Evaluation:
    """Every figure of the scores. ``by``: columns of the table to group by, besides sex, age and view.

    ``draws``: of the bootstrap. ``calliper``: how far films of a matched pair may differ, in standard deviations.

    Raises:
        DataError: no film could be read, or the table has no such column.
    """
    if not scores.read.any():
        raise DataError(f"none of the {len(scores.films)} films could be read: {scores.problems[0]}")
    labels = tuple(_label(bundle, scores, label, draws, calliper) for label in scores.labels)
    return Evaluation(
        bundle=bundle,
        scores=scores,
        labels=labels,
        normal_abnormal=_normal_abnormal(bundle, scores, draws),
        groups=_groups(bundle, scores, labels, by, draws),
        draws=draws,
    )


def known_films(scores: Scores, label: str) -> tuple[list[int], Flags, Numbers]:
    """The films that could be read and know the label: their indices, whether it is present, its probability."""
    column = LABELS.index(label)
    rows = [i for i, film in enumerate(scores.films) if film.known[column] and scores.problems[i] is None]
    present = np.array([bool(scores.films[i].target[column]) for i in rows], bool)
    return rows, present, scores.probabilities[rows, scores.column(label)]


def _label(bundle: Bundle, scores: Scores, label: str, draws: int, calliper: float) -> LabelEvaluation:
    rows, present, probability = known_films(scores, label)
    threshold = bundle.thresholds.get(label)
    positives, negatives = int(present.sum()), int((~present).sum())
    experimental = label in bundle.experimental
    films = [replace(scores.films[i], nuisances=scores.making[i]) for i in rows]
    patients = [film.patient for film in films]
    reason = too_few(present, patients)
    if reason:
        return LabelEvaluation(label, experimental, threshold, positives, negatives, reason)
    return LabelEvaluation(
        label=label,
        experimental=experimental,
        threshold=threshold,
        positives=positives,
        negatives=negatives,
        reason="",
        auroc=figures.auroc_figure(present, probability, patients, draws),
        delong=delong_figure(present, probability, patients),
        auprc=figures.auprc_figure(present, probability, patients, draws),
        operating=None if threshold is None else figures.operating_figures(present, probability, threshold),
        calibration=figures.calibration_figures(present, probability),
        matched=_matched(films, present, probability, draws, calliper),
    )


def _matched(
    films: Sequence[Film], present: Flags, probability: Numbers, draws: int, calliper: float
) -> Matched | None:
    """None when nothing is known of how the films were made."""
    names = tuple(sorted({name for film in films for name in film.nuisances}))
    if not names:
        return None
    pairs = figures.matched_pairs(films, present, calliper)
    figure = figures.matched_figure(films, present, probability, draws, calliper, pairs)
    return Matched(len(pairs), calliper, names, figure)


def abnormality(scores: Scores) -> tuple[list[int], Flags, Numbers, str]:
    """Films that know whether they carry a finding: indices, whether they do, how abnormal they score, and by what."""
    column = LABELS.index(NO_FINDING)
    rows = [i for i, film in enumerate(scores.films) if film.known[column] and scores.problems[i] is None]
    abnormal = np.array([not scores.films[i].target[column] for i in rows], bool)
    if NO_FINDING in scores.labels:
        return (
            rows,
            abnormal,
            1 - scores.probabilities[rows, scores.column(NO_FINDING)],
            "1 - probability of No Finding",
        )
    findings = [i for i, label in enumerate(scores.labels) if label in PATHOLOGIES]
    highest = scores.probabilities[rows][:, findings].max(axis=1, initial=0.0)
    return rows, abnormal, highest, "the highest probability of any finding (the bundle does not assess No Finding)"


def _normal_abnormal(bundle: Bundle, scores: Scores, draws: int) -> NormalAbnormal:
    rows, abnormal, score, score_is = abnormality(scores)
    positives, negatives = int(abnormal.sum()), int((~abnormal).sum())
    patients = [scores.films[i].patient for i in rows]
    reason = too_few(abnormal, patients)
    if reason:
        return NormalAbnormal(score_is, positives, negatives, reason)
    return NormalAbnormal(
        score_is=score_is,
        positives=positives,
        negatives=negatives,
        reason="",
        auroc=figures.auroc_figure(abnormal, score, patients, draws),
        delong=delong_figure(abnormal, score, patients),
        operating=_not_no_finding(bundle, scores, rows, abnormal),
        any_finding=_any_finding(bundle, scores, rows, abnormal),
        at=tuple(
            AtSensitivity(
                wanted,
                figures.operating_figures(abnormal, score, figures.threshold_for_sensitivity(abnormal, score, wanted)),
            )
            for wanted in SENSITIVITIES
        ),
    )


def _not_no_finding(bundle: Bundle, scores: Scores, rows: list[int], abnormal: Flags) -> OperatingFigures | None:
    threshold = bundle.thresholds.get(NO_FINDING)
    if threshold is None or NO_FINDING not in scores.labels:
        return None
    # Called abnormal strictly below the threshold: at it, No Finding is present.
    below = (scores.probabilities[rows, scores.column(NO_FINDING)] < threshold).astype(float)
    return _with_threshold(figures.operating_figures(abnormal, below, 0.5), 1 - threshold)


def _any_finding(bundle: Bundle, scores: Scores, rows: list[int], abnormal: Flags) -> OperatingFigures | None:
    judged = [
        label
        for label in scores.labels
        if label != NO_FINDING and label not in bundle.experimental and label in bundle.thresholds
    ]
    if not judged:
        return None
    called = np.zeros(len(rows), bool)
    for label in judged:
        called |= scores.probabilities[rows, scores.column(label)] >= bundle.thresholds[label]
    return _with_threshold(figures.operating_figures(abnormal, called.astype(float), 0.5), float("nan"))


def _with_threshold(found: OperatingFigures, threshold: float) -> OperatingFigures:
    return OperatingFigures(threshold, found.sensitivity, found.specificity, found.ppv, found.npv)


def _groups(
    bundle: Bundle, scores: Scores, labels: Sequence[LabelEvaluation], by: Sequence[str], draws: int
) -> tuple[Group, ...]:
    levels = groups_of(scores.films, by)
    if any(scores.refused):
        levels.setdefault("gate", by_gate(scores.refused, scores.problems))
    judged = [label for label in labels if not label.reason]
    known = {label.label: known_films(scores, label.label) for label in judged}
    found = []
    for name, level_of in levels.items():
        for level in in_order(level_of):
            inside = {i for i, one in enumerate(level_of) if one == level}
            found.append(
                Group(
                    by=name,
                    level=level,
                    films=len(inside),
                    patients=len({scores.films[i].patient for i in inside}),
                    labels={
                        label.label: _within(bundle, scores, label.label, *known[label.label], inside, draws)
                        for label in judged
                    },
                )
            )
    return tuple(found)


def _within(
    bundle: Bundle,
    scores: Scores,
    label: str,
    rows: list[int],
    present: Flags,
    probability: Numbers,
    inside: set[int],
    draws: int,
) -> GroupLabel:
    chosen = np.array([i in inside for i in rows], bool)
    flags, score = present[chosen], probability[chosen]
    positives, negatives = int(flags.sum()), int((~flags).sum())
    patients = [scores.films[i].patient for i, taken in zip(rows, chosen, strict=True) if taken]
    reason = too_few(flags, patients)
    if reason:
        return GroupLabel(positives, negatives, reason)
    threshold = bundle.thresholds.get(label)
    called = None if threshold is None else figures.operating_figures(flags, score, threshold)
    return GroupLabel(
        positives,
        negatives,
        "",
        figures.auroc_figure(flags, score, patients, draws),
        None if called is None else called.sensitivity,
        None if called is None else called.specificity,
    )
