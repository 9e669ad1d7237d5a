"""The model's own gate: what the tags do not tell, from simple statistics of the upright image."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.ndimage import uniform_filter

from firstread.models.findings import ReasonCode
from firstread.models.likeness import own_likeness, traits
from firstread.models.prediction import Reason

Picture = npt.NDArray[np.float32]

_SIDE = 256
"""Pixels to which an image is brought before it is measured."""
_LONGEST = 1024
"""Of a larger image every second, third ... pixel is enough to measure it by."""


@dataclass(frozen=True)
class GateVerdict:
    """``reason``: why the model must not speak of this image as it is, None when it may.

    ``scores``: everything that was measured; ``likeness`` is the chest score, ``likeness_needed`` its threshold.
    ``negative``: the film is beyond doubt a chest film with black and white exchanged (then there is a reason, too).
    """

    reason: Reason | None
    scores: Mapping[str, float]
    negative: bool = False


@dataclass(frozen=True, eq=False)
class Admission:
    """What the gate makes of an image.

    ``pixels``: what is to be analysed and shown: the image itself, or put right where it came as a negative.
    ``verdict``: of ``pixels``; the model may speak of them when its ``reason`` is None.
    ``notes``: what was put right, in sentences for trail and report.
    """

    pixels: Picture
    verdict: GateVerdict
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Limit:
    """One measure and where it ends; the extremes over 808 real chest films stand behind each."""

    score: str
    above: float | None
    below: float | None
    sentence: str

    def broken(self, value: float) -> bool:
        return (self.above is not None and value > self.above) or (self.below is not None and value < self.below)

    def said(self, value: float) -> str:
        allowed = f"at most {self.above:g}" if self.above is not None else f"at least {self.below:g}"
        return f"{self.sentence} ({self.score.replace('_', ' ')} {value:.2g}, {allowed} is allowed)"


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

_INVERTED = "black and white are exchanged"
_TURNED: tuple[tuple[str, Callable[[Picture], Picture]], ...] = (
    ("the film stands upside down", lambda pixels: pixels[::-1]),
    ("the film lies on its side", np.rot90),
    ("the film lies on its side", lambda pixels: np.rot90(pixels, 3)),
    (_INVERTED, lambda pixels: np.float32(1) - pixels),
    ("the film stands upside down, and black and white are exchanged", lambda pixels: np.float32(1) - pixels[::-1]),
)
_PLAINLY_TURNED = 1.0
"""How far above the threshold a turned image must score before the turn is named as the cause."""


def admit(pixels: Picture) -> Admission:
    """Judge an image, and put it right where it is beyond doubt a negative: what is to be analysed, and what was done.

    ``pixels``: as for :func:`inspect`. Nothing else is put right: a film that was turned may have been mirrored, too,
    and then left and right would be wrong on every picture that is made of it.
    """
    verdict = inspect(pixels)
    if not verdict.negative:
        return Admission(pixels, verdict)
    positive = np.ascontiguousarray(np.float32(1) - np.nan_to_num(pixels), np.float32)
    scores = inspect(positive).scores
    note = (
        f"{_INVERTED}: put right before the analysis (score {verdict.scores['likeness']:.1f} as received, "
        f"{scores['likeness']:.1f} put right, {scores['likeness_needed']:.1f} needed)"
    )
    kept = dict(scores) | {"likeness_as_received": verdict.scores["likeness"]}
    return Admission(positive, GateVerdict(None, kept), (note,))


def inspect(pixels: Picture) -> GateVerdict:
    """Judge an image as it is: float32 [rows, columns] in [0, 1], upright, bone bright, any size.

    OUTSIDE_EXPERIENCE for what no film of a chest looks like (blank, noise, clipped, patterns, screenshots), for chests
    that are turned or inverted, and for what is not enough like a frontal chest film: another part, a side view, a part
    of a chest, and a few sick chests (``firstread.models.gate_training`` prints how many). Raises ``ValueError`` for
    another shape.
    """
    if pixels.ndim != 2 or min(pixels.shape) < 2 or max(pixels.shape) < 32:
        raise ValueError("the gate needs an image [rows, columns] whose longer side has at least 32 pixels")
    verdict, small = _within_limits(pixels)
    if verdict.reason is not None:
        return verdict
    likeness = own_likeness()
    own = _score(small)
    needed = likeness.threshold
    scores = dict(verdict.scores) | {"likeness": own, "likeness_needed": needed}
    if own >= needed:
        return GateVerdict(None, scores)
    best, cause = max((_score(turn(small)), sentence) for sentence, turn in _TURNED)
    said = f"(score {own:.1f}, {needed:.1f} needed"
    if best >= needed + _PLAINLY_TURNED:
        reason = Reason(ReasonCode.OUTSIDE_EXPERIENCE, f"{cause} {said}, {best:.1f} put right)")
        verdict = GateVerdict(reason, scores | {"likeness_put_right": best})
        return replace(verdict, negative=cause == _INVERTED and best >= likeness.certain)
    # Never "not a chest", which may be passed over when the rest of the study is summed up: it may be a sick one.
    return GateVerdict(Reason(ReasonCode.OUTSIDE_EXPERIENCE, f"unlike a frontal chest film {said})"), scores)


def broken_limit(pixels: Picture) -> Reason | None:
    """The simple limits alone, without the likeness: why this is no film of a chest, None when they allow it."""
    return _within_limits(pixels)[0].reason


def _within_limits(pixels: Picture) -> tuple[GateVerdict, Picture]:
    """What the limits say, and the image as it is looked at further: [256, 256]."""
    step = max(1, max(pixels.shape) // _LONGEST)
    pixels = np.ascontiguousarray(np.nan_to_num(pixels[::step, ::step]), np.float32)
    small = _boxed(pixels)
    scores = _measured(pixels, small)
    for limit in _LIMITS:
        value = scores[limit.score]
        if limit.broken(value):
            return GateVerdict(Reason(ReasonCode.OUTSIDE_EXPERIENCE, limit.said(value)), scores), small
    return GateVerdict(None, scores), small


def _score(pixels: Picture) -> float:
    return float(own_likeness()(traits(np.ascontiguousarray(pixels))[None])[0])


def _boxed(pixels: Picture) -> Picture:
    return np.asarray(Image.fromarray(pixels).resize((_SIDE, _SIDE), Image.Resampling.BOX), np.float32)


def _measured(pixels: Picture, small: Picture) -> dict[str, float]:
    rows, columns = pixels.shape
    step = max(1, max(rows, columns) // _SIDE)
    points = pixels[::step, ::step]
    greys = np.bincount(np.rint(points * 255).clip(0, 255).astype(np.uint8).ravel(), minlength=256) / points.size
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
