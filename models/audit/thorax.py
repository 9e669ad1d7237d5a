"""Where the thorax lies on a frontal film, estimated without any model.

The lungs are what is dark and does not reach the film's rim. Their convex hull, mirrored about the midline (a lung that
is white with disease is still a lung) and widened a little, is taken as the thorax: lungs, heart and mediastinum,
diaphragm and chest wall close by. It is an estimate: on films with both lungs white, on turned patients or on babies it
may be wrong by some centimetres, and where no two dark fields of a plausible size are found a fixed oval is taken and
said to be (``found`` is False).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage
from scipy.spatial import ConvexHull

from firstread.models.audit.picture import Mask, Picture, resized
from firstread.models.preprocess import equalise

SIDE = 128
"""The estimate is made, and its mask given, on a square of so many pixels (the film stretched to it)."""

_SHARES = tuple(share / 100 for share in range(60, 12, -6))
"""Shares of the film that may count as dark, all of them tried."""

_WIDENED = 0.03
"""By this share of the film the hull is widened: pleura and chest wall are where much disease is."""


@dataclass(frozen=True)
class Thorax:
    """``mask``: [128, 128] over the whole film. ``found``: whether lungs were seen; else the mask is a fixed oval.

    ``left``, ``right``, ``top``, ``bottom``: the lung fields' extent as shares of the film; ``midline``: between them.
    """

    mask: Mask
    found: bool
    left: float
    right: float
    top: float
    bottom: float

    @property
    def midline(self) -> float:
        return (self.left + self.right) / 2


def estimate(picture: Picture) -> Thorax:
    """The thorax of a frontal film [rows, columns] in [0, 1], upright, bone bright."""
    small = equalise(ndimage.gaussian_filter(resized(picture, SIDE, SIDE), 1.5), 0.06, 256)
    # On a pale or unevenly lit film lungs are darker than what is around them, not than the rest of the film.
    flat = equalise(small - ndimage.gaussian_filter(small, 0.2 * SIDE, mode="nearest"), 0.06, 256)
    found = [_lungs(shown <= share) for shown in (small, flat) for share in _SHARES]
    plausible = [each for each in found if each is not None]
    return _around(max(plausible, key=lambda each: each[0])[1]) if plausible else _usual()


def _lungs(dark: Mask) -> tuple[float, Mask] | None:
    """The two dark fields that can be lungs, and how well they can; None when there are none."""
    parts, _ = ndimage.label(ndimage.binary_opening(dark, iterations=2))
    fields = []
    for number, place in enumerate(ndimage.find_objects(parts), start=1):
        rows, columns = place
        height, width = (rows.stop - rows.start) / SIDE, (columns.stop - columns.start) / SIDE
        if not (0.2 <= height <= 0.92 and 0.1 <= width <= 0.5) or _rim(parts == number) > 0.1 * SIDE:
            continue
        field = ndimage.binary_fill_holes(parts == number)
        centre = float(np.nonzero(field)[1].mean()) / SIDE
        if field.mean() >= 0.025 and 0.12 < centre < 0.88:
            fields.append((centre, rows, field))
    best: tuple[float, Mask] | None = None
    for centre, rows, field in fields:
        for other_centre, other_rows, other in fields:
            overlap = min(rows.stop, other_rows.stop) - max(rows.start, other_rows.start)
            shorter = min(rows.stop - rows.start, other_rows.stop - other_rows.start)
            midline = (centre + other_centre) / 2
            if other_centre - centre < 0.2 or overlap < 0.6 * shorter or not 0.35 < midline < 0.65:
                continue
            area, other_area = float(field.mean()), float(other.mean())
            # Large fields, and alike: what leaks into a shoulder or the abdomen makes one much larger than the other.
            worth = (area + other_area) * (min(area, other_area) / max(area, other_area)) ** 0.5
            if 0.08 <= area + other_area <= 0.6 and (best is None or worth > best[0]):
                best = worth, field | other
    return best


def _rim(field: Mask) -> int:
    """Pixels of a field at the film's rim: air beside the body reaches it, a lung does not, or barely."""
    return int(field[:2].any(axis=0).sum() + field[-2:].any(axis=0).sum()) + int(
        field[:, :2].any(axis=1).sum() + field[:, -2:].any(axis=1).sum()
    )


def _around(lungs: Mask) -> Thorax:
    rows, columns = np.nonzero(lungs)
    left, right = columns.min(), columns.max() + 1
    mirrored = np.zeros_like(lungs)
    twin = left + right - 1 - columns
    mirrored[rows, twin] = True
    hull = _hull(lungs | mirrored)
    hull = ndimage.binary_dilation(hull, iterations=round(_WIDENED * SIDE))
    return Thorax(hull, True, left / SIDE, right / SIDE, rows.min() / SIDE, (rows.max() + 1) / SIDE)


def _hull(field: Mask) -> Mask:
    """The convex hull of a field, its pixels included."""
    points = np.argwhere(field)[:, ::-1]
    corners = points[ConvexHull(points).vertices]
    sheet = Image.new("1", (SIDE, SIDE))
    ImageDraw.Draw(sheet).polygon([(int(x), int(y)) for x, y in corners], fill=1, outline=1)
    return np.asarray(sheet, np.bool_) | field


def _usual() -> Thorax:
    """Where the thorax lies on most frontal films."""
    y, x = (np.mgrid[0:SIDE, 0:SIDE] + 0.5) / SIDE
    oval = ((x - 0.5) / 0.43) ** 4 + ((y - 0.47) / 0.42) ** 4 <= 1
    return Thorax(oval, False, 0.1, 0.9, 0.08, 0.86)
