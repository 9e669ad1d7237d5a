"""A site's own calibration and operating points, planned from its films, and what they would change, told honestly.

Every figure of the changed bundle is measured by cross-validation over patients: in each fold, method, fit and
thresholds are made from the other folds' films alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import expit

from firstread.models.bundle import Bundle, Calibration
from firstread.models.calibration.fitting import (
    FEWEST,
    Flags,
    Numbers,
)
from firstread.models.calibration.measure import Believable, Estimate, believable, brier_change, share_of_films
from firstread.models.calibration.plan import Plan, fit_plan
from firstread.models.calibration.prevalence import prior_shift
from firstread.models.calibration.table import SiteTable, share_of, site_table, site_weights
from firstread.models.calibration.wishes import Wishes
from firstread.models.evaluation.score import Scores
from firstread.models.findings import NO_FINDING

NOTED_SHIFT = 0.7
"""A shift of the log odds that is worth a word: odds twice or half as high."""


@dataclass(frozen=True)
class LabelChange:
    """One label before and after. None where there were too few films to say.

    ``films``, ``positives``: those that could be used. ``method``: what was fitted, ``keep`` when nothing was, and
    ``why`` in words. ``log_loss_by_method``: cross-validated. ``after`` and everything else ``_after`` is
    cross-validated over patients; ``_before`` is the bundle as it was, on the same films. ``raised``: share of the
    films at or above the threshold.
    """

    label: str
    experimental: bool
    raises: bool
    films: int
    positives: int
    prevalence: float | None
    stated_prevalence: float | None
    method: str
    why: str
    log_loss_by_method: Mapping[str, float]
    slope_before: float
    slope_after: float
    offset_before: float
    offset_after: float
    threshold_before: float
    threshold_after: float
    threshold_by: str
    before: Believable | None = None
    after: Believable | None = None
    brier_change: Estimate | None = None
    sensitivity_before: Estimate | None = None
    sensitivity_after: Estimate | None = None
    specificity_before: Estimate | None = None
    specificity_after: Estimate | None = None
    raised_before: Estimate | None = None
    raised_after: Estimate | None = None

    @property
    def changed(self) -> bool:
        """True when its calibration or its operating point is another one."""
        return (self.slope_before, self.offset_before, self.threshold_before) != (
            self.slope_after,
            self.offset_after,
            self.threshold_after,
        )


@dataclass(frozen=True, eq=False)
class LabelFilms:
    """The films that know a label, for plots: presence, probabilities before and (cross-validated) after, weights."""

    present: Flags
    before: Numbers
    after: Numbers
    weight: Numbers


@dataclass(frozen=True, eq=False)
class SiteCalibration:
    """What a site's version would be, and what was measured of it.

    ``films``, ``patients``: used. ``refused``: films that the gate keeps out, ``unreadable``: broken ones; neither has
    a say. ``raised_before``, ``raised_after``: share of the films that at least one raising label raises.
    ``notes``: what a site should know, as sentences. ``by_label``: for plots, the labels that have films enough.
    """

    labels: tuple[LabelChange, ...]
    calibration: Calibration
    thresholds: Mapping[str, float]
    wishes: Wishes
    films: int
    patients: int
    refused: int
    unreadable: int
    raised_before: Estimate
    raised_after: Estimate
    by_label: Mapping[str, LabelFilms]
    notes: tuple[str, ...] = ()

    @property
    def changed(self) -> tuple[LabelChange, ...]:
        """The labels that would change."""
        return tuple(row for row in self.labels if row.changed)


def plan_site(bundle: Bundle, scores: Scores, wishes: Wishes) -> SiteCalibration:
    """Fit, choose and measure; nothing is written.

    Raises:
        DataError: no film can be used, or a wish cannot be met from these films; the message says why.
    """
    table = site_table(bundle, scores)
    everything = np.ones(len(table.patients), bool)
    raising = tuple(
        column
        for column, label in enumerate(bundle.labels)
        if label in (wishes.raising or tuple(set(bundle.labels) - bundle.experimental - {NO_FINDING}))
    )
    plan = fit_plan(table, everything, wishes, raising)
    weight = site_weights(table, everything, wishes)
    after = np.full(table.log_odds.shape, np.nan)
    called_after = np.zeros(table.log_odds.shape, bool)
    for part in np.unique(table.fold):
        away = table.fold == part
        learned = fit_plan(table, ~away, wishes, raising, within=plan)
        after[away] = expit(learned.slope * table.log_odds[away] + learned.offset)
        called_after[away] = after[away] >= learned.threshold
    before = expit(table.log_odds)
    called_before = before >= table.threshold
    rows = []
    for column, label in enumerate(bundle.labels):
        row = _unmeasured(table, plan, column, label, wishes, column in raising)
        rows.append(
            _measured(row, table, column, weight, before[:, column], after[:, column], called_before, called_after)
        )
    names = list(raising)
    return SiteCalibration(
        labels=tuple(rows),
        calibration=_calibration(bundle, rows),
        thresholds={row.label: row.threshold_after for row in rows},
        wishes=wishes,
        films=len(table.patients),
        patients=len(set(table.patients)),
        refused=sum(
            reason is not None and problem is None
            for reason, problem in zip(scores.refused, scores.problems, strict=True)
        ),
        unreadable=sum(problem is not None for problem in scores.problems),
        raised_before=share_of_films(np.asarray(called_before[:, names].any(axis=1)), weight, table.patients),
        raised_after=share_of_films(np.asarray(called_after[:, names].any(axis=1)), weight, table.patients),
        by_label={
            row.label: _label_films(table, column, weight, before, after)
            for column, row in enumerate(rows)
            if row.before is not None
        },
        notes=_notes(table, weight, rows),
    )


def _notes(table: SiteTable, weight: Numbers, rows: list[LabelChange]) -> tuple[str, ...]:
    """Labels whose prevalence the stated ones change along, while their calibration stays that of the table."""
    found = []
    for column, row in enumerate(rows):
        known = table.known[:, column]
        if row.stated_prevalence is not None or row.before is None or row.prevalence is None:
            continue
        share = float(np.average(table.target[known, column], weights=weight[known]))
        if 0 < share < 1 and abs(prior_shift(share, row.prevalence)) > NOTED_SHIFT:
            found.append(
                f"with the stated prevalences {100 * share:.0f} % of the films would carry {row.label}, and"
                f" {100 * row.prevalence:.0f} % of these do: state its prevalence as well, or its probabilities are off"
            )
    return tuple(found)


def _label_films(table: SiteTable, column: int, weight: Numbers, before: Numbers, after: Numbers) -> LabelFilms:
    films = table.known[:, column]
    return LabelFilms(table.target[films, column], before[films, column], after[films, column], weight[films])


def _calibration(bundle: Bundle, rows: list[LabelChange]) -> Calibration:
    lines = [(row.slope_after, row.offset_after) for row in rows]
    old = bundle.calibration
    if lines == list(zip(old.slope, old.offset, strict=True)):
        return old
    return Calibration("platt", tuple(slope for slope, _ in lines), tuple(offset for _, offset in lines))


def _unmeasured(table: SiteTable, plan: Plan, column: int, label: str, wishes: Wishes, raises: bool) -> LabelChange:
    rows = table.known[:, column]
    slope, offset = float(table.slope[column]), float(table.offset[column])
    a, b = float(plan.slope[column]), float(plan.offset[column])
    return LabelChange(
        label=label,
        experimental=label in table.experimental,
        raises=raises,
        films=int(rows.sum()),
        positives=int(table.target[rows, column].sum()),
        prevalence=share_of(table, table.known, column) if rows.any() else None,
        stated_prevalence=wishes.prevalence.get(label),
        method=plan.method[column],
        why=plan.why[column],
        log_loss_by_method=plan.losses[column],
        slope_before=slope,
        slope_after=a * slope,
        offset_before=offset,
        offset_after=a * offset + b,
        threshold_before=float(table.threshold[column]),
        threshold_after=float(plan.threshold[column]),
        threshold_by=plan.by[column],
    )


def _measured(
    row: LabelChange,
    table: SiteTable,
    column: int,
    weight: Numbers,
    before: Numbers,
    after: Numbers,
    called_before: Flags,
    called_after: Flags,
) -> LabelChange:
    """The row with its figures, those that its films can bear."""
    patients = np.asarray(table.patients)
    old, new = called_before[:, column], called_after[:, column]
    measured = replace(
        row,
        raised_before=share_of_films(old, weight, table.patients),
        raised_after=share_of_films(new, weight, table.patients),
    )
    films, target = table.known[:, column], table.target[:, column]
    present, absent = films & target, films & ~target
    if int(present.sum()) >= FEWEST:
        measured = replace(
            measured,
            sensitivity_before=share_of_films(old[present], weight[present], patients[present].tolist()),
            sensitivity_after=share_of_films(new[present], weight[present], patients[present].tolist()),
        )
    if int(absent.sum()) >= FEWEST:
        measured = replace(
            measured,
            specificity_before=share_of_films(~old[absent], weight[absent], patients[absent].tolist()),
            specificity_after=share_of_films(~new[absent], weight[absent], patients[absent].tolist()),
        )
    if min(int(present.sum()), int(absent.sum())) < FEWEST:
        return measured
    return replace(
        measured,
        before=believable(target[films], before[films], weight[films]),
        after=believable(target[films], after[films], weight[films]),
        brier_change=brier_change(target[films], before[films], after[films], weight[films], patients[films].tolist()),
    )
