"""The drawing surface: an upright square in thorax units, where outlines become soft-edged layers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PilImage
from PIL import ImageDraw
from scipy import ndimage

from firstread.models.phantoms.spec import Image

SPAN = 3.9
"""Side of the canvas in thorax units: one unit is half the inner width of the thorax."""
LEFT, TOP = -1.95, -1.0
"""Thorax coordinates of the canvas's corner: x = 0 is the midline, y = 0 the lung apex."""

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
    along = np.gradient(centre, axis=0)
    normal = np.stack([-along[:, 1], along[:, 0]], axis=1)
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)
    half = np.broadcast_to(np.asarray(width) / 2, (len(centre),))[:, None]
    return np.concatenate([centre + normal * half, (centre - normal * half)[::-1]])


class Canvas:
    """An upright square of ``pixels`` a side; every method takes thorax units and gives float32 [pixels, pixels]."""

    def __init__(self, pixels: int) -> None:
        self.pixels = pixels
        self.scale = pixels / SPAN
        centres = (np.arange(pixels, dtype=np.float32) + 0.5) / self.scale
        self.x: Image = (centres + LEFT)[None, :].astype(np.float32)
        self.y: Image = (centres + TOP)[:, None].astype(np.float32)

    def zeros(self) -> Image:
        return np.zeros((self.pixels, self.pixels), dtype=np.float32)

    def _at_double(self, points: Points) -> list[tuple[float, float]]:
        scaled = (points - (LEFT, TOP)) * (2 * self.scale)
        return [(float(x), float(y)) for x, y in scaled]

    def polygons(self, outlines: Sequence[tuple[Points, int]]) -> Image:
        """Filled outlines with their greys (0 to 255), later ones over earlier ones, as 0 to 1."""
        sheet = PilImage.new("L", (2 * self.pixels, 2 * self.pixels))
        pen = ImageDraw.Draw(sheet)
        for outline, grey in outlines:
            pen.polygon(self._at_double(outline), fill=grey)
        return self._reduced(sheet)

    def mask(self, outline: Points) -> Image:
        """1 inside the outline, 0 outside, fractions at the edge."""
        return self.polygons([(outline, 255)])

    def strokes(self, strokes: Sequence[Stroke]) -> Image:
        """Straight strokes with their greys, later ones over earlier ones, as 0 to 1."""
        sheet = PilImage.new("L", (2 * self.pixels, 2 * self.pixels))
        pen = ImageDraw.Draw(sheet)
        double = 2 * self.scale
        for x0, y0, x1, y1, width, grey in strokes:
            wide = width * double
            fill = grey if wide >= 1 else max(1, round(grey * wide))
            ends = ((x0 - LEFT) * double, (y0 - TOP) * double, (x1 - LEFT) * double, (y1 - TOP) * double)
            pen.line(ends, fill=fill, width=max(1, round(wide)))
        return self._reduced(sheet)

    @staticmethod
    def _reduced(sheet: PilImage.Image) -> Image:
        return np.asarray(sheet.reduce(2), dtype=np.float32) * np.float32(1 / 255)

    def disc(self, x: float, y: float, radius_x: float, radius_y: float | None = None) -> Image:
        """Squared distance from a centre, 1 on the ellipse's edge."""
        across = (self.x - x) / radius_x
        down = (self.y - y) / (radius_y or radius_x)
        return (across * across + down * down).astype(np.float32)

    def blur(self, layer: Image, sigma: float) -> Image:
        """Gaussian blur of ``sigma`` units, computed as coarsely as its width allows."""
        sigma_px = sigma * self.scale
        if sigma_px < 0.35:
            return layer
        step = max(1, min(int(sigma_px / 2), self.pixels // 24))
        if step == 1:
            return ndimage.gaussian_filter(layer, sigma_px, mode="nearest", truncate=3.0)
        small = PilImage.fromarray(layer).reduce(step)
        soft = ndimage.gaussian_filter(np.asarray(small), sigma_px / step, mode="nearest", truncate=3.0)
        side = small.size[0] * step  # reduce() rounds the last block up: scale by whole blocks, then cut
        wide = PilImage.fromarray(soft).resize((side, side), PilImage.Resampling.BILINEAR)
        return np.asarray(wide, dtype=np.float32)[: self.pixels, : self.pixels]

    def texture(self, rng: np.random.Generator, grain: float) -> Image:
        """Smooth noise of unit variance whose grains are about ``grain`` units wide."""
        side = max(4, int(SPAN / grain))
        coarse = rng.standard_normal((side, side), dtype=np.float32)
        wide = PilImage.fromarray(coarse).resize((self.pixels, self.pixels), PilImage.Resampling.BICUBIC)
        return np.asarray(wide, dtype=np.float32)

    def along_rows(self, y: Sequence[float], x: Sequence[float]) -> Image:
        """A curve x(y) sampled at every row: float32 [pixels, 1]."""
        return np.interp(self.y, np.asarray(y), np.asarray(x)).astype(np.float32)

    def along_columns(self, x: Sequence[float], y: Sequence[float]) -> Image:
        """A curve y(x) sampled at every column: float32 [1, pixels]."""
        return np.interp(self.x, np.asarray(x), np.asarray(y)).astype(np.float32)
