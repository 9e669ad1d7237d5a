"""What the making of the films alone tells about a label, and how far a score follows it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import norm, rankdata
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from firstread.models.evaluation.figures import Figure, Flags, Numbers, auroc_figure, drawn_weights

FOLDS = 5
DRAWS = 500


@dataclass(frozen=True, eq=False)
class NuisanceTable:
    """How films were made, in numbers: ``values`` [N, K] float64, NaN where not known, one column per name."""

    names: tuple[str, ...]
    values: Numbers

    def column(self, name: str) -> Numbers:
        """One variable [N]."""
        return np.asarray(self.values[:, self.names.index(name)], np.float64)


@dataclass(frozen=True)
class Correlation:
    """Rank correlation within the classes, pooled, with its 95 % interval (bootstrap by patient).

    ``safe``: how far from 0 it is at least, on its own side, when as many variables were looked at as there are
    (Bonferroni); 0 when it may be nothing.
    """

    value: float
    low: float
    high: float
    safe: float


@dataclass(frozen=True)
class Alone:
    """One variable: its AUROC for the label, and how far the score follows it within the classes.

    An AUROC below 0.5 tells as much as one above: films with the label have the smaller values.
    """

    name: str
    auroc: Figure
    follows: Correlation


@dataclass(frozen=True, eq=False)
class NuisanceFigures:
    """What nuisance variables tell of one label. ``predicted``: out-of-fold log odds [N] of the better of two models.

    ``logistic``, ``boosting``: their AUROC, cross-validated by patient. ``follows``: how far the score follows
    ``predicted`` within the classes.
    """

    alone: tuple[Alone, ...]
    logistic: Figure
    boosting: Figure
    follows: Correlation
    predicted: Numbers

    @property
    def together(self) -> Figure:
        """The better of the two."""
        return max(self.logistic, self.boosting, key=lambda figure: figure.value)


def table_of(rows: Sequence[Mapping[str, float]]) -> NuisanceTable:
    """A table of one mapping per film; a variable that never varies, or that most films lack, is left out."""
    names = sorted({name for row in rows for name in row})
    values = np.array([[float(row.get(name, np.nan)) for name in names] for row in rows]).reshape(len(rows), len(names))
    values[~np.isfinite(values)] = np.nan
    kept = [
        k
        for k in range(len(names))
        if np.isfinite(values[:, k]).mean() >= 0.5 and np.nanmax(values[:, k]) > np.nanmin(values[:, k])
    ]
    for k in kept:
        if names[k].endswith("bytes") and np.nanmin(values[:, k]) > 0:
            values[:, k] = np.log(values[:, k])
    return NuisanceTable(tuple(names[k] for k in kept), values[:, kept])


def nuisance_figures(
    table: NuisanceTable, present: Flags, score: Numbers, patients: Sequence[str]
) -> NuisanceFigures | None:
    """What the table [N, K] tells of a label, and how far a score [N] follows; None without any variable.

    Both classes must be there, with films of at least two patients each.
    """
    if not table.names:
        return None
    comparisons = len(table.names) + 1
    alone = []
    for k, name in enumerate(table.names):
        known = np.isfinite(table.values[:, k])
        those = [patient for patient, use in zip(patients, known, strict=True) if use]
        column, flags = table.values[known, k], present[known]
        alone.append(
            Alone(
                name,
                auroc_figure(flags, column, those, DRAWS),
                within_class_correlation(flags, score[known], column, those, comparisons),
            )
        )
    logistic, boosting = (cross_validated(table.values, present, patients, kind) for kind in ("logistic", "boosting"))
    figures = [auroc_figure(present, odds, patients, DRAWS) for odds in (logistic, boosting)]
    predicted = logistic if figures[0].value >= figures[1].value else boosting
    return NuisanceFigures(
        alone=tuple(sorted(alone, key=lambda each: -abs(each.auroc.value - 0.5))),
        logistic=figures[0],
        boosting=figures[1],
        follows=within_class_correlation(present, score, predicted, patients, comparisons),
        predicted=predicted,
    )


def cross_validated(values: Numbers, present: Flags, patients: Sequence[str], kind: str) -> Numbers:
    """Out-of-fold log odds [N] of the label from variables [N, K]; all films of a patient are held out together.

    ``kind``: ``logistic`` (standardised, missing values at the median) or ``boosting`` (gradient-boosted trees).
    """
    groups = np.asarray(patients)
    fewest = min(len(np.unique(groups[present])), len(np.unique(groups[~present])))
    splits = StratifiedGroupKFold(min(FOLDS, max(2, fewest)), shuffle=True, random_state=0)
    odds = np.zeros(len(present))
    for train, held in splits.split(values, present, groups):
        if present[train].all() or not present[train].any():
            continue  # nothing can be learned from one class: these films keep even odds
        model = (
            make_pipeline(SimpleImputer(strategy="median"), StandardScaler(), LogisticRegression(max_iter=500))
            if kind == "logistic"
            else HistGradientBoostingClassifier(
                max_iter=60, max_leaf_nodes=8, min_samples_leaf=10, learning_rate=0.1, random_state=0
            )
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(values[train], present[train])
        # Fold by fold the models differ in level: odds are compared across folds, so prevalence is taken off.
        prevalence = present[train].mean()
        odds[held] = model.decision_function(values[held]) - np.log(prevalence / (1 - prevalence))
    return odds


def within_class_correlation(
    present: Flags, score: Numbers, variable: Numbers, patients: Sequence[str], comparisons: int = 1
) -> Correlation:
    """Spearman correlation of score and variable within each class, pooled over the two.

    Ranks are taken within a class, so that what the classes differ in cannot show: what is left is how the score
    follows the variable among films of the same label.
    """
    x, y = np.zeros(len(score)), np.zeros(len(score))
    for side in (present, ~present):
        x[side], y[side] = _standardised(score[side]), _standardised(variable[side])
    value = _weighted(x, y, np.ones((1, len(x))))[0]
    draws = np.concatenate([_weighted(x, y, weights) for weights in drawn_weights(patients, DRAWS)])
    draws = draws[np.isfinite(draws)]
    if not np.isfinite(value) or not len(draws):
        return Correlation(0.0, 0.0, 0.0, 0.0)
    low, high = np.quantile(draws, [0.025, 0.975])
    margin = norm.isf(0.025 / comparisons) * draws.std()
    return Correlation(float(value), float(low), float(high), float(max(0.0, abs(value) - margin)))


def _standardised(values: Numbers) -> Numbers:
    ranks = rankdata(values)
    spread = ranks.std()
    result: Numbers = (ranks - ranks.mean()) / spread if spread > 0 else np.zeros(len(values))
    return result


def _weighted(x: Numbers, y: Numbers, weights: npt.NDArray[np.float64]) -> Numbers:
    """Correlation [d] of standardised values under weights [d, N]."""
    across = weights @ (x * y)
    spread = np.sqrt((weights @ (x * x)) * (weights @ (y * y)))
    share: Numbers = np.divide(across, spread, out=np.full(len(across), np.nan), where=spread > 0)
    return share
