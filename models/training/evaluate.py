"""How good a network is, in figures that hold: intervals by patient, and pairs of films made alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import linear_sum_assignment
from scipy.stats import rankdata

from firstread.models.data.film import Film, FilmSet
from firstread.models.network import ChestNetwork
from firstread.models.preprocess import Preprocessing, prepare

Numbers = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

NUISANCE_CALLIPER = 0.3
"""Films of a pair differ by at most this many standard deviations in each nuisance."""


@dataclass(frozen=True)
class Figure:
    """A value with its 95 % interval (bootstrap by patient), and what it rests on."""

    value: float
    low: float
    high: float
    positives: int
    negatives: int

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f})"


def logits_of(network: ChestNetwork, films: FilmSet, preprocessing: Preprocessing, batch: int = 16) -> Numbers:
    """Logits [N, L] of a film set, in float32 arithmetic."""
    network.eval()
    device = next(network.parameters()).device
    parts = []
    for start in range(0, len(films), batch):
        squares = [prepare(films.image(i), preprocessing) for i in range(start, min(start + batch, len(films)))]
        with torch.inference_mode():
            logits, _ = network(torch.from_numpy(np.stack(squares)).to(device))
        parts.append(logits.cpu().numpy())
    return np.concatenate(parts).astype(np.float64)


def auroc(present: Flags, score: Numbers) -> float:
    """Chance that a film with the label scores higher than one without; ties count half. NaN with one class only."""
    positives, negatives = int(present.sum()), int((~present).sum())
    if not positives or not negatives:
        return float("nan")
    ranks = rankdata(score)
    return float((ranks[present].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def auroc_figure(present: Flags, score: Numbers, patients: Sequence[str], draws: int = 1000, seed: int = 0) -> Figure:
    """AUROC with its 95 % interval: patients are drawn with replacement, each with all of its films."""
    groups: dict[str, list[int]] = {}
    for index, patient in enumerate(patients):
        groups.setdefault(patient, []).append(index)
    members = [np.array(indices) for indices in groups.values()]
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(draws):
        drawn = np.concatenate([members[i] for i in rng.integers(0, len(members), len(members))])
        values.append(auroc(present[drawn], score[drawn]))
    low, high = np.nanquantile(values, [0.025, 0.975])
    return Figure(auroc(present, score), float(low), float(high), int(present.sum()), int((~present).sum()))


def matched_pairs(films: Sequence[Film], present: Flags) -> list[tuple[int, int]]:
    """Pairs (with the label, without) of films made alike: same view, nuisances within the calliper, nearest first.

    Size, noise and mean grey are put on one scale (size by its logarithm, each over its standard deviation), and the
    pairing with the smallest total distance is taken. Films without nuisances pair with none.
    """
    names = sorted({name for film in films for name in film.nuisances})
    known = [i for i, film in enumerate(films) if names and all(name in film.nuisances for name in names)]
    if not known:
        return []
    table = np.array([[_scaled(name, films[i].nuisances[name]) for name in names] for i in known])
    table = (table - table.mean(axis=0)) / np.maximum(table.std(axis=0), 1e-9)
    with_label = [row for row, i in enumerate(known) if present[i]]
    without = [row for row, i in enumerate(known) if not present[i]]
    apart = np.abs(table[with_label][:, None, :] - table[without][None, :, :])
    cost = (apart**2).sum(axis=2)
    far = 1e6
    cost[(apart > NUISANCE_CALLIPER).any(axis=2)] = far
    views = np.array([films[i].view for i in known])
    cost[views[with_label][:, None] != views[without][None, :]] = far
    rows, columns = linear_sum_assignment(cost)
    return [
        (known[with_label[row]], known[without[column]])
        for row, column in zip(rows, columns, strict=True)
        if cost[row, column] < far
    ]


def matched_figure(films: Sequence[Film], present: Flags, score: Numbers, draws: int = 1000) -> Figure | None:
    """AUROC on matched pairs, its interval by drawing pairs; None with fewer than ten pairs."""
    pairs = matched_pairs(films, present)
    if len(pairs) < 10:
        return None
    names = [f"pair-{number}" for number in range(len(pairs))] * 2
    order = [pair[0] for pair in pairs] + [pair[1] for pair in pairs]
    return auroc_figure(present[order], score[order], names, draws)


def _scaled(name: str, value: float) -> float:
    return float(np.log(value)) if name.endswith("bytes") else value
