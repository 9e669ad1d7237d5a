"""Synthetic chest radiographs for demos, tests, canaries and training: drawn, never of a person."""

from firstread.models.phantoms.drawing import draw
from firstread.models.phantoms.non_chest import NON_CHEST, draw_non_chest
from firstread.models.phantoms.spec import (
    DRAWABLE,
    Lesion,
    Phantom,
    PhantomError,
    PhantomSpec,
    random_lesion,
    random_spec,
)
from firstread.models.phantoms.training_set import TrainingPhantom, training_phantom, training_phantoms

__all__ = [
    "DRAWABLE",
    "NON_CHEST",
    "Lesion",
    "Phantom",
    "PhantomError",
    "PhantomSpec",
    "TrainingPhantom",
    "draw",
    "draw_non_chest",
    "random_lesion",
    "random_spec",
    "training_phantom",
    "training_phantoms",
]
