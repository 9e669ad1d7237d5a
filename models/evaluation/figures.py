"""Figures that hold: discrimination with intervals by patient, operating points, calibration."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.stats import binomtest, rankdata

from firstread.models.data.film import Film
from firstread.models.evaluation.matching import CALLIPER
from firstread.models.evaluation.matching import matched_pairs as matched_pairs

Numbers = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

FEWEST = 10
"""With fewer films of either kind a label gets no figure: its interval would be as wide as the scale."""

FEWEST_PATIENTS = 5
"""With fewer patients of either kind there is none either: drawing four patients again and again shows nothing."""

DRAWS = 1000
_CELLS = 4_000_000
"""Weights held in memory at a time while films are drawn with replacement."""


@dataclass(frozen=True)
class Figure:
    """A value with its 95 % interval, and what it rests on: films with the label and without."""

    value: float
    low: float
    high: float
    positives: int
    negatives: int

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f})"


@dataclass(frozen=True)
class Share:
    """A proportion, ``count`` of ``total``, with its 95 % Wilson interval; NaN where ``total`` is 0."""

    value: float
    low: float
    high: float
    count: int
    total: int

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f})" if self.total else "none"


@dataclass(frozen=True)
class OperatingFigures:
    """What calling a label at or above ``threshold`` gives. ``ppv`` and ``npv`` hold for these films' prevalence."""

    threshold: float
    sensitivity: Share
    specificity: Share
    ppv: Share
    npv: Share


@dataclass(frozen=True)
class ReliabilityBin:
    """Films whose probability lies in [low, high): how many, their mean probability, and the share with the label."""

    low: float
    high: float
    mean_probability: float
    observed: Share


@dataclass(frozen=True)
class CalibrationFigures:
    """``ece``: distance of mean probability and observed share, over ten equal bins, weighted by films.

    ``brier``: mean squared error; ``brier_of_prevalence``: what always saying the prevalence would get.
    """

    ece: float
    brier: float
    brier_of_prevalence: float
    bins: tuple[ReliabilityBin, ...]


def too_few(present: Flags, patients: Sequence[str]) -> str:
    """Why there is no figure, in words; empty when there are enough films and patients of both kinds."""
    positives, negatives = int(present.sum()), int((~present).sum())
    if min(positives, negatives) < FEWEST:
        return f"too few films: {positives} with it and {negatives} without, {FEWEST} of each are needed"
    ill = {patient for patient, one in zip(patients, present, strict=True) if one}
    well = {patient for patient, one in zip(patients, present, strict=True) if not one}
    if min(len(ill), len(well)) < FEWEST_PATIENTS:
        return f"too few patients: {len(ill)} with it and {len(well)} without, {FEWEST_PATIENTS} of each are needed"
    return ""


def auroc(present: Flags, score: Numbers) -> float:
    """Chance that a film with the label scores higher than one without; ties count half. NaN with one class only."""
    positives, negatives = int(present.sum()), int((~present).sum())
    if not positives or not negatives:
        return float("nan")
    ranks = rankdata(score)
    return float((ranks[present].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def auprc(present: Flags, score: Numbers) -> float:
    """Average precision: the area under the precision-recall curve, by steps. NaN with one class only."""
    if not present.any() or present.all():
        return float("nan")
    return float(_weighted_auprc(present, score, np.ones((1, len(score))))[0])


def auroc_figure(present: Flags, score: Numbers, patients: Sequence[str], draws: int = DRAWS, seed: int = 0) -> Figure:
    """AUROC with its 95 % interval by bootstrap: patients are drawn with replacement, each with all of its films."""
    return _figure(auroc(present, score), _weighted_auroc, present, score, patients, draws, seed)


def auprc_figure(present: Flags, score: Numbers, patients: Sequence[str], draws: int = DRAWS, seed: int = 0) -> Figure:
    """AUPRC (:func:`auprc`) with its 95 % interval by bootstrap of patients."""
    return _figure(auprc(present, score), _weighted_auprc, present, score, patients, draws, seed)


def auroc_difference(
    present: Flags, first: Numbers, second: Numbers, patients: Sequence[str], draws: int = DRAWS, seed: int = 0
) -> Figure:
    """AUROC of ``first`` minus that of ``second`` on the same films, with its 95 % interval by paired bootstrap."""
    values = np.concatenate(
        [
            _weighted_auroc(present, first, weights) - _weighted_auroc(present, second, weights)
            for weights in drawn_weights(patients, draws, seed)
        ]
    )
    return _interval(auroc(present, first) - auroc(present, second), values, present)


def drawn_weights(patients: Sequence[str], draws: int = DRAWS, seed: int = 0) -> Iterator[Numbers]:
    """How often each film counts [d, N] when as many patients as there are are drawn with replacement; in parts.

    The same patients, draws and seed give the same weights: that is what makes a comparison paired.
    """
    _, member = np.unique(np.asarray(patients), return_inverse=True)
    groups = int(member.max()) + 1
    rng = np.random.default_rng(seed)
    step = max(1, _CELLS // max(len(member), groups))
    for start in range(0, draws, step):
        count = min(step, draws - start)
        picked = rng.integers(0, groups, (count, groups)) + np.arange(count)[:, None] * groups
        times = np.bincount(picked.ravel(), minlength=count * groups).reshape(count, groups)
        yield times[:, member].astype(np.float64)


def matched_figure(
    films: Sequence[Film],
    present: Flags,
    score: Numbers,
    draws: int = DRAWS,
    calliper: float = CALLIPER,
    pairs: Sequence[tuple[int, int]] | None = None,
) -> Figure | None:
    """AUROC on matched pairs, None with fewer than ten. ``pairs``: as :func:`matched_pairs` gave them, if at hand.

    The interval is by bootstrap: pairs are drawn with replacement, pairs that share a patient together.
    """
    if pairs is None:
        pairs = matched_pairs(films, present, calliper)
    if len(pairs) < FEWEST:
        return None
    order = [pair[0] for pair in pairs] + [pair[1] for pair in pairs]
    _, patient = np.unique([films[i].patient for i in order], return_inverse=True)
    first, second = patient[: len(pairs)], patient[len(pairs) :]
    nodes = int(patient.max()) + 1
    _, cluster = connected_components(coo_array((np.ones(len(pairs)), (first, second)), shape=(nodes, nodes)))
    units = [f"cluster-{number}" for number in cluster[patient]]
    return auroc_figure(present[order], score[order], units, draws)


def wilson(count: int, total: int) -> Share:
    """A proportion with its 95 % Wilson interval; NaN where there is nothing to count."""
    if total == 0:
        return Share(float("nan"), float("nan"), float("nan"), 0, 0)
    interval = binomtest(count, total).proportion_ci(0.95, method="wilson")
    return Share(count / total, float(interval.low), float(interval.high), count, total)


def operating_figures(present: Flags, score: Numbers, threshold: float) -> OperatingFigures:
    """Sensitivity, specificity, PPV and NPV of calling every film at or above ``threshold``, with Wilson intervals.

    Films are taken as independent here; several films of one patient make the true interval a little wider.
    """
    called = score >= threshold
    hits, false = int((called & present).sum()), int((called & ~present).sum())
    misses, quiet = int((~called & present).sum()), int((~called & ~present).sum())
    return OperatingFigures(
        threshold=float(threshold),
        sensitivity=wilson(hits, hits + misses),
        specificity=wilson(quiet, quiet + false),
        ppv=wilson(hits, hits + false),
        npv=wilson(quiet, quiet + misses),
    )


def threshold_for_sensitivity(present: Flags, score: Numbers, sensitivity: float) -> float:
    """The highest threshold at which at least this share of the films with the label is called; NaN without any."""
    scores = np.sort(score[present])
    if not len(scores):
        return float("nan")
    missed = int(np.floor((1 - sensitivity) * len(scores) + 1e-9))
    return float(scores[min(missed, len(scores) - 1)])


def calibration_figures(present: Flags, probability: Numbers, bins: int = 10) -> CalibrationFigures:
    """ECE and Brier score of probabilities in [0, 1], and the reliability bins; empty bins are left out."""
    which = np.minimum((probability * bins).astype(int), bins - 1)
    rows = []
    error = 0.0
    for number in range(bins):
        inside = which == number
        count = int(inside.sum())
        if not count:
            continue
        observed = wilson(int(present[inside].sum()), count)
        mean = float(probability[inside].mean())
        error += count * abs(mean - observed.value)
        rows.append(ReliabilityBin(number / bins, (number + 1) / bins, mean, observed))
    prevalence = float(present.mean())
    return CalibrationFigures(
        ece=error / len(present),
        brier=float(((probability - present) ** 2).mean()),
        brier_of_prevalence=prevalence * (1 - prevalence),
        bins=tuple(rows),
    )


def _figure(
    value: float,
    weighted: Callable[[Flags, Numbers, Numbers], Numbers],
    present: Flags,
    score: Numbers,
    patients: Sequence[str],
    draws: int,
    seed: int,
) -> Figure:
    if not np.isfinite(value):
        return Figure(value, value, value, int(present.sum()), int((~present).sum()))
    parts = [weighted(present, score, weights) for weights in drawn_weights(patients, draws, seed)]
    return _interval(value, np.concatenate(parts), present)


def _interval(value: float, values: Numbers, present: Flags) -> Figure:
    """Percentiles; a draw that caught one class only says nothing and is left out."""
    known = values[np.isfinite(values)]
    low, high = np.quantile(known, [0.025, 0.975]) if len(known) else (float("nan"), float("nan"))
    return Figure(value, float(low), float(high), int(present.sum()), int((~present).sum()))


def _by_score(present: Flags, score: Numbers, weights: Numbers) -> tuple[Numbers, Numbers]:
    """Weight of films with and without the label at each distinct score, rising: twice [d, scores]."""
    order = np.argsort(score, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(score[order]) > 0])
    sorted_weights, flags = weights[:, order], present[order]
    return (
        np.add.reduceat(sorted_weights * flags, starts, axis=1),
        np.add.reduceat(sorted_weights * ~flags, starts, axis=1),
    )


def _weighted_auroc(present: Flags, score: Numbers, weights: Numbers) -> Numbers:
    """AUROC [d] of films that count ``weights`` [d, N] times."""
    with_label, without = _by_score(present, score, weights)
    below = np.cumsum(without, axis=1)
    won = (with_label * (below - without / 2)).sum(axis=1)
    pairs = with_label.sum(axis=1) * below[:, -1]
    share: Numbers = np.divide(won, pairs, out=np.full(len(won), np.nan), where=pairs > 0)
    return share


def _weighted_auprc(present: Flags, score: Numbers, weights: Numbers) -> Numbers:
    """Average precision [d] of films that count ``weights`` [d, N] times."""
    with_label, without = (part[:, ::-1] for part in _by_score(present, score, weights))
    hits, false = np.cumsum(with_label, axis=1), np.cumsum(without, axis=1)
    called = hits + false
    precision = np.divide(hits, called, out=np.zeros_like(hits), where=called > 0)
    total = hits[:, -1]
    area = (with_label * precision).sum(axis=1)
    share: Numbers = np.divide(area, total, out=np.full(len(area), np.nan), where=(total > 0) & (false[:, -1] > 0))
    return share
