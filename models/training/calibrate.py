"""From scores to statements: Platt scaling and the operating point of each label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from firstread.models.bundle import Calibration
from firstread.models.findings import NO_FINDING

Numbers = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

FEWEST = 10
"""With fewer films of either kind a label keeps its raw sigmoid: a fit would be invention."""


@dataclass(frozen=True)
class Scored:
    """Held-out films with their logits [N, L], targets and what is known [N, L] (bool), and which are phantoms [N]."""

    logits: Numbers
    target: Flags
    known: Flags
    phantom: Flags


def platt(logit: Numbers, present: Flags) -> tuple[float, float]:
    """Slope and offset of the logistic fit of ``present`` on ``logit``, the slope drawn gently towards 1.

    Raises:
        ValueError: the fit did not come out.
    """
    signs = np.where(present, 1.0, -1.0)

    def loss(parameters: Numbers) -> float:
        slope, offset = np.exp(parameters[0]), parameters[1]
        return float(np.logaddexp(0, -signs * (slope * logit + offset)).sum() + parameters[0] ** 2)

    found = minimize(loss, np.zeros(2), method="Nelder-Mead", options={"maxiter": 2000, "xatol": 1e-6, "fatol": 1e-8})
    slope, offset = float(np.exp(found.x[0])), float(found.x[1])
    if not (np.isfinite(slope) and np.isfinite(offset)):
        raise ValueError("the calibration did not converge: are there films of both kinds?")
    return slope, offset


def calibrate(scored: Scored, labels: Sequence[str], on_phantoms: frozenset[str]) -> Calibration:
    """Fit each label on the films that can answer it: the phantoms for ``on_phantoms``, real films for all others."""
    pairs = []
    for column, label in enumerate(labels):
        rows = scored.known[:, column] & (scored.phantom if label in on_phantoms else ~scored.phantom)
        present = scored.target[rows, column]
        enough = min(int(present.sum()), int((~present).sum())) >= FEWEST
        pairs.append(platt(scored.logits[rows, column], present) if enough else (1.0, 0.0))
    return Calibration("platt", tuple(slope for slope, _ in pairs), tuple(offset for _, offset in pairs))


def probabilities(logits: Numbers, calibration: Calibration) -> Numbers:
    """Calibrated probabilities [N, L], as an engine gives them."""
    x = logits * np.asarray(calibration.slope) + np.asarray(calibration.offset)
    return np.asarray(1 / (1 + np.exp(-np.clip(x, -60, 60))))


def operating_points(
    scored: Scored,
    probability: Numbers,
    labels: Sequence[str],
    quiet: float = 0.95,
    silent: float = 0.98,
    catch: float = 0.9,
) -> dict[str, float]:
    """The threshold of each label.

    A finding: above it lie at most ``1 - quiet`` of the films without it, and at most ``1 - silent`` of those that
    carry No Finding (fourteen findings share a healthy film, and each may raise it). Real films and phantoms are
    counted apart, and the stricter bound holds: false alarms are bounded wherever a film comes from.
    No Finding: below it lie at least ``catch`` of the films that carry a finding, again of each kind apart.
    """
    points = {}
    healthy = scored.target[:, list(labels).index(NO_FINDING)]
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
