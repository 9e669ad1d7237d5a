"""Which calibration and which thresholds a site's films ask for: decided from a given part of them, told why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from firstread.models.calibration.fitting import FEWEST, KEEP, METHODS, Flags, Line, Numbers, chosen_methods, fit_labels
from firstread.models.calibration.points import (
    moved_threshold,
    threshold_for_sensitivity,
    threshold_for_specificity,
    thresholds_for_alerts,
)
from firstread.models.calibration.prevalence import prior_shift
from firstread.models.calibration.table import SiteTable, share_of, site_weights
from firstread.models.calibration.wishes import AUTO, Wishes
from firstread.models.data.film import DataError
from firstread.models.evaluation.figures import auroc
from firstread.models.findings import NO_FINDING

FEWEST_RAISED = 5
"""Alerts a day are set by at least so many films above the thresholds: fewer would leave it to chance."""


@dataclass(frozen=True, eq=False)
class Plan:
    """Lines [L] on the calibrated log odds, thresholds [L], which labels have films enough, and how all came about."""

    slope: Numbers
    offset: Numbers
    threshold: Numbers
    able: Flags
    method: tuple[str, ...]
    why: tuple[str, ...]
    losses: tuple[Mapping[str, float], ...]
    by: tuple[str, ...]


def fit_plan(
    table: SiteTable, chosen: Flags, wishes: Wishes, raising: tuple[int, ...], within: Plan | None = None
) -> Plan:
    """Method, fit and thresholds from the chosen films [N].

    ``raising``: columns whose call raises a film. ``within``: the plan from all films, when this is a fold of its
    cross-validation: what that could not fit is not fitted here, and what a fold lacks the films for is left as it was.

    Raises:
        DataError: a wish cannot be met from these films.
    """
    inner = within is not None
    labels = len(table.labels)
    rows = table.known & chosen[:, None]
    slope, offset, threshold = np.ones(labels), np.zeros(labels), table.threshold.copy()
    asked = _method(table, wishes)
    # A fold holds fewer films than all of them: what all can bear must not look as if it were never done.
    why = [_too_few(table, rows, column, FEWEST // 2 if inner else FEWEST) for column in range(labels)]
    if table.softmax:
        why = ["kept: the outputs are a softmax, whose labels cannot be calibrated one by one"] * labels
    method, by = [KEEP] * labels, ["as before"] * labels
    losses: list[Mapping[str, float]] = [{}] * labels
    able = np.array([not sentence for sentence in why])
    if within is not None:
        able &= within.able
    for column, (name, line, loss) in _lines(table, rows & able[None, :], asked).items():
        method[column], losses[column] = name, loss
        slope[column], offset[column] = line
        why[column] = _reason(name, wishes.method)
    for label, stated in wishes.prevalence.items():
        column = table.labels.index(label)
        share = share_of(table, rows, column) if able[column] else table.was.get(label)
        if share is None:
            if inner:
                continue
            raise DataError(
                f"the prevalence of {label} was stated, but {why[column]}, and the bundle does not say at which"
                f" prevalence its calibration of {label} was made: leave it out, or give more films"
            )
        offset[column] += prior_shift(stated, share)
        why[column] += f"; moved from prevalence {share:.3g} to {stated:.3g}"
    for column in range(labels):
        if (slope[column], offset[column]) != (1.0, 0.0):
            threshold[column] = moved_threshold(table.threshold[column], slope[column], offset[column])
            by[column] = "moved along: the same films are called"
    probability = expit(slope * table.log_odds + offset)
    fixed = _wished(table, rows, wishes, probability, threshold, by, inner)
    _alerts(table, chosen, wishes, raising, fixed, probability, threshold, by, inner)
    return Plan(slope, offset, threshold, able, tuple(method), tuple(why), tuple(losses), tuple(by))


def _method(table: SiteTable, wishes: Wishes) -> str:
    if not table.softmax:
        return wishes.method
    if wishes.method not in (AUTO, KEEP) or wishes.prevalence:
        raise DataError(
            "the bundle's outputs are a softmax, whose labels share one sum: they cannot be calibrated or shifted one"
            " by one; choose operating points alone"
        )
    return KEEP


def _lines(table: SiteTable, rows: Flags, method: str) -> dict[int, tuple[str, Line, Mapping[str, float]]]:
    if method == AUTO:
        choice = chosen_methods(table.log_odds, table.target, rows, table.fold)
        fits = {name: fit_labels(name, table.log_odds, table.target, rows, 1) for name in (KEEP, *METHODS)}
        return {column: (name, fits[name][column], loss) for column, (name, loss) in choice.items()}
    return {
        column: (method, line, {}) for column, line in fit_labels(method, table.log_odds, table.target, rows, 1).items()
    }


def _wished(
    table: SiteTable,
    rows: Flags,
    wishes: Wishes,
    probability: Numbers,
    threshold: Numbers,
    by: list[str],
    inner: bool,
) -> set[int]:
    """Set thresholds by wanted sensitivity or specificity; returns their columns."""
    fixed = set()
    for kind, wanted, find in (
        ("sensitivity", wishes.sensitivity, threshold_for_sensitivity),
        ("specificity", wishes.specificity, threshold_for_specificity),
    ):
        for label, share in wanted.items():
            column = table.labels.index(label)
            films = rows[:, column]
            present = table.target[films, column]
            count = int(present.sum()) if kind == "sensitivity" else int((~present).sum())
            fixed.add(column)
            if count < (1 if inner else FEWEST):
                if inner:
                    continue
                with_or_without = "with" if kind == "sensitivity" else "without"
                raise DataError(
                    f"a {kind} of {label} cannot be set by {count} films {with_or_without} it: at least {FEWEST} are"
                    " needed; give more films or leave the wish out"
                )
            threshold[column] = find(probability[films, column], present, share)
            by[column] = f"{kind} {share:g}"
            if label == NO_FINDING:
                by[column] += ", the sensitivity for films with a finding"
    return fixed


def _alerts(
    table: SiteTable,
    chosen: Flags,
    wishes: Wishes,
    raising: tuple[int, ...],
    fixed: set[int],
    probability: Numbers,
    threshold: Numbers,
    by: list[str],
    inner: bool,
) -> None:
    share = wishes.alert_share
    if share is None:
        return
    free = [column for column in raising if column not in fixed]
    bound = [column for column in raising if column in fixed]
    films = int(chosen.sum())
    if not free:
        raise DataError("alerts a day have no label left to set: the other wishes fix all that raise; leave one out")
    if not inner and share * films < FEWEST_RAISED:
        raise DataError(
            f"{wishes.alerts_per_day:g} alerts of {wishes.films_per_day:g} films a day are {share * films:.1f} of"
            f" these {films} films, too few to set a threshold by: give at least {int(np.ceil(FEWEST_RAISED / share))}"
        )
    already: Flags = np.asarray((probability[chosen][:, bound] >= threshold[bound]).any(axis=1), bool)
    weight = site_weights(table, chosen, wishes)
    try:
        found = thresholds_for_alerts(probability[chosen][:, free], share, weight, already)
    except ValueError as error:
        if inner:
            return
        needed = float(weight[already].sum() / weight.sum()) * (wishes.films_per_day or 0)
        names = ", ".join(table.labels[column] for column in bound)
        raise DataError(
            f"what was asked of {names} raises {needed:.0f} films a day already: ask for less, or for more alerts"
        ) from error
    for column, value in zip(free, found, strict=True):
        threshold[column] = value
        by[column] = f"{wishes.alerts_per_day:g} alerts of {wishes.films_per_day:g} films a day"


def _too_few(table: SiteTable, rows: Flags, column: int, fewest: int) -> str:
    """Why a label cannot be fitted on these rows; empty when it can."""
    films = rows[:, column]
    present = table.target[:, column]
    counts = []
    for kind in (films & present, films & ~present):
        counts.append((int(kind.sum()), len({table.patients[i] for i in np.flatnonzero(kind)})))
    (with_label, its_patients), (without, other_patients) = counts
    if min(with_label, without) < fewest:
        return f"kept: {with_label} films with it and {without} without, at least {fewest} of each are needed"
    if min(its_patients, other_patients) < fewest:
        return f"kept: films of {its_patients} patients with it and {other_patients} without, {fewest} are needed"
    if auroc(present[films], table.log_odds[films, column]) <= 0.5:
        return "kept: on these films its scores do not rise with the label, so that no slope above 0 can be fitted"
    return ""


def _reason(name: str, asked: str) -> str:
    if asked != AUTO:
        return "as asked"
    if name == KEEP:
        return "kept: nothing fitted these films better by more than chance"
    return "chosen by cross-validated log loss"
