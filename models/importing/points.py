"""Operating points of imported weights: given, kept beside the weights, published, or none that deserves the name.

The bundle reports the plain sigmoid of each logit. torchxrayvision by default bends it so that each operating point
comes to lie at 0.5 (``op_norm``); that is a display scale, on which 0.5 means another probability for each label and
calibration could not work. Here the sigmoid stays what it is and the operating point says where it is called.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

UNKNOWN_POINT = 0.5

XRAYVISION_PUBLISHED = (
    0.51570356, 0.50444704, 0.53787947, 0.50723547, 0.5025118, 0.5035252, 0.5038076, 0.51862943, 0.5078151, 0.50724894,
    0.5056339, 0.510706, 0.5053923, 0.5020846, math.nan, 0.5080557, 0.5138526, math.nan,
)  # fmt: skip
"""``op_threshs`` of torchxrayvision 1.5.7's ``resnet50-res512-all``, in the order of its outputs.

They were measured on a sigmoid that had been taken twice: the script that made them (``scripts/model_calibrate.py``)
opens the model with ``apply_sigmoid=True`` and applies the sigmoid again, so that all of them, and the library's 80 %
PPV points up to 0.7311 = sigmoid(1), lie between 0.5 and 0.7311. The library compares them with a sigmoid taken once,
where the same point is logit(t), 0.01 to 0.15: as published they would miss most of what they were chosen to find.
"""


@dataclass(frozen=True)
class Points:
    """An operating point for each label, where each comes from, and what must be said of them."""

    values: Mapping[str, float]
    sources: Mapping[str, str]
    remarks: tuple[str, ...]


def operating_points(
    labels: Sequence[str | None],
    *,
    given: Mapping[str, float],
    stored: Sequence[float],
    published: bool,
) -> Points:
    """Choose an operating point per known label; ``labels`` has one entry per output, None for those left out.

    ``given``: the user's, by label. ``stored``: those kept beside the weights, one per output, or none at all.
    ``published``: the weights are those whose points torchxrayvision publishes.
    """
    beside = list(stored) if len(stored) == len(labels) else []
    if beside and _is_published(beside):
        beside, published = [], True
    values: dict[str, float] = {}
    sources: dict[str, str] = {}
    for output, label in enumerate(labels):
        if label is None:
            continue
        table = on_one_sigmoid(XRAYVISION_PUBLISHED[output]) if published else math.nan
        candidates = (
            (given.get(label, math.nan), "given"),
            (beside[output] if beside else math.nan, "kept beside the weights"),
            (table, "torchxrayvision's, moved to a sigmoid taken once"),
        )
        for value, source in candidates:
            if math.isfinite(value) and 0 < value <= 1:
                values[label], sources[label] = value, source
                break
        else:
            values[label], sources[label] = UNKNOWN_POINT, "none"
    return Points(values, sources, tuple(_remarks(values, sources, given)))


def on_one_sigmoid(threshold: float) -> float:
    """A threshold on a sigmoid taken twice as one on a sigmoid taken once: its logit; NaN stays NaN."""
    return math.log(threshold / (1 - threshold)) if 0.5 < threshold < 1 else math.nan


def _is_published(points: Sequence[float]) -> bool:
    if len(points) != len(XRAYVISION_PUBLISHED):
        return False
    pairs = zip(points, XRAYVISION_PUBLISHED, strict=True)
    return all(math.isclose(a, b, abs_tol=1e-6) or (math.isnan(a) and math.isnan(b)) for a, b in pairs)


def _remarks(values: Mapping[str, float], sources: Mapping[str, str], given: Mapping[str, float]) -> list[str]:
    remarks = []
    nobody = [label for label, source in sources.items() if source == "none"]
    if nobody:
        remarks.append(
            f"No operating point is known for {_listed(nobody)}: {UNKNOWN_POINT} stands in its place and means "
            "nothing. Calibrate on the site's films before anyone looks at a result: firstread models calibrate."
        )
    if any("torchxrayvision" in source for source in sources.values()):
        remarks.append(
            "torchxrayvision publishes operating points on a sigmoid taken twice (all lie between 0.50 and 0.54) and "
            "compares them with one taken once, which would miss most findings; they were moved to the plain sigmoid "
            "that is reported here (0.01 to 0.15). Both stand in the provenance. They hold for the published weights "
            "alone: check them with firstread models calibrate."
        )
    unused = sorted(set(given) - set(values))
    if unused:
        remarks.append(f"An operating point was given for {_listed(unused)}, which these weights do not assess.")
    return remarks


def _listed(labels: Sequence[str]) -> str:
    return ", ".join(labels) if len(labels) <= 15 else f"{', '.join(labels[:15])}, ..."
