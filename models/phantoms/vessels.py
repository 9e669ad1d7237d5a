"""Branching trees: the lung's vessels and the airways that show inside an opacity."""

from __future__ import annotations

import numpy as np

from firstread.models.phantoms.canvas import Stroke

_STEP = 0.085


def branches(
    rng: np.random.Generator,
    root: tuple[float, float],
    heading: float,
    width: float,
    *,
    length: float = 0.5,
    levels: int = 4,
    grey: int = 200,
) -> list[Stroke]:
    """Strokes of a tree that grows from ``root`` along ``heading`` (radians, 0 to the right, y down), tapering."""
    chance = iter(rng.standard_normal(4096).tolist())
    strokes: list[Stroke] = []
    growing = [(root[0], root[1], heading, width, length, levels)]
    while growing:
        x, y, angle, wide, reach, left = growing.pop()
        steps = max(1, int(reach / _STEP))
        bend = 0.07 * next(chance, 0.0)
        for step in range(steps):
            angle += bend + 0.1 * next(chance, 0.0)
            x1, y1 = x + _STEP * np.cos(angle), y + _STEP * np.sin(angle)
            taper = wide * (1 - 0.35 * step / steps)
            strokes.append((x, y, float(x1), float(y1), taper, grey))
            x, y = float(x1), float(y1)
            if left > 0 and step in (steps // 2, steps - 1):
                turn = (0.5 + 0.12 * next(chance, 0.0)) * (1 if next(chance, 0.0) > 0 else -1)
                growing.append((x, y, angle + turn, wide * 0.62, reach * 0.72, left - 1))
        if left > 0:
            growing.append((x, y, angle, wide * 0.6, reach * 0.7, left - 1))
    return sorted(strokes, key=lambda stroke: stroke[4])


def lung_vessels(rng: np.random.Generator, side: float, hilum: tuple[float, float], dome: float) -> list[Stroke]:
    """Vessels of one lung, fanning out of its hilum; those to the base are thickest."""
    strokes: list[Stroke] = []
    for outward, wide, reach in (
        (-1.35, 0.024, 0.42),
        (-0.95, 0.026, 0.42),
        (-0.5, 0.021, 0.4),
        (-0.1, 0.022, 0.42),
        (0.35, 0.027, 0.42),
        (0.72, 0.034, 0.46),
        (1.05, 0.04, 0.5),
        (1.35, 0.036, 0.52),
    ):
        angle = outward + float(rng.normal(0.0, 0.12))
        heading = angle if side > 0 else np.pi - angle
        start = (hilum[0] + side * 0.03 * np.cos(outward), hilum[1] + 0.17 * np.sin(angle))
        scale = (dome / 1.5) * float(rng.uniform(0.85, 1.15))
        strokes += branches(rng, start, heading, wide, length=reach * scale, levels=3, grey=210)
    return sorted(strokes, key=lambda stroke: stroke[4])


def twigs(rng: np.random.Generator, side: float, hilum: tuple[float, float], dome: float, count: int) -> list[Stroke]:
    """The finest visible vessels of one lung: short strokes that lead away from the hilum."""
    x = side * rng.uniform(0.25, 0.95, count)
    y = rng.uniform(0.05, dome, count)
    angle = np.arctan2(y - hilum[1], x - hilum[0]) + rng.normal(0.0, 0.45, count)
    length = rng.uniform(0.05, 0.13, count)
    ends = (x, y, x + length * np.cos(angle), y + length * np.sin(angle))
    rows = np.stack([*ends, rng.uniform(0.005, 0.011, count)], axis=1).tolist()
    return [(x0, y0, x1, y1, width, 170) for x0, y0, x1, y1, width in rows]
