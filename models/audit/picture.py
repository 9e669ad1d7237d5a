"""What the audit works on: one film as greys, its size told in the pixels of a 512 px film."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt
from PIL import Image

Picture = npt.NDArray[np.float32]
"""[rows, columns] in [0, 1], upright, bone bright."""

Mask = npt.NDArray[np.bool_]

REFERENCE_SIDE = 512
"""Strengths in pixels and grey levels are meant for a film whose longer side has so many pixels."""


def scale_of(picture: Picture) -> float:
    """Pixels of this film per pixel of a 512 px film."""
    return float(max(picture.shape) / REFERENCE_SIDE)


def resized(picture: Picture, rows: int, columns: int) -> Picture:
    """The film at another size: averaged over areas where it shrinks, bicubic where it grows."""
    shrinks = rows <= picture.shape[0] and columns <= picture.shape[1]
    method = Image.Resampling.BOX if shrinks else Image.Resampling.BICUBIC
    image = Image.fromarray(np.ascontiguousarray(picture, np.float32)).resize((columns, rows), method)
    return np.clip(np.asarray(image, np.float32), 0, 1)


def with_longest_side(picture: Picture, side: int) -> Picture:
    """The film, its longer side brought to ``side`` pixels."""
    factor = side / max(picture.shape)
    rows, columns = (max(2, round(length * factor)) for length in picture.shape)
    return picture if (rows, columns) == picture.shape else resized(picture, rows, columns)


def at_most(picture: Picture, side: int) -> Picture:
    """The film as it is, or reduced when its longer side has more than ``side`` pixels."""
    return with_longest_side(picture, side) if max(picture.shape) > side else picture


def generator(*parts: object) -> np.random.Generator:
    """Chance that is the same for the same parts, on every machine."""
    digest = hashlib.sha256("\x1f".join(str(part) for part in parts).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))
