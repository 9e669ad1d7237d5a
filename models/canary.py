"""Canaries: films whose answers are known, run before the first patient, every hour and after a change of device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from firstread.models.bundle import Bundle
from firstread.models.metadata import Known
from firstread.models.preprocess import prepare

TOLERANCE = 1e-3
"""The largest difference from the expected probability: engines differ by rounding, never by more."""


@dataclass(frozen=True)
class CanaryResult:
    """``ok``: the engine may report. ``worst_difference``: in probability; ``detail``: a sentence for the log."""

    ok: bool
    worst_difference: float
    detail: str


class Answer(Protocol):
    """What comes back from an engine, as far as a canary looks."""

    @property
    def probabilities(self) -> npt.NDArray[np.float32]:
        """Calibrated probabilities [N, L]."""


class Runs(Protocol):
    """What a canary needs of an engine."""

    def run(self, batch: npt.NDArray[np.float32], metadata: Sequence[Known | None] | None = None) -> Answer:
        """The answer to squares [N, S, S], and what is known of each film besides."""


def canary_squares(bundle: Bundle) -> npt.NDArray[np.float32]:
    """The canaries, prepared as any film is: float32 [N, S, S]."""
    squares = []
    for canary in bundle.canaries:
        with Image.open(bundle.folder / canary.file) as stored:
            film = np.asarray(stored.convert("L"), dtype=np.float32) / np.float32(255)
        squares.append(prepare(film, bundle.preprocessing))
    return np.stack(squares)


def canary_metadata(bundle: Bundle) -> list[Known] | None:
    """What the network is told of each canary besides its pixels; None for bundles that take nothing."""
    return [canary.metadata for canary in bundle.canaries] if bundle.architecture.metadata else None


def check(engine: Runs, bundle: Bundle, tolerance: float = TOLERANCE) -> CanaryResult:
    """Run the bundle's canaries through an engine and compare with what it must answer."""
    found = engine.run(canary_squares(bundle), canary_metadata(bundle)).probabilities
    expected = np.array([[canary.expected[label] for label in bundle.labels] for canary in bundle.canaries])
    if found.shape != expected.shape:
        return CanaryResult(False, 1.0, f"the engine answers {found.shape}, the canaries need {expected.shape}")
    difference = np.abs(found.astype(np.float64) - expected)
    if not np.isfinite(difference).all():
        return CanaryResult(False, 1.0, "the engine's answer is no number: check the device")
    row, column = np.unravel_index(int(difference.argmax()), difference.shape)
    worst = float(difference[row, column])
    where = f"{bundle.labels[column]} of {bundle.canaries[row].file}"
    if worst > tolerance:
        said = f"{found[row, column]:.4f} instead of {expected[row, column]:.4f}"
        return CanaryResult(False, worst, f"{where}: {said}; results from this engine must not be reported")
    return CanaryResult(True, worst, f"{len(bundle.canaries)} canaries agree, worst difference {worst:.1e} ({where})")
