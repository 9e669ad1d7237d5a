"""One person's measures and the outlines that follow from them, in thorax units (x right of the film, y down)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from firstread.models.phantoms.canvas import Points, smooth_outline
from firstread.models.phantoms.spec import PhantomSpec

Curve = list[tuple[float, float]]


@dataclass(frozen=True)
class Anatomy:
    """Measures of one chest. ``dome``: height of the diaphragm (right, left). ``side``: -1 is the image's left."""

    dome: tuple[float, float]
    angle_depth: float
    apex_x: float
    cage_taper: float
    heart_right: float
    heart_left: float
    heart_tilt: float
    knob: float
    mediastinum: float
    trachea_shift: float
    scoliosis: float
    rib_first: float
    rib_pitch: float
    rib_drop: float
    rib_width: float
    clavicle_y: float
    clavicle_slope: float
    scapula_in: float
    shoulder_y: float
    arm_out: float
    fat: float
    breast: float
    breast_y: float
    hilum_y: float
    gastric: tuple[float, float, float]

    @property
    def cardiothoracic_ratio(self) -> float:
        return (self.heart_right + self.heart_left) / 2.0

    def dome_of(self, side: float) -> float:
        return self.dome[0] if side < 0 else self.dome[1]

    @property
    def base(self) -> float:
        """Height of the costophrenic angles."""
        return max(self.dome) + self.angle_depth


def measure(spec: PhantomSpec) -> Anatomy:
    """The chest that a spec's seed, view, sex, age, habitus and inspiration give."""
    rng = np.random.default_rng([spec.body_seed, 1])
    portable = spec.view == "AP"
    female = spec.sex == "F"

    def around(mean: float, spread: float, low: float, high: float) -> float:
        return float(np.clip(rng.normal(mean, spread), low, high))

    depth = (1.16 if portable else 1.3) + 0.34 * spec.inspiration + around(0.0, 0.06, -0.12, 0.12)
    depth -= 0.08 * spec.habitus
    left_lower = around(0.07, 0.05, -0.04, 0.18)
    ratio = around(0.475 if portable else 0.445, 0.03, 0.37, 0.53 if portable else 0.505)
    enlarged = [lesion for lesion in spec.lesions if lesion.label == "Cardiomegaly"]
    if enlarged:
        wanted = max(lesion.size for lesion in enlarged)
        strength = max(lesion.strength for lesion in enlarged)
        ratio = max(0.56, ratio + (wanted - ratio) * (0.45 + 0.55 * strength))
    right_part = around(0.36, 0.025, 0.3, 0.42)
    spacing = (depth + 0.26) / around(8.9, 0.4, 8.0, 9.8)
    return Anatomy(
        dome=(depth, depth + left_lower),
        angle_depth=around(0.25, 0.05, 0.14, 0.36),
        apex_x=around(0.43, 0.03, 0.37, 0.5),
        cage_taper=around(0.0, 0.04, -0.08, 0.08),
        heart_right=2 * ratio * right_part,
        heart_left=2 * ratio * (1 - right_part),
        heart_tilt=around(0.0, 0.05, -0.1, 0.1) + (0.05 if portable else 0.0),
        knob=around(0.22 + 0.0011 * (spec.age - 40), 0.025, 0.16, 0.33),
        mediastinum=around(0.215, 0.025, 0.16, 0.28) + (0.04 if portable else 0.0),
        trachea_shift=around(-0.015, 0.02, -0.07, 0.03),
        scoliosis=around(0.0, 0.02 + 0.0003 * spec.age, -0.09, 0.09),
        rib_first=around(0.0, 0.025, -0.05, 0.05),
        rib_pitch=spacing,
        rib_drop=around(0.52 if portable else 0.44, 0.07, 0.3, 0.68),
        rib_width=around(0.088, 0.008, 0.072, 0.105),
        clavicle_y=around(0.1 if portable else 0.2, 0.06, -0.02, 0.32),
        clavicle_slope=around(0.26 if portable else 0.3, 0.07, 0.1, 0.45),
        scapula_in=around(0.84 if portable else 1.03, 0.06, 0.7, 1.15),
        shoulder_y=around(-0.02, 0.06, -0.14, 0.12),
        arm_out=around(1.5 if portable else 1.68, 0.08, 1.35, 1.85),
        fat=0.04 + 0.26 * spec.habitus + around(0.0, 0.02, -0.03, 0.03),
        breast=(around(0.5, 0.25, 0.1, 1.0) * (0.5 + spec.habitus)) if female else 0.0,
        breast_y=around(depth - 0.12, 0.1, 0.8, 1.6),
        hilum_y=around(0.66, 0.04, 0.56, 0.75),
        gastric=(around(0.42, 0.12, 0.2, 0.65), around(0.17, 0.06, 0.05, 0.3), around(0.5, 0.35, 0.0, 1.0)),
    )


def cage_curve(anatomy: Anatomy) -> tuple[list[float], list[float]]:
    """Inner chest wall: heights and distances from the midline."""
    base, taper = anatomy.base, anatomy.cage_taper
    y = [-0.02, 0.0, 0.04, 0.1, 0.2, 0.34, 0.52, 0.75, 1.0, base, base + 0.6]
    apex = anatomy.apex_x
    x = [
        apex + 0.1,
        apex + 0.13,
        apex + 0.2,
        apex + 0.26,
        0.76,
        0.84 + taper * 0.4,
        0.905 + taper * 0.3,
        0.955,
        0.985,
        1.0,
        0.98,
    ]
    return y, x


def lung_outline(anatomy: Anatomy, side: float) -> Points:
    """The pleural space of one side, down to the costophrenic angle; the mediastinum is drawn over its inner part."""
    dome, base, apex, taper = anatomy.dome_of(side), anatomy.base, anatomy.apex_x, anatomy.cage_taper
    right: Curve = [
        (apex, -0.03),
        (apex + 0.17, 0.02),
        (apex + 0.27, 0.11),
        (0.77, 0.22),
        (0.85 + taper * 0.4, 0.36),
        (0.91 + taper * 0.3, 0.55),
        (0.96, 0.8),
        (0.99, 1.08),
        (1.0, base - 0.12),
        (0.985, base - 0.01),
        (0.955, base - 0.035),
        (0.85, dome + 0.09),
        (0.7, dome + 0.015),
        (0.5, dome - 0.01),
        (0.3, dome + 0.03),
        (0.16, dome + 0.06),
        (0.04, dome + 0.04),
        (0.02, 0.9),
        (0.05, 0.4),
        (0.13, 0.14),
        (apex - 0.15, 0.01),
    ]
    outline = smooth_outline(right)
    outline[:, 0] *= side
    return outline


def heart_outline(anatomy: Anatomy) -> Points:
    """Heart, without the vessels above it."""
    right, left, dome = anatomy.heart_right, anatomy.heart_left, anatomy.dome
    top = min(dome) * 0.47
    low = anatomy.dome[1] + 0.05
    tilt = anatomy.heart_tilt
    return smooth_outline(
        [
            (-0.16, top - 0.1),
            (-right * 0.72, top + 0.1),
            (-right * 0.95, top + 0.32),
            (-right, top + 0.5),
            (-right * 0.86, dome[0] + 0.0),
            (-right * 0.3, dome[0] + 0.14),
            (left * 0.35, low + 0.1),
            (left * 0.82, low + 0.03),
            (left * 0.99, low - 0.13 - tilt),
            (left * 0.93, low - 0.3 - tilt),
            (left * 0.74, low - 0.5 - tilt * 0.6),
            (left * 0.58, top + 0.12),
            (max(left * 0.46, 0.23), top - 0.1),
        ]
    )


def mediastinum_outline(anatomy: Anatomy) -> Points:
    """Great vessels from the neck to the heart: superior vena cava, aortic arch, pulmonary trunk, descending aorta."""
    width, knob, arch = anatomy.mediastinum, anatomy.knob, 0.4
    low = max(anatomy.dome)
    return smooth_outline(
        [
            (-0.13, -0.35),
            (-0.15, 0.0),
            (-width * 0.95, 0.2),
            (-width * 1.08, 0.5),
            (-width * 1.12, 0.75),
            (-0.16, low + 0.1),
            (0.2, low + 0.15),
            (0.24, low - 0.3),
            (width + 0.1, 0.8),
            (width + 0.08, 0.64),
            (width + 0.02, 0.54),
            (knob + 0.03, arch + 0.05),
            (knob + 0.045, arch - 0.04),
            (knob - 0.01, arch - 0.12),
            (0.14, 0.16),
            (0.14, 0.0),
            (0.13, -0.35),
        ]
    )


def body_outline(anatomy: Anatomy) -> Points:
    """Neck, shoulders and trunk (without arms)."""
    fat, shoulder = anatomy.fat, anatomy.shoulder_y
    half: Curve = [
        (0.36 + fat * 0.35, -1.3),
        (0.36 + fat * 0.35, -0.62),
        (0.47 + fat * 0.4, -0.36 - fat * 0.2),
        (0.85, -0.2 + shoulder - fat * 0.2),
        (1.2, -0.1 + shoulder - fat * 0.15),
        (1.42, 0.06 + shoulder),
        (1.4, 0.35 + shoulder),
        (1.22 + fat * 0.5, 0.62),
        (1.1 + fat, 0.95),
        (1.08 + fat, 1.4),
        (1.05 + fat * 1.15, 1.9),
        (1.07 + fat * 1.2, 3.2),
    ]
    other = [(-x, y) for x, y in reversed(half)]
    return smooth_outline([*half, *other])


def arm_outline(anatomy: Anatomy, side: float) -> Points:
    """Upper arm, more or less away from the trunk."""
    out, shoulder, fat = anatomy.arm_out, anatomy.shoulder_y, anatomy.fat
    points: Curve = [
        (1.1, -0.1 + shoulder),
        (1.3, -0.05 + shoulder),
        (1.48, 0.1 + shoulder),
        (out + 0.08 + fat * 0.5, 0.75),
        (out + 0.2 + fat * 0.5, 1.5),
        (out + 0.22 + fat * 0.5, 2.4),
        (out - 0.2 - fat * 0.1, 2.4),
        (out - 0.2 - fat * 0.2, 1.4),
        (out - 0.24 - fat * 0.2, 0.85),
        (1.18, 0.5 + shoulder),
    ]
    outline = smooth_outline(points)
    outline[:, 0] *= side
    return outline


def clavicle(anatomy: Anatomy, side: float) -> tuple[Points, Points]:
    """Centre line and width of a clavicle."""
    y, slope = anatomy.clavicle_y, anatomy.clavicle_slope
    centre = smooth_outline(
        [(0.11, y + 0.02), (0.32, y - 0.02), (0.55, y - slope * 0.42), (0.85, y - slope * 0.85), (1.16, y - slope)],
        closed=False,
    )
    centre[:, 0] *= side
    width = np.interp(np.linspace(0, 1, len(centre)), [0, 0.12, 0.5, 0.85, 1], [0.14, 0.11, 0.085, 0.1, 0.12])
    return centre, width


def scapula_outline(anatomy: Anatomy, side: float) -> Points:
    """Blade of the scapula: medial border at ``scapula_in`` (over the lung in AP)."""
    inner, shoulder = anatomy.scapula_in, anatomy.shoulder_y
    outline = smooth_outline(
        [
            (inner + 0.02, 0.02 + shoulder),
            (inner + 0.16, -0.04 + shoulder),
            (inner + 0.32, 0.04 + shoulder),
            (inner + 0.34, 0.2 + shoulder),
            (inner + 0.22, 0.45 + shoulder),
            (inner + 0.1, 0.8 + shoulder),
            (inner + 0.03, 0.88 + shoulder),
            (inner - 0.03, 0.7 + shoulder),
            (inner - 0.05, 0.35 + shoulder),
        ]
    )
    outline[:, 0] *= side
    return outline


def rib(anatomy: Anatomy, number: int, side: float) -> tuple[Points, Points]:
    """Centre lines of the posterior and the anterior arc of rib ``number`` (1 to 11): a slanted half ellipse."""
    start_y = anatomy.rib_first + anatomy.rib_pitch * (number - 1)
    drop = anatomy.rib_drop * (0.62 + 0.055 * min(number, 8))
    heights, widths = cage_curve(anatomy)
    reach = float(np.interp(start_y + drop * 0.42, heights, widths)) + 0.005
    if number == 1:
        reach = anatomy.apex_x + 0.12
    front = 0.3 + 0.055 * number
    end = np.pi - np.arcsin(min(0.97, front / reach))
    angle = np.concatenate([np.linspace(0.06, np.pi / 2, 16), np.linspace(np.pi / 2, end, 14)[1:]])
    from_spine = 0.08
    back = angle <= np.pi / 2 + 1e-9
    x = np.where(back, from_spine + (reach - from_spine) * np.sin(angle) ** 0.92, reach * np.sin(angle))
    y = start_y + drop * (0.46 * (1 - np.cos(angle)) - 0.09 * np.sin(np.minimum(angle, np.pi / 2) * 2))
    line = np.stack([side * x, y], axis=1)
    return line[:17], line[15:]
