"""The gate lets drawn chests through, sick ones too, and keeps out what is none."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from PIL import Image, ImageDraw

from firstread.models.findings import ReasonCode
from firstread.models.gate import Picture, admit, broken_limit, inspect
from firstread.models.likeness import EDGES, RANKS, from_table, own_likeness, to_table, traits, without_frame
from firstread.models.phantoms import DRAWABLE, NON_CHEST, draw, draw_non_chest, random_spec

SIZE = (256, 256)


@cache
def phantom(view: str, number: int, label: str = "") -> Picture:
    rng = np.random.default_rng(9000 + number)
    return draw(random_spec(rng, [label] if label else [], SIZE, view)).image.astype(np.float32)


def refused(pixels: Picture) -> ReasonCode | None:
    reason = admit(np.ascontiguousarray(pixels, np.float32)).verdict.reason
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


@pytest.mark.parametrize("kind", NON_CHEST)
def test_pictures_of_anything_else_do_not_pass_as_they_are_nor_as_negatives(kind: str) -> None:
    for number in range(4):  # not the numbers that the gate was made with
        picture = draw_non_chest(kind, number, SIZE)
        assert refused(picture) is ReasonCode.OUTSIDE_EXPERIENCE
        # Never NOT_A_CHEST: that is passed over when a study is summed up, and a sick chest may be refused, too.
        assert refused(1 - picture) is ReasonCode.OUTSIDE_EXPERIENCE


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
    assert broken_limit(picture) == reason


def test_an_exposure_that_left_nearly_nothing_but_black_and_white_is_named() -> None:
    film = phantom("PA", 1)
    low, high = np.quantile(film, [0.45, 0.55])
    reason = inspect(np.clip((film - low) / (high - low), 0, 1).astype(np.float32)).reason
    assert reason is not None
    assert "plain black or white" in reason.detail


@pytest.mark.parametrize(
    ("turn", "word"),
    [
        (lambda pixels: pixels[::-1], "upside down"),
        (lambda pixels: pixels[::-1, ::-1], "upside down"),
        (np.rot90, "on its side"),
        (lambda pixels: np.rot90(pixels, 3), "on its side"),
    ],
)
def test_a_chest_that_is_turned_is_refused_and_mostly_told_so(turn: Callable[[Picture], Picture], word: str) -> None:
    films = [phantom("PA", number) for number in range(8)]
    reasons = [admit(np.ascontiguousarray(turn(film))).verdict.reason for film in films]
    assert None not in reasons
    assert sum(reason is not None and word in reason.detail for reason in reasons) > 0.6 * len(films)


def test_a_negative_is_refused_as_it_is_and_put_right_when_that_is_certain() -> None:
    films = [phantom("PA", number) for number in range(8)]
    put_right = 0
    for film in films:
        negative = np.float32(1) - film
        seen = inspect(negative)
        assert seen.reason is not None  # whoever does not put it right must not analyse it
        assert seen.reason.code is ReasonCode.OUTSIDE_EXPERIENCE
        admission = admit(negative)
        if seen.negative:
            put_right += 1
            np.testing.assert_allclose(admission.pixels, film, atol=1e-6)
            assert admission.verdict.reason is None
            assert "black and white are exchanged: put right" in admission.notes[0]
            assert admission.verdict.scores["likeness_as_received"] < admission.verdict.scores["likeness_needed"]
        else:
            assert admission.verdict.reason == seen.reason
    assert put_right >= 6


def test_a_film_that_is_not_put_right_comes_back_untouched() -> None:
    film = phantom("AP", 2)
    admission = admit(film)
    assert admission.pixels is film
    assert admission.notes == ()
    assert not admission.verdict.negative


def test_a_negative_that_stands_upside_down_is_not_put_right() -> None:
    for number in range(6):
        admission = admit(np.ascontiguousarray(1 - phantom("PA", number)[::-1]))
        assert admission.verdict.reason is not None
        assert admission.notes == ()


def test_a_negative_that_is_not_quite_like_a_chest_is_refused_rather_than_put_right(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from dataclasses import replace

    from firstread.models import gate

    negative = np.float32(1) - phantom("PA", 1)
    sure = admit(negative)
    assert sure.notes
    demanding = replace(own_likeness(), certain=sure.verdict.scores["likeness"] + 0.5)
    monkeypatch.setattr(gate, "own_likeness", lambda: demanding)
    doubtful = admit(negative)
    assert doubtful.notes == ()
    assert doubtful.verdict.reason is not None
    assert "black and white are exchanged" in doubtful.verdict.reason.detail


def test_a_white_frame_round_a_film_is_cut_off() -> None:
    framed = np.pad(phantom("PA", 1)[20:-20, 20:-20], 30, constant_values=1.0)
    assert without_frame(framed).shape[0] <= 220
    assert refused(framed) is None


def test_scores_are_kept_with_the_verdict_whatever_it_is() -> None:
    measures = {"spread", "noise", "clipped", "white", "edges", "few_greys", "stripes", "elongation"}
    passed = inspect(phantom("PA", 2)).scores
    assert passed["likeness"] > passed["likeness_needed"]
    for picture in (phantom("PA", 2), noise(), draw_non_chest("pelvis", 1, SIZE), phantom("PA", 2)[::-1]):
        scores = inspect(np.ascontiguousarray(picture)).scores
        assert measures <= set(scores)
        assert all(np.isfinite(value) for value in scores.values())


@pytest.mark.parametrize(
    "picture", [noise(), wedge(), np.zeros((64, 64), np.float32), draw_non_chest("pelvis", 1, SIZE), phantom("PA", 2).T]
)
def test_every_refusal_says_its_score_and_what_was_needed(picture: Picture) -> None:
    reason = inspect(np.ascontiguousarray(picture)).reason
    assert reason is not None
    assert any(character.isdigit() for character in reason.detail)
    assert "needed" in reason.detail or "allowed" in reason.detail


@pytest.mark.parametrize("side", [128, 512, 1024, 3000])
def test_the_verdict_does_not_depend_on_the_size_of_the_image(side: int) -> None:
    resized = Image.fromarray(phantom("PA", 3)).resize((side, side), Image.Resampling.BILINEAR)
    usual = inspect(phantom("PA", 3)).scores["likeness"]
    assert inspect(np.asarray(resized, np.float32)).scores["likeness"] == pytest.approx(usual, abs=0.8)


@pytest.mark.parametrize("shape", [(300,), (300, 300, 3), (20, 20), (1, 300)])
def test_another_shape_is_an_error(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="at least 32"):
        inspect(np.zeros(shape, np.float32))


def test_a_strip_of_a_few_pixels_is_refused_not_an_error() -> None:
    strip = np.random.default_rng(0).random((12, 1024)).astype(np.float32)
    reason = admit(strip).verdict.reason
    assert reason is not None
    assert "narrow" in reason.detail


def test_values_that_are_no_numbers_do_not_pass_as_a_film() -> None:
    assert refused(np.full((300, 300), np.nan, np.float32)) is ReasonCode.OUTSIDE_EXPERIENCE


def test_what_is_looked_at_does_not_depend_on_how_a_film_was_windowed() -> None:
    film = phantom("PA", 4)
    for other in (film**1.8, film * 0.6, film * 0.7 + 0.3):
        assert np.abs(traits(film) - traits(other.astype(np.float32))).mean() < 0.03
    exchanged = traits(1 - film)
    np.testing.assert_allclose(exchanged[:RANKS], -traits(film)[:RANKS], atol=1e-6)
    assert np.abs(exchanged[RANKS:] - traits(film)[RANKS:]).mean() > 0.1


def test_the_table_of_thousandths_says_what_was_learnt() -> None:
    likeness = own_likeness()
    again = from_table(to_table(likeness))
    given = np.stack([traits(phantom("PA", number)) for number in range(3)])
    np.testing.assert_allclose(again(given), likeness(given))
    assert likeness.ranks.directions.shape == (30, RANKS)
    assert likeness.edges.directions.shape == (60, EDGES)
    assert likeness.certain > likeness.threshold
