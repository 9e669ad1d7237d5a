"""Films stand upright, and boxes find their way between the upright image and the stored film."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from firstread.models.orientation import Orientation, turns
from firstread.models.prediction import Box
from firstread.models.radiograph import read_radiograph
from tests.models.dicom_files import data_set, film, write

STORED_AS = {
    ("L", "F"): lambda upright: upright,
    ("R", "F"): lambda upright: upright[:, ::-1],
    ("L", "H"): lambda upright: upright[::-1],
    ("R", "H"): lambda upright: upright[::-1, ::-1],
    ("F", "L"): lambda upright: upright.T,
    ("F", "R"): lambda upright: np.rot90(upright),
    ("H", "L"): lambda upright: np.rot90(upright, 3),
    ("H", "R"): lambda upright: np.rot90(upright, 2).T,
}
"""How the same film lies in the file for each Patient Orientation: rows run to the first, columns to the second."""


@pytest.mark.parametrize("orientation", STORED_AS)
@pytest.mark.parametrize("longest_side", [None, 80])
def test_a_film_stands_upright_however_it_was_stored(
    orientation: tuple[str, str], longest_side: int | None, tmp_path: Path
) -> None:
    stored = np.ascontiguousarray(STORED_AS[orientation](film()))
    header = data_set(stored, 12, PatientOrientation=list(orientation))
    turned = read_radiograph(write(tmp_path / "turned.dcm", header), longest_side)
    straight = read_radiograph(write(tmp_path / "straight.dcm", data_set(film(), 12)), longest_side)
    np.testing.assert_allclose(turned.pixels, straight.pixels, atol=1e-5)


@pytest.mark.parametrize("orientation", STORED_AS)
def test_a_box_round_a_mark_finds_the_mark_in_the_stored_film(orientation: tuple[str, str], tmp_path: Path) -> None:
    marked = np.full((200, 160), 500, np.uint16)
    marked[20:40, 100:110] = 4000
    stored = np.ascontiguousarray(STORED_AS[orientation](marked))
    radiograph = read_radiograph(
        write(tmp_path / "film.dcm", data_set(stored, 12, PatientOrientation=list(orientation))), 100
    )
    rows, columns = np.nonzero(radiograph.pixels > 0.5)
    upright = Box(columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    found = radiograph.orientation.to_film(upright)
    expected_rows, expected_columns = np.nonzero(stored > 1000)
    assert (found.left, found.top) == (expected_columns.min(), expected_rows.min())
    assert (found.right, found.bottom) == (expected_columns.max() + 1, expected_rows.max() + 1)


side = st.integers(1, 4000)
share = st.floats(0, 1)


@given(side, side, side, side, st.booleans(), st.booleans(), st.booleans(), share, share, share, share)
def test_a_box_sent_to_the_film_and_back_is_the_same_box(
    stored_rows: int, stored_columns: int, rows: int, columns: int,
    transposed: bool, mirrored: bool, upside_down: bool, x: float, y: float, w: float, h: float,
) -> None:  # fmt: skip
    orientation = Orientation(stored_rows, stored_columns, rows, columns, transposed, mirrored, upside_down)
    box = Box(x * columns, y * rows, (x + w) * columns, (y + h) * rows)
    back = orientation.to_upright(orientation.to_film(box))
    for name in ("left", "top", "right", "bottom"):
        assert getattr(back, name) == pytest.approx(getattr(box, name), abs=1e-6 * (rows + columns))


def test_a_box_on_the_film_has_its_left_left_of_its_right() -> None:
    for transposed, mirrored, upside_down in product([False, True], repeat=3):
        orientation = Orientation(300, 200, 60, 40, transposed, mirrored, upside_down)
        box = orientation.to_film(Box(1, 2, 10, 20))
        assert box.left < box.right
        assert box.top < box.bottom


@pytest.mark.parametrize("said", [[], [""], ["", ""], ["L"], ["L", ""], ["X", "Y"], ["H", "F"], ["A", "F"], ["L", "P"]])
def test_an_orientation_that_says_nothing_useful_turns_nothing(said: list[str]) -> None:
    assert turns(said) == (False, False, False)


def test_only_the_main_direction_of_an_oblique_orientation_counts() -> None:
    assert turns(["RA", "FP"]) == (False, True, False)
    assert turns([" r ", "h"]) == (False, True, True)


def test_a_lateral_film_is_put_on_its_feet_though_its_sides_are_unknown() -> None:
    assert turns(["A", "H"]) == (False, False, True)
