"""The model's own gate: what the tags do not tell, by simple statistics of the image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from firstread.models.findings import ReasonCode
from firstread.models.prediction import Reason


@dataclass(frozen=True)
class GateVerdict:
    """``reason``: why the model must not speak of this image, None when it may. ``scores``: what was measured."""

    reason: Reason | None
    scores: Mapping[str, float]


def inspect(pixels: npt.NDArray[np.float32]) -> GateVerdict:
    """Judge an upright, bone bright image, float32 [rows, columns] in [0, 1]."""
    spread = float(np.percentile(pixels, 95) - np.percentile(pixels, 5))
    scores = {"spread": spread}
    if spread < 0.05:
        return GateVerdict(Reason(ReasonCode.OUTSIDE_EXPERIENCE, "the image is blank"), scores)
    return GateVerdict(None, scores)
