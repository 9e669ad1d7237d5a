"""Pictures that are no frontal chest at all, for the gate that must turn them away."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PilImage
from PIL import ImageDraw, ImageFont

from firstread.models.phantoms.canvas import Canvas, Points, ribbon, smooth_outline
from firstread.models.phantoms.drawing import draw
from firstread.models.phantoms.exposure import collimate, expose, stamp
from firstread.models.phantoms.non_films import NON_FILMS
from firstread.models.phantoms.other_parts import BODY_PARTS, RING, Random, bowel_gas
from firstread.models.phantoms.spec import Image, PhantomError, PhantomSpec, random_spec

Layer = NDArray[np.floating[Any]]


def _canvas(size: tuple[int, int], width: float) -> Canvas:
    rows, columns = size
    height = width * rows / columns
    return Canvas(-width / 2, -height / 2, width, height, columns / width)


def _pelvis(canvas: Canvas, rng: np.random.Generator) -> Layer:
    """Both hips: iliac wings, sacrum, obturator rings, femora, bowel gas."""
    wide = float(rng.uniform(0.95, 1.05))
    trunk = canvas.mask(smooth_outline([(-1.0, -2.0), (1.0, -2.0), (1.3, 0.1), (1.1, 2.0), (-1.1, 2.0), (-1.3, 0.1)]))
    bones: list[tuple[Points, int]] = []
    holes: list[tuple[Points, int]] = []
    for side in (-1.0, 1.0):
        wing = smooth_outline(
            [(0.2, -0.25), (0.32, -0.7), (0.7, -0.85), (0.95, -0.55), (0.72, -0.1), (0.72, 0.22), (0.4, 0.1)]
        )
        socket = RING * (0.22, 0.22) + (0.68, 0.12)
        ring = ribbon(RING * (0.22, 0.2) + (0.33, 0.48), 0.14)
        femur = ribbon(smooth_outline([(0.72, 0.12), (0.98, 0.32), (1.0, 0.8), (0.95, 2.0)], closed=False), 0.24)
        head = RING * 0.17 + (0.69, 0.13)
        trochanter = RING * (0.13, 0.17) + (1.07, 0.3)
        for outline, grey in ((wing, 120), (socket, 165), (ring, 150), (femur, 190), (trochanter, 170), (head, 215)):
            bones.append((outline * (side * wide, 1.0), grey))
        holes.append((ribbon(femur[: len(femur) // 2] * (side * wide, 1.0), 0.02), 90))
    sacrum = smooth_outline([(-0.28, -0.5), (0.28, -0.5), (0.18, 0.05), (0.0, 0.25), (-0.18, 0.05)])
    lumbar = [
        smooth_outline([(-0.2, y - 0.13), (0.2, y - 0.13), (0.2, y + 0.13), (-0.2, y + 0.13)])
        for y in (-1.4, -1.05, -0.7)
    ]
    bones += [(sacrum, 150), *((outline, 170) for outline in lumbar)]
    gas = bowel_gas(canvas, rng, 6, (0.0, -0.6), (0.4, 0.3))
    skeleton = canvas.blur(canvas.polygons(bones), 0.01)
    film: Layer = 0.62 * canvas.blur(trunk, 0.05) + 0.42 * skeleton + 0.1 * canvas.polygons(holes) - 0.18 * gas * trunk
    return film


def _skull(canvas: Canvas, rng: np.random.Generator) -> Layer:
    """A skull from the front: vault, orbits, nose, teeth, jaw and neck."""
    tall = float(rng.uniform(0.95, 1.1))
    vault = RING * (0.72, 0.85 * tall) + (0, -0.35)
    face = smooth_outline([(-0.6, 0.0), (0.6, 0.0), (0.52, 0.6), (0.26, 0.95), (-0.26, 0.95), (-0.52, 0.6)])
    head = np.maximum(canvas.mask(vault), canvas.mask(face))
    shell = canvas.mask(ribbon(vault, 0.08))
    orbits = canvas.polygons([(RING * (0.19, 0.17) + (side * 0.28, 0.02), 255) for side in (-1.0, 1.0)])
    rims = canvas.polygons([(ribbon(RING * (0.2, 0.18) + (side * 0.28, 0.02), 0.035), 255) for side in (-1.0, 1.0)])
    nose = canvas.mask(smooth_outline([(0.0, 0.08), (0.12, 0.36), (0.0, 0.42), (-0.12, 0.36)]))
    teeth = canvas.polygons(
        [(RING * (0.035, 0.07) + (x, y), 255) for x in np.linspace(-0.26, 0.26, 8) for y in (0.55, 0.7)]
    )
    neck = canvas.mask(smooth_outline([(-0.35, 0.7), (0.35, 0.7), (0.5, 2.0), (-0.5, 2.0)]))
    jaw = canvas.mask(
        ribbon(
            smooth_outline([(-0.55, 0.35), (-0.42, 0.75), (0, 0.93), (0.42, 0.75), (0.55, 0.35)], closed=False), 0.13
        )
    )
    total = 0.6 * canvas.blur(head, 0.03) + 0.4 * np.clip(neck - head, 0, 1) + 0.28 * shell + 0.2 * rims + 0.25 * teeth
    film: Layer = total + 0.2 * jaw - 0.2 * orbits - 0.16 * nose + 0.02 * canvas.texture(rng, 0.1) * head
    return film


def _body_part(shape: Callable[[Canvas, np.random.Generator], Layer], seed: int, size: tuple[int, int]) -> Layer:
    rng = np.random.default_rng([seed, 11])
    canvas = _canvas(size, float(rng.uniform(2.3, 2.9)) * max(1.0, size[1] / size[0]))
    spec = PhantomSpec(
        seed=seed, size=size, exposure=float(rng.normal(0, 0.4)), laterality_mark="L" if rng.random() < 0.7 else ""
    )
    attenuation = np.maximum(canvas.blur(shape(canvas, rng).astype(np.float32), 0.006), 0)
    return stamp(collimate(expose(_fitted(attenuation, size), spec), spec), spec)


def _fitted(layer: Image, size: tuple[int, int]) -> Layer:
    """A canvas rounds its rows: exactly ``size`` again."""
    if layer.shape == size:
        return layer
    rows, columns = size
    return np.asarray(PilImage.fromarray(layer).resize((columns, rows), PilImage.Resampling.BILINEAR), dtype=np.float32)


def _view(view: str, seed: int, size: tuple[int, int]) -> Layer:
    """A side view or a hand, of any habitus; a third faces the other way."""
    rng = np.random.default_rng([seed, 12])
    image = draw(random_spec(rng, size=size, view=view)).image
    return np.ascontiguousarray(image[:, ::-1]) if rng.random() < 1 / 3 else image


def _blank(seed: int, size: tuple[int, int]) -> Layer:
    """An exposure of nothing: even but for a slow slope and grain."""
    rng = np.random.default_rng([seed, 13])
    rows, columns = size
    slope = rng.normal(0, 0.08) * np.linspace(-1, 1, rows)[:, None] + rng.normal(0, 0.08) * np.linspace(-1, 1, columns)
    return rng.uniform(0.02, 0.98) + slope + rng.normal(0, rng.uniform(0, 0.03), size)


def _noise(seed: int, size: tuple[int, int]) -> Layer:
    """Grain of one or several widths."""
    rng = np.random.default_rng([seed, 14])
    canvas = _canvas(size, 1.0)
    coarse = canvas.texture(rng, float(rng.uniform(0.01, 0.2))) * rng.uniform(0, 0.3)
    return 0.5 + _fitted(coarse.astype(np.float32), size) + rng.normal(0, rng.uniform(0.05, 0.3), size)


def _bars(seed: int, size: tuple[int, int]) -> Layer:
    """A test pattern: grey steps and line pairs, as a service engineer leaves them."""
    rng = np.random.default_rng([seed, 15])
    rows, columns = size
    y, x = np.mgrid[0:rows, 0:columns]
    steps = np.floor(x / columns * rng.integers(6, 17)) / 16
    lines = (np.sin(2 * np.pi * x / (2 + y / rows * columns * rng.uniform(0.01, 0.05))) > 0).astype(float)
    border = (np.minimum(np.minimum(x, columns - 1 - x), np.minimum(y, rows - 1 - y)) < 0.02 * columns).astype(float)
    pattern = np.where(y < rows * rng.uniform(0.3, 0.7), steps, lines)
    film: Layer = np.maximum(pattern, border) + rng.normal(0, 0.01, size)
    return film


_LINES = (
    "Dose report",
    "Patient: PHANTOM^TEST",
    "DAP 1.2 dGy cm2",
    "Exposure index 412",
    "Deviation index -0.8",
    "kVp 125  mAs 2.0",
    "Operator signature",
    "Series 1 of 2",
    "Image accepted",
    "Comment: none",
)


def _screenshot(seed: int, size: tuple[int, int]) -> Layer:
    """A page of text with a table, dark on light or light on dark."""
    rng = np.random.default_rng([seed, 16])
    rows, columns = size
    sheet = PilImage.new("L", (columns, rows), 15)
    pen = ImageDraw.Draw(sheet)
    height = max(9, rows // int(rng.integers(16, 34)))
    font = ImageFont.load_default(size=height)
    for number, y in enumerate(range(height, rows - 2 * height, int(height * 1.6))):
        if number and rng.random() < 0.15:
            pen.line((height, y, columns - height, y), fill=150, width=max(1, height // 8))
            continue
        pen.text((height, y), str(rng.choice(_LINES)), fill=230, font=font)
        if rng.random() < 0.5:
            pen.text((columns * 0.65, y), f"{rng.uniform(0, 500):.1f}", fill=230, font=font)
    page = np.asarray(sheet, dtype=np.float32) / 255
    return 1 - page if rng.random() < 0.5 else page


def _part(shape: Callable[[Canvas, Random], Layer]) -> Callable[[int, tuple[int, int]], Layer]:
    return lambda seed, size: _body_part(shape, seed, size)


def _not_exposed(picture: Callable[[Random, tuple[int, int]], Layer]) -> Callable[[int, tuple[int, int]], Layer]:
    return lambda seed, size: picture(np.random.default_rng([seed, 17]), size)


NON_CHEST: dict[str, Callable[[int, tuple[int, int]], Layer]] = {
    "hand": lambda seed, size: _view("HAND", seed, size),
    "lateral": lambda seed, size: _view("LATERAL", seed, size),
    "pelvis": lambda seed, size: _body_part(_pelvis, seed, size),
    "skull": lambda seed, size: _body_part(_skull, seed, size),
    **{kind: _part(shape) for kind, shape in BODY_PARTS.items()},
    "blank": _blank,
    "noise": _noise,
    "bars": _bars,
    "screenshot": _screenshot,
    **{kind: _not_exposed(picture) for kind, picture in NON_FILMS.items()},
}
"""Kind to how it is drawn from a seed and a size (rows, columns)."""


def draw_non_chest(kind: str, seed: int, size: tuple[int, int] = (256, 256)) -> Image:
    """A picture of ``kind`` (a key of NON_CHEST): float32 [rows, columns] in [0, 1], the same for the same seed."""
    if kind not in NON_CHEST:
        raise PhantomError(f"unknown kind {kind!r}: choose among {', '.join(NON_CHEST)}")
    image: Image = np.clip(NON_CHEST[kind](seed, size), 0.0, 1.0).astype(np.float32)
    return image
