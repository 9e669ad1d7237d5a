"""How much an image is like a frontal chest film: one number from ranks of grey and edges, by a learnt table."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.stats import rankdata

Matrix = npt.NDArray[np.float64]
Picture = npt.NDArray[np.float32]

WORKING_SIDE = 128
"""Pixels of the image in which the frame is looked for."""

RANKS_SIDE = 16
"""Ranks of grey: enough for two lungs and a heart, too few for a person."""
EDGES_SIDE = 48
EDGES_CELLS = 6
EDGES_DIRECTIONS = 8
"""Edges: in each of 6 x 6 cells, how much of the grey's slope points into each of 8 directions."""

RANKS = RANKS_SIDE * RANKS_SIDE
EDGES = EDGES_DIRECTIONS * EDGES_CELLS * EDGES_CELLS

_FLATTEST_EDGE = 0.04
_LARGEST_FRAME = 0.35
_FURTHEST = 30.0
_FAINTEST_SLOPE = 1e-3


def traits(pixels: Picture) -> Matrix:
    """What is looked at in an image [rows, columns]: float64 [RANKS + EDGES].

    Its frame is cut off, and its greys become ranks, so that window, gamma and exposure do not matter. The first RANKS
    have mean 0 and standard deviation 1 (all are 0 for a blank image); edges have length 1 or less in each cell.
    """
    small = np.asarray(Image.fromarray(pixels).resize((WORKING_SIDE, WORKING_SIDE), Image.Resampling.BOX))
    inside = Image.fromarray(np.ascontiguousarray(without_frame(small)))
    ranks = _ranks(np.asarray(inside.resize((RANKS_SIDE, RANKS_SIDE), Image.Resampling.BOX)))
    spread = float(ranks.std())
    standing = (ranks - ranks.mean()) / spread if spread > 0 else np.zeros_like(ranks)
    fine = _ranks(np.asarray(inside.resize((EDGES_SIDE, EDGES_SIDE), Image.Resampling.BOX)))
    return np.concatenate([standing.ravel(), _edges(fine).ravel()])


def _ranks(image: Picture) -> Matrix:
    """Each grey as its rank among all, in (0, 1]."""
    ranks: Matrix = rankdata(image.ravel()).reshape(image.shape) / image.size
    return ranks


def _edges(image: Matrix) -> Matrix:
    """Slopes by direction and cell [directions, cells, cells]: a histogram of oriented gradients that knows their sign.

    (scikit-image's forgets it, and with it what is black and what is white.)
    """
    down, across = np.gradient(image)
    steep = np.hypot(across, down)
    towards = np.arctan2(down, across) / (2 * np.pi) * EDGES_DIRECTIONS % EDGES_DIRECTIONS
    lower = np.floor(towards).astype(np.intp)
    upper_share = steep * (towards - lower)
    size = EDGES_SIDE // EDGES_CELLS
    cell = np.arange(EDGES_SIDE) // size
    cells = cell[:, None] * EDGES_CELLS + cell[None, :]
    count = EDGES_CELLS * EDGES_CELLS
    slots = np.concatenate(
        [
            (lower % EDGES_DIRECTIONS * count + cells).ravel(),
            ((lower + 1) % EDGES_DIRECTIONS * count + cells).ravel(),
        ]
    )
    shares = np.concatenate([(steep - upper_share).ravel(), upper_share.ravel()])
    sums = np.bincount(slots, shares, EDGES_DIRECTIONS * count).reshape(EDGES_DIRECTIONS, EDGES_CELLS, EDGES_CELLS)
    edges: Matrix = sums / np.sqrt((sums**2).sum(axis=0) + _FAINTEST_SLOPE)
    return edges


def without_frame(pixels: Picture) -> Picture:
    """Collimator shadows and white paper cut off: lines at the border that are one grey, but for a few letters."""
    top, left = 0, 0
    bottom, right = pixels.shape
    rows, columns = pixels.shape
    for _ in range(2):  # a white frame around a black one
        while top < rows * _LARGEST_FRAME and _flat(pixels[top, left:right]):
            top += 1
        while bottom > rows * (1 - _LARGEST_FRAME) and _flat(pixels[bottom - 1, left:right]):
            bottom -= 1
        while left < columns * _LARGEST_FRAME and _flat(pixels[top:bottom, left]):
            left += 1
        while right > columns * (1 - _LARGEST_FRAME) and _flat(pixels[top:bottom, right - 1]):
            right -= 1
    return pixels[top:bottom, left:right]


def _flat(line: Picture) -> bool:
    ordered = np.sort(line)
    return float(ordered[int(0.92 * (len(line) - 1))] - ordered[int(0.08 * (len(line) - 1))]) < _FLATTEST_EDGE


@dataclass(frozen=True, eq=False)
class Variety:
    """The main directions in which chest films differ in one kind of trait of d numbers.

    ``mean`` [d], ``directions`` [k, d], ``scales`` [k]: the films' principal components.
    """

    mean: Matrix
    directions: Matrix
    scales: Matrix

    def coordinates(self, given: Matrix) -> Matrix:
        """[n, d] to [n, 2 k + 1]: position along each direction, its square, and what no direction explains."""
        apart = given - self.mean
        along = apart @ self.directions.T
        rest = np.log(np.mean((apart - along @ self.directions) ** 2, axis=1, keepdims=True) + 1e-4)
        scaled = along / self.scales
        result: Matrix = np.clip(np.hstack([scaled, scaled**2, rest]), -_FURTHEST, _FURTHEST)
        return result


def coordinates(given: Matrix, ranks: Variety, edges: Variety) -> Matrix:
    """Traits [n, RANKS + EDGES] as coordinates of both kinds, side by side."""
    return np.hstack([ranks.coordinates(given[:, :RANKS]), edges.coordinates(given[:, RANKS:])])


@dataclass(frozen=True, eq=False)
class Likeness:
    """A quadratic discriminant on the main directions in which chest films differ.

    ``weights`` and ``offset``: of both kinds' coordinates.
    ``threshold``: below it an image is taken for no frontal chest film.
    ``certain``: from it on a picture is a chest film beyond doubt, so that one which only reaches it when black and
    white are exchanged is a negative.
    """

    ranks: Variety
    edges: Variety
    weights: Matrix
    offset: float
    threshold: float = 0.0
    certain: float = 0.0

    def __call__(self, given: Matrix) -> Matrix:
        """Scores (log odds) of traits [n, RANKS + EDGES]: positive speaks for a frontal chest film."""
        scores: Matrix = coordinates(given, self.ranks, self.edges) @ self.weights + self.offset
        return scores


@functools.cache
def own_likeness() -> Likeness:
    """The table that comes with the product (``gate.toml``; made by ``firstread.models.gate_training``)."""
    text = resources.files("firstread.models").joinpath("gate.toml").read_text(encoding="utf-8")
    return from_table(tomllib.loads(text)["likeness"])


def from_table(table: Mapping[str, Any]) -> Likeness:
    """A likeness from its table of integers (thousandths)."""

    def variety(name: str) -> Variety:
        part = table[name]
        return Variety(*(np.array(part[key]) / 1000 for key in ("mean", "directions", "scales")))

    return Likeness(
        ranks=variety("ranks"),
        edges=variety("edges"),
        weights=np.array(table["weights"]) / 1000,
        offset=float(table["offset"]) / 1000,
        threshold=float(table["threshold"]) / 1000,
        certain=float(table["certain"]) / 1000,
    )


def to_table(likeness: Likeness) -> dict[str, Any]:
    """Integers (thousandths) by name, as they stand in ``gate.toml``."""

    def whole(numbers: Matrix) -> Any:
        return np.round(numbers * 1000).astype(int).tolist()

    single = ("threshold", "certain", "offset")
    table: dict[str, Any] = {name: round(getattr(likeness, name) * 1000) for name in single}
    table["weights"] = whole(likeness.weights)
    for name, part in (("ranks", likeness.ranks), ("edges", likeness.edges)):
        table[name] = {key: whole(getattr(part, key)) for key in ("mean", "scales", "directions")}
    return table
