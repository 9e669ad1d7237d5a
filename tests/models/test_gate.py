"""The gate lets chest films through, sick ones too, and keeps out what is none."""

from __future__ import annotations

import csv
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter

from firstread.models.findings import ReasonCode
from firstread.models.gate import Picture, inspect
from firstread.models.gate_training import cross_validate, prepare, read_films
from firstread.models.likeness import from_table, own_likeness, thumbnail, to_table, without_frame
from firstread.models.phantoms import DRAWABLE, draw, random_spec
from tests.peers import real_films

SIZE = (256, 256)


@cache
def phantom(view: str, number: int, label: str = "") -> Picture:
    rng = np.random.default_rng(9000 + number)
    return draw(random_spec(rng, [label] if label else [], SIZE, view)).image.astype(np.float32)


@cache
def nih(step: int) -> tuple[Picture, ...]:
    folder = real_films() / "nih"
    with (folder / "labels.csv").open(newline="") as file:
        names = [row["Image Index"] for row in csv.DictReader(file)][::step]
    return tuple(np.asarray(Image.open(folder / "images" / name).convert("L"), np.float32) / 255 for name in names)


def refused(pixels: Picture) -> ReasonCode | None:
    reason = inspect(np.ascontiguousarray(pixels, np.float32)).reason
    assert reason is None or reason.detail
    return reason.code if reason else None


def screenshot() -> Picture:
    page = Image.new("L", (600, 800), 255)
    pen = ImageDraw.Draw(page)
    for line in range(0, 800, 14):
        pen.text((20, line), "Patient dose report  DAP 1.24 dGycm2  kV 125  mAs 2.1  exposure 14:32:01  " * 2, fill=0)
    return np.asarray(page, np.float32) / 255


def noise() -> Picture:
    return np.random.default_rng(0).random((400, 400), np.float32)


def bars(width: int) -> Picture:
    return np.tile((np.arange(400) // width % 2).astype(np.float32), (400, 1))


def wedge() -> Picture:
    return np.tile(np.linspace(0, 1, 400, dtype=np.float32), (400, 1))


@pytest.mark.parametrize("label", ["", *DRAWABLE])
@pytest.mark.parametrize("view", ["PA", "AP"])
def test_phantoms_of_a_chest_pass_sick_or_not(view: str, label: str) -> None:
    for number in range(3):
        assert refused(phantom(view, number, label)) is None


@pytest.mark.parametrize("view", ["LATERAL", "HAND"])
def test_phantoms_of_anything_else_do_not_pass(view: str) -> None:
    for number in range(6):
        assert refused(phantom(view, number)) is ReasonCode.NOT_A_CHEST


@pytest.mark.parametrize(
    ("picture", "word"),
    [
        (np.zeros((300, 300), np.float32), "blank"),
        (np.full((300, 300), 0.5, np.float32), "blank"),
        (noise(), "noise"),
        (bars(20), ""),
        (bars(3), ""),
        (bars(20).T, ""),
        (wedge(), "pattern"),
        (wedge().T, "pattern"),
        (screenshot(), ""),
        (np.random.default_rng(0).random((100, 900), np.float32), "narrow"),
    ],
)
def test_what_is_no_film_at_all_is_outside_the_models_experience(picture: Picture, word: str) -> None:
    reason = inspect(np.ascontiguousarray(picture)).reason
    assert reason is not None
    assert reason.code is ReasonCode.OUTSIDE_EXPERIENCE
    assert word in reason.detail


@pytest.mark.parametrize(
    ("turn", "word"),
    [
        (lambda pixels: pixels[::-1], "upside down"),
        (lambda pixels: pixels[::-1, ::-1], "upside down"),
        (np.rot90, "on its side"),
        (lambda pixels: np.rot90(pixels, 3), "on its side"),
        (lambda pixels: 1 - pixels, "black and white"),
    ],
)
def test_a_chest_that_is_turned_or_inverted_is_refused_and_mostly_told_so(
    turn: Callable[[Picture], Picture], word: str
) -> None:
    films = [*nih(40), *(phantom("PA", number) for number in range(4))]
    reasons = [inspect(np.ascontiguousarray(turn(film))).reason for film in films]
    assert sum(reason is None for reason in reasons) <= 1
    assert sum(reason is not None and word in reason.detail for reason in reasons) > 0.6 * len(films)


@pytest.mark.parametrize(
    "disturb",
    [
        lambda film: film,
        lambda film: np.clip(film * 0.6, 0, 1),
        lambda film: np.clip(film * 0.7 + 0.3, 0, 1),
        lambda film: film**1.8,
        lambda film: film**0.6,
        lambda film: gaussian_filter(film, 2),
        lambda film: np.clip(film + np.random.default_rng(0).normal(0, 0.02, film.shape), 0, 1),
        lambda film: np.pad(film, 40),
        lambda film: film[20:-20, 20:-20],
        lambda film: film[:, ::-1],
    ],
)
def test_of_real_chest_films_at_most_five_in_a_hundred_are_refused_however_they_were_exposed(
    disturb: Callable[[Picture], Picture],
) -> None:
    outcomes = [refused(disturb(film)) for film in nih(8)]
    assert sum(outcome is not None for outcome in outcomes) <= 0.05 * len(outcomes)


@pytest.mark.slow
def test_of_real_chest_films_of_unseen_patients_at_most_three_in_a_hundred_are_refused() -> None:
    folder = real_films() / "nih"
    material = prepare(*read_films(folder / "images", folder / "labels.csv"))
    scores = cross_validate(material)[material.as_they_are]
    assert len(scores) == 808
    assert np.mean(scores < own_likeness().threshold) < 0.03


def test_a_white_frame_round_a_film_is_cut_off() -> None:
    framed = np.pad(phantom("PA", 1)[20:-20, 20:-20], 30, constant_values=1.0)
    assert without_frame(framed).shape[0] <= 220
    assert refused(framed) is None


def test_scores_are_kept_with_the_verdict() -> None:
    scores = inspect(phantom("PA", 2)).scores
    assert scores["likeness"] > scores["likeness_needed"]
    assert {"spread", "noise", "clipped", "edges", "stripes", "elongation"} <= set(scores)


@pytest.mark.parametrize("side", [128, 512, 1024])
def test_the_verdict_does_not_depend_on_the_size_of_the_image(side: int) -> None:
    resized = Image.fromarray(phantom("PA", 3)).resize((side, side), Image.Resampling.BILINEAR)
    usual = inspect(phantom("PA", 3)).scores["likeness"]
    assert inspect(np.asarray(resized, np.float32)).scores["likeness"] == pytest.approx(usual, abs=0.5)


@pytest.mark.parametrize("shape", [(300,), (300, 300, 3), (20, 300)])
def test_another_shape_is_an_error(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="at least 32"):
        inspect(np.zeros(shape, np.float32))


def test_values_that_are_no_numbers_do_not_pass_as_a_film() -> None:
    assert refused(np.full((300, 300), np.nan, np.float32)) is ReasonCode.OUTSIDE_EXPERIENCE


def test_the_table_of_thousandths_says_what_was_learnt() -> None:
    likeness = own_likeness()
    again = from_table(to_table(likeness))
    thumbnails = np.stack([thumbnail(phantom("PA", number)) for number in range(3)])
    np.testing.assert_allclose(again(thumbnails), likeness(thumbnails))
    assert likeness.directions.shape == (30, 256)
