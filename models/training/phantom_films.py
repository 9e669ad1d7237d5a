"""Phantoms to learn from: drawn once and kept, and what is known of each."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from firstread.models.data.film import Film, FilmSet
from firstread.models.findings import LABELS, NO_FINDING
from firstread.models.prediction import Box
from firstread.models.training.checkpoint import write_whole

LOOK_ALIKES: Mapping[str, tuple[str, ...]] = {
    "Consolidation": ("Infiltration", "Atelectasis"),
    "Effusion": ("Pleural_Thickening", "Atelectasis", "Infiltration"),
    "Mass": ("Nodule",),
    "Nodule": ("Mass",),
}
"""What a drawn lesion could as well be called: unknown on that phantom, neither present nor absent."""

TEACHES: Mapping[str, str] = {"Consolidation": "Pneumonia"}
"""What a drawn lesion stands for besides itself: else every phantom would say that pneumonia is absent, and the label
would learn to tell phantoms from films."""


def draw_phantoms(count: int, seed: int, side: int, kept: Path | None = None) -> FilmSet:
    """Draw phantoms, each from its own number, so that ``count`` may grow without changing the first ones.

    What was not drawn is absent; what a drawn lesion could as well be called is unknown. ``kept``: a folder where they
    are kept, so that a second call reads them instead of drawing, until the drawing itself changes.
    """
    if count == 0:
        return FilmSet((), np.zeros((0, side, side), np.uint8))
    path = None if kept is None else kept / f"phantoms-{_drawing()}-{seed}-{count}-{side}.npz"
    if path is None or not path.is_file():
        pixels, target, corners = _drawn(count, seed, side)
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, lambda stream: np.savez(stream, pixels=pixels, target=target, corners=corners))
    else:
        with np.load(path, allow_pickle=False) as stored:
            pixels, target, corners = stored["pixels"], stored["target"], stored["corners"]
    films = (phantom_film(f"phantom-{seed}-{n}", target[n], corners[n]) for n in range(count))
    return FilmSet(tuple(films), pixels)


def phantom_film(key: str, target: npt.NDArray[np.float32], corners: npt.NDArray[np.float32]) -> Film:
    """What is known of a phantom. ``target``: [15] 0 or 1. ``corners``: [15, 4] left, top, right, bottom, or NaN."""
    lesions = [label for label, present in zip(LABELS, target, strict=True) if present and label != NO_FINDING]
    known = np.ones(len(LABELS), np.float32)
    target = target.copy()
    for label in lesions:
        if label in TEACHES:
            target[LABELS.index(TEACHES[label])] = 1
        for other in LOOK_ALIKES.get(label, ()):
            if other not in lesions:
                known[LABELS.index(other)] = 0
    places = {label: corners[LABELS.index(label)] for label in lesions}
    boxes = {label: Box(*map(float, place)) for label, place in places.items() if np.isfinite(place).all()}
    return Film(key=key, patient=key, target=target, known=known, phantom=True, boxes=boxes)


def _drawing() -> str:
    """A short hash of the code that draws."""
    from firstread.models import phantoms

    sources = sorted(Path(phantoms.__path__[0]).glob("*.py"))
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:12]


def _drawn(
    count: int, seed: int, side: int
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    from firstread.models.phantoms import training_phantoms

    pixels = np.zeros((count, side, side), np.uint8)
    target = np.zeros((count, len(LABELS)), np.float32)
    corners = np.full((count, len(LABELS), 4), np.nan, np.float32)
    for number, phantom in enumerate(training_phantoms(count, seed, (side, side))):
        pixels[number], target[number] = phantom.image, phantom.target
        for label, box in phantom.truth.items():
            corners[number, LABELS.index(label)] = (box.left, box.top, box.right, box.bottom)
    return pixels, target, corners
