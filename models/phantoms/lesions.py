"""The findings a phantom can carry, each as a change to the chest's layers and a map of where it shows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from firstread.models.phantoms.anatomy import Anatomy, cage_curve, heart_outline
from firstread.models.phantoms.canvas import Canvas, smooth_outline
from firstread.models.phantoms.spec import Image, Lesion
from firstread.models.phantoms.vessels import branches


@dataclass
class Lungs:
    """The layers that lesions change, float32 [rows, columns].

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
    dome = anatomy.dome_of(side)
    top = lesion.size * float(rng.uniform(0.42, 0.62))
    bulge = float(rng.uniform(0.7, 1.0))
    y = top + np.linspace(0.05, 1.0, 7) * (dome + 0.2 - top)
    t = (y - top) / (dome - top)
    gap = lesion.size * (0.2 + 0.5 * bulge * np.sin(np.pi * np.clip(0.3 + 0.6 * t, 0, 1)))
    edge = np.interp(y, heights, walls) - gap + 0.012 * rng.standard_normal(7)
    edge[0] = min(edge[0], 0.2 + 0.62 * (edge[1] - 0.2))
    edge = np.maximum(edge, 0.3)
    border = [(0.16, top + 0.02), (0.5 * (0.16 + float(edge[0])), top - 0.015)]
    border += [(float(a), float(b)) for a, b in zip(edge, y, strict=True)]
    line = smooth_outline(border, closed=False, steps=12)
    lung = np.concatenate([line, [(line[-1, 0], 2.8), (-0.1, 2.8), (-0.1, top + 0.02)]])
    line[:, 0] *= side
    lung[:, 0] *= side
    kept = canvas.mask(lung)
    half = _half(canvas, lesion)
    free = ((1 - kept) * half * lungs.space).astype(np.float32)
    width = max(0.009, 0.7 / canvas.scale)
    pairs = pairwise(line.tolist())
    pleura = canvas.strokes([(x0, y0, x1, y1, width, 255) for (x0, y0), (x1, y1) in pairs])
    strength = np.float32(lesion.strength)
    lungs.vessels *= 1 - free * np.minimum(np.float32(1.0), 0.6 + 0.6 * strength)
    lungs.opacity += kept * half * lungs.space * (0.3 * np.float32(lesion.size) * strength)
    lungs.opacity += pleura * lungs.space * (0.05 + 0.11 * strength)
    lungs.air += free * (0.04 + 0.1 * strength) * (lungs.air > 0.02)
    return free


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
    lungs.opacity += shown * lungs.air * np.float32(0.6 + 0.4 * lesion.strength)
    lungs.vessels *= 1 - shown * np.float32(lesion.strength)
    seen: Image = (fluid * _half(canvas, lesion) * lungs.space).astype(np.float32)
    return seen


def _round(canvas: Canvas, anatomy: Anatomy, lesion: Lesion, rng: np.random.Generator, lungs: Lungs) -> Image:
    """Mass or nodule: a lobulated ball with a soft edge, some with spicules."""
    x, y = place(anatomy, lesion)
    radius = lesion.size
    rows, columns = canvas.window(x, y, 1.7 * radius + 0.05)
    across, down = canvas.x[:, columns] - x, canvas.y[rows] - y
    angle = np.arctan2(down, across)
    lobes = 0.05 if lesion.label == "Nodule" else 0.1
    shape = np.ones_like(angle)
    for waves in (2, 3, 5):
        shape += lobes * float(rng.uniform(0.4, 1.0)) / waves**0.5 * np.cos(waves * angle + float(rng.uniform(0, 6.28)))
    if rng.random() < 0.4:
        spicules = np.clip(np.cos(float(rng.integers(9, 17)) * angle + float(rng.uniform(0, 6.28))), 0, 1) ** 4
        shape += 0.22 * spicules
    ball = canvas.zeros()
    ball[rows, columns] = np.clip(1 - (across**2 + down**2) / (radius * shape) ** 2, 0.0, 1.0) ** 0.55
    ball = canvas.blur(ball, max(0.012, 0.06 * radius))
    depth = 0.28 + 3.0 * radius if lesion.label == "Nodule" else min(0.85, 0.42 + 1.2 * radius)
    shown = ball * lungs.space
    lungs.opacity += shown * np.float32(depth * (0.35 + 0.5 * lesion.strength))
    return shown


def _consolidation(canvas: Canvas, anatomy: Anatomy, lesion: Lesion, rng: np.random.Generator, lungs: Lungs) -> Image:
    """Fluffy confluent opacity, with air-filled bronchi dark inside it."""
    x, y = place(anatomy, lesion)
    radius = lesion.size
    cloud = canvas.zeros()
    for _ in range(10):
        spread = rng.normal(0.0, 0.4 * radius, 2)
        wide = radius * float(rng.uniform(0.35, 0.7))
        cloud += canvas.glow(x + float(spread[0]), y + float(spread[1]), wide) * np.float32(rng.uniform(0.25, 0.6))
    ragged = canvas.texture(rng, 0.12) * 0.2 + canvas.texture(rng, 0.05) * 0.14
    cloud[:] = np.clip((cloud * (1 + ragged) - 0.16) * 0.85, 0.0, 1.0)
    cloud = (1 - (1 - cloud) ** 2) * lungs.space
    side = -1.0 if x < 0 else 1.0
    heading = float(np.arctan2(y - anatomy.hilum_y, x - side * 0.24))
    start = (x - np.cos(heading) * radius * 0.7, y - np.sin(heading) * radius * 0.7)
    airways = canvas.strokes(branches(rng, start, heading, 0.026, length=max(0.18, radius * 0.6), levels=2, grey=255))
    bronchi = canvas.blur(airways, 0.01)
    lungs.opacity += cloud * lungs.air * np.float32(0.3 + 0.42 * lesion.strength) * (1 - 0.35 * bronchi)
    lungs.vessels *= 1 - cloud * np.float32(0.8)
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
