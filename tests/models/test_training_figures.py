"""Figures, calibration and operating points, on scores whose right answers are known."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from firstread.models.data.film import Film
from firstread.models.findings import LABELS, NO_FINDING
from firstread.models.training.calibrate import Scored, calibrate, operating_points, platt, probabilities
from firstread.models.training.evaluate import auroc, auroc_figure, matched_figure, matched_pairs

RNG = np.random.default_rng(11)


def film(number: int, view: str = "AP", noise: float = 4.0, size: float = 350_000.0) -> Film:
    zeros = np.zeros(len(LABELS), np.float32)
    nuisances = {"source_noise": noise, "source_png_bytes": size}
    return Film(f"f{number}", f"p{number}", zeros, zeros + 1, phantom=False, view=view, nuisances=nuisances)


@pytest.mark.parametrize("digits", [1, 6])
def test_auroc_is_scikit_learns_also_with_ties(digits: int) -> None:
    present = RNG.random(300) < 0.3
    score = np.round(RNG.normal(size=300) + present, digits)
    assert auroc(present, score) == pytest.approx(roc_auc_score(present, score), abs=1e-12)


def test_auroc_of_one_class_is_not_a_number() -> None:
    assert np.isnan(auroc(np.ones(5, bool), RNG.random(5)))


def test_the_interval_holds_the_truth_about_nineteen_times_in_twenty() -> None:
    # Two normal populations one standard deviation apart: AUROC = Phi(1 / sqrt 2) = 0.7602.
    held = 0
    for trial in range(60):
        rng = np.random.default_rng(trial)
        present = np.repeat([True, False], 60)
        score = rng.normal(size=120) + present
        figure = auroc_figure(present, score, [f"p{i}" for i in range(120)], draws=200, seed=trial)
        held += figure.low <= 0.7602 <= figure.high
    assert 51 <= held <= 60


def test_films_of_one_patient_widen_the_interval() -> None:
    present = np.repeat([True, False], 100)
    score = np.repeat(RNG.normal(size=20), 10) + present
    alone = auroc_figure(present, score, [f"p{i}" for i in range(200)], draws=300)
    grouped = auroc_figure(present, score, [f"p{i // 10}" for i in range(200)], draws=300)
    assert grouped.high - grouped.low > 1.5 * (alone.high - alone.low)


def test_pairs_are_of_one_view_and_made_alike() -> None:
    rng = np.random.default_rng(2)
    films = [film(i, rng.choice(["AP", "PA"]), rng.normal(4, 1), rng.normal(380_000, 30_000)) for i in range(120)]
    present = np.arange(120) < 60
    pairs = matched_pairs(films, present)
    assert len(pairs) >= 20
    assert len({index for pair in pairs for index in pair}) == 2 * len(pairs)
    for first, second in pairs:
        assert present[first]
        assert not present[second]
        assert films[first].view == films[second].view
        assert abs(films[first].nuisances["source_noise"] - films[second].nuisances["source_noise"]) < 0.75


def test_a_score_that_only_reads_the_noise_is_found_out_by_matched_pairs() -> None:
    rng = np.random.default_rng(3)
    present = np.arange(400) < 200
    noise = rng.normal(4, 1, 400) + 0.9 * present
    films = [film(i, noise=float(noise[i])) for i in range(400)]
    assert auroc(present, noise) > 0.7
    figure = matched_figure(films, present, noise)
    assert figure is not None
    assert figure.value < 0.6


def test_too_few_pairs_give_no_figure() -> None:
    films = [film(i) for i in range(12)]
    assert matched_figure(films, np.arange(12) < 6, RNG.random(12)) is None


def test_films_without_nuisances_are_in_no_pair() -> None:
    bare = [Film(f"f{i}", f"p{i}", np.zeros(15), np.ones(15), phantom=False) for i in range(30)]
    assert matched_pairs(bare, np.arange(30) < 15) == []


def test_platt_finds_the_slope_and_offset_that_made_the_answers() -> None:
    rng = np.random.default_rng(5)
    logit = rng.normal(0, 3, 20_000)
    present = rng.random(20_000) < 1 / (1 + np.exp(-(0.5 * logit - 1.0)))
    slope, offset = platt(logit, present)
    assert slope == pytest.approx(0.5, abs=0.03)
    assert offset == pytest.approx(-1.0, abs=0.06)


def scored(real: int = 400, drawn: int = 400) -> Scored:
    """No Finding and Pneumonia exclude one another on real films; Mass and No Finding do on phantoms."""
    rng = np.random.default_rng(7)
    count = real + drawn
    target = np.zeros((count, len(LABELS)), bool)
    phantom = np.arange(count) >= real
    ill = rng.random(count) < 0.5
    target[:, LABELS.index(NO_FINDING)] = ~ill
    target[ill & ~phantom, LABELS.index("Pneumonia")] = True
    target[ill & phantom, LABELS.index("Mass")] = True
    logits = 2.5 * target - 1.2 + rng.normal(size=target.shape)
    return Scored(logits, target, np.ones_like(target), phantom)


def test_a_label_with_too_few_films_keeps_its_own_sigmoid() -> None:
    calibration = calibrate(scored(), LABELS, frozenset({"Mass"}))
    hernia, mass = LABELS.index("Hernia"), LABELS.index("Mass")
    assert (calibration.slope[hernia], calibration.offset[hernia]) == (1.0, 0.0)
    assert calibration.slope[mass] > 1.5


def test_operating_points_bound_false_alarms_on_real_films_and_on_phantoms() -> None:
    judged = scored()
    calibration = calibrate(judged, LABELS, frozenset({"Mass"}))
    probability = probabilities(judged.logits, calibration)
    points = operating_points(judged, probability, LABELS)
    for label in ("Mass", "Pneumonia"):
        column = LABELS.index(label)
        above = probability[:, column] >= points[label]
        without = ~judged.target[:, column]
        for rows in (without & judged.phantom, without & ~judged.phantom):
            assert above[rows].mean() <= 0.051
        assert above[judged.target[:, column]].mean() > 0.5
    none = LABELS.index(NO_FINDING)
    missed = (probability[:, none] >= points[NO_FINDING])[~judged.target[:, none] & ~judged.phantom]
    assert missed.mean() <= 0.101
