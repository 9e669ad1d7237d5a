"""How much an image is like a frontal chest film: one number from a 16 x 16 thumbnail, by a table learnt from films."""

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

SIDE = 16
"""Pixels of the thumbnail: enough for two lungs and a heart, too few for a person."""

WORKING_SIDE = 128
"""Pixels of the image in which the frame is looked for."""

_FLATTEST_EDGE = 0.04
_LARGEST_FRAME = 0.35
_FURTHEST = 30.0


def thumbnail(pixels: Picture) -> Matrix:
    """An image [rows, columns] as its flat thumbnail: frame cut off, and ranks instead of greys.

    Ranks make it independent of window, gamma and exposure. Mean 0, standard deviation 1 (all 0 for a blank image).
    """
    small = np.asarray(Image.fromarray(pixels).resize((WORKING_SIDE, WORKING_SIDE), Image.Resampling.BOX))
    inside = Image.fromarray(np.ascontiguousarray(without_frame(small)))
    ranks = rankdata(np.asarray(inside.resize((SIDE, SIDE), Image.Resampling.BOX)).ravel())
    spread = float(ranks.std())
    return (ranks - ranks.mean()) / spread if spread > 0 else np.zeros(SIDE * SIDE)


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


@dataclass(frozen=True)
class Likeness:
    """A quadratic discriminant on the main directions in which chest films differ.

    ``mean`` [256], ``directions`` [k, 256], ``scales`` [k]: the films' principal components; ``weights`` and
    ``offset``: of the k coordinates, their squares and the remainder (2 k + 1 numbers).
    ``threshold``: below it an image is taken for no frontal chest film.
    """

    mean: Matrix
    directions: Matrix
    scales: Matrix
    weights: Matrix
    offset: float
    threshold: float

    def __call__(self, thumbnails: Matrix) -> Matrix:
        """Scores (log odds) of thumbnails [n, 256]: positive speaks for a frontal chest film."""
        scores: Matrix = coordinates(thumbnails, self.mean, self.directions, self.scales) @ self.weights + self.offset
        return scores


def coordinates(thumbnails: Matrix, mean: Matrix, directions: Matrix, scales: Matrix) -> Matrix:
    """[n, 256] to [n, 2 k + 1]: position along each direction, its square, and what no direction explains."""
    apart = thumbnails - mean
    along = apart @ directions.T
    rest = np.log(np.mean((apart - along @ directions) ** 2, axis=1, keepdims=True) + 1e-4)
    scaled = along / scales
    result: Matrix = np.clip(np.hstack([scaled, scaled**2, rest]), -_FURTHEST, _FURTHEST)
    return result


@functools.cache
def own_likeness() -> Likeness:
    """The table that comes with the product (``gate.toml``; made by ``firstread.models.gate_training``)."""
    text = resources.files("firstread.models").joinpath("gate.toml").read_text(encoding="utf-8")
    return from_table(tomllib.loads(text)["likeness"])


def from_table(table: Mapping[str, Any]) -> Likeness:
    """A likeness from its table of integers (thousandths)."""
    return Likeness(
        mean=np.array(table["mean"]) / 1000,
        directions=np.array(table["directions"]) / 1000,
        scales=np.array(table["scales"]) / 1000,
        weights=np.array(table["weights"]) / 1000,
        offset=float(table["offset"]) / 1000,
        threshold=float(table["threshold"]) / 1000,
    )


def to_table(likeness: Likeness) -> dict[str, Any]:
    """Integers (thousandths) by name, as they stand in ``gate.toml``."""
    return {
        "threshold": round(likeness.threshold * 1000),
        "offset": round(likeness.offset * 1000),
        "weights": np.round(likeness.weights * 1000).astype(int).tolist(),
        "scales": np.round(likeness.scales * 1000).astype(int).tolist(),
        "mean": np.round(likeness.mean * 1000).astype(int).tolist(),
        "directions": np.round(likeness.directions * 1000).astype(int).tolist(),
    }
