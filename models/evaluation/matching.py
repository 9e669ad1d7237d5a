"""Pairs of films made alike, one with the label and one without: what is left when the making tells nothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from firstread.models.data.film import Film

Flags = npt.NDArray[np.bool_]

CALLIPER = 0.3
"""Films of a pair differ by at most this many standard deviations in each nuisance."""

_FAR = np.float32(1e6)
_MOST_CELLS = 20_000_000
"""Beyond so many possible pairs the larger side is thinned out evenly: the assignment needs them all in memory."""


def matched_pairs(films: Sequence[Film], present: Flags, calliper: float = CALLIPER) -> list[tuple[int, int]]:
    """Pairs (with the label, without) of films made alike: same view, every nuisance within the calliper.

    Nuisances are put on one scale (sizes by their logarithm, each over its standard deviation over all films given),
    and the pairing with the most pairs and among those the smallest total squared distance is taken (optimal
    assignment). A film stands in one pair at most. Films that lack a nuisance which others have pair with none; films
    without any nuisances give no pairs.
    """
    names = sorted({name for film in films for name in film.nuisances})
    known = [i for i, film in enumerate(films) if names and all(name in film.nuisances for name in names)]
    if not known:
        return []
    table = np.array([[_scaled(name, films[i].nuisances[name]) for name in names] for i in known])
    spread = table.std(axis=0)
    table = ((table - table.mean(axis=0)) / np.where(spread > 1e-9, spread, 1.0)).astype(np.float32)
    pairs = []
    # Films of different views never pair, so each view is an assignment of its own.
    for view in sorted({films[i].view for i in known}):
        rows = [row for row, i in enumerate(known) if films[i].view == view]
        with_label = np.array([row for row in rows if present[known[row]]], int)
        without = np.array([row for row in rows if not present[known[row]]], int)
        if len(with_label) and len(without):
            with_label, without = _thinned(with_label, without)
            pairs += [(known[a], known[b]) for a, b in _assigned(table, with_label, without, calliper)]
    return sorted(pairs)


def _scaled(name: str, value: float) -> float:
    return float(np.log(value)) if name.endswith("bytes") and value > 0 else float(value)


def _thinned(
    with_label: npt.NDArray[np.int_], without: npt.NDArray[np.int_]
) -> tuple[npt.NDArray[np.int_], npt.NDArray[np.int_]]:
    most = max(1, _MOST_CELLS // min(len(with_label), len(without)))
    sides = [side[np.linspace(0, len(side) - 1, min(len(side), most)).astype(int)] for side in (with_label, without)]
    return sides[0], sides[1]


def _assigned(
    table: npt.NDArray[np.float32], with_label: npt.NDArray[np.int_], without: npt.NDArray[np.int_], calliper: float
) -> list[tuple[int, int]]:
    cost = np.zeros((len(with_label), len(without)), np.float32)
    far = np.zeros(cost.shape, bool)
    for column in range(table.shape[1]):
        apart = np.abs(table[with_label, column][:, None] - table[without, column][None, :])
        far |= apart > calliper
        cost += apart**2
    cost[far] = _FAR
    rows, columns = linear_sum_assignment(cost)
    return [
        (int(with_label[row]), int(without[column]))
        for row, column in zip(rows, columns, strict=True)
        if not far[row, column]
    ]
