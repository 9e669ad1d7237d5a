"""The drawing surface: an upright rectangle in thorax units, where outlines become soft-edged layers.

One unit is half the inner width of the thorax; x = 0 is the midline, y = 0 the lung apex, y grows downwards.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PilImage
from PIL import ImageDraw
from scipy import ndimage

from firstread.models.phantoms.spec import Image

Points = NDArray[np.float64]
Stroke = tuple[float, float, float, float, float, int]
"""x0, y0, x1, y1, width, grey (0 to 255)."""


def smooth_outline(points: Sequence[tuple[float, float]], *, closed: bool = True, steps: int = 8) -> Points:
    """Catmull-Rom curve through ``points``: float64 [k, 2]."""
    given = np.asarray(points, dtype=np.float64)
    if closed:
        padded = np.concatenate([given[-1:], given, given[:2]])
    else:
        padded = np.concatenate([given[:1] * 2 - given[1:2], given, given[-1:] * 2 - given[-2:-1]])
    before, start, end, after = padded[:-3], padded[1:-2], padded[2:-1], padded[3:]
    t = np.linspace(0.0, 1.0, steps, endpoint=False)[None, :, None]
    before, start, end, after = (part[:, None, :] for part in (before, start, end, after))
    curve = 0.5 * (
        2 * start
        + (end - before) * t
        + (2 * before - 5 * start + 4 * end - after) * t**2
        + (3 * start - before - 3 * end + after) * t**3
    )
    flat: Points = curve.reshape(-1, 2)
    return flat if closed else np.concatenate([flat, given[-1:]])


def ribbon(centre: Points, width: float | Points) -> Points:
    """Outline of a band of ``width`` (thorax units) around an open curve."""
    along = np.empty_like(centre)
    along[1:-1], along[0], along[-1] = centre[2:] - centre[:-2], centre[1] - centre[0], centre[-1] - centre[-2]
    length = np.maximum(np.hypot(along[:, 0], along[:, 1]), 1e-9)
    normal = np.stack([-along[:, 1] / length, along[:, 0] / length], axis=1)
    half = np.broadcast_to(np.asarray(width) / 2, (len(centre),))[:, None]
    return np.concatenate([centre + normal * half, (centre - normal * half)[::-1]])


class Canvas:
    """A rectangle of thorax units, ``scale`` pixels to the unit; layers are float32 [rows, columns]."""

    def __init__(self, left: float, top: float, width: float, height: float, scale: float) -> None:
        self.left, self.top, self.scale = left, top, scale
        self.columns, self.rows = max(32, round(width * scale)), max(32, round(height * scale))
        self.x: Image = ((np.arange(self.columns) + 0.5) / scale + left)[None, :].astype(np.float32)
        self.y: Image = ((np.arange(self.rows) + 0.5) / scale + top)[:, None].astype(np.float32)

    def zeros(self) -> Image:
        return np.zeros((self.rows, self.columns), dtype=np.float32)

    def _sheet(self) -> PilImage.Image:
        return PilImage.new("L", (2 * self.columns, 2 * self.rows))

    def _at_double(self, points: Points) -> list[float]:
        flat: list[float] = ((points - (self.left, self.top)) * (2 * self.scale)).ravel().tolist()
        return flat

    def polygons(self, outlines: Sequence[tuple[Points, int]]) -> Image:
        """Filled outlines with their greys (0 to 255), later ones over earlier ones, as 0 to 1."""
        sheet = self._sheet()
        pen = ImageDraw.Draw(sheet)
        for outline, grey in outlines:
            pen.polygon(self._at_double(outline), fill=grey)
        return self._reduced(sheet)

    def mask(self, outline: Points) -> Image:
        """1 inside the outline, 0 outside, fractions at the edge."""
        return self.polygons([(outline, 255)])

    def strokes(self, strokes: Sequence[Stroke]) -> Image:
        """Straight strokes with their greys, later ones over earlier ones, as 0 to 1."""
        sheet = self._sheet()
        pen = ImageDraw.Draw(sheet)
        double, left, top = 2 * self.scale, self.left, self.top
        for x0, y0, x1, y1, width, grey in strokes:
            wide = width * double
            fill = grey if wide >= 1 else max(1, round(grey * wide))
            ends = ((x0 - left) * double, (y0 - top) * double, (x1 - left) * double, (y1 - top) * double)
            pen.line(ends, fill=fill, width=max(1, round(wide)))
        return self._reduced(sheet)

    @staticmethod
    def _reduced(sheet: PilImage.Image) -> Image:
        return np.asarray(sheet.reduce(2), dtype=np.float32) * np.float32(1 / 255)

    def disc(self, x: float, y: float, radius_x: float, radius_y: float | None = None) -> Image:
        """Squared distance from a centre, 1 on the ellipse's edge."""
        across = (self.x - x) / radius_x
        down = (self.y - y) / (radius_y or radius_x)
        distance: Image = (across * across + down * down).astype(np.float32)
        return distance

    def glow(self, x: float, y: float, radius_x: float, radius_y: float | None = None) -> Image:
        """Gaussian spot: 1 in the centre, 1/e on the ellipse."""
        across = np.exp(-(((self.x - x) / radius_x) ** 2))
        down = np.exp(-(((self.y - y) / (radius_y or radius_x)) ** 2))
        spot: Image = (across * down).astype(np.float32)
        return spot

    def window(self, x: float, y: float, radius: float) -> tuple[slice, slice]:
        """Rows and columns of a square around a point, cut to the canvas."""
        column, row, reach = (x - self.left) * self.scale, (y - self.top) * self.scale, radius * self.scale
        rows = slice(max(0, int(row - reach)), max(0, min(self.rows, int(row + reach) + 2)))
        return rows, slice(max(0, int(column - reach)), max(0, min(self.columns, int(column + reach) + 2)))

    def blur(self, layer: Image, sigma: float) -> Image:
        """Gaussian blur of ``sigma`` units, computed as coarsely as its width allows."""
        sigma_px = sigma * self.scale
        if sigma_px < 0.6:
            return layer
        step = max(1, min(int(sigma_px / 1.3), min(self.rows, self.columns) // 24))
        if step == 1:
            soft_enough: Image = ndimage.gaussian_filter(layer, sigma_px, mode="nearest", truncate=2.5)
            return soft_enough
        small = PilImage.fromarray(layer).reduce(step)
        soft = ndimage.gaussian_filter(np.asarray(small), sigma_px / step, mode="nearest", truncate=2.5)
        whole = (small.size[0] * step, small.size[1] * step)  # reduce() rounds the last block up: cut it again
        wide = PilImage.fromarray(soft).resize(whole, PilImage.Resampling.BILINEAR)
        return np.asarray(wide, dtype=np.float32)[: self.rows, : self.columns]

    def texture(self, rng: np.random.Generator, grain: float) -> Image:
        """Smooth noise of unit variance whose grains are about ``grain`` units wide."""
        down, across = (max(4, int(side / self.scale / grain)) for side in (self.rows, self.columns))
        coarse = rng.standard_normal((down, across), dtype=np.float32)
        wide = PilImage.fromarray(coarse).resize((self.columns, self.rows), PilImage.Resampling.BICUBIC)
        return np.asarray(wide, dtype=np.float32)

    def along_rows(self, y: Sequence[float], x: Sequence[float]) -> Image:
        """A curve x(y) sampled at every row: float32 [rows, 1]."""
        curve: Image = np.interp(self.y, np.asarray(y), np.asarray(x)).astype(np.float32)
        return curve
