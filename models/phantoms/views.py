"""What a chest model must not read, drawn as a scanner would send it: the lateral view and the hand."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from firstread.models.phantoms.canvas import Canvas, Points, Stroke, ribbon, smooth_outline
from firstread.models.phantoms.spec import Image, PhantomSpec
from firstread.models.phantoms.vessels import branches

Curve = list[tuple[float, float]]

VIEW_FRAMES: dict[str, tuple[float, float, float]] = {"LATERAL": (0.0, 0.72, 2.05), "HAND": (-0.05, 0.72, 2.1)}
"""View to the film's centre (x, y) and width in canvas units."""


def _vertebrae(canvas: Canvas, spine: Points) -> Image:
    """A column of vertebral bodies with end plates, seen from the side."""
    square = smooth_outline([(-0.1, -0.07), (0, -0.06), (0.1, -0.075), (0.1, 0.065), (0, 0.06), (-0.1, 0.07)], steps=4)
    process = ribbon(np.array([(0.12, 0.0), (0.25, 0.12)]), 0.05)
    parts: list[tuple[Points, int]] = []
    for at in np.linspace(0, len(spine) - 1, 20):
        middle = spine[int(at)]
        parts += [(process + middle, 90), (square + middle, 255), (square * 0.84 + middle, 180)]
    return canvas.polygons(parts)


def _side_ribs(canvas: Canvas, depth: float) -> Image:
    """Ribs of both sides, running down and forwards."""
    bands: list[tuple[Points, int]] = []
    for number in range(10):
        y = -0.05 + number * (depth + 0.1) / 9.5
        way: Curve = [(0.58, y), (0.7, y + 0.08), (0.45, y + 0.3), (-0.1, y + 0.52), (-0.6, y + 0.62)]
        for shift in (0.0, 0.045):
            arc = smooth_outline([(x, down + shift) for x, down in way], closed=False)
            bands += [(ribbon(arc, 0.06), 150), (ribbon(arc, 0.04), 95)]
    return canvas.polygons(bands)


def lateral_chest(canvas: Canvas, spec: PhantomSpec) -> Image:
    """Attenuation of a chest from the left side, the sternum on the image's left."""
    rng = np.random.default_rng([spec.seed, 7])
    depth = 1.3 + 0.25 * spec.inspiration
    fat = 0.05 + 0.16 * spec.habitus
    front: Curve = [(-0.32, -0.6), (-0.5, -0.2), (-0.66 - fat, 0.25), (-0.76 - fat, 0.8), (-0.78 - fat, 1.4)]
    back: Curve = [(0.8 + fat, 1.7), (0.8 + fat, 1.0), (0.84 + fat, 0.5), (0.78 + fat, 0.05), (0.6, -0.3), (0.5, -0.6)]
    trunk = canvas.mask(
        smooth_outline([(-0.3, -1.1), *front, (-0.8 - fat, 2.6), (0.8 + fat, 2.6), *back, (0.48, -1.1)])
    )
    sternal: Curve = [(0.1, -0.03), (-0.22, 0.12), (-0.48, 0.42), (-0.62, 0.85), (-0.64, depth - 0.04)]
    domes: Curve = [
        (-0.45, depth - 0.12),
        (-0.1, depth - 0.13),
        (0.25, depth),
        (0.55, depth + 0.25),
        (0.66, depth + 0.28),
    ]
    dorsal: Curve = [(0.71, 1.1), (0.72, 0.6), (0.64, 0.25), (0.4, 0.02)]
    lung = canvas.mask(smooth_outline([*sternal, *domes, *dorsal]))
    other = canvas.mask(smooth_outline([*sternal, *[(x, y + 0.07) for x, y in domes], *dorsal]))
    air = 0.5 * lung + 0.5 * other
    air = air * (0.35 + 0.65 * np.clip(canvas.blur(air, 0.1) * 1.7 - 0.7, 0, 1))
    heart = smooth_outline(
        [
            (-0.36, depth - 0.66),
            (-0.52, depth - 0.36),
            (-0.55, depth),
            (-0.1, depth),
            (0.12, depth - 0.3),
            (0.0, depth - 0.62),
        ]
    )
    aorta: Curve = [(-0.24, 0.85), (-0.2, 0.5), (0.05, 0.34), (0.27, 0.47), (0.33, 0.9), (0.35, 1.7)]
    central = 0.6 * canvas.blur(canvas.mask(heart), 0.05)
    central += 0.22 * canvas.blur(canvas.mask(ribbon(smooth_outline(aorta, closed=False), 0.18)), 0.04)
    central += 0.3 * canvas.glow(-0.02, 0.68, 0.13, 0.15) + 0.16 * canvas.glow(0.0, 0.2, 0.5, 0.25)
    strokes: list[Stroke] = []
    for turn in (-1.9, -1.0, -0.2, 0.5, 1.2, 1.9, 2.6, 3.4):
        strokes += branches(rng, (0.0, 0.68), turn, 0.024, length=0.36, levels=3)
    vessels = canvas.blur(canvas.strokes(strokes), 0.01)
    trachea = ribbon(smooth_outline([(0.04, -0.9), (0.06, 0.0), (0.04, 0.6)], closed=False), 0.1)
    airway = canvas.blur(canvas.mask(trachea), 0.02)
    column: Curve = [(0.16, -0.95), (0.24, -0.4), (0.42, 0.1), (0.53, 0.6), (0.52, 1.1), (0.42, 1.7), (0.36, 2.5)]
    spine = smooth_outline(column, closed=False)
    sternum = smooth_outline([(-0.36, 0.1), (-0.55, 0.42), (-0.69, 0.85), (-0.72, 1.1)], closed=False)
    bones = 0.17 * _vertebrae(canvas, spine) + 0.07 * _side_ribs(canvas, depth)
    bones = canvas.blur((bones + 0.08 * canvas.mask(ribbon(sternum, 0.07))).astype(np.float32), 0.012)
    arms = 0.28 * canvas.glow(-0.1, -0.35, 0.55, 0.3)  # raised before and over the head
    thick = canvas.blur(trunk, 0.03) * (0.35 + 0.65 * canvas.blur(trunk, 0.14))
    shown = air * (1 - np.clip(central, 0, 1)) * (1 - 0.2 * vessels)
    total = thick * (1 + 0.02 * canvas.texture(rng, 0.2)) - 0.64 * shown + bones * trunk + arms * trunk - 0.13 * airway
    film: Image = np.maximum(total, 0).astype(np.float32)
    return film


def _finger(
    base: tuple[float, float], tip: tuple[float, float], width: float, bones: int
) -> tuple[Points, list[Points]]:
    """Skin and bones of a finger from the wrist's side to the tip."""
    start, end = np.array(base), np.array(tip)
    girth = np.interp(np.linspace(0, 1, 14), [0, 0.85, 0.95, 1], [width * 1.2, width, width * 0.8, width * 0.35])
    skin = ribbon(np.linspace(start, end, 14), girth)
    cuts = {4: (0.0, 0.42, 0.68, 0.86, 0.98), 3: (0.0, 0.42, 0.74, 0.97)}[bones]
    shafts = []
    for low, high in pairwise(cuts):
        t = np.linspace(low + 0.012, high - 0.012, 9)[:, None]
        waist = np.array([0.8, 0.9, 0.66, 0.52, 0.48, 0.5, 0.6, 0.82, 0.7]) * width * 0.56
        shafts.append(ribbon(start + (end - start) * t, waist))
    return skin, shafts


def hand(canvas: Canvas, spec: PhantomSpec) -> Image:
    """Attenuation of a hand laid flat, fingers up."""
    rng = np.random.default_rng([spec.seed, 8])
    spread = float(rng.uniform(0.8, 1.2))
    skins: list[Points] = []
    shafts: list[Points] = []
    for base, tip, width, bones in (
        ((-0.24, 1.15), (-0.52 * spread, -0.02), 0.19, 4),
        ((-0.09, 1.12), (-0.17 * spread, -0.2), 0.2, 4),
        ((0.05, 1.13), (0.16 * spread, -0.12), 0.19, 4),
        ((0.18, 1.17), (0.48 * spread, 0.14), 0.165, 4),
        ((-0.27, 1.26), (-0.85 * spread, 0.62), 0.2, 3),
    ):
        skin, pieces = _finger(base, tip, width, bones)
        skins.append(skin)
        shafts += pieces
    right_edge: Curve = [(0.0, 0.45), (0.36, 0.62), (0.4, 1.0), (0.3, 1.35), (0.3, 2.6)]
    palm = smooth_outline([*right_edge, (-0.34, 2.6), (-0.33, 1.4), (-0.52, 1.05), (-0.42, 0.55)])
    turn = np.linspace(0, 2 * np.pi, 20)
    oval = np.stack([np.cos(turn), np.sin(turn)], axis=1)
    carpals = [oval * (0.07, 0.062) + (x, y) for y in (1.24, 1.37) for x in (-0.21, -0.07, 0.06, 0.19)]
    carpals = [carpal + 0.012 * rng.standard_normal(2) for carpal in carpals]
    radius = ribbon(np.array([(-0.13, 1.47), (-0.13, 1.6), (-0.12, 2.6)]), np.array([0.3, 0.22, 0.15]))
    ulna = ribbon(np.array([(0.17, 1.5), (0.17, 1.62), (0.16, 2.6)]), np.array([0.16, 0.13, 0.12]))
    flesh = canvas.polygons([(outline, 255) for outline in (*skins, palm)])
    bone = canvas.polygons([(outline, 255) for outline in (*shafts, *carpals, radius, ulna)])
    cortex = np.clip(bone - canvas.blur(bone, 0.02), 0, 1)
    thick = canvas.blur(flesh, 0.012) * (0.25 + 0.22 * canvas.blur(flesh, 0.12))
    total = thick + canvas.blur(bone, 0.01) * 0.36 + 0.5 * cortex + 0.02 * canvas.texture(rng, 0.03) * bone
    film: Image = np.maximum(total, 0).astype(np.float32)
    return film
