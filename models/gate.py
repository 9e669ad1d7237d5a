"""The model's own gate: what the tags do not tell, from simple statistics of the upright image."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.ndimage import uniform_filter

from firstread.models.findings import ReasonCode
from firstread.models.likeness import own_likeness, thumbnail
from firstread.models.prediction import Reason

Picture = npt.NDArray[np.float32]

_SIDE = 256
"""Pixels to which an image is brought before it is measured."""


@dataclass(frozen=True)
class GateVerdict:
    """``reason``: why the model must not speak of this image, None when it may.

    ``scores``: everything that was measured; ``likeness`` is the chest score, ``likeness_needed`` its threshold.
    """

    reason: Reason | None
    scores: Mapping[str, float]


@dataclass(frozen=True)
class _Limit:
    """One measure and where it ends; the extremes over 808 real chest films stand behind each."""

    score: str
    above: float | None
    below: float | None
    sentence: str

    def broken(self, value: float) -> bool:
        return (self.above is not None and value > self.above) or (self.below is not None and value < self.below)


_LIMITS: tuple[_Limit, ...] = (
    _Limit("elongation", 2.0, None, "no chest film is that long and narrow"),
    _Limit("spread", None, 0.10, "the image is blank"),  # films: 0.50 and more
    _Limit("noise", 0.15, None, "the image is noise"),  # films: up to 0.06
    _Limit("clipped", 0.70, None, "nearly all of the image is plain black or white"),  # films: up to 0.45
    _Limit("white", 0.55, None, "most of the image is plain white"),  # films: up to 0.03
    _Limit("edges", 0.03, None, "sharp edges as of a test pattern or a screenshot"),  # films: up to 0.009
    _Limit("few_greys", 0.80, None, "a handful of greys as of a drawing or a screenshot"),  # films: up to 0.49
    _Limit("stripes", 0.95, None, "the same line over and over, as in a test pattern"),  # films: up to 0.88
)

_TURNED: tuple[tuple[str, Callable[[Picture], Picture]], ...] = (
    ("the film stands upside down", lambda pixels: pixels[::-1]),
    ("the film lies on its side", np.rot90),
    ("the film lies on its side", lambda pixels: np.rot90(pixels, 3)),
    ("black and white are exchanged", lambda pixels: np.float32(1) - pixels),
)
_PLAINLY_TURNED = 1.0
"""How far above the threshold a turned image must score before the turn is named as the cause."""


def inspect(pixels: Picture) -> GateVerdict:
    """Judge an image: float32 [rows, columns] in [0, 1], upright, bone bright, any size from 32 pixels.

    OUTSIDE_EXPERIENCE for what no film of a chest looks like (blank, noise, clipped, patterns, screenshots) and for
    chests that are turned or inverted; NOT_A_CHEST for what is no frontal chest film. A few sick chests are refused
    too (``firstread.models.gate_training`` prints how many). Raises ``ValueError`` for another shape.
    """
    if pixels.ndim != 2 or min(pixels.shape) < 32:
        raise ValueError("the gate needs an image [rows, columns] of at least 32 pixels a side")
    pixels = np.ascontiguousarray(np.nan_to_num(pixels), np.float32)
    scores = _measured(pixels)
    for limit in _LIMITS:
        if limit.broken(scores[limit.score]):
            return GateVerdict(Reason(ReasonCode.OUTSIDE_EXPERIENCE, limit.sentence), scores)
    likeness = own_likeness()
    small = _boxed(pixels)
    scores |= {"likeness": _score(small), "likeness_needed": likeness.threshold}
    if scores["likeness"] >= likeness.threshold:
        return GateVerdict(None, scores)
    best, cause = max((_score(turn(small)), sentence) for sentence, turn in _TURNED)
    if best >= likeness.threshold + _PLAINLY_TURNED:
        return GateVerdict(Reason(ReasonCode.OUTSIDE_EXPERIENCE, cause), scores | {"likeness_turned": best})
    detail = f"unlike a frontal chest film (score {scores['likeness']:.1f}, needed {likeness.threshold:.1f})"
    return GateVerdict(Reason(ReasonCode.NOT_A_CHEST, detail), scores)


def _score(pixels: Picture) -> float:
    return float(own_likeness()(thumbnail(np.ascontiguousarray(pixels))[None])[0])


def _boxed(pixels: Picture) -> Picture:
    return np.asarray(Image.fromarray(pixels).resize((_SIDE, _SIDE), Image.Resampling.BOX), np.float32)


def _measured(pixels: Picture) -> dict[str, float]:
    rows, columns = pixels.shape
    step = max(1, max(rows, columns) // _SIDE)
    points = pixels[::step, ::step]
    greys = np.bincount(np.rint(points * 255).clip(0, 255).astype(np.uint8).ravel(), minlength=256) / points.size
    small = _boxed(pixels)
    variance = max(float(small.var()), 1e-9)
    low, high = np.percentile(small, [1, 99])
    return {
        "elongation": max(rows, columns) / min(rows, columns),
        "spread": float(high - low),
        "noise": float(np.abs(small - uniform_filter(small, 3)).mean() / np.sqrt(variance)),
        "white": float(greys[255]),
        "clipped": float(greys[0] + greys[255]),
        "edges": float(max((np.abs(np.diff(small, axis=axis)) > 0.25).mean() for axis in (0, 1))),
        "few_greys": float(np.sort(greys)[-8:].sum()),
        "stripes": float(max(small.mean(axis=axis).var() for axis in (0, 1)) / variance),
    }
