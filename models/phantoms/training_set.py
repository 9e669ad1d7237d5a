"""Phantoms by the thousand, for a trainer: pixels, label vectors and boxes, each by its own index."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from firstread.models.findings import LABELS
from firstread.models.phantoms.drawing import draw
from firstread.models.phantoms.spec import DRAWABLE, PhantomSpec, random_spec
from firstread.models.prediction import Box


@dataclass(frozen=True)
class TrainingPhantom:
    """``image``: uint8 [rows, columns], bone bright. ``target``: float32 [15] in the order of LABELS, 0 or 1."""

    image: NDArray[np.uint8]
    target: NDArray[np.float32]
    truth: Mapping[str, Box]
    spec: PhantomSpec


def training_spec(index: int, seed: int, size: tuple[int, int]) -> PhantomSpec:
    """The spec of phantom ``index`` of the set ``seed``; 35 % carry nothing, the others one to three findings."""
    rng = np.random.default_rng([seed, index])
    if rng.random() < 0.35:
        return random_spec(rng, (), size)
    count = int(rng.choice([1, 2, 3], p=[0.65, 0.27, 0.08]))
    labels = rng.choice(len(DRAWABLE), count, replace=False)
    return random_spec(rng, [DRAWABLE[int(label)] for label in sorted(labels)], size)


def training_phantom(index: int, seed: int, size: tuple[int, int] = (256, 256)) -> TrainingPhantom:
    """Phantom ``index`` of the set ``seed``; any process may draw any index, in any order."""
    phantom = draw(training_spec(index, seed, size))
    target = np.array([label in phantom.labels for label in LABELS], dtype=np.float32)
    pixels = (phantom.image * 255 + 0.5).astype(np.uint8)
    return TrainingPhantom(image=pixels, target=target, truth=phantom.truth, spec=phantom.spec)


def training_phantoms(
    count: int, seed: int, size: tuple[int, int] = (256, 256), *, start: int = 0, step: int = 1
) -> Iterator[TrainingPhantom]:
    """Phantoms ``start``, ``start + step`` ... below ``count``: worker w of n takes ``start=w, step=n``."""
    for index in range(start, count, step):
        yield training_phantom(index, seed, size)
