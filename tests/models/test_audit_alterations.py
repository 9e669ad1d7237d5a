"""Every alteration does what it says, at its strength, and nothing else."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from scipy import ndimage

from firstread.models.audit import alterations as made
from firstread.models.audit.alterations import ALTERATIONS, Alteration, Scene
from firstread.models.audit.marks import marks_near_rim
from firstread.models.audit.picture import Picture, at_most, generator, resized, scale_of, with_longest_side
from firstread.models.audit.spectrum import RINGS, gain_between, mean_spectrum, spectrum_of, with_gain
from firstread.models.phantoms import PhantomSpec, draw

BY_KEY = {each.key: each for each in ALTERATIONS}


@cache
def scene(rows: int = 256, columns: int = 256, mark: str = "L") -> Scene:
    spec = PhantomSpec(seed=3, size=(rows, columns), laterality_mark=mark)
    return Scene(draw(spec).image, "film")


def changed(key: str, of: Scene | None = None) -> Picture:
    found = BY_KEY[key](of or scene())
    assert found is not None
    return found


@pytest.mark.parametrize("alteration", ALTERATIONS, ids=lambda each: each.key)
def test_every_alteration_gives_a_film_that_is_another_one(alteration: Alteration) -> None:
    for of in (scene(240, 240), scene(200, 240)):
        before = of.picture.copy()
        found = alteration(of)
        assert found is not None
        assert found.dtype == np.float32 and found.flags["C_CONTIGUOUS"]
        assert found.min() >= 0 and found.max() <= 1
        assert found.shape != before.shape or not np.array_equal(found, before)
        assert np.array_equal(of.picture, before)  # the film itself is left alone


@pytest.mark.parametrize("alteration", ALTERATIONS, ids=lambda each: each.key)
def test_every_alteration_is_the_same_every_time(alteration: Alteration) -> None:
    of = scene(240, 240)
    first, second = alteration(of), alteration(Scene(of.picture.copy(), "film"))
    assert first is not None and second is not None
    assert np.array_equal(first, second)


def test_keys_and_words_name_one_alteration_each() -> None:
    assert len({each.key for each in ALTERATIONS}) == len({each.words for each in ALTERATIONS}) == len(ALTERATIONS)


def test_no_blur_and_no_change_of_greys_leave_the_film_as_it_is() -> None:
    picture = scene().picture
    assert np.array_equal(made.blur(scene(), 0), picture)
    assert np.array_equal(made.gamma(scene(), 1.0), picture)
    assert np.array_equal(made.brightness(scene(), 0), picture)
    assert made.contrast(scene(), 1.0) == pytest.approx(picture, abs=1e-6)
    assert np.array_equal(made.crop(scene(), 0), picture)
    assert np.array_equal(made.border(scene(), 0), picture)


def test_blur_is_a_gaussian_of_its_sigma_at_512_pixels_and_keeps_brightness() -> None:
    point = np.zeros((512, 512), np.float32)
    point[256, 256] = 1
    spread = changed("blur-2", Scene(point, "point"))
    offsets = np.arange(512) - 256
    assert np.sqrt((spread.sum(axis=0) * offsets**2).sum()) == pytest.approx(2.0, rel=0.02)
    assert changed("blur-1").mean() == pytest.approx(scene().picture.mean(), abs=1e-3)


def test_noise_has_its_spread_at_512_pixels_whatever_the_films_size() -> None:
    for side in (512, 1024):
        grey = Scene(np.full((side, side), 0.5, np.float32), f"grey-{side}")
        left = resized(changed("noise-6", grey), 512, 512) - 0.5
        assert left.std() * 255 == pytest.approx(6.0, rel=0.05)
        assert abs(left.mean()) * 255 < 0.2


def test_greys_move_as_said_and_places_do_not() -> None:
    picture = scene().picture
    assert changed("gamma-0.8") == pytest.approx(picture**0.8, abs=1e-6)
    inner = (picture > 0.1) & (picture < 0.9)
    assert (changed("brightness+20") - picture)[inner] == pytest.approx(20 / 255, abs=1e-6)
    assert (changed("brightness-20") - picture)[inner] == pytest.approx(-20 / 255, abs=1e-6)
    wider, flatter = changed("contrast-1.25"), changed("contrast-0.8")
    assert flatter.std() == pytest.approx(0.8 * picture.std(), rel=0.02)
    assert wider.std() > picture.std()
    ranks = np.argsort(picture, axis=None)
    assert (np.diff(changed("gamma-1.25").ravel()[ranks]) >= 0).all()


def test_cropping_cuts_the_rim_and_a_border_adds_a_black_one() -> None:
    picture = scene().picture
    assert np.array_equal(changed("crop-6"), picture[15:-15, 15:-15])
    bordered = changed("border-5")
    assert np.array_equal(bordered[13:-13, 13:-13], picture)
    assert bordered[:13].max() == bordered[:, :13].max() == bordered[-13:].max() == bordered[:, -13:].max() == 0


def test_a_film_mirrored_twice_is_the_film() -> None:
    once = changed("mirrored")
    assert np.array_equal(once, scene().picture[:, ::-1])
    assert np.array_equal(changed("mirrored", Scene(once, "film")), scene().picture)


@pytest.mark.parametrize(
    ("key", "left"), [("mark-own-side", False), ("mark-other-side", True), ("text-left", True), ("text-right", False)]
)
def test_letters_stand_bright_at_their_rim_and_nothing_else_changes(key: str, left: bool) -> None:
    dark = Scene(0.4 * scene(mark="").picture, "film")
    rows, columns = np.nonzero(np.abs(changed(key, dark) - dark.picture) > 1e-6)
    assert len(rows) > 20
    assert (changed(key, dark) >= dark.picture).all()
    assert rows.max() < 0.2 * 256
    assert (columns.max() < 0.35 * 256) if left else (columns.min() > 0.65 * 256)


def test_a_mark_is_found_and_painted_out_and_the_chest_stays() -> None:
    plain = Scene(0.6 * scene(mark="").picture, "film")
    marked = Scene(changed("mark-own-side", plain), "film")
    ink = marked.picture - plain.picture > 0.1
    found = np.asarray(marks_near_rim(marked.picture))
    assert found[ink].mean() > 0.9
    cleaned = changed("marks-out", marked)
    assert np.abs(cleaned - plain.picture)[ink].mean() < 0.25 * np.abs(marked.picture - plain.picture)[ink].mean()
    middle = np.s_[80:176, 80:176]
    assert np.array_equal(cleaned[middle], marked.picture[middle])


def test_a_film_without_marks_is_not_altered() -> None:
    y, x = np.mgrid[0:256, 0:256] / 255
    smooth = (0.3 + 0.4 * np.exp(-((x - 0.5) ** 2 + (y - 0.5) ** 2) * 4)).astype(np.float32)
    assert BY_KEY["marks-out"](Scene(smooth, "smooth")) is None


@pytest.mark.parametrize("key", ["chest-tube", "ecg-leads"])
def test_devices_are_thin_bright_and_over_the_chest(key: str) -> None:
    of = Scene(0.7 * scene(mark="").picture, "film")
    drawn = changed(key, of) - of.picture
    touched = drawn > 0.02
    assert drawn.min() >= -1e-6
    assert 0.002 < touched.mean() < 0.1
    thorax = np.kron(of.thorax.mask, np.ones((2, 2), bool))
    assert touched[thorax].any()


def test_a_chest_tube_differs_from_film_to_film() -> None:
    picture = scene(mark="").picture
    assert not np.array_equal(changed("chest-tube", Scene(picture, "a")), changed("chest-tube", Scene(picture, "b")))


def test_a_poorer_jpeg_is_further_from_the_film() -> None:
    errors = [np.abs(changed(f"jpeg-{quality}") - scene().picture).mean() for quality in (90, 75, 50)]
    assert errors[0] < errors[1] < errors[2] < 0.02


def test_another_size_and_back_keeps_the_shape_and_loses_detail_where_it_shrinks() -> None:
    of = Scene(np.kron(np.indices((256, 256)).sum(axis=0) % 2, np.ones((2, 2))).astype(np.float32), "board")
    assert changed("size-256", of).shape == of.picture.shape
    assert np.abs(changed("size-2048", of) - of.picture).mean() < 0.2
    fine = Scene((np.indices((512, 512)).sum(axis=0) % 2).astype(np.float32), "fine")
    assert np.ptp(changed("size-256", fine)) < 0.01
    assert BY_KEY["size-256"](scene()) is None  # it has that size


def test_sizes_are_told_by_the_longer_side() -> None:
    picture = np.zeros((300, 600), np.float32)
    assert scale_of(picture) == pytest.approx(600 / 512)
    assert with_longest_side(picture, 150).shape == (75, 150)
    assert at_most(picture, 300).shape == (150, 300)
    assert at_most(picture, 1024) is picture


def grain(side: int, levels: float, seed: int) -> Picture:
    noise = levels / 255 * np.random.default_rng(seed).standard_normal((side, side))
    return np.asarray(0.5 + noise, np.float32)


def test_the_spectrum_of_white_noise_is_its_spread_where_the_residual_holds_it_all() -> None:
    spectrum = spectrum_of(grain(512, 4.0, 1))
    frequency = (np.arange(RINGS) + 0.5) / RINGS * 0.75
    expected = 4 / 255 * (1 - np.exp(-2 * np.pi**2 * frequency**2))
    inside = (frequency > 0.1) & (frequency < 0.6)
    assert spectrum[inside] == pytest.approx(expected[inside], rel=0.05)


def test_a_film_given_other_films_noise_has_as_much_of_it_and_keeps_its_greys() -> None:
    few, many = (mean_spectrum([spectrum_of(grain(256, n, seed)) for seed in range(3)]) for n in (2.0, 6.0))
    film = grain(256, 2.0, 9)
    noisier = with_gain(film, gain_between(few, many))
    fine = ndimage.gaussian_filter(film, 4)
    assert (noisier - ndimage.uniform_filter(noisier, 9)).std() * 255 == pytest.approx(6.0, rel=0.15)
    assert np.abs(ndimage.gaussian_filter(noisier, 4) - fine).max() < 3 / 255
    assert with_gain(noisier, gain_between(many, few)) == pytest.approx(film, abs=0.01)


def test_equal_or_unknown_noise_changes_nothing() -> None:
    spectrum = spectrum_of(scene().picture)
    assert with_gain(scene().picture, gain_between(spectrum, spectrum)) == pytest.approx(scene().picture, abs=1e-5)
    nothing = np.full(RINGS, np.nan)
    assert (gain_between(nothing, spectrum) == 1).all()
    assert (gain_between(np.zeros(RINGS), spectrum) == 1).all()


def test_chance_hangs_on_its_parts_alone() -> None:
    assert generator("a", 1).normal() == generator("a", 1).normal()
    assert generator("a", 1).normal() != generator("a", 2).normal()
