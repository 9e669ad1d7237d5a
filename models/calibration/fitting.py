"""From log odds to probabilities that hold: Platt scaling, temperature, and which of them a label's films can bear."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import expit

from firstread.models.bundle import Calibration

Numbers = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Line = tuple[float, float]
"""Slope and offset on log odds: probability = sigmoid(slope * log odds + offset)."""

FEWEST = 10
"""With fewer films (or patients) of either kind a label keeps what it had: a fit would be invention."""

KEEP, SHARED_TEMPERATURE, TEMPERATURE, PLATT = "keep", "shared-temperature", "temperature", "platt"
METHODS = (SHARED_TEMPERATURE, TEMPERATURE, PLATT)
"""What can be fitted, from the least to the most that it takes from the films."""

FOLDS = 5


@dataclass(frozen=True)
class Scored:
    """Held-out films with their logits [N, L], targets and what is known [N, L] (bool), and which are phantoms [N]."""

    logits: Numbers
    target: Flags
    known: Flags
    phantom: Flags


def platt(logit: Numbers, present: Flags) -> Line:
    """Slope and offset of the logistic fit of ``present`` on ``logit``, the slope drawn gently towards 1.

    The slope is fitted as a logarithm, so that it is above 0 whatever the films say, and its penalty (the square of
    that logarithm) weighs as much as a film or two: it decides only where classes are parted without overlap.

    Raises:
        ValueError: the fit did not come out.
    """
    signs = np.where(present, 1.0, -1.0)

    def loss(parameters: Numbers) -> tuple[float, Numbers]:
        slope, offset = np.exp(parameters[0]), parameters[1]
        margin = signs * (slope * logit + offset)
        pull = -signs * expit(-margin)
        value = np.logaddexp(0, -margin).sum() + parameters[0] ** 2
        return float(value), np.array([(pull * logit).sum() * slope + 2 * parameters[0], pull.sum()])

    return _found(loss, 2)


def temperature(logit: Numbers, present: Flags) -> Line:
    """Slope of the logistic fit without an offset (the temperature is one over the slope); as :func:`platt` else."""
    signs = np.where(present, 1.0, -1.0)

    def loss(parameters: Numbers) -> tuple[float, Numbers]:
        slope = np.exp(parameters[0])
        margin = signs * slope * logit
        pull = -signs * expit(-margin)
        value = np.logaddexp(0, -margin).sum() + parameters[0] ** 2
        return float(value), np.array([(pull * logit).sum() * slope + 2 * parameters[0]])

    return _found(loss, 1)


def calibrate(
    scored: Scored, labels: Sequence[str], on_phantoms: frozenset[str] = frozenset(), method: str = PLATT
) -> Calibration:
    """Fit each label on the films that can answer it: the phantoms for ``on_phantoms``, real films for all others.

    ``method``: one of :data:`METHODS`. A label with fewer than :data:`FEWEST` films of either kind keeps its raw
    sigmoid.
    """
    if method not in METHODS:
        raise ValueError(f"calibration method {method!r} is unknown: use {', '.join(METHODS)}")
    rows = _answering(scored, labels, on_phantoms)
    fitted = fit_labels(method, scored.logits, scored.target, rows)
    lines = [fitted.get(column, (1.0, 0.0)) for column in range(len(labels))]
    return Calibration("platt", tuple(slope for slope, _ in lines), tuple(offset for _, offset in lines))


def fitted_on(
    scored: Scored, labels: Sequence[str], on_phantoms: frozenset[str] = frozenset()
) -> dict[str, dict[str, float | int | str]]:
    """What :func:`calibrate` fitted each label on, for the bundle's provenance under ``calibration``.

    ``prevalence``: without it nobody could move the probabilities to another prevalence later. Labels with too few
    films, which keep their raw sigmoid, are absent.
    """
    rows = _answering(scored, labels, on_phantoms)
    found: dict[str, dict[str, float | int | str]] = {}
    for column, label in enumerate(labels):
        films, positives = int(rows[:, column].sum()), int((rows & scored.target)[:, column].sum())
        if min(positives, films - positives) >= FEWEST:
            kind = "phantoms" if label in on_phantoms else "films"
            found[label] = {"prevalence": positives / films, "films": films, "positives": positives, "on": kind}
    return found


def _answering(scored: Scored, labels: Sequence[str], on_phantoms: frozenset[str]) -> Flags:
    """Which films can answer which label [N, L]."""
    rows = np.zeros_like(scored.known)
    for column, label in enumerate(labels):
        rows[:, column] = scored.known[:, column] & (scored.phantom if label in on_phantoms else ~scored.phantom)
    return rows


def fit_labels(method: str, log_odds: Numbers, target: Flags, rows: Flags, fewest: int = FEWEST) -> dict[int, Line]:
    """The line of each column whose chosen ``rows`` [N, L] hold at least ``fewest`` films of either kind.

    A shared temperature is fitted on all such columns together.
    """
    able = [
        column
        for column in range(log_odds.shape[1])
        if min(int((target & rows)[:, column].sum()), int((~target & rows)[:, column].sum())) >= fewest
    ]
    if method == KEEP:
        return dict.fromkeys(able, (1.0, 0.0))
    if method == SHARED_TEMPERATURE:
        if not able:
            return {}
        chosen = rows[:, able]
        return dict.fromkeys(able, temperature(log_odds[:, able][chosen], target[:, able][chosen]))
    fit = {PLATT: platt, TEMPERATURE: temperature}[method]
    return {c: fit(log_odds[rows[:, c], c], target[rows[:, c], c]) for c in able}


def chosen_methods(
    log_odds: Numbers, target: Flags, rows: Flags, fold: npt.NDArray[np.int64], methods: Sequence[str] = METHODS
) -> dict[int, tuple[str, Mapping[str, float]]]:
    """The method of each column that has films of both kinds, with every method's cross-validated log loss.

    ``fold``: [N] the part in which a film is held out; no patient's films in two parts. A method that takes more from
    the films is chosen only where its loss is smaller by more than one standard error: a bundle is changed for a
    reason, never for chance. Other columns are absent.
    """
    able = sorted(fit_labels(KEEP, log_odds, target, rows, fewest=1))
    losses = {name: held_out_loss(name, log_odds, target, rows, fold) for name in (KEEP, *methods)}
    outcome: dict[int, tuple[str, Mapping[str, float]]] = {}
    for column in able:
        films = rows[:, column]
        best = KEEP
        for name in methods:
            gain = losses[best][films, column] - losses[name][films, column]
            if gain.mean() > gain.std(ddof=1) / np.sqrt(len(gain)):
                best = name
        outcome[column] = (best, {name: float(loss[films, column].mean()) for name, loss in losses.items()})
    return outcome


def held_out_loss(method: str, log_odds: Numbers, target: Flags, rows: Flags, fold: npt.NDArray[np.int64]) -> Numbers:
    """Log loss of every film [N, L] when its fold had no say in the fit."""
    moved = log_odds.copy()
    for part in np.unique(fold):
        away = fold == part
        # The other folds may hold one film fewer than is asked of all of them.
        lines = fit_labels(method, log_odds, target, rows & ~away[:, None], fewest=1)
        for column, (slope, offset) in lines.items():
            moved[away, column] = slope * log_odds[away, column] + offset
    return np.asarray(np.logaddexp(0, np.where(target, -moved, moved)))


def probabilities(logits: Numbers, calibration: Calibration) -> Numbers:
    """Calibrated probabilities [N, L], as an engine gives them."""
    x = logits * np.asarray(calibration.slope) + np.asarray(calibration.offset)
    return np.asarray(1 / (1 + np.exp(-np.clip(x, -60, 60))))


def _found(loss: object, size: int) -> Line:
    found = minimize(loss, np.zeros(size), jac=True, method="L-BFGS-B", options={"maxiter": 500, "ftol": 1e-12})
    slope = float(np.exp(found.x[0]))
    offset = float(found.x[1]) if size == 2 else 0.0
    if not (np.isfinite(slope) and np.isfinite(offset) and slope > 0):
        raise ValueError("the calibration did not converge: are there films of both kinds?")
    return slope, offset
