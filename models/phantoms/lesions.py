"""The findings a phantom can carry, each as a change to the chest's layers and a map of where it shows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from firstread.models.phantoms.anatomy import Anatomy, cage_curve, heart_outline
from firstread.models.phantoms.canvas import Canvas
from firstread.models.phantoms.spec import Image, Lesion
from firstread.models.phantoms.vessels import branches


@dataclass
class Lungs:
    """The layers that lesions change, float32 [pixels, pixels].

    ``air``: depth of aerated lung along the beam, 0 to about 1. ``vessels``: vessel shadows, 0 to 1, shown in
    proportion to the air around them. ``opacity``: what lies in or before the lung, in the unit of ``air``.
    """

    space: Image
    air: Image
    vessels: Image
    opacity: Image


Draw = Callable[[Canvas, Anatomy, Lesion, np.random.Generator, Lungs], Image]


def place(anatomy: Anatomy, lesion: Lesion) -> tuple[float, float]:
    """A lesion's fractions in thorax units."""
    return 2.0 * lesion.x - 1.0, lesion.y * anatomy.dome[0]


def _half(canvas: Canvas, lesion: Lesion) -> Image:
    """1 on the lesion's side of the midline, 0 on the other."""
    return (canvas.x * (-1.0 if lesion.x < 0.5 else 1.0) > 0).astype(np.float32)


def _pneumothorax(canvas: Canvas, anatomy: Anatomy, lesion: Lesion, rng: np.random.Generator, lungs: Lungs) -> Image:
    """Air without vessels outside a fine pleural line; the lung behind the line is smaller and a little denser."""
    side = -1.0 if lesion.x < 0.5 else 1.0
    heights, walls = cage_curve(anatomy)
    t = np.linspace(0.0, 1.0, 24)
    y = -0.03 + t * (anatomy.dome_of(side) + 0.1)
    lateral = lesion.size * (0.16 + 0.5 * np.sin(np.pi * np.clip(0.12 + t * float(rng.uniform(0.75, 0.95)), 0, 1)))
    waves = 0.014 * np.sin(2 * np.pi * (t * rng.uniform(1.5, 2.5) + rng.uniform()))
    edge = np.maximum(np.interp(y, heights, walls) - lateral * 1.15 + waves, 0.24)
    top = lesion.size * (0.5 + 0.25 * float(rng.uniform()))
    drawn_down = np.sqrt(np.clip((y - top) / 0.34, 0.0, 1.0))  # the apex of the collapsed lung is round again
    edge = 0.26 + (edge - 0.26) * drawn_down
    wall = canvas.along_rows(y.tolist(), edge.tolist())
    inside = canvas.x * side - wall
    pixel = 1.0 / canvas.scale
    outside = np.clip(inside / (2 * pixel) + 0.5, 0.0, 1.0) * _half(canvas, lesion)
    outside = np.maximum(outside, np.clip((top - canvas.y) / (2 * pixel) + 0.5, 0, 1) * _half(canvas, lesion))
    gap = (outside * lungs.space).astype(np.float32)
    slope = np.abs(np.gradient(wall[:, 0]))[:, None] * canvas.scale
    distance = np.abs(inside) / np.sqrt(1 + slope**2)
    thick = max(0.011, 0.9 * pixel)
    line = np.exp(-((distance / thick) ** 2)) * (canvas.y > top) * _half(canvas, lesion) * lungs.space
    strength = lesion.strength
    lungs.vessels *= 1 - gap * min(1.0, 0.6 + 0.6 * strength)
    collapsed = (1 - outside) * lungs.space * _half(canvas, lesion)
    lungs.opacity += collapsed * np.float32(0.3 * lesion.size * strength)
    lungs.opacity += (line * (0.1 + 0.12 * strength)).astype(np.float32)
    lungs.air += gap * np.float32(0.05 + 0.11 * strength) * (lungs.air > 0.02)
    return gap


def _effusion(canvas: Canvas, anatomy: Anatomy, lesion: Lesion, rng: np.random.Generator, lungs: Lungs) -> Image:
    """Fluid from the base up, its upper border a meniscus that climbs along the chest wall."""
    side = -1.0 if lesion.x < 0.5 else 1.0
    height = lesion.size * anatomy.dome_of(side)
    level = anatomy.dome_of(side) + 0.06 - height
    across = np.clip(canvas.x * side, 0.0, 1.05)
    climb = (0.13 + 0.4 * height) * across ** float(rng.uniform(2.5, 4.0)) + 0.05 * (across < 0.2)
    surface = level + 0.12 - climb
    soft = 0.035 + 0.03 * float(rng.uniform())
    fluid = 1 / (1 + np.exp(-np.clip((canvas.y - surface) / soft, -30, 30)))
    deepening = np.clip((canvas.y - surface) / (0.25 + 0.35 * height), 0.0, 1.0)
    shown = (fluid * (0.35 + 0.65 * deepening) * _half(canvas, lesion) * lungs.space).astype(np.float32)
    lungs.opacity += shown * lungs.air * np.float32(0.45 + 0.5 * lesion.strength)
    lungs.vessels *= 1 - shown * np.float32(lesion.strength)
    return (fluid * _half(canvas, lesion) * lungs.space).astype(np.float32)


def _round(canvas: Canvas, anatomy: Anatomy, lesion: Lesion, rng: np.random.Generator, lungs: Lungs) -> Image:
    """Mass or nodule: a lobulated ball with a soft edge, some with spicules."""
    x, y = place(anatomy, lesion)
    radius = lesion.size
    across, down = canvas.x - x, canvas.y - y
    distance = np.hypot(across, down)
    lobes = 0.05 if lesion.label == "Nodule" else 0.1
    shape = 1.0 + 0 * distance
    angle = np.arctan2(down, across)
    for waves in (2, 3, 5):
        shape += lobes * float(rng.uniform(0.4, 1.0)) / waves**0.5 * np.cos(waves * angle + float(rng.uniform(0, 6.28)))
    if rng.random() < 0.4:
        spicules = np.clip(np.cos(float(rng.integers(9, 17)) * angle + float(rng.uniform(0, 6.28))), 0, 1) ** 4
        shape += 0.22 * spicules
    ball = np.clip(1 - (distance / (radius * shape)) ** 2, 0.0, 1.0) ** 0.55
    ball = canvas.blur(ball.astype(np.float32), max(0.012, 0.06 * radius))
    depth = min(1.0, 0.22 + 2.6 * radius) if lesion.label == "Nodule" else min(1.0, 0.5 + 1.2 * radius)
    shown = ball * lungs.space
    lungs.opacity += shown * np.float32(depth * (0.35 + 0.5 * lesion.strength))
    return shown


def _consolidation(canvas: Canvas, anatomy: Anatomy, lesion: Lesion, rng: np.random.Generator, lungs: Lungs) -> Image:
    """Fluffy confluent opacity, with air-filled bronchi dark inside it."""
    x, y = place(anatomy, lesion)
    radius = lesion.size
    field = canvas.zeros()
    for _ in range(9):
        spread = rng.normal(0.0, 0.42 * radius, 2)
        wide = radius * float(rng.uniform(0.4, 0.75))
        field += np.exp(-canvas.disc(x + float(spread[0]), y + float(spread[1]), wide)) * np.float32(0.6)
    ragged = canvas.texture(rng, 0.11) * 0.22 + canvas.texture(rng, 0.045) * 0.16
    cloud = 1 / (1 + np.exp(-np.clip((field * (1 + ragged) - 0.62) * 5.0, -30, 30)))
    cloud = (cloud * (field > 0.06) * lungs.space).astype(np.float32)
    side = -1.0 if x < 0 else 1.0
    root = (side * 0.24, anatomy.hilum_y + 0.03)
    heading = float(np.arctan2(y - root[1], x - root[0]))
    start = (x - np.cos(heading) * radius * 0.8, y - np.sin(heading) * radius * 0.8)
    airways = canvas.strokes(branches(rng, start, heading, 0.036, length=max(0.25, radius * 0.9), levels=2, grey=255))
    bronchi = canvas.blur(airways, 0.008)
    lungs.opacity += cloud * lungs.air * np.float32(0.3 + 0.45 * lesion.strength) * (1 - 0.45 * bronchi)
    lungs.vessels *= 1 - cloud * np.float32(0.85)
    return cloud


def _cardiomegaly(canvas: Canvas, anatomy: Anatomy, lesion: Lesion, rng: np.random.Generator, lungs: Lungs) -> Image:
    """The heart's outline is already the enlarged one (``anatomy.measure``); only its place is told here."""
    del lesion, rng, lungs
    return canvas.mask(heart_outline(anatomy))


DRAW: dict[str, Draw] = {
    "Pneumothorax": _pneumothorax,
    "Effusion": _effusion,
    "Mass": _round,
    "Nodule": _round,
    "Consolidation": _consolidation,
    "Cardiomegaly": _cardiomegaly,
}
