"""The square that the network reads does not tell how a film was exposed, and leads back to the film."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from firstread.models.prediction import Box
from firstread.models.preprocess import FloatImage, Preprocessing, place, prepare

PREPROCESSING = Preprocessing(input_size=64)


def film(rows: int = 300, columns: int = 260) -> FloatImage:
    """A film with slow shades, a bright spot and some grain."""
    y, x = np.mgrid[0:rows, 0:columns].astype(np.float32)
    shade = 0.5 + 0.2 * np.sin(x / columns * 6) + 0.2 * np.cos(y / rows * 5)
    spot = 0.25 * np.exp(-((x - 0.7 * columns) ** 2 + (y - 0.3 * rows) ** 2) / 400)
    grain = np.random.default_rng(1).normal(0, 0.01, (rows, columns))
    return np.clip(shade * 0.7 + spot + grain, 0, 1).astype(np.float32)


def test_the_same_film_gives_the_same_square_bit_by_bit() -> None:
    image = film()
    before = image.copy()
    first, second = prepare(image, PREPROCESSING), prepare(image.copy(), PREPROCESSING)
    assert first.tobytes() == second.tobytes()
    assert first.shape == (64, 64)
    assert first.dtype == np.float32
    assert 0 <= first.min() < first.max() <= 1
    np.testing.assert_array_equal(image, before)


def test_the_square_is_the_same_in_another_process() -> None:
    code = "from tests.models.test_preprocess import *; print(prepare(film(), PREPROCESSING).tobytes().hex())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == prepare(film(), PREPROCESSING).tobytes().hex()


@pytest.mark.parametrize(
    "exposed", [lambda x: 0.3 * x + 0.4, lambda x: x**0.5, lambda x: x**2, lambda x: np.sqrt(x) * 0.8]
)
def test_exposure_and_window_do_not_show_in_the_square(exposed: object) -> None:
    small = film(64, 64)  # no averaging: equalising alone is at work
    plain = prepare(small, PREPROCESSING)
    other = prepare(exposed(small).astype(np.float32), PREPROCESSING)  # type: ignore[operator]
    assert np.abs(plain - other).max() < 0.02


def test_a_film_at_twice_the_size_gives_nearly_the_same_square() -> None:
    small = film(256, 256)
    large = np.kron(small, np.ones((2, 2), np.float32))
    np.testing.assert_allclose(prepare(small, PREPROCESSING), prepare(large, PREPROCESSING), atol=0.02)


def test_an_empty_frame_around_the_film_is_left_out() -> None:
    image = film()
    framed = np.zeros((360, 340), np.float32)
    framed[40:340, 30:290] = image
    placement = place(framed, PREPROCESSING)
    assert (placement.left, placement.top, placement.right, placement.bottom) == (30, 40, 290, 340)
    np.testing.assert_allclose(prepare(framed, PREPROCESSING), prepare(image, PREPROCESSING), atol=1e-6)


def test_a_film_that_is_flat_throughout_is_kept_whole() -> None:
    placement = place(np.full((100, 100), 0.5, np.float32), PREPROCESSING)
    assert (placement.left, placement.top, placement.right, placement.bottom) == (0, 0, 100, 100)
    assert np.isfinite(prepare(np.full((100, 100), 0.5, np.float32), PREPROCESSING)).all()


def test_a_box_goes_to_the_square_and_comes_back() -> None:
    framed = np.zeros((400, 300), np.float32)
    framed[20:380, 10:290] = film(360, 280)
    placement = place(framed, PREPROCESSING)
    box = Box(60, 100, 120, 220)
    back = placement.to_film(placement.to_square(box))
    assert (back.left, back.top, back.right, back.bottom) == pytest.approx((60, 100, 120, 220))


def test_the_brightest_spot_is_found_where_it_was() -> None:
    image = np.full((300, 200), 0.2, np.float32) + np.random.default_rng(0).random((300, 200)).astype(np.float32) * 0.1
    image[200:220, 40:60] = 1
    placement = place(image, PREPROCESSING)
    row, column = np.unravel_index(int(prepare(image, PREPROCESSING, placement).argmax()), (64, 64))
    spot = placement.to_film(Box(column, row, column + 1, row + 1))
    assert 36 <= spot.left < spot.right <= 64
    assert 196 <= spot.top < spot.bottom <= 224


def test_a_very_wide_film_is_padded_and_not_stretched_beyond_the_limit() -> None:
    image = film(100, 400)
    placement = place(image, PREPROCESSING)
    height = placement.bottom - placement.top
    assert (placement.right - placement.left) / height == pytest.approx(1.4)
    assert prepare(image, PREPROCESSING).shape == (64, 64)
    whole = placement.to_film(Box(0, 0, 64, 64))
    assert (whole.left, whole.top, whole.right, whole.bottom) == (0, 0, 400, 100)


def test_a_film_smaller_than_the_square_is_enlarged() -> None:
    assert prepare(film(40, 30), PREPROCESSING).shape == (64, 64)


@pytest.mark.parametrize("image", [np.zeros((0, 10), np.float32), np.zeros((5, 5, 3), np.float32)])
def test_what_is_no_image_is_refused(image: FloatImage) -> None:
    with pytest.raises(ValueError, match="it must have rows and columns"):
        prepare(image, PREPROCESSING)


def test_values_that_are_no_numbers_are_refused() -> None:
    image = film()
    image[3, 3] = np.nan
    with pytest.raises(ValueError, match="not numbers"):
        prepare(image, PREPROCESSING)


def test_a_parameter_out_of_its_range_is_named() -> None:
    with pytest.raises(ValueError, match=r"preprocessing\.input_size is 8"):
        Preprocessing(input_size=8)


def test_preparing_needs_no_torch() -> None:
    code = "import sys, firstread.models.preprocess, firstread.models.saliency; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
