"""From attenuation to a film: frame and rotation, blur and scatter, quantum noise, tone curve, collimation, mark."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PilImage
from PIL import ImageDraw, ImageFont

from firstread.models.phantoms.canvas import Canvas
from firstread.models.phantoms.spec import Image, PhantomSpec
from firstread.models.prediction import Box

_FINEST_PIXELS = 1150


@dataclass(frozen=True)
class Frame:
    """Where the film lies over the canvas: centre and width in thorax units, rotation in degrees."""

    x: float
    y: float
    width: float
    rotation_deg: float
    size: tuple[int, int]

    def _matrix(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Film pixel (column, row) to thorax units: ``units = matrix @ pixel + offset``."""
        rows, columns = self.size
        per_pixel = self.width / columns
        turn = np.deg2rad(self.rotation_deg)
        matrix = per_pixel * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        return matrix, np.array([self.x, self.y]) - matrix @ np.array([columns / 2, rows / 2])

    def to_film(self, layer: Image, canvas: Canvas) -> Image:
        """A canvas layer as float32 [rows, columns]; 0 outside the canvas."""
        matrix, offset = self._matrix()
        matrix, offset = matrix * canvas.scale, (offset - (canvas.left, canvas.top)) * canvas.scale
        affine = (matrix[0, 0], matrix[0, 1], offset[0], matrix[1, 0], matrix[1, 1], offset[1])
        rows, columns = self.size
        kind = PilImage.Resampling.BICUBIC
        film = PilImage.fromarray(layer).transform((columns, rows), PilImage.Transform.AFFINE, affine, kind)
        return np.asarray(film, dtype=np.float32)

    def box(self, shown: Image, canvas: Canvas) -> Box | None:
        """Box of where a layer shows (more than 0.06), in film pixels and cut to the film; None when outside."""
        film = self.to_film(shown, canvas) > 0.06
        rows, columns = np.flatnonzero(film.any(axis=1)), np.flatnonzero(film.any(axis=0))
        if not rows.size:
            return None
        return Box(float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))

    def canvas(self) -> Canvas:
        """A canvas under the whole film, as fine as the film; coarser under a large one, so that it stays quick."""
        rows, columns = self.size
        matrix, offset = self._matrix()
        corners = np.array([(0, 0), (columns, 0), (0, rows), (columns, rows)]) @ matrix.T + offset
        left, top = corners.min(axis=0) - 0.05
        width, height = corners.max(axis=0) + 0.05 - (left, top)
        finest = _FINEST_PIXELS / max(width, height)
        return Canvas(float(left), float(top), float(width), float(height), min(columns / self.width, float(finest)))


def expose(attenuation: Image, spec: PhantomSpec) -> Image:
    """Attenuation on the film [rows, columns] to grey [0, 1]: what a detector and its processing make of it."""
    rng = np.random.default_rng([spec.seed, 4])
    rows, columns = attenuation.shape
    grain = rng.standard_normal((rows, columns), dtype=np.float32)
    if max(rows, columns) > 700:  # the detector spreads light over neighbours: noise is not white
        grain = 0.5 * grain + 0.35 * np.roll(grain, 1, axis=0) + 0.35 * np.roll(grain, 1, axis=1)
    dose = np.sqrt(max(rows, columns) / 512)
    level = np.float32(0.005 * spec.noise * dose)
    noisy = attenuation + grain * level * (0.35 + 1.1 * np.clip(attenuation, 0, 1.2))
    middle = np.float32(0.6 - 0.13 * spec.exposure)
    slope = np.float32(4.4 * spec.contrast)
    glare = np.float32(0.012 + 0.14 * rng.beta(1.0, 3.0))  # light that reaches the detector past the body
    dark, bright = (1 / (1 + np.exp(-slope * (level_ - middle))) for level_ in (0.0, 1.45))
    grey = 1 / (1 + np.exp(-slope * (noisy - middle)))
    film: Image = np.clip((grey - dark) / (bright - dark) * (0.98 - glare) + glare, 0.0, 1.0).astype(np.float32)
    return film


def collimate(image: Image, spec: PhantomSpec) -> Image:
    """Blackens what the collimator covers (fractions of the film at left, top, right, bottom)."""
    rows, columns = image.shape
    left, top, right, bottom = spec.collimation
    shade = 0.02
    image[:, : round(left * columns)] = shade
    image[:, columns - round(right * columns) :] = shade
    image[: round(top * rows)] = shade
    image[rows - round(bottom * rows) :] = shade
    return image


def stamp(image: Image, spec: PhantomSpec) -> Image:
    """Burns the laterality mark in, as a lead letter on the side it names."""
    if not spec.laterality_mark:
        return image
    rng = np.random.default_rng([spec.seed, 5])
    rows, columns = image.shape
    height = max(10, round(min(rows, columns) * float(rng.uniform(0.035, 0.055))))
    glyphs = spec.laterality_mark + (f"\n{spec.view}" if spec.view == "AP" and rng.random() < 0.5 else "")
    sheet = PilImage.new("L", (height * 4, height * 4))
    pen = ImageDraw.Draw(sheet)
    pen.multiline_text((height, height), glyphs, fill=255, font=ImageFont.load_default(size=height), align="center")
    tilted = sheet.rotate(float(rng.normal(0, 8)), PilImage.Resampling.BILINEAR)
    mark = np.asarray(tilted, dtype=np.float32) / 255
    right_of_film = spec.laterality_mark == "L"
    x = int(columns * (float(rng.uniform(0.83, 0.9)) if right_of_film else float(rng.uniform(0.04, 0.1)))) - height
    y = int(rows * float(rng.uniform(0.04, 0.14)))
    x, y = max(0, min(x, columns - 4 * height)), max(0, min(y, rows - 4 * height))
    part = image[y : y + 4 * height, x : x + 4 * height]
    part += (np.float32(rng.uniform(0.75, 0.97)) - part) * mark[: part.shape[0], : part.shape[1]]
    return image
