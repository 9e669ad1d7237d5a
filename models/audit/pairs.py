"""Films made alike: what is left of a score within one view, and on pairs that the making cannot tell apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from firstread.models.audit.nuisances import NuisanceTable
from firstread.models.data.film import Film
from firstread.models.evaluation.figures import (
    FEWEST,
    Figure,
    Flags,
    Numbers,
    auroc,
    auroc_figure,
    drawn_weights,
    matched_figure,
    matched_pairs,
)
from firstread.models.evaluation.matching import CALLIPER

PROPENSITY_CALLIPER = 0.2
"""Standard deviations of the log odds (Austin, Pharm Stat 2011;10:150)."""

_DRAWS = 500


@dataclass(frozen=True)
class Imbalance:
    """How far one nuisance still differs: standardised mean difference over all films, and over the pairs' films."""

    name: str
    before: float
    after: float


@dataclass(frozen=True)
class Matched:
    """AUROC on pairs, each of a film with the label and one without, of one view and made alike.

    ``kind``: ``nuisances`` (each of ``on`` within the calliper) or ``propensity`` (the log odds that all nuisances
    together give). ``figure``: the score's AUROC, None with fewer than ten pairs. ``left``: what the nuisance model
    still reaches on these pairs: what the matching could not take away.
    """

    kind: str
    on: tuple[str, ...]
    calliper: float
    pairs: int
    figure: Figure | None
    left: Figure | None
    imbalance: tuple[Imbalance, ...]


@dataclass(frozen=True)
class Within:
    """AUROC within the groups of one column. ``pooled``: films compared only with films of their own group.

    ``lost``: AUROC on all these films minus ``pooled``, with its 95 % interval (bootstrap by patient).
    """

    by: str
    groups: Mapping[str, Figure | None]
    pooled: float
    lost: Figure


def matched(
    films: Sequence[Film],
    present: Flags,
    score: Numbers,
    table: NuisanceTable,
    on: Sequence[str],
    predicted: Numbers | None,
    kind: str,
) -> Matched:
    """Match on the variables ``on`` (``nuisances``), or on ``predicted`` [N] log odds (``propensity``)."""
    if kind == "propensity":
        calliper, names = PROPENSITY_CALLIPER, table.names
        rows = [
            {} if predicted is None else {"propensity": float(value)}
            for value in (predicted if predicted is not None else score)
        ]
    else:
        calliper, names = CALLIPER, tuple(on)
        columns = np.array([table.column(name) for name in names]).T if names else np.zeros((len(films), 0))
        rows = [
            {name: float(value) for name, value in zip(names, row, strict=True)} if np.isfinite(row).all() else {}
            for row in columns
        ]
    # The columns are on their final scale already: a name that ends in "bytes" must not have its logarithm taken again.
    bare = [
        replace(film, nuisances={f"{name} ": value for name, value in row.items()})
        for film, row in zip(films, rows, strict=True)
    ]
    pairs = matched_pairs(bare, present, calliper)
    chosen = np.array([index for pair in pairs for index in pair], int)
    left = None
    if predicted is not None and len(pairs) >= FEWEST:
        left = matched_figure(bare, present, predicted, draws=_DRAWS, pairs=pairs)
    return Matched(
        kind=kind,
        on=names,
        calliper=calliper,
        pairs=len(pairs),
        figure=matched_figure(bare, present, score, draws=_DRAWS, pairs=pairs),
        left=left,
        imbalance=tuple(
            Imbalance(name, _difference(column, present), _difference(column[chosen], present[chosen]))
            for name, column in ((name, table.column(name)) for name in table.names)
        ),
    )


def within(by: str, levels: Sequence[str], present: Flags, score: Numbers, patients: Sequence[str]) -> Within | None:
    """AUROC within the groups of a column; None unless two groups have ten films of either kind each."""
    levels_of = np.asarray(levels)
    groups: dict[str, Figure | None] = {}
    usable = np.zeros(len(score), bool)
    for level in sorted(set(levels)):
        inside = levels_of == level
        positives, negatives = int(present[inside].sum()), int((~present[inside]).sum())
        enough = min(positives, negatives) >= FEWEST
        those = [patient for patient, use in zip(patients, inside, strict=True) if use]
        groups[level] = auroc_figure(present[inside], score[inside], those, _DRAWS) if enough else None
        usable |= inside & enough
    if sum(figure is not None for figure in groups.values()) < 2:
        return None
    flags, scores, members = present[usable], score[usable], levels_of[usable]
    those = [patient for patient, use in zip(patients, usable, strict=True) if use]
    pooled = _pooled(flags, scores, members, np.ones(len(flags)))
    value = auroc(flags, scores) - pooled
    draws = [
        _auroc_of(flags, scores, row) - _pooled(flags, scores, members, row)
        for weights in drawn_weights(those, 200)
        for row in weights
    ]
    known = np.array(draws)[np.isfinite(draws)]
    low, high = np.quantile(known, [0.025, 0.975]) if len(known) else (np.nan, np.nan)
    lost = Figure(float(value), float(low), float(high), int(flags.sum()), int((~flags).sum()))
    return Within(by, groups, float(pooled), lost)


def _pooled(present: Flags, score: Numbers, members: np.ndarray, weights: Numbers) -> float:
    """Mean of the groups' AUROC, each weighted by its number of comparisons."""
    total, won = 0.0, 0.0
    for level in np.unique(members):
        inside = members == level
        comparisons = weights[inside & present].sum() * weights[inside & ~present].sum()
        value = _auroc_of(present[inside], score[inside], weights[inside])
        if comparisons and np.isfinite(value):
            total, won = total + comparisons, won + comparisons * value
    return won / total if total else float("nan")


def _auroc_of(present: Flags, score: Numbers, weights: Numbers) -> float:
    repeated = np.repeat(np.arange(len(score)), weights.astype(int))
    return auroc(present[repeated], score[repeated])


def _difference(column: Numbers, present: Flags) -> float:
    """Standardised mean difference: of the means, over the root of the mean variance; NaN where nothing is known."""
    known = np.isfinite(column)
    one, two = column[known & present], column[known & ~present]
    if len(one) < 2 or len(two) < 2:
        return float("nan")
    spread = float(np.sqrt((one.var(ddof=1) + two.var(ddof=1)) / 2))
    return float((one.mean() - two.mean()) / spread) if spread > 0 else 0.0
