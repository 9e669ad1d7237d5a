"""Pictures that no X-ray tube made: photographs, papers, screens, test objects, slices of other machines."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PilImage
from PIL import ImageDraw, ImageFilter, ImageFont
from scipy import ndimage

Random = np.random.Generator
Layer = NDArray[np.float32]

_LINES = (
    "patient name, date of birth, insurance number",
    "referring physician and ward",
    "clinical question: cough and fever since Monday",
    "previous findings: none; comparison with films of last year",
    "technique: two views, grid, 125 kV",
    "consent form, signed",
    "dose",
    "history",
    "findings",
    "none",
)


def _smooth(rng: Random, size: tuple[int, int], grain: float) -> Layer:
    """Noise of unit variance whose grains are ``grain`` of the shorter side."""
    rows, columns = size
    step = max(1.0, grain * min(size))
    coarse = rng.standard_normal((max(3, int(rows / step)), max(3, int(columns / step)))).astype(np.float32)
    wide = PilImage.fromarray(coarse).resize((columns, rows), PilImage.Resampling.BICUBIC)
    return np.asarray(wide, np.float32)


def photograph(rng: Random, size: tuple[int, int]) -> Layer:
    """A scene: sky and ground, houses or heads, with light, shade and a camera's softness."""
    rows, columns = size
    horizon = rows * rng.uniform(0.25, 0.8)
    down = np.arange(rows, dtype=np.float32)[:, None]
    sky = rng.uniform(0.4, 1.0) - 0.3 * down / rows * rng.uniform(-1, 1)
    ground = rng.uniform(0.1, 0.7) + 0.08 * _smooth(rng, size, 0.03)
    scene = np.where(down < horizon, sky + 0.07 * _smooth(rng, size, 0.3), ground).astype(np.float32)
    sheet = PilImage.fromarray((np.clip(scene, 0, 1) * 255).astype(np.uint8))
    pen = ImageDraw.Draw(sheet)
    for _ in range(int(rng.integers(1, 12))):
        x, y = float(rng.uniform(-0.1, 0.9) * columns), float(rng.uniform(0.0, 0.9) * rows)
        wide, tall = float(rng.uniform(0.05, 0.5) * columns), float(rng.uniform(0.05, 0.6) * rows)
        grey = int(rng.integers(0, 256))
        if rng.random() < 0.5:
            pen.rectangle((x, y, x + wide, y + tall), fill=grey)
        else:
            pen.ellipse((x, y, x + wide, y + tall), fill=grey)
    soft = np.asarray(sheet.filter(ImageFilter.GaussianBlur(max(size) * float(rng.uniform(0.001, 0.01)))), np.float32)
    lit = soft / 255 * (1 + 0.25 * _smooth(rng, size, 0.5)) + 0.03 * _smooth(rng, size, 0.01)
    return np.asarray(lit, np.float32)


def document(rng: Random, size: tuple[int, int]) -> Layer:
    """A scanned page: lines of words, a stamp or a logo, slightly turned, on off-white paper."""
    rows, columns = size
    paper = int(rng.integers(200, 256))
    sheet = PilImage.new("L", (columns, rows), paper)
    pen = ImageDraw.Draw(sheet)
    height = max(7, int(rows / rng.integers(24, 60)))
    font = ImageFont.load_default(size=height)
    ink = int(rng.integers(0, 90))
    for y in range(height * 2, rows - height * 2, int(height * rng.uniform(1.4, 2.2))):
        if rng.random() < 0.85:
            words = ", ".join(rng.choice(_LINES, int(rng.integers(1, 5))))
            pen.text((columns * 0.07, y), words, fill=ink, font=font)
    left, top, side = columns * rng.uniform(0.5, 0.8), rows * rng.uniform(0.05, 0.8), columns * rng.uniform(0.1, 0.25)
    pen.ellipse((left, top, left + side, top + side), outline=ink, width=max(1, height // 4))
    turned = sheet.rotate(float(rng.normal(0, 1.5)), PilImage.Resampling.BILINEAR, fillcolor=paper)
    page = np.asarray(turned.filter(ImageFilter.GaussianBlur(max(size) / 900)), np.float32) / 255
    return np.asarray(page * (1 + 0.03 * _smooth(rng, size, 0.6)), np.float32)


def slice_of_a_scanner(rng: Random, size: tuple[int, int]) -> Layer:
    """An axial slice as CT shows it: a body with two lungs or a head, on black."""
    rows, columns = size
    y, x = np.mgrid[0:rows, 0:columns].astype(np.float32)
    x, y = (x / columns - 0.5) * 2, (y / rows - 0.5) * 2
    wide, tall = rng.uniform(0.7, 0.95), rng.uniform(0.5, 0.8)
    body = (x / wide) ** 2 + (y / tall) ** 2 < 1
    slab: Layer = np.where(body, rng.uniform(0.4, 0.7), 0.0).astype(np.float32)
    chest = rng.random() < 0.6
    if chest:
        for side in (-1, 1):
            lung = ((x - side * wide * 0.45) / (wide * 0.36)) ** 2 + ((y + 0.03) / (tall * 0.68)) ** 2 < 1
            slab[lung] = rng.uniform(0.02, 0.15)
    else:
        slab += 0.3 * ((x / wide) ** 2 + (y / tall) ** 2 > 0.85) * body
        slab -= 0.2 * ((x / 0.15) ** 2 + (y / 0.25) ** 2 < 1)
    spine = (x / 0.12) ** 2 + ((y - tall * 0.62) / 0.13) ** 2 < 1
    slab[spine] = 0.95
    slab += 0.04 * body * _smooth(rng, size, 0.05)
    table = np.abs(y - tall - 0.08 - 0.05 * x**2) < 0.015
    slab[table] = 0.5
    return np.asarray(ndimage.gaussian_filter(slab, max(size) * 0.004) + rng.normal(0, 0.015, size), np.float32)


def ultrasound(rng: Random, size: tuple[int, int]) -> Layer:
    """A fan of speckle on black, with a scale beside it."""
    rows, columns = size
    y, x = np.mgrid[0:rows, 0:columns].astype(np.float32)
    x, y = x / columns - 0.5, y / rows
    radius, angle = np.hypot(x, y + 0.05), np.abs(np.arctan2(x, y + 0.05))
    fan = (angle < rng.uniform(0.5, 0.8)) & (radius > 0.12) & (radius < rng.uniform(0.8, 1.0))
    speckle = rng.rayleigh(0.3, size).astype(np.float32)
    tissue = ndimage.gaussian_filter(speckle, max(size) * 0.003) * (1 + 0.6 * _smooth(rng, size, 0.15))
    for _ in range(int(rng.integers(0, 4))):
        at_x, at_y, wide = rng.uniform(-0.25, 0.25), rng.uniform(0.25, 0.8), rng.uniform(0.04, 0.15)
        tissue[((x - at_x) / wide) ** 2 + ((y - at_y) / (wide * 0.7)) ** 2 < 1] *= 0.15
    return np.asarray(np.where(fan, tissue, 0), np.float32)


def step_wedge(rng: Random, size: tuple[int, int]) -> Layer:
    """Steps of aluminium on a grey field, upright or lying, with a ruler's ticks."""
    rows, columns = size
    field: Layer = np.full(size, rng.uniform(0.05, 0.3), np.float32)
    steps = int(rng.integers(6, 22))
    start, end = int(columns * rng.uniform(0.05, 0.3)), int(columns * rng.uniform(0.6, 0.95))
    greys = np.linspace(0.1, 0.95, steps)[:: int(rng.choice([-1, 1]))]
    rungs = np.linspace(rows * 0.08, rows * 0.92, steps + 1).astype(int)
    for grey, top, bottom in zip(greys, rungs[:-1], rungs[1:], strict=True):
        field[top:bottom, start:end] = grey
        field[top : top + max(1, rows // 200), end : end + columns // 20] = 0.9
    field = field + 0.02 * _smooth(rng, size, 0.02) + rng.normal(0, 0.01, size).astype(np.float32)
    if rng.random() < 0.5 and rows == columns:
        field = np.ascontiguousarray(field.T)
    return np.asarray(ndimage.gaussian_filter(field, max(size) * 0.002), np.float32)


def test_object(rng: Random, size: tuple[int, int]) -> Layer:
    """A quality assurance plate: a disc with rings of contrast details, line groups and corner marks."""
    rows, columns = size
    y, x = np.mgrid[0:rows, 0:columns].astype(np.float32)
    x, y = (x - columns / 2) / (min(size) / 2), (y - rows / 2) / (min(size) / 2)
    plate: Layer = np.full(size, rng.uniform(0.1, 0.5), np.float32)
    plate[np.hypot(x, y) < 0.9] = rng.uniform(0.3, 0.8)
    for ring in rng.uniform(0.3, 0.85, int(rng.integers(1, 4))):
        count = int(rng.integers(6, 20))
        for number in range(count):
            turn = 2 * np.pi * number / count
            spot = np.hypot(x - ring * np.cos(turn), y - ring * np.sin(turn)) < rng.uniform(0.02, 0.08)
            plate[spot] += (number / count - 0.5) * rng.uniform(0.1, 0.7)
    lines = np.sin(x * rng.uniform(60, 160)) > 0
    box = (np.abs(x) < rng.uniform(0.1, 0.3)) & (np.abs(y) < rng.uniform(0.1, 0.3))
    plate[box & lines] = 1.0
    for at_x, at_y in ((-0.9, -0.9), (0.9, -0.9), (-0.9, 0.9), (0.9, 0.9)):
        plate[(np.abs(x - at_x) < 0.03) | (np.abs(y - at_y) < 0.03)] += 0.2
    return np.asarray(ndimage.gaussian_filter(plate, max(size) * 0.002) + rng.normal(0, 0.01, size), np.float32)


def clipped(rng: Random, size: tuple[int, int]) -> Layer:
    """An exposure beyond the detector's range: nearly all black or nearly all white, with a hint of a body."""
    soft = _smooth(rng, size, 0.4) * 0.4 + _smooth(rng, size, 0.1) * 0.1
    level = rng.uniform(1.2, 2.0) if rng.random() < 0.5 else rng.uniform(-1.0, -0.3)
    return np.asarray(soft + level, np.float32)


NON_FILMS: dict[str, Callable[[Random, tuple[int, int]], Layer]] = {
    "photograph": photograph,
    "document": document,
    "slice": slice_of_a_scanner,
    "ultrasound": ultrasound,
    "step wedge": step_wedge,
    "test object": test_object,
    "clipped": clipped,
}
"""Kind to how it is drawn from a random source and a size (rows, columns); values outside [0, 1] are to be cut."""
