"""Operating points: from which probability a label counts, by wanted sensitivity, specificity, or alerts a day."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit

from firstread.models.calibration.fitting import FEWEST, Flags, Numbers, Scored
from firstread.models.findings import NO_FINDING

SMALLEST, LARGEST = 1e-6, 1 - 1e-6
"""A threshold lies between these: a bundle takes none at 0 and none above 1."""


def operating_points(
    scored: Scored,
    probability: Numbers,
    labels: Sequence[str],
    quiet: float = 0.95,
    silent: float = 0.98,
    catch: float = 0.9,
) -> dict[str, float]:
    """The threshold of each label of a fresh training.

    A finding: above it lie at most ``1 - quiet`` of the films without it, and at most ``1 - silent`` of those that
    carry No Finding (fourteen findings share a healthy film, and each may raise it). Real films and phantoms are
    counted apart, and the stricter bound holds: false alarms are bounded wherever a film comes from.
    No Finding: below it lie at least ``catch`` of the films that carry a finding, again of each kind apart.
    """
    points = {}
    none = np.zeros(len(probability), bool)
    healthy = scored.target[:, list(labels).index(NO_FINDING)] if NO_FINDING in labels else none
    for column, label in enumerate(labels):
        score, present, known = probability[:, column], scored.target[:, column], scored.known[:, column]
        if label == NO_FINDING:
            demands = [(known & ~present, catch)]
        else:
            demands = [(known & ~present, quiet), (known & healthy, silent)]
        bounds = [
            float(np.quantile(score[rows & kind], share, method="higher"))
            for rows, share in demands
            for kind in (scored.phantom, ~scored.phantom)
            if int((rows & kind).sum()) >= FEWEST
        ]
        points[label] = float(np.clip(np.floor(max([0.02, *bounds]) * 1000 + 1) / 1000, 0.02, 0.99))
    return points


def threshold_for_sensitivity(score: Numbers, present: Flags, wanted: float) -> float:
    """The highest threshold that at least a share ``wanted`` of the films with the label reach or pass.

    ``score``: probabilities [N]. The threshold lies halfway (in log odds) to the next lower score of any film, so that
    a rounding of the score does not decide.

    Raises:
        ValueError: no film with the label, or a share outside (0, 1].
    """
    _check_share(wanted)
    positives = np.sort(score[present])[::-1]
    if not len(positives):
        raise ValueError("no film carries the label: no sensitivity can be had")
    needed = int(np.ceil(wanted * len(positives) - 1e-9))
    return _below(score, float(positives[needed - 1]))


def threshold_for_specificity(score: Numbers, present: Flags, wanted: float) -> float:
    """The lowest threshold below which at least a share ``wanted`` of the films without the label stay.

    Raises:
        ValueError: no film without the label, or a share outside (0, 1].
    """
    _check_share(wanted)
    negatives = np.sort(score[~present])
    if not len(negatives):
        raise ValueError("every film carries the label: no specificity can be had")
    needed = int(np.ceil(wanted * len(negatives) - 1e-9))
    return _above(score, float(negatives[needed - 1]))


def thresholds_for_alerts(
    score: Numbers, share: float, weight: Numbers | None = None, already: Flags | None = None
) -> list[float]:
    """Thresholds [R] of several labels such that at most ``share`` of the films are raised by any of them.

    ``score``: [N, R] probabilities. Each label gets the same share of films above it (as far as scores are distinct),
    and a film with several findings counts once. ``weight``: how many films of the site each film stands for.
    ``already``: [N] films that are raised whatever is chosen here.

    Raises:
        ValueError: a share outside (0, 1), or ``already`` alone raises more.
    """
    if not 0 < share < 1:
        raise ValueError(f"a share of {share} of the films cannot be raised: it must lie between 0 and 1")
    films = len(score)
    weight = np.ones(films) if weight is None else np.asarray(weight, np.float64)
    weight = weight / weight.sum()
    already = np.zeros(films, bool) if already is None else already
    if float(weight[already].sum()) > share + 1e-12:
        raise ValueError("what was asked for besides raises more films than that already")
    order = np.argsort(-score, axis=0, kind="stable")
    above = np.take_along_axis(score, order, axis=0)
    reached = np.cumsum(weight[order], axis=0)

    def at(depth: float) -> list[float]:
        return [_deepest(score[:, c], above[:, c], reached[:, c], depth) for c in range(score.shape[1])]

    best = [_above(score[:, c], float(score[:, c].max())) for c in range(score.shape[1])]
    # The films raised grow with the depth: the steps where they can change are the cumulated weights themselves.
    depths = np.unique(reached)
    low, high = -1, len(depths) - 1
    while low < high:
        middle = (low + high + 1) // 2
        tried = at(float(depths[middle]))
        raised = already | (score >= np.asarray(tried)).any(axis=1)
        if float(weight[raised].sum()) <= share + 1e-12:
            low, best = middle, tried
        else:
            high = middle - 1
    return best


def moved_threshold(threshold: float, slope: float, offset: float) -> float:
    """Where a threshold goes when log odds become ``slope * log odds + offset``: it calls the same films as before."""
    inside = float(np.clip(threshold, SMALLEST, LARGEST))
    return float(np.clip(expit(slope * logit(inside) + offset), SMALLEST, LARGEST))


def _deepest(score: Numbers, above: Numbers, reached: npt.NDArray[np.float64], depth: float) -> float:
    """The lowest threshold of one label above which no more than ``depth`` of the weight lies."""
    count = int(np.searchsorted(reached, depth + 1e-12, side="right"))
    # Films with one score are called together or not at all.
    while 0 < count < len(above) and above[count - 1] == above[count]:
        count -= 1
    return _above(score, float(above[0])) if count == 0 else _below(score, float(above[count - 1]))


def _below(score: Numbers, value: float) -> float:
    """Halfway in log odds between a score and the next lower one."""
    lower = score[score < value]
    return _halfway(float(lower.max()), value) if len(lower) else _nudged(value, -1e-3)


def _above(score: Numbers, value: float) -> float:
    """Halfway in log odds between a score and the next higher one."""
    higher = score[score > value]
    return _halfway(value, float(higher.min())) if len(higher) else _nudged(value, 1e-3)


def _halfway(low: float, high: float) -> float:
    ends = logit(np.clip([low, high], SMALLEST, LARGEST))
    middle = float(np.clip(expit(ends.mean()), SMALLEST, LARGEST))
    return middle if low < middle <= high else high


def _nudged(value: float, step: float) -> float:
    return float(np.clip(expit(logit(np.clip(value, SMALLEST, LARGEST)) + step), SMALLEST, LARGEST))


def _check_share(wanted: float) -> None:
    if not 0 < wanted <= 1:
        raise ValueError(f"a share of {wanted} cannot be wanted: it must lie above 0 and at most at 1")
