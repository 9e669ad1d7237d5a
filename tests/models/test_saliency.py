"""A class activation map points at the right place of the film."""

from __future__ import annotations

import numpy as np
import pytest

from firstread.models.preprocess import Placement
from firstread.models.saliency import localise, over_film, upsample

WHOLE = Placement(film_rows=800, film_columns=400, left=0, top=0, right=400, bottom=800, size=64)


def spot(row: int, column: int, side: int = 8) -> np.ndarray:
    cam = np.zeros((side, side), np.float32)
    cam[row, column] = 1
    return cam


def test_an_enlarged_map_keeps_its_peak_and_its_range() -> None:
    large = upsample(spot(2, 5), (160, 80))
    assert large.shape == (160, 80)
    assert 0 <= large.min() <= large.max() <= 1
    row, column = np.unravel_index(int(large.argmax()), large.shape)
    assert (row // 20, column // 10) == (2, 5)


def test_the_box_lies_around_the_peak_in_the_films_own_pixels() -> None:
    box = localise(spot(2, 5), WHOLE)
    assert box.left < 5.5 * 50 < box.right
    assert box.top < 2.5 * 100 < box.bottom
    assert box.right - box.left < 2 * 50
    assert box.bottom - box.top < 2 * 100


def test_a_second_spot_elsewhere_does_not_widen_the_box() -> None:
    cam = spot(1, 1) + 0.9 * spot(6, 6)
    box = localise(cam, WHOLE)
    assert box.right < 200
    assert box.bottom < 400


def test_the_box_takes_account_of_what_was_left_out_at_the_border() -> None:
    placement = Placement(film_rows=1000, film_columns=1000, left=200, top=100, right=840, bottom=740, size=64)
    box = localise(spot(0, 0), placement)
    assert box.left == pytest.approx(200)
    assert box.top == pytest.approx(100)


def test_a_box_never_leaves_the_film() -> None:
    placement = Placement(film_rows=100, film_columns=400, left=0, top=-90, right=400, bottom=190, size=64)
    box = localise(spot(0, 3), placement)
    assert 0 <= box.top <= box.bottom <= 100


def test_a_map_without_evidence_gives_the_whole_film() -> None:
    box = localise(np.zeros((4, 4), np.float32), WHOLE)
    assert (box.left, box.top, box.right, box.bottom) == (0, 0, 400, 800)


def test_the_map_over_the_film_is_empty_where_the_network_did_not_look() -> None:
    placement = Placement(film_rows=1000, film_columns=500, left=50, top=100, right=450, bottom=900, size=64)
    drawn = over_film(np.ones((8, 8), np.float32), placement, (100, 50))
    assert drawn.shape == (100, 50)
    assert drawn[:10].max() == 0
    assert drawn[90:].max() == 0
    assert drawn[:, :5].max() == 0
    assert drawn[12:88, 7:43].min() > 0.9


def test_the_map_over_a_padded_film_keeps_only_the_films_part() -> None:
    placement = Placement(film_rows=100, film_columns=400, left=0, top=-90, right=400, bottom=190, size=64)
    drawn = over_film(np.eye(8, dtype=np.float32), placement, (100, 400))
    assert drawn.shape == (100, 400)
    row, column = np.unravel_index(int(drawn.argmax()), drawn.shape)
    assert abs((row + 90) / 280 - column / 400) < 0.1
