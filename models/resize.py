"""A film shrunk to another size, in the ways that the libraries do it from which weights come."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

FloatImage = npt.NDArray[np.float32]
Corners = tuple[float, float, float, float]

RESAMPLES = ("box", "bilinear", "bicubic", "gaussian")

_PILLOW = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
_BEYOND = 0.5
"""What torchxrayvision has beyond the film's edge: 0 on its scale from -1024 to 1024."""


def resize(
    film: FloatImage, size: tuple[int, int], resample: str, *, box: Corners | None = None, eight_bit: bool = False
) -> FloatImage:
    """A film [rows, columns] in [0, 1] resized to ``size`` (rows, columns).

    ``resample``: ``bilinear`` and ``bicubic`` are Pillow's with antialiasing on a picture of floats (mode F), as
    ``torchvision.transforms.Resize`` gives on such a picture; with ``eight_bit`` on one of mode L, which rounds.
    ``box`` averages areas, and interpolates where it enlarges. ``gaussian`` is ``skimage.transform.resize`` with its
    own smoothing. ``box``: (left, top, right, bottom), the part to take, the whole film by default; for ``gaussian``
    its corners are rounded to whole pixels. Bicubic values may lie outside [0, 1] a little.
    """
    rows, columns = size
    left, top, right, bottom = box or (0.0, 0.0, float(film.shape[1]), float(film.shape[0]))
    if box is not None and resample != "box" and all(float(corner).is_integer() for corner in box):
        # Cut first, as their crop does: Pillow's own box lets wide filters see the pixels beyond it.
        film = film[int(top) : int(bottom), int(left) : int(right)]
        left, top, right, bottom = 0.0, 0.0, right - left, bottom - top
    if eight_bit:
        film = np.round(np.clip(film, 0, 1) * np.float32(255)).astype(np.float32)
    if resample == "gaussian":
        part = film[round(top) : round(bottom), round(left) : round(right)]
        resized = _gaussian(part, size, _BEYOND * (255 if eight_bit else 1))
    else:
        shrinks = right - left >= columns and bottom - top >= rows
        method = _PILLOW.get(resample, Image.Resampling.BOX if shrinks else Image.Resampling.BILINEAR)
        picture = Image.fromarray(film.astype(np.uint8) if eight_bit else film)
        resized = np.asarray(picture.resize((columns, rows), method, box=(left, top, right, bottom)), np.float32)
    if not eight_bit:
        return resized
    return np.asarray(np.clip(np.round(resized), 0, 255) / np.float32(255), np.float32)


def _gaussian(film: FloatImage, size: tuple[int, int], beyond: float) -> FloatImage:
    """What ``skimage.transform.resize(film, size, mode="constant", cval=beyond)`` gives, without scikit-image."""
    if film.shape == size:
        return film
    factors = np.divide(film.shape, size)
    if (factors > 1).any():
        film = ndimage.gaussian_filter(film, np.maximum(0, (factors - 1) / 2), cval=beyond, mode="grid-constant")
    zoomed = ndimage.zoom(film, 1 / factors, order=1, mode="grid-constant", cval=beyond, grid_mode=True)
    return np.asarray(np.clip(zoomed, film.min(), film.max()), np.float32)
