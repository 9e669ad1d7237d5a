"""Two bundles on the same films: what the difference is, how sure it is, and whose call flips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
from scipy.stats import binomtest

from firstread import __version__
from firstread.models.bundle import Bundle
from firstread.models.data.film import DataError
from firstread.models.evaluation import as_json as plain
from firstread.models.evaluation import figures
from firstread.models.evaluation.delong import delong_p
from firstread.models.evaluation.figures import Figure, Flags, too_few
from firstread.models.evaluation.score import Scores
from firstread.models.findings import LABELS

SCHEMA = "firstread.comparison/1"


@dataclass(frozen=True)
class Flip:
    """A film that one bundle calls and the other does not, each at its own operating point."""

    film: str
    row: int | None
    present: bool | None
    first: float
    second: float


@dataclass(frozen=True)
class McNemar:
    """Films that only one bundle calls rightly, and the exact two-sided p for that to be chance.

    Films are taken as independent; several films of one patient make p a little too small.
    """

    first_right: int
    second_right: int
    p: float


@dataclass(frozen=True)
class LabelComparison:
    """One label of both bundles. ``difference``: AUROC of the second minus the first, interval by paired bootstrap.

    ``p``: DeLong by patient; ``p_holm``: the same, corrected for the number of labels compared. ``reason``: why there
    is no figure. ``films``: compared; ``flips``: those whose call differs, known label or not. ``calls``,
    ``calls_with_label``, ``calls_without``: McNemar over all films that know the label, with it, without it; None
    where a bundle has no operating point.
    """

    label: str
    films: int
    positives: int
    negatives: int
    reason: str
    first: Figure | None
    second: Figure | None
    difference: Figure | None
    p: float | None
    p_holm: float | None
    flips: tuple[Flip, ...]
    calls: McNemar | None
    calls_with_label: McNemar | None
    calls_without: McNemar | None


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two bundles on the ``read`` films that both could read. ``only_first``, ``only_second``: labels of one alone."""

    first: Bundle
    second: Bundle
    labels: tuple[LabelComparison, ...]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    films: int
    patients: int
    read: int
    draws: int


def compare(
    first: Bundle, second: Bundle, scores_first: Scores, scores_second: Scores, draws: int = figures.DRAWS
) -> Comparison:
    """Compare two bundles that scored the same films in the same order.

    Raises:
        DataError: the films differ, no film could be read, or the bundles have no label in common.
    """
    films = scores_first.films
    if [film.key for film in films] != [film.key for film in scores_second.films]:
        raise DataError("the two bundles scored different films: score the same table with both")
    read = scores_first.read & scores_second.read
    if not read.any():
        raise DataError("no film could be read: check the folder of images")
    shared = [label for label in scores_first.labels if label in scores_second.labels]
    if not shared:
        raise DataError(f"{first.name} {first.version} and {second.name} {second.version} have no label in common")
    found = [_label(label, first, second, scores_first, scores_second, read, draws) for label in shared]
    return Comparison(
        first=first,
        second=second,
        labels=_holm(found),
        only_first=tuple(label for label in scores_first.labels if label not in shared),
        only_second=tuple(label for label in scores_second.labels if label not in shared),
        films=len(films),
        patients=len({film.patient for film in films}),
        read=int(read.sum()),
        draws=draws,
    )


def as_json(comparison: Comparison, scores: Scores, source: plain.Source, now: datetime) -> dict[str, Any]:
    """Schema ``firstread.comparison/1``.

    ``first`` and ``second`` are as ``bundle`` in an evaluation, ``data`` and ``interval`` likewise;
    ``labels.<name>`` with ``films``, ``first``, ``second`` and ``difference`` (second minus first) as figures, ``p``,
    ``p_holm``, ``flips`` [{film, row, present, first, second}], ``calls``, ``calls_with_label`` and ``calls_without``
    {first_right, second_right, p}; ``only_first``, ``only_second``: labels that the other bundle lacks.
    """

    def label(one: LabelComparison) -> dict[str, Any]:
        counts = (one.positives, one.negatives, one.reason)
        table = {key: value for key, value in asdict(one).items() if key != "label"}
        return table | {
            "reason": one.reason or None,
            "first": plain.figure_json(one.first, *counts),
            "second": plain.figure_json(one.second, *counts),
            "difference": plain.figure_json(one.difference, *counts),
        }

    table: dict[str, Any] = plain.without_nan(
        {
            "schema": SCHEMA,
            "made_at": now.astimezone(UTC).isoformat(timespec="seconds"),
            "firstread": __version__,
            "first": plain.bundle_json(comparison.first, scores.engine),
            "second": plain.bundle_json(comparison.second, scores.engine),
            "data": plain.data_json(scores, source) | {"read": comparison.read},
            "interval": plain.interval_json(comparison.draws)
            | {"difference": "95 %, paired bootstrap by patient", "p": "DeLong, paired, one cluster per patient"},
            "labels": {one.label: label(one) for one in comparison.labels},
            "only_first": list(comparison.only_first),
            "only_second": list(comparison.only_second),
        }
    )
    return table


def _label(
    label: str, first: Bundle, second: Bundle, one: Scores, two: Scores, read: Flags, draws: int
) -> LabelComparison:
    rows = np.flatnonzero(read)
    column = LABELS.index(label)
    known = np.array([bool(one.films[i].known[column]) for i in rows], bool)
    truth = np.array([bool(one.films[i].target[column]) for i in rows], bool)
    p_one, p_two = one.probabilities[rows, one.column(label)], two.probabilities[rows, two.column(label)]
    flips: tuple[Flip, ...] = ()
    calls = with_label = without = None
    limits = first.thresholds.get(label), second.thresholds.get(label)
    if limits[0] is not None and limits[1] is not None:
        called = p_one >= limits[0], p_two >= limits[1]
        flips = tuple(
            Flip(
                one.films[rows[i]].key,
                one.films[rows[i]].row,
                bool(truth[i]) if known[i] else None,
                float(p_one[i]),
                float(p_two[i]),
            )
            for i in np.flatnonzero(called[0] != called[1])
        )
        calls = _mcnemar(called[0], called[1], truth, known)
        with_label = _mcnemar(called[0], called[1], truth, known & truth)
        without = _mcnemar(called[0], called[1], truth, known & ~truth)
    present = truth[known]
    patients = [one.films[rows[i]].patient for i in np.flatnonzero(known)]
    reason = too_few(present, patients)
    figure_one = figure_two = difference = None
    p = None
    if not reason:
        a, b = p_one[known], p_two[known]
        figure_one = figures.auroc_figure(present, a, patients, draws)
        figure_two = figures.auroc_figure(present, b, patients, draws)
        difference = figures.auroc_difference(present, b, a, patients, draws)
        p = delong_p(present, a, b, patients)
    return LabelComparison(
        label=label,
        films=int(known.sum()),
        positives=int(present.sum()),
        negatives=int((~present).sum()),
        reason=reason,
        first=figure_one,
        second=figure_two,
        difference=difference,
        p=p,
        p_holm=None,
        flips=flips,
        calls=calls,
        calls_with_label=with_label,
        calls_without=without,
    )


def _mcnemar(first: Flags, second: Flags, truth: Flags, among: Flags) -> McNemar:
    first_right = int(((first == truth) & (second != truth) & among).sum())
    second_right = int(((second == truth) & (first != truth) & among).sum())
    differ = first_right + second_right
    p = float(binomtest(min(first_right, second_right), differ, 0.5).pvalue) if differ else 1.0
    return McNemar(first_right, second_right, p)


def _holm(found: Sequence[LabelComparison]) -> tuple[LabelComparison, ...]:
    """Holm's correction over the labels that have a p."""
    tested = sorted((one.p, i) for i, one in enumerate(found) if one.p is not None)
    corrected: dict[int, float] = {}
    highest = 0.0
    for rank, (p, i) in enumerate(tested):
        highest = max(highest, min(1.0, (len(tested) - rank) * p))
        corrected[i] = highest
    return tuple(replace(one, p_holm=corrected.get(i)) for i, one in enumerate(found))
