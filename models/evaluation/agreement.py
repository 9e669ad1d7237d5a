"""Agreement beyond chance: Cohen's kappa of two, Fleiss' kappa of several, with intervals by patient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from firstread.models.evaluation.figures import DRAWS, Flags, Numbers, drawn_weights


@dataclass(frozen=True)
class Kappa:
    """Agreement beyond chance with its 95 % interval (bootstrap by patient), over ``films``.

    ``agreed``: share of films (Cohen) or of pairs of readings of one film (Fleiss) that agree. ``value`` is NaN where
    chance alone would agree always: nobody called it, or everybody did.
    """

    value: float
    low: float
    high: float
    agreed: float
    films: int


def cohen(first: Flags, second: Flags, patients: Sequence[str], draws: int = DRAWS, seed: int = 0) -> Kappa:
    """Cohen's kappa of two readings [N] of the same films."""
    both = np.stack([first, second], axis=1).astype(np.float64)
    return _kappa(_cohen(both, np.ones((1, len(first)))), _cohen, both, patients, draws, seed)


def fleiss(readings: Numbers, patients: Sequence[str], draws: int = DRAWS, seed: int = 0) -> Kappa:
    """Fleiss' kappa of readings [N, R]: 1 called, 0 not called, NaN not read by that reader.

    Films that fewer than two have read say nothing of agreement and are left out; numbers of readers may differ
    between films (Fleiss' chance is then that of all readings together).
    """
    enough = (~np.isnan(readings)).sum(axis=1) >= 2
    kept = readings[enough]
    names = [patient for patient, taken in zip(patients, enough, strict=True) if taken]
    if not len(kept):
        return Kappa(float("nan"), float("nan"), float("nan"), float("nan"), 0)
    return _kappa(_fleiss(kept, np.ones((1, len(kept)))), _fleiss, kept, names, draws, seed)


def consensus(readings: Numbers) -> Numbers:
    """The majority of readings [N, R]: 1 or 0 per film, NaN where nobody has read it or as many say yes as no."""
    called = np.nansum(readings, axis=1)
    read = (~np.isnan(readings)).sum(axis=1)
    return np.where(2 * called > read, 1.0, np.where(2 * called < read, 0.0, np.nan))


def _kappa(
    found: tuple[Numbers, Numbers],
    statistic: object,
    readings: Numbers,
    patients: Sequence[str],
    draws: int,
    seed: int,
) -> Kappa:
    assert callable(statistic)
    value, agreed = float(found[0][0]), float(found[1][0])
    drawn = np.concatenate([statistic(readings, weights)[0] for weights in drawn_weights(patients, draws, seed)])
    known = drawn[np.isfinite(drawn)]
    low, high = np.quantile(known, [0.025, 0.975]) if len(known) else (float("nan"), float("nan"))
    if not np.isfinite(value):
        low = high = float("nan")
    return Kappa(value, float(low), float(high), agreed, len(readings))


def _beyond_chance(agreed: Numbers, chance: Numbers) -> Numbers:
    kappa: Numbers = np.divide(agreed - chance, 1 - chance, out=np.full(len(agreed), np.nan), where=chance < 1 - 1e-12)
    return kappa


def _cohen(both: Numbers, weights: Numbers) -> tuple[Numbers, Numbers]:
    """Kappa and observed agreement [d] of films that count ``weights`` [d, N] times."""
    total = weights.sum(axis=1)
    first, second = weights @ both[:, 0] / total, weights @ both[:, 1] / total
    agreed = weights @ (both[:, 0] == both[:, 1]) / total
    return _beyond_chance(agreed, first * second + (1 - first) * (1 - second)), agreed


def _fleiss(readings: Numbers, weights: Numbers) -> tuple[Numbers, Numbers]:
    """Kappa and observed agreement [d] of films that count ``weights`` [d, N] times."""
    read = (~np.isnan(readings)).sum(axis=1).astype(np.float64)
    called = np.nansum(readings, axis=1)
    silent = read - called
    alike = (called * (called - 1) + silent * (silent - 1)) / (read * (read - 1))
    agreed = weights @ alike / weights.sum(axis=1)
    share = weights @ called / (weights @ read)
    return _beyond_chance(agreed, share**2 + (1 - share) ** 2), agreed
