"""Places on a film: a map's peak and spots, and how boxes overlap. All in pixels of the upright film."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from firstread.models.prediction import Box
from firstread.models.preprocess import Placement
from firstread.models.saliency import upsample

Map = npt.NDArray[np.float32]

WANG_LEVELS = (60 / 255, 180 / 255)
"""Wang et al. (CVPR 2017, section 4.3) take the spots of a map, scaled to 0 to 255, at these two heights."""


def area(box: Box) -> float:
    """Square pixels; 0 for a box without extent."""
    return max(0.0, box.right - box.left) * max(0.0, box.bottom - box.top)


def shared(first: Box, second: Box) -> float:
    """Square pixels that lie in both."""
    return area(
        Box(
            max(first.left, second.left),
            max(first.top, second.top),
            min(first.right, second.right),
            min(first.bottom, second.bottom),
        )
    )


def iou(detected: Box, true: Box) -> float:
    """Intersection over union; 0 where neither has any area."""
    both = shared(detected, true)
    union = area(detected) + area(true) - both
    return both / union if union > 0 else 0.0


def iobb(detected: Box, true: Box) -> float:
    """Intersection over the detected box (Wang et al.): 1 for any box, however small, that lies inside the lesion's."""
    return shared(detected, true) / area(detected) if area(detected) > 0 else 0.0


def peak(cam: Map, placement: Placement) -> tuple[float, float] | None:
    """Column and row on the film where a map [h, w] is highest, None for a map without any evidence."""
    square = upsample(cam, (placement.size, placement.size))
    if float(square.max()) <= 0:
        return None
    row, column = np.unravel_index(int(square.argmax()), square.shape)
    box = placement.to_film(Box(float(column), float(row), float(column + 1), float(row + 1)))
    return (box.left + box.right) / 2, (box.top + box.bottom) / 2


def spots(cam: Map, placement: Placement, levels: Sequence[float] = WANG_LEVELS) -> list[Box]:
    """The box around each spot of a map [h, w] at each height (a share of its peak); none without evidence.

    A spot is what hangs together, corners included. The same box at two heights counts once.
    """
    square = upsample(cam, (placement.size, placement.size))
    top = float(square.max())
    if top <= 0:
        return []
    found: dict[Box, None] = {}
    for level in levels:
        named, _ = ndimage.label(square >= level * top, structure=np.ones((3, 3)))
        for rows, columns in ndimage.find_objects(named):
            box = placement.to_film(Box(float(columns.start), float(rows.start), float(columns.stop), float(rows.stop)))
            if area(box) > 0:
                found[box] = None
    return list(found)


def grown(box: Box, across: float, down: float, placement: Placement) -> Box:
    """A box with so many pixels more on each side, cut at the film's edge."""
    return Box(
        max(0.0, box.left - across),
        max(0.0, box.top - down),
        min(float(placement.film_columns), box.right + across),
        min(float(placement.film_rows), box.bottom + down),
    )


def inside(point: tuple[float, float], box: Box) -> bool:
    """Whether a point (column, row) lies in a box or on its edge."""
    return box.left <= point[0] <= box.right and box.top <= point[1] <= box.bottom


def cell(cam: Map, placement: Placement) -> tuple[float, float]:
    """Width and height of one cell of a map [h, w] in pixels of the film."""
    return (placement.right - placement.left) / cam.shape[1], (placement.bottom - placement.top) / cam.shape[0]
