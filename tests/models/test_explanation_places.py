"""Overlaps, peaks and spots of maps, by hand-computed cases; and what the figures make of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from firstread.models.explanation.cases import Case
from firstread.models.explanation.measure import LIMITS, explain_label, points_at
from firstread.models.explanation.places import area, cell, grown, inside, iobb, iou, peak, shared, spots
from firstread.models.prediction import Box
from firstread.models.preprocess import Placement
from firstread.models.saliency import localise

WHOLE = Placement(film_rows=200, film_columns=100, left=0, top=0, right=100, bottom=200, size=80)
"""A film of 100 x 200 pixels that fills the square."""


def spot(row: int, column: int, cells: int = 8, height: float = 1.0) -> np.ndarray:
    cam = np.zeros((cells, cells), np.float32)
    cam[row, column] = height
    return cam


def case(cam: np.ndarray, *boxes: Box, called: bool = True) -> Case:
    return Case("film", 2, "Mass", boxes, cam, WHOLE, 0.7, called)


def test_overlaps_by_hand() -> None:
    true = Box(0, 0, 10, 10)
    shifted = Box(5, 0, 15, 10)
    assert shared(true, shifted) == 50
    assert iou(shifted, true) == pytest.approx(50 / 150)
    assert iobb(shifted, true) == pytest.approx(0.5)
    small = Box(2, 2, 4, 4)
    assert iou(small, true) == pytest.approx(0.04)
    assert iobb(small, true) == 1.0
    assert iobb(true, small) == pytest.approx(0.04)
    assert iou(Box(20, 20, 30, 30), true) == iobb(Box(20, 20, 30, 30), true) == 0
    assert iou(true, true) == iobb(true, true) == 1


def test_boxes_that_touch_share_nothing_and_boxes_without_area_are_no_error() -> None:
    assert shared(Box(0, 0, 10, 10), Box(10, 0, 20, 10)) == 0
    flat = Box(5, 5, 5, 9)
    assert area(flat) == 0
    assert iou(flat, flat) == iobb(flat, Box(0, 0, 10, 10)) == 0


def test_the_peak_of_a_map_lies_in_the_film_s_own_pixels() -> None:
    found = peak(spot(1, 6), WHOLE)
    assert found is not None
    assert found[0] == pytest.approx(6.5 * 100 / 8, abs=100 / 80)
    assert found[1] == pytest.approx(1.5 * 200 / 8, abs=200 / 80)
    assert peak(np.zeros((8, 8), np.float32), WHOLE) is None


def test_the_peak_of_a_film_whose_border_was_trimmed_is_moved_by_the_border() -> None:
    trimmed = replace(WHOLE, left=20, top=40)
    found = peak(spot(1, 6), trimmed)
    assert found is not None
    assert found[0] == pytest.approx(20 + 6.5 * 80 / 8, abs=1)
    assert found[1] == pytest.approx(40 + 1.5 * 160 / 8, abs=2)


def test_every_spot_of_a_map_gets_a_box_and_the_same_box_counts_once() -> None:
    cam = np.maximum(spot(1, 1), spot(6, 6, height=0.5))
    assert len(spots(cam, WHOLE, (0.9,))) == 1
    low = spots(cam, WHOLE, (0.3,))
    assert len(low) == 2
    assert all(inside(middle, low[n]) for n, middle in enumerate([(18.75, 37.5), (81.25, 162.5)]))
    assert len(spots(cam, WHOLE, (0.3, 0.3))) == 2
    assert spots(np.zeros((8, 8), np.float32), WHOLE) == []


def test_a_grown_box_ends_at_the_film_s_edge_and_a_cell_has_the_film_s_size() -> None:
    assert grown(Box(5, 5, 95, 95), 10, 10, WHOLE) == Box(0, 0, 100, 105)
    assert cell(np.zeros((8, 4), np.float32), WHOLE) == (25, 25)


def test_a_peak_just_outside_counts_within_the_tolerance_and_not_beyond() -> None:
    # The peak lies at column 81.25; the box ends 3 pixels before it, and a cell is 12.5 pixels wide.
    near = case(spot(4, 6), Box(0, 0, 78, 200))
    assert points_at(near, 0.5)
    assert not points_at(near, 0.0)
    assert not points_at(case(spot(4, 6), Box(0, 0, 70, 200)), 0.5)


def test_a_map_without_evidence_misses_and_is_counted() -> None:
    silent = case(np.zeros((8, 8), np.float32), Box(0, 0, 100, 200))
    assert not points_at(silent)
    found = explain_label("Mass", True, [silent] * 5 + [case(spot(1, 1), Box(0, 0, 100, 200))] * 15)
    assert found.silent == 5
    assert found.pointing is not None and found.boxes is not None
    assert (found.pointing.hits.count, found.pointing.hits.total) == (15, 20)
    assert found.boxes["service"]["iobb"][0].accuracy.count == 15
    assert found.boxes["service"]["iobb"][0].false_positives == 0


def test_any_of_several_true_boxes_may_be_hit() -> None:
    both = case(spot(1, 1), Box(60, 150, 90, 190), Box(10, 20, 30, 50))
    assert points_at(both, 0.0)


def test_figures_of_a_label_by_hand() -> None:
    cam = spot(3, 3)
    right = localise(cam, WHOLE)
    far = Box(90, 190, 100, 200)
    cases = [case(cam, right)] * 6 + [case(cam, far, called=False)] * 6
    found = explain_label("Mass", False, cases, tolerance_cells=0.0)
    assert found.pointing is not None and found.boxes is not None
    assert found.pointing.hits.value == 0.5
    assert (found.pointing.when_called.count, found.pointing.when_called.total) == (6, 6)
    assert found.pointing.chance == pytest.approx((area(right) + area(far)) / 2 / 20_000)
    assert found.pointing.centre == (0.5 if inside((50, 100), right) else 0.0)
    for way in ("iou", "iobb"):
        rows = found.boxes["service"][way]
        assert [one.limit for one in rows] == list(LIMITS)
        assert all(one.accuracy.value == 0.5 and one.false_positives == 0.5 for one in rows)


def test_false_boxes_are_counted_per_film() -> None:
    cam = np.maximum(spot(1, 1), spot(6, 6, height=0.9))
    first = spots(cam, WHOLE, (60 / 255,))[0]
    found = explain_label("Mass", False, [case(cam, first)] * 10)
    assert found.boxes is not None
    wang = found.boxes["wang"]["iobb"][0]
    # Two spots at two heights: four boxes, two of them on the lesion.
    assert wang.accuracy.value == 1
    assert wang.false_positives == 2


def test_too_few_films_give_counts_and_a_reason_instead_of_a_figure() -> None:
    found = explain_label("Mass", True, [case(spot(1, 1), Box(0, 0, 9, 9))] * 9)
    assert found.pointing is None and found.boxes is None
    assert found.cases == 9 and "9 films" in found.reason
