"""How well maps point: the pointing game, and boxes by IoU and IoBB as Wang et al. report them, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from firstread.models.evaluation.figures import Share, wilson
from firstread.models.explanation.cases import Case
from firstread.models.explanation.places import area, cell, grown, inside, iobb, iou, peak, spots
from firstread.models.prediction import Box
from firstread.models.saliency import localise

LIMITS = (0.1, 0.25, 0.5, 0.75, 0.9)
"""From which overlap a box counts as right: the values that Wang et al. (CVPR 2017, table 4) report."""

FEWEST = 10
"""With fewer cases a label gets counts and no figure."""

TOLERANCE_CELLS = 0.5
"""How far outside the box a peak may lie, in cells of the map: a map cannot say more than which cell."""

OVERLAPS: Mapping[str, Callable[[Box, Box], float]] = {"iou": iou, "iobb": iobb}
SERVICE, WANG = "service", "wang"


@dataclass(frozen=True)
class AtLimit:
    """Share of the cases in which some detected box overlaps the lesion by more than ``limit``.

    ``false_positives``: detected boxes per film that do not, on average.
    """

    limit: float
    accuracy: Share
    false_positives: float


@dataclass(frozen=True)
class Pointing:
    """``hits``: cases whose map is highest inside the lesion's box, grown by the tolerance; a map without evidence
    misses. ``when_called``: the same of the films on which the model calls the finding: there somebody sees the map.
    ``chance``: what pointing anywhere on the film would hit, ``centre``: what pointing at its middle would.
    """

    hits: Share
    when_called: Share
    chance: float
    centre: float


@dataclass(frozen=True)
class LabelExplanation:
    """One finding. ``reason``: why there is no figure, empty when there is. ``silent``: maps without any evidence.

    ``boxes``: way of making boxes (``service``: the one the service draws; ``wang``) to overlap (``iou``, ``iobb``) to
    one row per limit.
    """

    label: str
    experimental: bool
    cases: int
    silent: int
    reason: str
    pointing: Pointing | None = None
    boxes: Mapping[str, Mapping[str, tuple[AtLimit, ...]]] | None = None


def explain_label(
    label: str, experimental: bool, cases: Sequence[Case], tolerance_cells: float = TOLERANCE_CELLS
) -> LabelExplanation:
    """Every figure of one finding's cases (or of all findings' together)."""
    peaks = [peak(case.cam, case.placement) for case in cases]
    silent = sum(one is None for one in peaks)
    if len(cases) < FEWEST:
        few = f"too few: {len(cases)} films with a box, {FEWEST} are needed"
        return LabelExplanation(label, experimental, len(cases), silent, few)
    hits = [points_at(case, tolerance_cells) for case in cases]
    called = [hit for hit, case in zip(hits, cases, strict=True) if case.called]
    return LabelExplanation(
        label=label,
        experimental=experimental,
        cases=len(cases),
        silent=silent,
        reason="",
        pointing=Pointing(
            hits=wilson(sum(hits), len(hits)),
            when_called=wilson(sum(called), len(called)),
            chance=float(np.mean([_chance(case, tolerance_cells) for case in cases])),
            centre=float(np.mean([_centre(case, tolerance_cells) for case in cases])),
        ),
        boxes={
            SERVICE: _overlaps(cases, [_service_box(case) for case in cases]),
            WANG: _overlaps(cases, [spots(case.cam, case.placement) for case in cases]),
        },
    )


def points_at(case: Case, tolerance_cells: float = TOLERANCE_CELLS) -> bool:
    """Whether the map's peak lies in one of the true boxes, grown by the tolerance."""
    point = peak(case.cam, case.placement)
    return point is not None and any(inside(point, box) for box in _targets(case, tolerance_cells))


def _service_box(case: Case) -> list[Box]:
    return [localise(case.cam, case.placement)] if float(case.cam.max()) > 0 else []


def _overlaps(cases: Sequence[Case], detected: Sequence[Sequence[Box]]) -> Mapping[str, tuple[AtLimit, ...]]:
    found = {}
    for name, overlap in OVERLAPS.items():
        best = [
            [max(overlap(box, true) for true in case.boxes) for box in boxes]
            for case, boxes in zip(cases, detected, strict=True)
        ]
        found[name] = tuple(
            AtLimit(
                limit=limit,
                accuracy=wilson(sum(any(value > limit for value in row) for row in best), len(best)),
                false_positives=float(np.mean([sum(value <= limit for value in row) for row in best])),
            )
            for limit in LIMITS
        )
    return found


def _targets(case: Case, tolerance_cells: float) -> list[Box]:
    across, down = (side * tolerance_cells for side in cell(case.cam, case.placement))
    return [grown(box, across, down, case.placement) for box in case.boxes]


def _chance(case: Case, tolerance_cells: float) -> float:
    whole = case.placement.film_rows * case.placement.film_columns
    return min(1.0, sum(area(box) for box in _targets(case, tolerance_cells)) / whole)


def _centre(case: Case, tolerance_cells: float) -> bool:
    middle = (case.placement.film_columns / 2, case.placement.film_rows / 2)
    return any(inside(middle, box) for box in _targets(case, tolerance_cells))
