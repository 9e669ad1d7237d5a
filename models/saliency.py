"""Where the evidence lies: a class activation map becomes a box and a map over the upright film."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from firstread.models.prediction import Box
from firstread.models.preprocess import Placement

Map = npt.NDArray[np.float32]

LEVEL = 0.5
"""What belongs to the box: at least this share of the map's peak."""


def upsample(cam: Map, size: tuple[int, int]) -> Map:
    """A map [h, w] in [0, 1] enlarged smoothly to ``size`` (rows, columns), still in [0, 1]."""
    enlarged = Image.fromarray(np.ascontiguousarray(cam, np.float32)).resize(
        (size[1], size[0]), Image.Resampling.BICUBIC
    )
    return np.clip(np.asarray(enlarged, np.float32), 0, 1)


def over_film(cam: Map, placement: Placement, size: tuple[int, int]) -> Map:
    """A map as it lies over the whole upright film, drawn at ``size`` (rows, columns): 0 where the network saw nothing.

    ``size`` has the film's proportions, as a picture of it does.
    """
    rows, columns = size
    down, across = rows / placement.film_rows, columns / placement.film_columns
    top, left = placement.top * down, placement.left * across
    height, width = (placement.bottom - placement.top) * down, (placement.right - placement.left) * across
    part = upsample(cam, (max(1, round(height)), max(1, round(width))))
    film = np.zeros(size, np.float32)
    first_row, first_column = round(top), round(left)
    source = part[max(0, -first_row) :, max(0, -first_column) :]
    first_row, first_column = max(0, first_row), max(0, first_column)
    seen = source[: rows - first_row, : columns - first_column]
    film[first_row : first_row + seen.shape[0], first_column : first_column + seen.shape[1]] = seen
    return film


def localise(cam: Map, placement: Placement) -> Box:
    """The box around the strongest spot of a map [h, w], in the upright film's pixels.

    The spot is what hangs together with the peak at no less than half its height. A map without any evidence gives the
    whole film.
    """
    square = upsample(cam, (placement.size, placement.size))
    peak = float(square.max())
    if peak <= 0:
        return Box(0.0, 0.0, float(placement.film_columns), float(placement.film_rows))
    spots, _ = ndimage.label(square >= LEVEL * peak)
    rows, columns = np.nonzero(spots == spots[np.unravel_index(int(square.argmax()), square.shape)])
    return placement.to_film(
        Box(float(columns.min()), float(rows.min()), float(columns.max() + 1), float(rows.max() + 1))
    )
