"""DeLong's variance of the AUROC, one cluster per patient: a check of the bootstrap's interval, and p values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import norm, rankdata

from firstread.models.evaluation.figures import Figure, Flags, Numbers


def delong(present: Flags, scores: Sequence[Numbers], patients: Sequence[str]) -> tuple[Numbers, Numbers]:
    """AUROC of each score [k] and their covariance [k, k] (DeLong), films of one patient counted as one cluster.

    Obuchowski, Biometrics 1997;53:567. With one film per patient it is DeLong's estimate. Both classes must be there.
    """
    _, member = np.unique(np.asarray(patients), return_inverse=True)
    groups = int(member.max()) + 1
    positives, negatives = int(present.sum()), int((~present).sum())
    values, with_label, without = [], [], []
    for score in scores:
        ranks = rankdata(score)
        above = (ranks[present] - rankdata(score[present])) / negatives
        below = 1 - (ranks[~present] - rankdata(score[~present])) / positives
        value = float(above.mean())
        values.append(value)
        with_label.append(np.bincount(member[present], above - value, minlength=groups))
        without.append(np.bincount(member[~present], below - value, minlength=groups))
    one, two = np.array(with_label), np.array(without)
    both = one @ two.T
    covariance = (
        _unbiased(len(np.unique(member[present]))) * (one @ one.T) / positives**2
        + _unbiased(len(np.unique(member[~present]))) * (two @ two.T) / negatives**2
        + _unbiased(groups) * (both + both.T) / (positives * negatives)
    )
    return np.array(values), covariance


def delong_figure(present: Flags, score: Numbers, patients: Sequence[str]) -> Figure:
    """AUROC with its 95 % interval by DeLong for clustered films: a check of the bootstrap's."""
    if not present.any() or present.all():
        return Figure(float("nan"), float("nan"), float("nan"), int(present.sum()), int((~present).sum()))
    values, covariance = delong(present, [score], patients)
    half = 1.959964 * float(np.sqrt(max(covariance[0, 0], 0.0)))
    value = float(values[0])
    return Figure(value, max(0.0, value - half), min(1.0, value + half), int(present.sum()), int((~present).sum()))


def delong_p(present: Flags, first: Numbers, second: Numbers, patients: Sequence[str]) -> float:
    """Two-sided p for equal AUROC of two scores of the same films; 1 where they rank the films alike."""
    values, covariance = delong(present, [first, second], patients)
    variance = float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    difference = float(values[0] - values[1])
    if variance <= 1e-15:
        return 1.0 if abs(difference) < 1e-12 else 0.0
    return float(2 * norm.sf(abs(difference) / np.sqrt(variance)))


def _unbiased(clusters: int) -> float:
    return clusters / (clusters - 1) if clusters > 1 else 1.0
