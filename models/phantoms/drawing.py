"""Draws a phantom from its spec."""

from __future__ import annotations

import numpy as np

from firstread.models.phantoms.anatomy import Anatomy, measure
from firstread.models.phantoms.chest import frontal_chest
from firstread.models.phantoms.exposure import Frame, collimate, expose, stamp
from firstread.models.phantoms.spec import Image, Phantom, PhantomSpec
from firstread.models.phantoms.views import VIEW_FRAMES, hand, lateral_chest


def _frame(anatomy: Anatomy, spec: PhantomSpec) -> Frame:
    """The film over the chest: apices and costophrenic angles on it, as a radiographer would place it."""
    rng = np.random.default_rng([spec.seed, 6])
    rows, columns = spec.size
    height = anatomy.base + float(rng.uniform(0.38, 0.75))
    width = max(2.3 + 0.25 * spec.habitus + float(rng.uniform(0.0, 0.45)), height * columns / rows)
    height = width * rows / columns
    slack = height - (anatomy.base + 0.3)
    top = -0.22 - float(rng.uniform(0.3, 0.7)) * slack
    x = float(rng.normal(0.0, 0.035))
    return Frame(x=x, y=top + height / 2, width=width, rotation_deg=spec.rotation_deg, size=spec.size)


def _view_frame(spec: PhantomSpec) -> Frame:
    x, y, width = VIEW_FRAMES[spec.view]
    rows, columns = spec.size
    return Frame(x, y, max(width, width * columns / rows * 0.98), spec.rotation_deg, spec.size)


def draw(spec: PhantomSpec) -> Phantom:
    """The phantom of a spec; the same spec gives the same pixels."""
    shown: dict[str, Image] = {}
    if spec.view in VIEW_FRAMES:
        frame = _view_frame(spec)
        canvas = frame.canvas()
        attenuation = lateral_chest(canvas, spec) if spec.view == "LATERAL" else hand(canvas, spec)
    else:
        anatomy = measure(spec)
        frame = _frame(anatomy, spec)
        canvas = frame.canvas()
        attenuation, shown = frontal_chest(canvas, anatomy, spec)
    image = expose(frame.to_film(attenuation, canvas), spec)
    image = stamp(collimate(image, spec), spec)
    boxes = {label: frame.box(layer, canvas) for label, layer in shown.items()}
    return Phantom(
        image=image,
        truth={label: box for label, box in boxes.items() if box is not None},
        labels=spec.labels,
        spec=spec,
    )
