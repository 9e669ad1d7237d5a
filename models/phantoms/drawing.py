"""Draws a phantom from its spec."""

from __future__ import annotations

import numpy as np

from firstread.models.phantoms.anatomy import Anatomy, measure
from firstread.models.phantoms.chest import frontal_chest
from firstread.models.phantoms.exposure import Frame, collimate, expose, stamp
from firstread.models.phantoms.spec import Phantom, PhantomSpec


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


def draw(spec: PhantomSpec) -> Phantom:
    """The phantom of a spec; the same spec gives the same pixels."""
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
