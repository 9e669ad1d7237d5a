"""Figures of an evaluation: right against a second implementation, and their intervals hold what they promise."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from firstread.models.data.film import Film
from firstread.models.evaluation import figures
from firstread.models.evaluation.delong import delong_figure, delong_p
from firstread.models.findings import LABELS

ONES = np.ones(len(LABELS), np.float32)


def _cohort(rng: np.random.Generator, patients: int, shift: float) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Films of patients (1 to 4 each, alike within a patient), and a score with AUROC Phi(shift / sqrt 2)."""
    names, present, scores = [], [], []
    for number in range(patients):
        ill = number % 2 == 0
        own = rng.normal()
        for _ in range(int(rng.integers(1, 5))):
            names.append(f"p{number}")
            present.append(ill)
            scores.append(np.sqrt(0.7) * own + np.sqrt(0.3) * rng.normal() + shift * ill)
    return np.array(present), np.array(scores), names


@pytest.mark.parametrize("decimals", [0, 1, 6])
def test_auroc_and_auprc_are_those_of_scikit_learn_with_and_without_ties(decimals: int) -> None:
    rng = np.random.default_rng(3)
    present = rng.random(300) < 0.3
    score = np.round(rng.normal(size=300) + present, decimals)
    assert figures.auroc(present, score) == pytest.approx(roc_auc_score(present, score), abs=1e-12)
    assert figures.auprc(present, score) == pytest.approx(average_precision_score(present, score), abs=1e-12)


def test_a_bootstrap_draw_is_what_repeating_the_films_gives() -> None:
    rng = np.random.default_rng(5)
    present, score, names = _cohort(rng, 30, 0.8)
    score = np.round(score, 1)
    weights = next(figures.drawn_weights(names, draws=20, seed=1))
    for draw, fast in zip(weights, figures._weighted_auroc(present, score, weights), strict=True):
        again = np.repeat(np.arange(len(names)), draw.astype(int))
        assert fast == pytest.approx(roc_auc_score(present[again], score[again]), abs=1e-12)
        assert len({round(w) for w, n in zip(draw, names, strict=True) if n == names[0]}) == 1
    assert np.allclose(weights[:, [names.index(name) for name in sorted(set(names))]].sum(axis=1), 30)


@pytest.mark.slow
def test_intervals_hold_the_truth_in_about_95_of_100_repetitions_though_films_of_a_patient_are_alike() -> None:
    rng = np.random.default_rng(11)
    truth = 0.7602  # Phi(1 / sqrt 2)
    inside = {"bootstrap": 0, "delong": 0, "films alone": 0}
    repetitions = 200
    for _ in range(repetitions):
        present, score, names = _cohort(rng, 100, 1.0)
        found = {
            "bootstrap": figures.auroc_figure(present, score, names, draws=300),
            "delong": delong_figure(present, score, names),
            "films alone": delong_figure(present, score, [str(n) for n in range(len(names))]),
        }
        for name, figure in found.items():
            inside[name] += figure.low <= truth <= figure.high
    assert 0.91 * repetitions <= inside["bootstrap"] <= 0.99 * repetitions
    assert 0.91 * repetitions <= inside["delong"] <= 0.99 * repetitions
    assert inside["films alone"] < 0.88 * repetitions  # what ignoring patients would have promised


def test_bootstrap_and_delong_agree_on_the_width() -> None:
    present, score, names = _cohort(np.random.default_rng(2), 400, 1.0)
    one, two = figures.auroc_figure(present, score, names), delong_figure(present, score, names)
    assert one.value == pytest.approx(two.value, abs=1e-12)
    assert one.low == pytest.approx(two.low, abs=0.012) and one.high == pytest.approx(two.high, abs=0.012)


def test_a_difference_on_the_same_films_is_surer_than_two_intervals() -> None:
    rng = np.random.default_rng(4)
    present, score, names = _cohort(rng, 200, 1.2)
    worse = score + rng.normal(scale=0.5, size=len(score))
    difference = figures.auroc_difference(present, score, worse, names)
    apart = figures.auroc_figure(present, score, names)
    assert 0 < difference.low < difference.value < difference.high
    assert difference.high - difference.low < 0.7 * (apart.high - apart.low)
    assert delong_p(present, score, worse, names) < 0.05
    assert delong_p(present, score, score * 3 + 1, names) == 1.0
    noise = rng.normal(size=len(score))
    assert delong_p(present, noise, rng.normal(size=len(score)), names) > 0.001


def test_one_class_has_no_auroc_and_no_interval() -> None:
    present = np.ones(20, bool)
    found = figures.auroc_figure(present, np.arange(20.0), [str(n) for n in range(20)])
    assert np.isnan([found.value, found.low, found.high]).all() and (found.positives, found.negatives) == (20, 0)
    assert np.isnan(figures.auprc(present, np.arange(20.0)))
    assert np.isnan(delong_figure(~present, np.arange(20.0), ["a"] * 20).value)


def test_operating_figures_count_what_is_called() -> None:
    present = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 0], bool)
    score = np.array([0.9, 0.8, 0.5, 0.1, 0.6, 0.4, 0.3, 0.2, 0.2, 0.1])
    found = figures.operating_figures(present, score, 0.5)
    assert (found.sensitivity.count, found.sensitivity.total) == (3, 4)
    assert (found.specificity.count, found.specificity.total) == (5, 6)
    assert (found.ppv.count, found.ppv.total) == (3, 4) and (found.npv.count, found.npv.total) == (5, 6)
    # Wilson by hand for 3 of 4.
    assert found.sensitivity.low == pytest.approx(0.3006, abs=1e-4)
    assert found.sensitivity.high == pytest.approx(0.9544, abs=1e-4)
    nothing = figures.operating_figures(present, score, 2.0)
    assert nothing.ppv.total == 0 and np.isnan(nothing.ppv.value) and nothing.npv.total == 10


@pytest.mark.parametrize("wanted", [0.95, 0.98, 0.99, 1.0])
def test_the_threshold_for_a_sensitivity_is_the_highest_that_reaches_it(wanted: float) -> None:
    rng = np.random.default_rng(8)
    present = rng.random(500) < 0.4
    score = np.round(rng.normal(size=500) + present, 2)
    threshold = figures.threshold_for_sensitivity(present, score, wanted)
    assert (score[present] >= threshold).mean() >= wanted
    higher = score[present][score[present] > threshold].min()
    assert (score[present] >= higher).mean() < wanted


def test_calibration_figures_of_calibrated_and_of_overconfident_probabilities() -> None:
    rng = np.random.default_rng(9)
    probability = rng.random(20_000)
    present = rng.random(20_000) < probability
    good = figures.calibration_figures(present, probability)
    assert good.ece < 0.02 and good.brier == pytest.approx(1 / 6, abs=0.01) and len(good.bins) == 10
    boast = figures.calibration_figures(present, (probability > 0.5).astype(float))
    assert boast.ece == pytest.approx(0.25, abs=0.02) and len(boast.bins) == 2
    assert sum(b.observed.total for b in boast.bins) == 20_000


def _made(rng: np.random.Generator, count: int, shortcut: float) -> tuple[list[Film], np.ndarray]:
    """Films whose noise follows the label by ``shortcut`` standard deviations."""
    present = np.arange(count) % 2 == 0
    films = [
        Film(
            key=str(n),
            patient=f"p{n}",
            target=ONES,
            known=ONES,
            phantom=False,
            view="AP" if n % 3 else "PA",
            nuisances={
                "noise": float(rng.normal() + shortcut * ill),
                "source_png_bytes": float(rng.integers(100_000, 200_000)),
            },
        )
        for n, ill in enumerate(present)
    ]
    return films, present


def test_pairs_are_of_one_view_and_within_the_calliper_and_no_film_stands_in_two() -> None:
    films, present = _made(np.random.default_rng(1), 200, 1.0)
    pairs = figures.matched_pairs(films, present)
    table = np.array([[f.nuisances["noise"], np.log(f.nuisances["source_png_bytes"])] for f in films])
    table = table / table.std(axis=0)
    assert len(pairs) > 20
    assert len({i for pair in pairs for i in pair}) == 2 * len(pairs)
    for one, other in pairs:
        assert present[one] and not present[other] and films[one].view == films[other].view
        assert (np.abs(table[one] - table[other]) <= 0.3001).all()
    assert len(figures.matched_pairs(films, present, calliper=0.1)) < len(pairs)
    assert len(figures.matched_pairs(films, present, calliper=0.1)) > 0


def test_a_score_that_reads_the_noise_loses_its_figure_on_matched_pairs_and_an_honest_one_keeps_it() -> None:
    rng = np.random.default_rng(6)
    films, present = _made(rng, 600, 1.5)
    noise = np.array([film.nuisances["noise"] for film in films])
    honest = rng.normal(size=600) + 1.2 * present
    patients = [film.patient for film in films]
    assert figures.auroc_figure(present, noise, patients).value > 0.82
    cheat, fair = (figures.matched_figure(films, present, score) for score in (noise, honest))
    assert cheat is not None and fair is not None
    assert cheat.value < 0.58 and cheat.low < 0.55
    assert fair.low > 0.62 and fair.positives == fair.negatives


def test_films_without_nuisances_give_no_pairs_and_few_pairs_no_figure() -> None:
    bare = [Film(str(n), str(n), ONES, ONES, False) for n in range(30)]
    present = np.arange(30) % 2 == 0
    assert figures.matched_pairs(bare, present) == []
    assert figures.matched_figure(bare, present, np.arange(30.0)) is None
    films, flags = _made(np.random.default_rng(1), 12, 0.0)
    assert figures.matched_figure(films, flags, np.arange(12.0)) is None
    alike = [Film(str(n), str(n), ONES, ONES, False, nuisances={"noise": 1.0}) for n in range(30)]
    assert len(figures.matched_pairs(alike, present)) == 15  # a nuisance that never varies separates nothing


def test_many_films_of_few_patients_are_still_too_few() -> None:
    present = np.arange(60) % 2 == 0
    assert figures.too_few(present, [f"p{n}" for n in range(60)]) == ""
    assert "3 with it and 30 without" in figures.too_few(present, [f"p{n % 6 if n % 2 == 0 else n}" for n in range(60)])
    assert "9 with it and 51 without" in figures.too_few(np.arange(60) < 9, [f"p{n}" for n in range(60)])
