"""Thorax, maps, nuisances, pairs, groups and the choice of films, on what is known by construction."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from firstread.models.audit.choose import in_turn, of_either_kind, subset
from firstread.models.audit.maps import in_lesions, outside_of, share_in
from firstread.models.audit.measured import measure_films, shown
from firstread.models.audit.nuisances import (
    NuisanceTable,
    cross_validated,
    nuisance_figures,
    table_of,
    within_class_correlation,
)
from firstread.models.audit.pairs import matched, within
from firstread.models.audit.picture import Picture
from firstread.models.audit.thorax import SIDE, estimate
from firstread.models.data.film import Film
from firstread.models.findings import LABELS
from firstread.models.phantoms import draw, random_spec
from firstread.models.preprocess import Preprocessing, place
from tests.models.audit_world import LABEL, Stub

COUNT = 240


def film(number: int, patient: int | None = None, view: str = "PA") -> Film:
    zeros = np.zeros(len(LABELS), np.float32)
    return Film(f"film-{number}", f"patient-{number if patient is None else patient}", zeros, zeros + 1, False, view)


def test_the_thorax_of_a_phantom_holds_its_lesions() -> None:
    inside, found = [], 0
    for number in range(12):
        rng = np.random.default_rng([2, number])
        phantom = draw(random_spec(rng, ("Mass",), (192, 192)))
        thorax = estimate(phantom.image)
        box = phantom.truth["Mass"]
        row, column = (int((a + b) / 2 / 192 * SIDE) for a, b in ((box.top, box.bottom), (box.left, box.right)))
        inside.append(bool(thorax.mask[row, column]))
        found += thorax.found
        assert 0.2 < thorax.mask.mean() < 0.8
        assert 0.35 < thorax.midline < 0.65
    assert sum(inside) == 12
    assert found >= 9


def test_a_film_without_lungs_gets_a_fixed_oval_and_says_so() -> None:
    for picture in (np.zeros((100, 100)), np.random.default_rng(0).random((120, 90)), np.ones((64, 64))):
        thorax = estimate(picture.astype(np.float32))
        assert not thorax.found
        assert thorax.mask[SIDE // 2, SIDE // 2]
        assert not thorax.mask[0, 0]


@pytest.mark.skipif("FIRSTREAD_TEST_DATA" not in os.environ, reason="real films are not at hand")
def test_the_thorax_is_seen_on_four_real_films_in_five() -> None:
    paths = sorted((Path(os.environ["FIRSTREAD_TEST_DATA"]) / "nih" / "images").glob("*.png"))[::27]
    thoraxes = [estimate(shown(replace(film(0), path=path))) for path in paths]
    assert sum(thorax.found for thorax in thoraxes) >= 0.8 * len(thoraxes)
    # Wherever it was seen, the middle of the film is in it, and its corners are not.
    assert all(thorax.mask[SIDE // 2, SIDE // 2] for thorax in thoraxes)
    assert not any(thorax.mask[0, 0] or thorax.mask[0, -1] for thorax in thoraxes if thorax.found)


def test_the_share_of_a_hand_made_map_is_what_lies_in_the_mask() -> None:
    placement = place(np.random.default_rng(0).random((96, 96)).astype(np.float32), Preprocessing(input_size=64))
    left = np.zeros((SIDE, SIDE), bool)
    left[:, : SIDE // 2] = True
    cam = np.zeros((8, 8), np.float32)
    cam[2:6, 1] = 1
    assert share_in(cam, placement, left) > 0.99
    assert share_in(cam, placement, ~left) < 0.01
    assert share_in(np.ones((8, 8), np.float32), placement, left) == pytest.approx(0.5, abs=0.01)
    assert np.isnan(share_in(np.zeros((8, 8), np.float32), placement, left))


def test_an_even_map_is_as_dense_inside_as_outside() -> None:
    areas = np.full(20, 0.4)
    even = outside_of(np.full(20, 0.4), areas)
    assert even is not None
    assert even.density == pytest.approx(1.0)
    assert (even.share, even.area) == (pytest.approx(0.6), pytest.approx(0.6))
    aimed = outside_of(np.full(20, 0.9), areas)
    assert aimed is not None and aimed.density == pytest.approx((0.9 / 0.4) / (0.1 / 0.6))
    assert outside_of(np.r_[np.full(9, 0.4), np.full(11, np.nan)], np.full(20, 0.4)) is None


def test_a_map_on_the_lesion_is_told_from_an_even_one() -> None:
    class OnTheHeart(Stub):
        pass

    heart = np.zeros((8, 8), np.float32)
    heart[4:6, 3:6] = 1
    labels = ("Cardiomegaly",)
    aimed, even = (
        in_lesions(OnTheHeart(lambda _: 0.0, maps=maps, labels=labels), labels, 4)["Cardiomegaly"]
        for maps in (heart, np.ones((8, 8), np.float32))
    )
    assert aimed.share > 0.7
    assert even.share == pytest.approx(even.area, abs=0.06)  # a collimated rim has no part in the map
    assert aimed.share > 1.8 * even.share
    assert in_lesions(Stub(lambda _: 0.0), (LABEL,), 2) == {}  # without maps there is nothing to measure


def rows(seed: int = 1) -> tuple[np.ndarray, np.ndarray, list[str]]:
    rng = np.random.default_rng(seed)
    present = np.arange(COUNT) % 2 == 0
    values = np.stack([rng.normal(size=COUNT) + present, rng.normal(size=COUNT)], axis=1)
    return present, values, [f"p{i // 2}" for i in range(COUNT)]


def test_what_the_making_tells_is_cross_validated() -> None:
    present, values, _ = rows()
    patients = [f"p{i}" for i in range(COUNT)]
    for kind in ("logistic", "boosting"):
        assert 0.65 < roc_auc_score(present, cross_validated(values, present, patients, kind)) < 0.85
    chance = np.random.default_rng(3).normal(size=(COUNT, 6))
    assert 0.38 < roc_auc_score(present, cross_validated(chance, present, patients, "boosting")) < 0.62


def test_a_patients_films_never_help_to_tell_his_others() -> None:
    # One number per patient and nothing else: known again from another film it would tell the label perfectly.
    patient = np.repeat(np.arange(COUNT // 4), 4)
    present = np.random.default_rng(0).random(COUNT // 4)[patient] < 0.5
    values = np.random.default_rng(1).random(COUNT // 4)[patient][:, None]
    odds = cross_validated(values, present, [f"p{i}" for i in patient], "boosting")
    assert 0.3 < roc_auc_score(present, odds) < 0.7


def test_following_within_the_classes_is_told_from_the_classes_difference() -> None:
    present, values, patients = rows()
    between = within_class_correlation(
        present, present * 3.0 + np.random.default_rng(9).normal(size=COUNT), values[:, 0], patients
    )
    assert abs(between.value) < 0.15 and between.safe == 0
    follows = within_class_correlation(present, -values[:, 0], values[:, 0], patients)
    assert follows.value == pytest.approx(-1.0)
    assert follows.safe > 0.9
    constant = within_class_correlation(present, np.ones(COUNT), values[:, 0], patients)
    assert (constant.value, constant.safe) == (0.0, 0.0)


def test_missing_constant_and_infinite_variables_are_no_trouble() -> None:
    table = table_of(
        [
            {"noise": float(n), "same": 1.0, "rare": 2.0 if n < 3 else float("nan"), "png_bytes": 10.0**n}
            for n in range(10)
        ]
    )
    assert table.names == ("noise", "png_bytes")
    assert np.diff(table.column("png_bytes")) == pytest.approx(np.log(10))
    assert nuisance_figures(table_of([{}, {}]), np.array([True, False]), np.zeros(2), ["a", "b"]) is None
    present, values, patients = rows()
    values[::3, 0] = np.nan
    found = nuisance_figures(NuisanceTable(("a", "b"), values), present, values[:, 1], patients)
    assert found is not None and found.alone[0].name == "a"
    assert found.alone[1].follows.value == pytest.approx(1.0)


def test_pairs_are_made_alike_in_what_was_asked_and_in_the_propensity() -> None:
    present, values, _ = rows()
    films = [film(n) for n in range(COUNT)]
    table = NuisanceTable(("noise", "sharpness"), values)
    predicted = cross_validated(values, present, [each.patient for each in films], "logistic")
    for kind in ("nuisances", "propensity"):
        found = matched(films, present, values[:, 0], table, ("noise",), predicted, kind)
        assert found.pairs >= 40
        noise = found.imbalance[0]
        assert (noise.name, abs(noise.before) > 0.7) == ("noise", True)
        assert abs(noise.after) < 0.25
        assert found.figure is not None and found.figure.value < 0.6  # the score was the nuisance itself
        assert found.left is not None and found.left.value < 0.65


def test_films_are_compared_within_their_group_alone() -> None:
    present, _, patients = rows()
    rng = np.random.default_rng(4)
    views = np.where(rng.random(COUNT) < np.where(present, 0.8, 0.2), "AP", "PA")
    score = (views == "AP") * 2.0 + rng.normal(size=COUNT) * 0.5
    found = within("view", list(views), present, score, patients)
    assert found is not None
    assert found.lost.value > 0.2 and found.lost.low > 0.1
    assert found.pooled == pytest.approx(0.5, abs=0.1)
    assert set(found.groups) == {"AP", "PA"}
    assert within("view", ["PA"] * COUNT, present, score, patients) is None


def test_the_choice_is_one_film_of_each_patient_first_and_the_same_every_time() -> None:
    films = [film(n, patient=n // 3) for n in range(90)]
    assert len({films[i].patient for i in in_turn(films)[:30]}) == 30
    present = np.zeros((90, 2), bool)
    present[:60, 0], present[[7, 50], 1] = True, True
    chosen = subset(films, present, 30)
    assert chosen == subset(films, present, 30) == sorted(set(chosen))
    assert len(chosen) == 30
    assert {7, 50} <= set(chosen)  # the rare ones are all there
    assert subset(films, present, 200) == list(range(90))
    either = of_either_kind(films, np.ones(90, bool), present[:, 0], 8)
    assert (present[either, 0].sum(), len(either)) == (8, 16)


def test_films_are_measured_by_their_pixels_file_and_row() -> None:
    pictures = {f"film-{n}": np.random.default_rng(n).random((64, 64)).astype(np.float32) * 0.5 for n in range(3)}

    def picture_of(of: Film) -> Picture:
        if of.key == "film-1":
            raise ValueError("broken")
        return pictures[of.key]

    films = [replace(film(n), nuisances={"source_noise": 4.0}, age=50.0) for n in range(3)]
    first, broken, third = measure_films(films, picture_of, workers=1)
    assert broken is None and third is not None and first is not None
    assert first.variables["noise"] > 20
    assert (first.variables["source_noise"], first.variables["age"]) == (4.0, 50.0)
    assert np.nanmax(first.spectrum) > 0.05
