"""A frontal chest as attenuation along the beam: soft tissue, air, vessels, bones, lesions and devices summed."""

from __future__ import annotations

import numpy as np

from firstread.models.phantoms import anatomy as body
from firstread.models.phantoms.anatomy import Anatomy
from firstread.models.phantoms.canvas import Canvas, Points, Stroke, ribbon, smooth_outline
from firstread.models.phantoms.devices import draw_devices
from firstread.models.phantoms.lesions import DRAW, Lungs
from firstread.models.phantoms.spec import Image, PhantomSpec
from firstread.models.phantoms.vessels import lung_vessels, twigs

AIR = 0.6
"""Attenuation that a full depth of lung takes away, on a usual film; the whole trunk is 1."""


def _streams(spec: PhantomSpec) -> list[np.random.Generator]:
    """One random stream per part, so that adding a lesion does not move a vessel."""
    seeds = (spec.body_seed, spec.seed, spec.seed, spec.seed)
    return [np.random.default_rng([seed, 2, part]) for part, seed in enumerate(seeds)]


def _lungs(canvas: Canvas, anatomy: Anatomy, rng: np.random.Generator) -> Lungs:
    space = np.maximum(canvas.mask(body.lung_outline(anatomy, -1.0)), canvas.mask(body.lung_outline(anatomy, 1.0)))
    wall = canvas.along_rows(*body.cage_curve(anatomy))
    across = np.minimum(np.abs(canvas.x) / wall, 1.0)
    depth = 0.32 + 0.68 * np.sqrt(1 - across**4)
    height = canvas.along_rows([-0.1, 0.0, 0.25, 0.6, 1.0, anatomy.base], [0.45, 0.6, 0.85, 1.0, 1.0, 0.85])
    edge = 0.55 * canvas.blur(space, 0.012) + 0.45 * np.clip(canvas.blur(space, 0.07) * 1.5 - 0.5, 0, 1)
    air = (depth * height * edge * space).astype(np.float32)
    for side in (-1.0, 1.0):  # lung behind the dome still shows through, fading downwards
        air *= 1 - 0.25 * canvas.glow(side * 0.5, anatomy.dome_of(side) + 0.05, 0.5, 0.12)
    strokes: list[Stroke] = []
    for side in (-1.0, 1.0):
        lift = 0.03 if side > 0 else -0.01
        hilum = (side * 0.24, anatomy.hilum_y - lift)
        strokes += lung_vessels(rng, side, hilum, anatomy.dome_of(side))
        strokes += twigs(rng, side, hilum, anatomy.dome_of(side), 220)
    strokes.sort(key=lambda stroke: stroke[4])
    vessels = canvas.strokes(strokes)
    vessels = 0.62 * canvas.blur(vessels, 0.006) + 0.4 * canvas.blur(vessels, 0.035)
    for side in (-1.0, 1.0):
        lift = 0.04 if side > 0 else 0.0
        vessels += np.float32(0.7) * canvas.glow(side * 0.29, anatomy.hilum_y - lift, 0.1, 0.15)
        vessels += np.float32(0.5) * canvas.glow(side * 0.32, anatomy.hilum_y + 0.2, 0.06, 0.19)
    reach = np.clip((1 - across) / 0.16, 0.0, 1.0)
    mottle = 0.045 * canvas.texture(rng, 0.05) + 0.05 * canvas.texture(rng, 0.022) + 0.03 * canvas.texture(rng, 0.25)
    return Lungs(
        space=space,
        air=air,
        vessels=(vessels * (0.25 + 0.75 * reach) + mottle * edge).astype(np.float32),
        opacity=canvas.zeros(),
    )


def _ribs(canvas: Canvas, anatomy: Anatomy) -> Image:
    posterior: list[tuple[Points, int]] = []
    anterior: list[tuple[Points, int]] = []
    for number in range(1, 12):
        for side in (-1.0, 1.0):
            back, front = body.rib(anatomy, number, side)
            wide = anatomy.rib_width * (1.0 if number > 1 else 1.25)
            posterior += [(ribbon(back, wide), 220), (ribbon(back - (0, 0.005), wide * 0.74), 125)]
            if number < 9:
                swell = np.linspace(1.0, 1.35, len(front))
                anterior += [(ribbon(front, wide * swell), 140), (ribbon(front, wide * 0.77 * swell), 80)]
    return canvas.polygons(posterior) + canvas.polygons(anterior)


def _shoulders(canvas: Canvas, anatomy: Anatomy) -> Image:
    """Clavicles, scapulae and humeri."""
    clavicles: list[tuple[Points, int]] = []
    blades: list[tuple[Points, int]] = []
    arms: list[tuple[Points, int]] = []
    for side in (-1.0, 1.0):
        centre, width = body.clavicle(anatomy, side)
        clavicles += [(ribbon(centre, width), 210), (ribbon(centre, width * 0.68), 160)]
        outline = body.scapula_outline(anatomy, side)
        inner = outline.mean(axis=0) + (outline - outline.mean(axis=0)) * (0.84, 0.93)
        blades += [(outline, 120), (inner, 62)]
        x, y = 1.36, 0.12 + anatomy.shoulder_y
        turn = np.linspace(0, 2 * np.pi, 40)
        head = np.stack([side * (x + 0.15 * np.cos(turn)), y + 0.16 * np.sin(turn)], axis=1)
        out = anatomy.arm_out
        shaft = smooth_outline([(x + 0.02, y), (out - 0.05, 0.8), (out, 1.6), (out + 0.02, 2.4)], closed=False)
        shaft[:, 0] *= side
        arms += [(ribbon(shaft, 0.19), 200), (ribbon(shaft, 0.11), 140), (head, 190)]
        neck = smooth_outline([(1.1, -0.04), (1.22, -0.11), (1.32, -0.06)], closed=False)
        neck = np.add(neck, (0.0, anatomy.shoulder_y)) * (side, 1.0)
        blades.append((ribbon(neck, 0.09), 130))
    return 1.25 * canvas.polygons(clavicles) + canvas.polygons(blades) + canvas.polygons(arms)


def _spine(canvas: Canvas, anatomy: Anatomy) -> Image:
    """Vertebral bodies, discs between them, pedicles and spinous processes."""
    parts: list[tuple[Points, int]] = []
    turn = np.linspace(0, 2 * np.pi, 16)
    oval = np.stack([np.cos(turn), np.sin(turn)], axis=1)
    pitch = anatomy.rib_pitch * 1.02
    square: list[tuple[float, float]] = [(-1, -1), (-0.9, 0), (-1, 1), (0, 1.05), (1, 1), (0.9, 0), (1, -1), (0, -1.05)]
    vertebra = smooth_outline(square, steps=3)
    for number in range(-6, 18):
        y = anatomy.rib_first + pitch * number
        x = anatomy.scoliosis * np.sin(y * 1.7)
        wide = float(np.interp(y, [-1.0, 0.0, 2.0], [0.115, 0.125, 0.175]))
        parts.append((vertebra * (wide, pitch * 0.42) + (x, y), 190))
        for side in (-1.0, 1.0):
            parts.append((oval * (0.022, 0.035) + (x + side * wide * 0.62, y - pitch * 0.1), 235))
        parts.append((oval * (0.02, 0.05) + (x, y + pitch * 0.22), 230))
    column = np.stack([anatomy.scoliosis * np.sin(np.linspace(-1, 3, 40) * 1.7), np.linspace(-1, 3, 40)], axis=1)
    return 0.45 * canvas.mask(ribbon(column, 0.25)) + 0.55 * canvas.polygons(parts)


def _airways(canvas: Canvas, anatomy: Anatomy) -> Image:
    """Trachea and main bronchi: how much of the mediastinum is air."""
    x = anatomy.trachea_shift
    carina = anatomy.hilum_y - 0.12
    trachea = smooth_outline([(0.0, -1.0), (0.0, -0.3), (x, 0.1), (x, carina)], closed=False)
    right = smooth_outline([(x, carina - 0.03), (x - 0.1, carina + 0.1), (x - 0.22, carina + 0.24)], closed=False)
    left = smooth_outline([(x, carina - 0.03), (x + 0.13, carina + 0.09), (x + 0.27, carina + 0.18)], closed=False)
    bands = [(ribbon(right, 0.07), 190), (ribbon(left, 0.06), 170), (ribbon(trachea, 0.115), 255)]
    return canvas.blur(canvas.polygons(bands), 0.016)


def _trunk(canvas: Canvas, anatomy: Anatomy) -> Image:
    trunk = canvas.mask(body.body_outline(anatomy))
    thick = 0.28 * canvas.blur(trunk, 0.035) + 0.72 * np.clip(canvas.blur(trunk, 0.22) * 2 - 1, 0, 1) ** 0.7
    arms = np.maximum(canvas.mask(body.arm_outline(anatomy, -1.0)), canvas.mask(body.arm_outline(anatomy, 1.0)))
    arm = 0.18 * canvas.blur(arms, 0.03) + 0.3 * np.clip(canvas.blur(arms, 0.12) * 1.6 - 0.6, 0, 1)
    height = canvas.along_rows([-1.0, -0.5, -0.1, 0.3, 1.0, 2.9], [0.62, 0.62, 0.72, 0.9, 1.0, 1.04])
    arm = arm * arms
    together: Image = (np.maximum(thick * trunk * height, arm) + 0.25 * np.minimum(arm, trunk)).astype(np.float32)
    return together


def _breasts(canvas: Canvas, anatomy: Anatomy) -> Image:
    layer = canvas.zeros()
    for side in (-1.0, 1.0):
        x, y = side * (0.62 + 0.1 * anatomy.breast), anatomy.breast_y - 0.1
        radius = 0.34 + 0.14 * anatomy.breast
        inside = np.clip(1 - canvas.disc(x, y, radius, radius * 1.15), 0, 1)
        lower = np.clip((canvas.y - y) / radius + 0.9, 0, 1)
        layer += (np.sqrt(inside) * lower * (0.05 + 0.11 * anatomy.breast)).astype(np.float32)
    return layer


def _belly_gas(canvas: Canvas, anatomy: Anatomy, rng: np.random.Generator) -> Image:
    """Gastric bubble under the left dome and some bowel gas."""
    x, size, amount = anatomy.gastric
    y = anatomy.dome[1] + 0.13 + size * 0.45
    ragged = 1.05 + 0.12 * canvas.texture(rng, 0.15) - canvas.disc(x, y, size, size * 0.6)
    under = np.clip((canvas.y - anatomy.dome[1] - 0.05) / 0.04, 0, 1)
    bubble = np.clip(ragged, 0, 1) * under * amount
    for _ in range(3):
        gx, gy = 0.3 + float(rng.normal(0, 0.35)), anatomy.base + float(rng.uniform(0.15, 0.6))
        ball = np.clip(1 - canvas.disc(gx, gy, float(rng.uniform(0.05, 0.15)), float(rng.uniform(0.04, 0.09))), 0, 1)
        bubble = np.maximum(bubble, ball * float(rng.uniform(0.0, 0.7)))
    return canvas.blur(bubble.astype(np.float32), 0.02)


def frontal_chest(canvas: Canvas, anatomy: Anatomy, spec: PhantomSpec) -> tuple[Image, dict[str, Image]]:
    """Attenuation [rows, columns] (air 0, trunk about 1) and, per label, where its lesions show (0 to 1)."""
    lung_rng, belly_rng, device_rng, tissue_rng = _streams(spec)
    lungs = _lungs(canvas, anatomy, lung_rng)
    shown: dict[str, Image] = {}
    for number, lesion in enumerate(spec.lesions):
        rng = np.random.default_rng([spec.seed, 3, number])
        where = DRAW[lesion.label](canvas, anatomy, lesion, rng, lungs)
        shown[lesion.label] = np.maximum(shown.get(lesion.label, np.float32(0.0)), where)
    trunk = _trunk(canvas, anatomy)
    planes = tissue_rng.normal(0.0, 1.0)
    spine_shade = tissue_rng.uniform(0.05, 0.13)
    trunk *= 1 + 0.02 * canvas.texture(tissue_rng, 0.35) + 0.012 * canvas.texture(tissue_rng, 0.12)
    inside = np.clip(trunk * 3, 0, 1)
    heart_mask = canvas.mask(body.heart_outline(anatomy))
    vessels_mask = canvas.mask(body.mediastinum_outline(anatomy))
    heart = 0.5 * canvas.blur(heart_mask, 0.012) + 0.5 * canvas.blur(heart_mask, 0.12) * heart_mask
    great = 0.55 * canvas.blur(vessels_mask, 0.012) + 0.45 * canvas.blur(vessels_mask, 0.07) * vessels_mask
    central = 1 - (1 - 0.82 * heart) * (1 - 0.86 * great)
    air = lungs.air * (1 - central)
    lung = air - np.minimum(lungs.opacity, 1.05 * lungs.air) * (1 - 0.75 * central) - 0.3 * lungs.vessels * air
    gas = 0.28 * _belly_gas(canvas, anatomy, belly_rng) * np.clip(1 - lungs.space, 0, 1)
    airway = 0.17 * _airways(canvas, anatomy) * (canvas.y < anatomy.hilum_y + 0.2)
    # scatter and beam hardening: bone stands out over air, and hardly over the abdomen
    clear = 0.4 + 0.6 * np.clip(lungs.air * (1 - 0.6 * central) * 1.6, 0, 1)
    bones = 0.13 * _ribs(canvas, anatomy) * clear + 0.15 * _shoulders(canvas, anatomy)
    bones = canvas.blur((bones + spine_shade * _spine(canvas, anatomy)).astype(np.float32), 0.008)
    soft = trunk - (AIR + 0.035 * planes) * lung - gas - airway
    if anatomy.breast:
        soft = soft + _breasts(canvas, anatomy) * inside
    total = np.maximum(soft, 0.02 * inside) + bones * np.clip(inside + 0.1, 0, 1)
    total = total.astype(np.float32) + np.float32(0.35) * draw_devices(canvas, anatomy, spec.devices, device_rng)
    # processing evens out the broad differences and leaves the fine ones
    evened = np.float32(tissue_rng.uniform(0.0, 0.4))
    total = np.maximum(total - evened * (canvas.blur(total, 0.25) - np.float32(0.62)) * inside, 0)
    return total.astype(np.float32), shown
