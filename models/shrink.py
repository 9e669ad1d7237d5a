"""Making a film smaller before it becomes float: whole blocks as integers first, the rest by a proper filter."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from firstread.models.codecs import IntegerImage

FloatImage = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


def shrink(image: IntegerImage, padding: Mask | None, longest_side: int | None) -> tuple[FloatImage, Mask | None]:
    """Values [rows, columns] and their padding so that the longer side is at most ``longest_side``; never larger.

    Padded pixels do not colour their neighbours: a shrunk pixel is the mean of the film in it, and padding only where
    nothing but padding was.
    """
    rows, columns = image.shape
    if longest_side is None or max(rows, columns) <= longest_side:
        return image.astype(np.float32), padding
    size = shrunk_size(rows, columns, longest_side)
    factor = max(rows, columns) // longest_side
    if padding is None:
        blocks = _block_sums(image, factor).astype(np.float32)
        blocks /= np.float32(factor * factor)
        return _resized(blocks, size), None
    counts = _block_sums((~padding).astype(np.uint8), factor).astype(np.float32)
    sums = _block_sums(np.where(padding, image.dtype.type(0), image), factor).astype(np.float32)
    share = _resized(counts, size)
    empty = share <= 0.05 * factor * factor
    share[empty] = 1.0
    values: FloatImage = np.divide(_resized(sums, size), share)
    return values, empty


def shrunk_size(rows: int, columns: int, longest_side: int) -> tuple[int, int]:
    """(rows, columns) with the same proportions and ``longest_side`` as the longer one."""
    scale = longest_side / max(rows, columns)
    return max(1, round(rows * scale)), max(1, round(columns * scale))


def _block_sums(image: npt.NDArray[np.integer], factor: int) -> npt.NDArray[np.integer]:
    """Sums over blocks of factor x factor; a rest at the lower and right border repeats the last pixels."""
    if factor == 1:
        return image
    rows, columns = image.shape
    down, across = -rows % factor, -columns % factor
    if down or across:
        image = np.pad(image, ((0, down), (0, across)), mode="edge")
    # Rows first, side by side in memory; columns, which lie apart, when there is a part of them left.
    lines = np.add(image[0::factor], image[1::factor], dtype=np.int32)
    for row in range(2, factor):
        lines += image[row::factor]
    total: npt.NDArray[np.integer] = lines[:, 0::factor] + lines[:, 1::factor]
    for column in range(2, factor):
        total += lines[:, column::factor]
    return total


def _resized(blocks: FloatImage, size: tuple[int, int]) -> FloatImage:
    if blocks.shape == size:
        return blocks
    resized = Image.fromarray(blocks).resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.asarray(resized, np.float32).copy()
