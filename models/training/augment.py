"""How a film is varied before the network sees it: geometry, exposure, sharpness and noise, so that none of them tells.

Sharpness and noise matter most: films of one label may come from one machine or one export, and a network reads that
before it reads the lungs. Every film is therefore blurred and made noisy by an amount of its own, each time anew.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from firstread.models.prediction import Box
from firstread.models.resize import FloatImage


@dataclass(frozen=True)
class Augmentation:
    """Ranges, each drawn evenly; lengths as shares of the side unless they say pixels (of the image given).

    ``flip``: chance of mirroring left and right. ``blur_px``, ``noise``: largest Gaussian sigma, in pixels and in grey
    (0 to 1). ``gamma``: exponent between 1/gamma and gamma. ``shading``: strength of a slow brightness ramp.
    ``erase``: chance that a rectangle (a mark, a text, a corner) is painted over; ``texture``: chance that the finest
    detail is taken away by shrinking and enlarging. ``shear``: largest slant, in pixels across per pixel down.
    ``fill_edge``: what moves in from outside repeats the film's edge instead of being black.
    """

    rotate_degrees: float = 8.0
    shift: float = 0.06
    zoom: float = 0.12
    stretch: float = 0.1
    flip: float = 0.5
    blur_px: float = 1.6
    noise: float = 0.04
    gamma: float = 1.6
    shading: float = 0.25
    erase: float = 0.5
    texture: float = 0.3
    shear: float = 0.0
    fill_edge: bool = False

    def __post_init__(self) -> None:
        """Refuse ranges that cannot be meant.

        Raises:
            ValueError: names the value.
        """
        most = {"rotate_degrees": 180, "blur_px": 50, "gamma": 10, "noise": 1, "shading": 4}
        for each in fields(self):
            value, low = getattr(self, each.name), 1.0 if each.name == "gamma" else 0.0
            if not low <= value <= most.get(each.name, 1):
                raise ValueError(f"{each.name} is {value}, it must lie between {low:g} and {most.get(each.name, 1)}")


@dataclass(frozen=True)
class Varied:
    """A varied film [R, R] and where its points came from: original = matrix @ varied + offset, in pixels (x, y)."""

    image: FloatImage
    matrix: npt.NDArray[np.float64]
    offset: npt.NDArray[np.float64]

    def follow(self, box: Box) -> Box:
        """The upright box around what became of a box of the original film."""
        corners = np.array([(x, y) for x in (box.left, box.right) for y in (box.top, box.bottom)])
        moved = (np.linalg.inv(self.matrix) @ (corners - self.offset).T).T
        (left, top), (right, bottom) = moved.min(axis=0), moved.max(axis=0)
        return Box(float(left), float(top), float(right), float(bottom))


def vary(image: FloatImage, rng: np.random.Generator, augmentation: Augmentation) -> Varied:
    """A varied copy of a film [R, R] in [0, 1]; the same generator state gives the same copy."""
    matrix, offset = _geometry(image.shape[0], rng, augmentation)
    varied = _moved(image, matrix, offset, augmentation.fill_edge)
    varied = _exposure(varied, rng, augmentation)
    varied = _sharpness(varied, rng, augmentation)
    for _ in range(2):
        if rng.random() < augmentation.erase:
            _erase(varied, rng)
    return Varied(np.clip(varied, 0.0, 1.0).astype(np.float32), matrix, offset)


def _geometry(
    side: int, rng: np.random.Generator, augmentation: Augmentation
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    angle = np.deg2rad(rng.uniform(-augmentation.rotate_degrees, augmentation.rotate_degrees))
    zoom = 1 + rng.uniform(-augmentation.zoom, augmentation.zoom)
    stretch = 1 + rng.uniform(-augmentation.stretch, augmentation.stretch)
    mirror = -1.0 if rng.random() < augmentation.flip else 1.0
    matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = matrix @ np.diag([mirror * zoom * stretch, zoom / stretch])
    if augmentation.shear > 0:
        slant = rng.uniform(-augmentation.shear, augmentation.shear)
        matrix = matrix @ np.array([[1.0, slant], [0.0, 1.0]])
    centre = np.full(2, side / 2)
    offset = centre - matrix @ centre + rng.uniform(-augmentation.shift, augmentation.shift, size=2) * side
    return matrix, offset


def _moved(
    image: FloatImage, matrix: npt.NDArray[np.float64], offset: npt.NDArray[np.float64], fill_edge: bool
) -> FloatImage:
    side = image.shape[0]
    if fill_edge:
        margin = side // 2  # further than any recipe moves a film
        image, offset = np.pad(image, margin, mode="edge"), offset + margin
    coefficients = (matrix[0, 0], matrix[0, 1], offset[0], matrix[1, 0], matrix[1, 1], offset[1])
    film = Image.fromarray(image)
    moved = film.transform((side, side), Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR, fillcolor=0)
    return np.array(moved, dtype=np.float32)


def _exposure(image: FloatImage, rng: np.random.Generator, augmentation: Augmentation) -> FloatImage:
    exponent = augmentation.gamma ** rng.uniform(-1.0, 1.0)
    ramp = np.linspace(-0.5, 0.5, image.shape[0], dtype=np.float32)
    down, across = rng.uniform(-augmentation.shading, augmentation.shading, size=2).astype(np.float32)
    shaded = np.clip(image, 0, 1) ** np.float32(exponent) + down * ramp[:, None] + across * ramp[None, :]
    return np.asarray(shaded, dtype=np.float32)


def _sharpness(image: FloatImage, rng: np.random.Generator, augmentation: Augmentation) -> FloatImage:
    if rng.random() < augmentation.texture:
        side = image.shape[0]
        coarse = int(side * rng.uniform(0.35, 0.9))
        film = Image.fromarray(image).resize((coarse, coarse), Image.Resampling.BOX)
        image = np.asarray(film.resize((side, side), Image.Resampling.BICUBIC), dtype=np.float32)
    sigma = rng.uniform(0.0, augmentation.blur_px)
    if sigma > 0.2:
        image = ndimage.gaussian_filter(image, sigma, mode="nearest", truncate=3.0)
    if augmentation.noise <= 0:
        return image
    level = np.float32(rng.uniform(0.0, augmentation.noise))
    grain: npt.NDArray[np.float32] = rng.standard_normal(image.shape, dtype=np.float32)
    if rng.random() < 0.5:
        # Film grain and scatter are coarser than a detector's own noise.
        grain = ndimage.uniform_filter(grain, 2) * np.float32(2)
    return image + level * grain


def _erase(image: FloatImage, rng: np.random.Generator) -> None:
    side = image.shape[0]
    height, width = (int(side * rng.uniform(0.04, 0.22)) for _ in range(2))
    if rng.random() < 0.7:  # marks and texts stand at the rim
        row = int(rng.uniform(0, side * 0.15)) if rng.random() < 0.6 else int(rng.uniform(side * 0.75, side - height))
    else:
        row = int(rng.uniform(0, side - height))
    column = int(rng.uniform(0, side - width))
    image[row : row + height, column : column + width] = rng.random()
