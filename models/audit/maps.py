"""Where a map lies: its share outside the thorax, and on phantoms its share within the lesion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from firstread.models.audit.judge import Judge
from firstread.models.audit.picture import Mask
from firstread.models.audit.thorax import SIDE
from firstread.models.data.film import Film
from firstread.models.findings import LABELS
from firstread.models.phantoms import DRAWABLE, draw, random_spec
from firstread.models.prediction import Box
from firstread.models.preprocess import Placement
from firstread.models.saliency import over_film

PHANTOMS = 10
"""Phantoms per finding."""

_PHANTOM_SIDE = 256
_SEED = 20240611


@dataclass(frozen=True)
class Outside:
    """Share of the map's mass outside the estimated thorax, over ``films`` films with any evidence.

    ``area``: the share of the film that lies outside: what an even map would have. ``density``: how dense the map is
    inside against outside, 1 for an even map; with its 95 % interval (bootstrap of films).
    """

    films: int
    share: float
    area: float
    density: float
    low: float
    high: float


@dataclass(frozen=True)
class InLesion:
    """Phantoms with a known lesion: mean share of the map's mass within the lesion's box, and of the film's area."""

    phantoms: int
    share: float
    area: float


def share_in(cam: npt.NDArray[np.float32], placement: Placement, mask: Mask) -> float:
    """Share of a map's mass [h, w] inside a mask [128, 128] over the whole film; NaN for a map without evidence."""
    film = over_film(cam, placement, (SIDE, SIDE))
    total = float(film.sum())
    return float(film[mask].sum()) / total if total > 0 else float("nan")


def outside_of(shares: npt.NDArray[np.float64], areas: npt.NDArray[np.float64]) -> Outside | None:
    """Sum up shares inside [N] (NaN without evidence) and areas inside [N]; None with fewer than ten films."""
    known = np.isfinite(shares) & (areas > 0) & (areas < 1)
    inside, area = shares[known], areas[known]
    if len(inside) < 10:
        return None

    def density(share: float, part: float) -> float:
        return (share / part) / max((1 - share) / (1 - part), 1e-9)

    rng = np.random.default_rng(0)
    drawn = rng.integers(0, len(inside), (500, len(inside)))
    values = [density(float(inside[row].mean()), float(area[row].mean())) for row in drawn]
    low, high = np.quantile(values, [0.025, 0.975])
    share, part = float(inside.mean()), float(area.mean())
    return Outside(len(inside), 1 - share, 1 - part, density(share, part), float(low), float(high))


def in_lesions(judge: Judge, labels: Sequence[str], count: int = PHANTOMS) -> Mapping[str, InLesion]:
    """For each label that can be drawn: phantoms with that lesion alone, and the map's share within its box.

    The box is widened by half a cell of the map, which is as fine as the map can point. Empty without maps.
    """
    found: dict[str, InLesion] = {}
    for label in (label for label in labels if label in DRAWABLE):
        shares, areas = [], []
        for number in range(count):
            rng = np.random.default_rng([_SEED, LABELS.index(label), number])
            phantom = draw(random_spec(rng, (label,), (_PHANTOM_SIDE, _PHANTOM_SIDE)))
            ready = judge.ready(phantom.image)
            zeros = np.zeros(len(LABELS), np.float32)
            film = Film(f"phantom-{number}", f"phantom-{number}", zeros, zeros, phantom=True, view=phantom.spec.view)
            maps = judge.answer(film, [ready]).maps
            if maps is None:
                return {}
            cam = maps[0, judge.labels.index(label)]
            mask = _box_mask(phantom.truth[label], _PHANTOM_SIDE, 0.5 / cam.shape[0])
            share = share_in(cam, ready.placement, mask)
            shares.append(0.0 if np.isnan(share) else share)
            areas.append(float(mask.mean()))
        found[label] = InLesion(count, float(np.mean(shares)), float(np.mean(areas)))
    return found


def _box_mask(box: Box, side: int, margin: float) -> Mask:
    centres = (np.arange(SIDE) + 0.5) / SIDE
    across = (centres >= box.left / side - margin) & (centres < box.right / side + margin)
    down = (centres >= box.top / side - margin) & (centres < box.bottom / side + margin)
    return down[:, None] & across[None, :]
