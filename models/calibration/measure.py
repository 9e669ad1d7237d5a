"""How far probabilities can be believed, and what an operating point does in a day: before a change and after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from firstread.models.calibration.fitting import Flags, Numbers
from firstread.models.evaluation.figures import drawn_weights

BINS = 10
DRAWS = 500


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval (bootstrap by patient)."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Believable:
    """``ece``: distance of probability and observed share over ten equal bins. ``brier``: mean squared error.
    ``log_loss``: mean negative log likelihood, natural logarithm. All weighted as the films are."""

    ece: float
    brier: float
    log_loss: float


def believable(present: Flags, probability: Numbers, weight: Numbers) -> Believable:
    """ECE, Brier score and log loss of probabilities [N]; ``weight``: how many films each film stands for."""
    share = weight / weight.sum()
    inside = np.clip(probability, 1e-7, 1 - 1e-7)
    return Believable(
        ece=float(np.abs(_gaps(present, probability, share[None])).sum()),
        brier=float((share * (probability - present) ** 2).sum()),
        log_loss=float(-(share * np.log(np.where(present, inside, 1 - inside))).sum()),
    )


def brier_change(
    present: Flags, before: Numbers, after: Numbers, weight: Numbers, patients: Sequence[str], draws: int = DRAWS
) -> Estimate:
    """Brier score of ``after`` minus that of ``before`` on the same films: below 0 is better."""
    difference = (after - present) ** 2 - (before - present) ** 2
    return mean_of(difference, weight, patients, draws)


def share_of_films(yes: Flags, weight: Numbers, patients: Sequence[str], draws: int = DRAWS) -> Estimate:
    """Weighted share of the films [N] that say yes, with its interval.

    Where every film says the same, no drawing shows how uncertain that is: then the interval's open end is that of
    the rule of three (Hanley and Lippman-Hand, JAMA 249(13), 1983) on the number of patients.
    """
    found = mean_of(yes.astype(np.float64), weight, patients, draws)
    room = 1 - 0.05 ** (1 / len(set(patients)))
    if not yes.any():
        return Estimate(0.0, 0.0, room)
    return Estimate(1.0, 1 - room, 1.0) if yes.all() else found


def mean_of(value: Numbers, weight: Numbers, patients: Sequence[str], draws: int = DRAWS) -> Estimate:
    """Weighted mean of ``value`` [N] with its interval: patients drawn with replacement."""
    mean = float((weight * value).sum() / weight.sum())
    found = []
    for times in drawn_weights(patients, draws):
        totals = times * weight
        found.append((totals @ value) / np.maximum(totals.sum(axis=1), 1e-12))
    low, high = (float(end) for end in np.quantile(np.concatenate(found), [0.025, 0.975]))
    return Estimate(mean, low, high)


def _gaps(present: Flags, probability: Numbers, share: Numbers) -> Numbers:
    """Of each bin [d, B]: its weight times (mean probability minus observed share), for ``share`` [d, N]."""
    which = np.minimum((np.clip(probability, 0, 1) * BINS).astype(int), BINS - 1)
    member = (which[:, None] == np.arange(BINS)[None]).astype(np.float64)
    gaps: Numbers = (share * (probability - present)[None]) @ member
    return gaps
