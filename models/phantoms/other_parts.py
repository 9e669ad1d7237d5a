"""Other parts of the body, and an animal's chest, drawn as a scanner would send them without a word in the header."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from firstread.models.phantoms.canvas import Canvas, Points, ribbon, smooth_outline
from firstread.models.phantoms.spec import Image

_TURN = np.linspace(0, 2 * np.pi, 40)
RING = np.stack([np.cos(_TURN), np.sin(_TURN)], axis=1)
"""A circle of radius 1 about the origin: [k, 2]."""

Random = np.random.Generator


def _at(outline: Points, x: float, y: float) -> Points:
    """The outline moved."""
    moved: Points = outline + np.array([x, y])
    return moved


def bowel_gas(
    canvas: Canvas, rng: Random, spots: int, middle: tuple[float, float], spread: tuple[float, float]
) -> Image:
    """Where gas lies, 0 to 1: round and oval bubbles about ``middle``."""
    gas = canvas.zeros()
    for _ in range(spots):
        x, y = rng.normal(middle, spread)
        long, short = rng.uniform(0.06, 0.2), rng.uniform(0.04, 0.1)
        if rng.random() < 0.5:
            long, short = short, long
        gas = np.maximum(gas, canvas.glow(float(x), float(y), float(long), float(short)))
    return gas


def _column(tops: np.ndarray, width: float, height: float, bend: float) -> list[tuple[Points, int]]:
    """Vertebral bodies seen from the front, with pedicles and spinous processes, along a bent line."""
    bones: list[tuple[Points, int]] = []
    for y in tops:
        x = bend * np.sin(y)
        body = smooth_outline(
            [
                (-width, -height * 0.46),
                (0.0, -height * 0.4),
                (width, -height * 0.46),
                (width * 0.9, 0.0),
                (width, height * 0.46),
                (0.0, height * 0.4),
                (-width, height * 0.46),
                (-width * 0.9, 0.0),
            ],
            steps=4,
        )
        wings = ribbon(np.array([(-width * 2.1, -0.02), (0.0, 0.0), (width * 2.1, -0.02)]), height * 0.22)
        bones += [(_at(wings, x, y), 110), (_at(body, x, y), 200), (_at(body * 0.86, x, y), 165)]
        bones += [(RING * (width * 0.2, height * 0.24) + (x + side * width * 0.55, y), 230) for side in (-1.0, 1.0)]
        bones.append((RING * (width * 0.13, height * 0.3) + (x, y + height * 0.15), 240))
    return bones


def spine(canvas: Canvas, rng: Random) -> Image:
    """A lumbar spine from the front, coned: vertebrae, the last ribs, sacrum, psoas, gas."""
    width, height = float(rng.uniform(0.26, 0.34)), float(rng.uniform(0.4, 0.5))
    bones = _column(np.arange(-2.2, 1.1, height), width, height * 0.84, float(rng.normal(0, 0.06)))
    bones.append((smooth_outline([(-0.45, 1.15), (0.45, 1.15), (0.3, 1.7), (0.0, 2.1), (-0.3, 1.7)]), 150))
    for side in (-1.0, 1.0):
        rib = smooth_outline([(0.25, -1.2), (0.7, -1.15), (1.3, -0.75)], closed=False)
        bones.append((ribbon(rib * (side, 1.0), 0.09), 110))
        wing = smooth_outline([(0.5, 1.15), (0.95, 0.75), (1.5, 0.8), (1.6, 2.2), (0.6, 2.2)])
        bones.append((wing * (side, 1.0), 130))
    psoas = canvas.polygons(
        [
            (smooth_outline([(side * 0.2, -1.0), (side * 0.45, -0.9), (side * 0.75, 1.2), (side * 0.3, 1.3)]), 255)
            for side in (-1.0, 1.0)
        ]
    )
    gas = bowel_gas(canvas, rng, int(rng.integers(3, 10)), (0.0, 0.2), (0.8, 0.7))
    flank = np.clip(1.15 - 0.28 * (canvas.x / float(rng.uniform(1.2, 1.8))) ** 4, 0, 1)
    film: Image = flank * (0.62 + 0.1 * psoas - 0.22 * gas) + 0.4 * canvas.blur(canvas.polygons(bones), 0.012)
    return film


def spine_from_the_side(canvas: Canvas, rng: Random) -> Image:
    """A lumbar spine from the side: a curved column in a soft trunk."""
    curve = float(rng.uniform(0.12, 0.3))
    bones: list[tuple[Points, int]] = []
    for y in np.arange(-2.0, 1.2, 0.44):
        x = curve * np.cos(y * 1.2) + 0.05
        body = smooth_outline([(-0.28, -0.17), (0.0, -0.15), (0.28, -0.17), (0.28, 0.17), (0.0, 0.15), (-0.28, 0.17)])
        process = ribbon(np.array([(0.3, 0.0), (0.52, 0.1), (0.72, 0.2)]), 0.14)
        bones += [(_at(process, x, y), 120), (_at(body, x, y), 220), (_at(body * 0.86, x, y), 175)]
    bones.append((smooth_outline([(-0.1, 1.3), (0.35, 1.2), (0.75, 1.7), (0.85, 2.4), (0.55, 2.4), (0.35, 1.9)]), 170))
    gas = bowel_gas(canvas, rng, int(rng.integers(2, 7)), (-0.8, 0.3), (0.3, 0.6))
    trunk = np.clip(1.2 - 0.3 * np.abs((canvas.x - 0.1) / float(rng.uniform(1.0, 1.4))) ** 3, 0, 1)
    film: Image = trunk * (0.66 - 0.2 * gas) + 0.36 * canvas.blur(canvas.polygons(bones), 0.015)
    return film


def abdomen(canvas: Canvas, rng: Random) -> Image:
    """A plain abdomen: spine, lowest ribs, iliac wings, much bowel gas, both domes perhaps at the rim."""
    bones = _column(np.arange(-1.5, 0.8, 0.34), 0.16, 0.28, float(rng.normal(0, 0.04)))
    bones.append((smooth_outline([(-0.26, 0.75), (0.26, 0.75), (0.15, 1.2), (0.0, 1.4), (-0.15, 1.2)]), 140))
    for side in (-1.0, 1.0):
        wing = smooth_outline([(0.25, 0.85), (0.5, 0.5), (0.95, 0.55), (1.05, 0.85), (0.7, 1.3), (0.45, 1.5)])
        bones.append((wing * (side, 1.0), 135))
        for start in (-1.25, -1.0, -0.78):
            rib = smooth_outline([(0.2, start), (0.75, start + 0.08), (1.12, start + 0.5)], closed=False)
            bones.append((ribbon(rib * (side, 1.0), 0.06), 90))
    gas = bowel_gas(canvas, rng, int(rng.integers(6, 22)), (0.0, 0.1), (0.6, 0.45))
    stomach = canvas.glow(float(rng.uniform(0.3, 0.6)), -0.75, 0.3, 0.15) * rng.uniform(0, 1)
    trunk = canvas.mask(smooth_outline([(-1.1, -2.0), (1.1, -2.0), (1.25, 0.0), (1.2, 2.0), (-1.2, 2.0), (-1.25, 0.0)]))
    liver = 0.06 * canvas.glow(-0.6, -0.75, 0.6, 0.45)
    film: Image = canvas.blur(trunk, 0.05) * (0.6 + liver - 0.3 * np.maximum(gas, stomach))
    return film + 0.32 * canvas.blur(canvas.polygons(bones), 0.012) * trunk


def _long_bone(points: list[tuple[float, float]], width: float, flare: float) -> Points:
    line = smooth_outline(points, closed=False)
    along = np.linspace(-1, 1, len(line))
    return ribbon(line, width * (1 + flare * np.abs(along) ** 5))


def _limb(canvas: Canvas, flesh: Points, bones: list[tuple[Points, int]], thickness: float) -> Image:
    """Soft tissue and bones with a bright cortex."""
    soft = canvas.blur(canvas.mask(flesh), 0.03)
    skeleton = canvas.polygons(bones)
    cortex = np.clip(skeleton - canvas.blur(skeleton, 0.03), 0, 1)
    film: Image = thickness * soft + 0.4 * canvas.blur(skeleton, 0.012) + 0.5 * cortex
    return film


def knee(canvas: Canvas, rng: Random) -> Image:
    """A knee from the front, or both on one film."""
    flexed = float(rng.normal(0, 0.06))
    flesh = smooth_outline([(-0.5, -2.2), (0.5, -2.2), (0.52, 0.0), (0.42, 2.2), (-0.42, 2.2), (-0.52, 0.0)])
    femur = smooth_outline(
        [
            (-0.2, -2.2),
            (-0.19, -0.8),
            (-0.44, -0.3),
            (-0.4, 0.0),
            (-0.06, -0.04),
            (0.0, -0.12),
            (0.06, -0.04),
            (0.4, 0.0),
            (0.44, -0.3),
            (0.19, -0.8),
            (0.2, -2.2),
        ]
    )
    tibia = smooth_outline(
        [
            (-0.42, 0.1),
            (0.0, 0.06),
            (0.42, 0.1),
            (0.4, 0.35),
            (0.17, 0.9),
            (0.16, 2.2),
            (-0.16, 2.2),
            (-0.2, 0.9),
            (-0.4, 0.35),
        ]
    )
    fibula = _long_bone([(0.44, 0.4), (0.38, 1.2), (0.36, 2.2)], 0.13, 0.5)
    patella = RING * (0.2, 0.22) + (flexed, -0.32)
    places = [(-0.75, -1.0), (0.75, 1.0)] if rng.random() < 0.5 else [(float(rng.normal(0, 0.1)), 1.0)]
    film = canvas.zeros()
    size = float(rng.uniform(0.9, 1.2)) * (1.0 if len(places) == 2 else 1.4)
    for x, side in places:
        bones = [(fibula, 150), (femur, 200), (tibia, 195), (patella, 225)]
        moved = [(_at(outline * (side * size, size), x, 0.0), grey) for outline, grey in bones]
        film = np.maximum(film, _limb(canvas, flesh * (side * size, size) + (x, 0.0), moved, 0.42))
    return film


def shoulder(canvas: Canvas, rng: Random) -> Image:
    """A shoulder from the front: humerus, blade, collar bone, a slice of ribs and lung."""
    side = float(rng.choice([-1.0, 1.0]))
    humerus = _long_bone([(0.45, -0.1), (0.62, 0.6), (0.72, 2.2)], 0.26, 0.2)
    head = RING * (0.3, 0.32) + (0.38, -0.2)
    blade = smooth_outline([(0.25, -0.3), (-0.15, -0.5), (-0.55, 0.2), (-0.45, 1.0), (-0.1, 0.6), (0.15, 0.1)])
    collar = ribbon(smooth_outline([(-1.5, -0.35), (-0.6, -0.62), (0.15, -0.6)], closed=False), 0.14)
    acromion = ribbon(smooth_outline([(-0.3, -0.45), (0.1, -0.65), (0.5, -0.6)], closed=False), 0.16)
    ribs = [
        (ribbon(smooth_outline([(-1.6, y), (-0.9, y - 0.1), (-0.5, y + 0.5)], closed=False), 0.1), 100)
        for y in np.arange(-0.1, 2.0, 0.34)
    ]
    bones = [*ribs, (blade, 150), (collar, 180), (humerus, 195), (head, 210), (acromion, 190)]
    flesh = smooth_outline(
        [(-1.8, -0.9), (-0.6, -1.0), (0.5, -0.95), (0.95, -0.4), (1.1, 0.6), (1.15, 2.3), (-1.8, 2.3)]
    )
    lung = canvas.blur(canvas.mask((RING * (0.8, 1.6) + (-1.3, 1.2)) * (side, 1.0)), 0.06)
    drawn = _limb(canvas, flesh * (side, 1.0), [(outline * (side, 1.0), grey) for outline, grey in bones], 0.5)
    film: Image = np.maximum(drawn - 0.3 * lung, 0)
    return film


def foot(canvas: Canvas, rng: Random) -> Image:
    """A foot from above, toes up."""
    spread = float(rng.uniform(0.85, 1.15))
    bones: list[tuple[Points, int]] = []
    for number, x in enumerate(np.linspace(-0.38, 0.36, 5)):
        girth = 0.2 if number == 0 else 0.12
        top = -1.0 + 0.13 * number
        start, knuckle = (x * 0.6, 0.55), (x * spread, top + 0.75)
        bones.append((_long_bone([start, knuckle], girth, 0.4), 190))
        steps = (0.0, 0.4) if number == 0 else (0.0, 0.28, 0.45)
        for step in steps:
            tip = (x * spread * 1.08, top + 0.7 - step)
            bones.append(
                (_long_bone([tip, (tip[0], tip[1] - 0.22 + 0.2 * (number > 0 and step > 0))], girth, 0.3), 195)
            )
    for x, y, long in (
        (-0.18, 0.68, 0.14),
        (0.0, 0.66, 0.13),
        (0.18, 0.7, 0.14),
        (-0.1, 0.95, 0.2),
        (0.14, 0.95, 0.18),
    ):
        bones.append((RING * (long, 0.13) + (x, y), 205))
    bones.append((RING * (0.2, 0.4) + (0.06, 1.4), 215))
    flesh = smooth_outline(
        [(-0.55, -1.15), (0.1, -1.2), (0.55, -0.6), (0.5, 0.6), (0.36, 1.9), (-0.3, 1.9), (-0.5, 0.4)]
    )
    size = float(rng.uniform(0.9, 1.2))
    moved = [(outline * size, grey) for outline, grey in bones]
    return _limb(canvas, flesh * size, moved, 0.4)


def teeth(canvas: Canvas, rng: Random) -> Image:
    """A panoramic film of the jaws: an arc of teeth in two rows, the jaw's angles, the spine's shadow."""
    smile = float(rng.uniform(0.12, 0.3))
    bones: list[tuple[Points, int]] = []
    jaw = smooth_outline(
        [(-1.25, -0.7), (-1.1, 0.1), (-0.6, 0.62), (0.0, 0.72), (0.6, 0.62), (1.1, 0.1), (1.25, -0.7)], closed=False
    )
    bones.append((ribbon(jaw, 0.42), 120))
    upper = smooth_outline([(-0.9, -0.35), (-0.4, -0.2), (0.0, -0.18), (0.4, -0.2), (0.9, -0.35)], closed=False)
    bones.append((ribbon(upper, 0.35), 110))
    for x in np.linspace(-0.85, 0.85, 16):
        wide = 0.035 + 0.03 * abs(x)
        sag = smile * (1 - (x / 0.9) ** 2)
        for up, length in ((-1.0, 0.17), (1.0, 0.16)):
            if rng.random() < 0.93:
                root = RING * (wide * 0.7, length) + (x, sag + up * 0.22)
                crown = RING * (wide, 0.09) + (x, sag + up * 0.09)
                filling = 255 if rng.random() < 0.15 else 225
                bones += [(root, 170), (crown, filling)]
    shade = 0.3 * np.exp(-((canvas.x / 0.2) ** 2)) + 0.35 * canvas.glow(0, 0.4, 1.4, 0.8)
    sinus = sum(canvas.glow(side * 0.45, -0.55, 0.3, 0.16) for side in (-1.0, 1.0))
    film: Image = 0.3 + shade - 0.15 * sinus + 0.5 * canvas.blur(canvas.polygons(bones), 0.008)
    return film


def tooth_film(canvas: Canvas, rng: Random) -> Image:
    """An intra-oral film: three or four teeth from close by."""
    up = float(rng.choice([-1.0, 1.0]))
    bones: list[tuple[Points, int]] = []
    count = int(rng.integers(3, 6))
    for x in np.linspace(-0.9, 0.9, count):
        wide = 0.8 / count
        crown = smooth_outline([(-wide, 0.0), (-wide * 0.9, -0.5), (0.0, -0.42), (wide * 0.9, -0.5), (wide, 0.0)])
        roots = [
            ribbon(np.array([(side * wide * 0.45, 0.0), (side * wide * 0.4, 0.9)]), wide * 0.6) for side in (-1, 1)
        ]
        pulp = _at(RING * (wide * 0.2, 0.2), x, 0.05)
        bones += [(_at(root, x, 0.0), 160) for root in roots]
        bones += [(_at(crown, x, 0.0), 220), (pulp, 120)]
    jaw = 0.3 * (1 / (1 + np.exp(-(canvas.y * up - 0.1) * 12)))
    drawn = canvas.polygons([(outline * (1.0, up), grey) for outline, grey in bones])
    film: Image = 0.12 + jaw + 0.06 * canvas.texture(rng, 0.06) * jaw + 0.6 * canvas.blur(drawn, 0.015)
    return film


def dog(canvas: Canvas, rng: Random) -> Image:
    """A dog's or cat's chest, lying on its side: a long wedge of lung, the spine above, the heart upright within."""
    length, depth = float(rng.uniform(1.3, 1.7)), float(rng.uniform(0.75, 1.0))
    facing = float(rng.choice([-1.0, 1.0]))
    trunk = smooth_outline([(-2.0, -0.75), (0.0, -0.9), (2.0, -0.8), (2.0, 0.7), (0.6, 1.05), (-0.7, 0.8), (-2.0, 0.1)])
    lung = smooth_outline(
        [(-0.8, -0.35), (0.0, -0.5), (length * 0.75, -0.45), (length * 0.55, 0.1), (0.1, depth * 0.62), (-0.6, 0.35)]
    )
    heart = smooth_outline([(-0.35, -0.15), (0.1, -0.2), (0.35, 0.2), (0.1, 0.6), (-0.2, 0.62), (-0.42, 0.25)])
    bones: list[tuple[Points, int]] = []
    for x in np.arange(-2.0, 2.1, 0.26):
        body = smooth_outline([(-0.11, -0.07), (0.11, -0.07), (0.11, 0.07), (-0.11, 0.07)])
        bones += [(_at(ribbon(np.array([(0.0, -0.05), (0.1, -0.32)]), 0.06), x, -0.6), 130), (_at(body, x, -0.6), 200)]
    for x in np.arange(-0.9, 1.2, 0.22):
        rib = smooth_outline([(x, -0.55), (x + 0.12, 0.1), (x - 0.1, 0.75)], closed=False)
        bones.append((ribbon(rib, 0.05), 75))
    legs = [(_long_bone([(-0.9, 0.2), (-1.2, 0.9), (-0.9, 2.0)], 0.18, 0.3), 170)]
    turn = (facing, 1.0)
    air = canvas.blur(canvas.mask(lung * turn), 0.04)
    blood = canvas.blur(canvas.mask(heart * turn), 0.05)
    skeleton = canvas.blur(canvas.polygons([(outline * turn, grey) for outline, grey in [*bones, *legs]]), 0.01)
    film: Image = 0.62 * canvas.blur(canvas.mask(trunk * turn), 0.04) - 0.38 * air * (1 - blood) + 0.3 * skeleton
    return np.maximum(film, 0).astype(np.float32)


def breast(canvas: Canvas, rng: Random) -> Image:
    """A breast against the film's edge."""
    side = float(rng.choice([-1.0, 1.0]))
    edge = canvas.left if side > 0 else canvas.left + canvas.columns / canvas.scale
    outline = canvas.disc(
        float(edge), float(rng.normal(0, 0.1)), float(rng.uniform(1.1, 1.7)), float(rng.uniform(1.0, 1.4))
    )
    inside = np.clip((1 - outline) * 6, 0, 1)
    tissue = canvas.blur(np.clip(canvas.texture(rng, 0.25) + canvas.texture(rng, 0.1), 0, 3).astype(np.float32), 0.04)
    film: Image = inside * (0.35 + 0.14 * tissue * np.clip(1 - outline, 0, 1))
    return film


BODY_PARTS: dict[str, Callable[[Canvas, Random], Image]] = {
    "spine": spine,
    "spine from the side": spine_from_the_side,
    "abdomen": abdomen,
    "knee": knee,
    "shoulder": shoulder,
    "foot": foot,
    "teeth": teeth,
    "tooth": tooth_film,
    "dog": dog,
    "breast": breast,
}
"""Kind to its attenuation on a canvas of about two by two units, centred."""
