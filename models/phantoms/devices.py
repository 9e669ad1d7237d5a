"""Lines, tubes, leads and pacemakers that lie on films of the sick and of the well."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from firstread.models.phantoms.anatomy import Anatomy
from firstread.models.phantoms.canvas import Canvas, Points, Stroke, ribbon, smooth_outline
from firstread.models.phantoms.spec import DEVICES, Image, PhantomError


def _line(points: list[tuple[float, float]], width: float, grey: int) -> list[Stroke]:
    curve = smooth_outline(points, closed=False, steps=10)
    return [(float(a[0]), float(a[1]), float(b[0]), float(b[1]), width, grey) for a, b in pairwise(curve)]


def _leads(rng: np.random.Generator, anatomy: Anatomy) -> tuple[list[Stroke], list[tuple[Points, int]]]:
    """Cables and their electrodes: a snap in a thin disc."""
    strokes: list[Stroke] = []
    electrodes: list[tuple[Points, int]] = []
    turn = np.linspace(0, 2 * np.pi, 24)
    ring = np.stack([np.cos(turn), np.sin(turn)], axis=1)
    for side, y in ((-1.0, 0.15), (1.0, 0.12), (1.0, anatomy.dome[1] - 0.1))[: int(rng.integers(2, 4))]:
        x0, y0 = side * float(rng.uniform(0.5, 0.9)), y + float(rng.normal(0, 0.08))
        bend = float(rng.uniform(0.2, 0.6)) * side
        way = [(x0, y0), (x0 + bend * 0.5, y0 + 0.35), (x0 + bend, y0 + 0.8), (x0 + bend * 1.4, 3.0)]
        strokes += _line(way, 0.014, 80)
        electrodes += [(ring * radius + (x0, y0), grey) for radius, grey in ((0.055, 45), (0.026, 170), (0.01, 110))]
    return strokes, electrodes


def _venous_line(rng: np.random.Generator) -> list[Stroke]:
    side = -1.0 if rng.random() < 0.7 else 1.0
    tip = float(rng.uniform(0.55, 0.95))
    from_arm = rng.random() < 0.5
    entry = [(side * 1.5, 0.6), (side * 1.1, 0.16)] if from_arm else [(side * 0.34, -0.6), (side * 0.3, -0.15)]
    way = [*entry, (side * 0.3, 0.07), (-0.13, 0.26), (-0.17, 0.5), (-0.16, tip)]
    return _line(way, 0.017, 95)


def _gastric_tube(rng: np.random.Generator, anatomy: Anatomy) -> list[Stroke]:
    drift = float(rng.normal(0.0, 0.02))
    low = anatomy.dome[1]
    way = [(0.0, -1.0), (0.02 + drift, 0.0), (0.03, 0.6), (0.06, low), (0.25, low + 0.25), (0.45, low + 0.35)]
    return _line(way, 0.024, 75)


def _airway_tube(rng: np.random.Generator, anatomy: Anatomy) -> list[Stroke]:
    tip = float(rng.uniform(0.1, 0.36))
    shift = anatomy.trachea_shift
    return _line([(shift + 0.03, -1.0), (shift, -0.4), (shift, tip)], 0.055, 70) + _line(
        [(shift + 0.045, -1.0), (shift + 0.015, -0.4), (shift + 0.015, tip)], 0.012, 140
    )


def _pacemaker(rng: np.random.Generator, anatomy: Anatomy) -> tuple[list[Stroke], Points]:
    x, y = 0.72 + float(rng.normal(0, 0.05)), 0.28 + float(rng.normal(0, 0.05))
    case = smooth_outline(
        [
            (x - 0.15, y - 0.1),
            (x, y - 0.15),
            (x + 0.15, y - 0.1),
            (x + 0.16, y + 0.06),
            (x, y + 0.15),
            (x - 0.16, y + 0.06),
        ]
    )
    heart = anatomy.heart_left * 0.6
    lead = [(x - 0.1, y - 0.1), (0.4, 0.05), (-0.05, 0.2), (-0.17, 0.55), (-0.14, 0.95), (0.1, anatomy.dome[1] - 0.1)]
    return _line([*lead, (heart, anatomy.dome[1] - 0.08)], 0.014, 170), case


def draw_devices(canvas: Canvas, anatomy: Anatomy, names: tuple[str, ...], rng: np.random.Generator) -> Image:
    """Attenuation of the named devices, 0 to 1: metal is near 1, plastic 0.3."""
    strokes: list[Stroke] = []
    cases: list[tuple[Points, int]] = []
    for name in names:
        if name == "pacemaker":
            leads, case = _pacemaker(rng, anatomy)
            strokes += leads
            cases += [(case, 210), (ribbon(case, 0.02), 235)]
        elif name == "leads":
            cables, electrodes = _leads(rng, anatomy)
            strokes += cables
            cases += electrodes
        elif name == "venous line":
            strokes += _venous_line(rng)
        elif name == "gastric tube":
            strokes += _gastric_tube(rng, anatomy)
        elif name == "airway tube":
            strokes += _airway_tube(rng, anatomy)
        else:
            raise PhantomError(f"unknown device {name!r}: choose among {', '.join(DEVICES)}")
    layer = canvas.strokes(strokes) if strokes else canvas.zeros()
    return np.maximum(layer, canvas.polygons(cases)) if cases else layer
