"""Fits on synthetic log odds whose answer is known, the choice of a method, and prevalence shift."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression

from firstread.models.calibration.fitting import (
    FEWEST,
    KEEP,
    PLATT,
    SHARED_TEMPERATURE,
    TEMPERATURE,
    Scored,
    calibrate,
    chosen_methods,
    fit_labels,
    fitted_on,
    platt,
    probabilities,
    temperature,
)
from firstread.models.calibration.measure import believable, brier_change, share_of_films
from firstread.models.calibration.prevalence import film_weights, prior_shift


def drawn(slope: float, offset: float, films: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Log odds, and labels that are truly present with probability sigmoid(slope * log odds + offset)."""
    rng = np.random.default_rng(seed)
    log_odds = rng.normal(0, 2, films)
    return log_odds, rng.random(films) < expit(slope * log_odds + offset)


@pytest.mark.parametrize(("slope", "offset"), [(0.6, -1.2), (2.0, 0.5), (1.0, 0.0)])
def test_platt_recovers_the_slope_and_offset_that_made_the_labels(slope: float, offset: float) -> None:
    found = platt(*drawn(slope, offset, 40_000))
    assert found == pytest.approx((slope, offset), abs=0.06)


def test_platt_agrees_with_unpenalised_logistic_regression_on_many_films() -> None:
    log_odds, present = drawn(0.7, -0.4, 5_000)
    other = LogisticRegression(C=1e6).fit(log_odds[:, None], present)
    assert platt(log_odds, present) == pytest.approx((other.coef_[0, 0], other.intercept_[0]), abs=2e-3)


def test_temperature_recovers_its_slope_and_has_no_offset() -> None:
    slope, offset = temperature(*drawn(0.4, 0.0, 40_000))
    assert slope == pytest.approx(0.4, abs=0.02)
    assert offset == 0.0


def test_separable_classes_give_a_finite_slope_and_reversed_ones_a_slope_above_zero() -> None:
    log_odds = np.linspace(-3, 3, 40)
    assert 1 < platt(log_odds, log_odds > 0)[0] < 50
    assert 0 < platt(log_odds, log_odds < 0)[0] < 1
    assert 0 < temperature(log_odds, log_odds < 0)[0] < 1


def test_a_shared_temperature_is_one_slope_for_all_labels_that_have_films() -> None:
    first, second = drawn(0.5, 0.0, 20_000, 1), drawn(0.5, 0.0, 20_000, 2)
    log_odds = np.column_stack([first[0], second[0], first[0]])
    target = np.column_stack([first[1], second[1], np.zeros(20_000, bool)])
    lines = fit_labels(SHARED_TEMPERATURE, log_odds, target, np.ones_like(target))
    assert sorted(lines) == [0, 1]
    assert lines[0] == lines[1]
    assert lines[0][0] == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize(
    ("slope", "offset", "expected"), [(1.0, 0.0, KEEP), (0.4, 0.0, TEMPERATURE), (0.6, -1.5, PLATT)]
)
def test_the_method_that_the_films_call_for_is_chosen(slope: float, offset: float, expected: str) -> None:
    log_odds, present = drawn(slope, offset, 1_500, 3)
    column = log_odds[:, None]
    fold = np.arange(len(log_odds)) % 5
    name, losses = chosen_methods(column, present[:, None], np.ones_like(column, bool), fold, (TEMPERATURE, PLATT))[0]
    assert name == expected
    assert set(losses) == {KEEP, TEMPERATURE, PLATT}


def test_a_training_calibrates_drawn_lesions_on_phantoms_and_the_rest_on_films() -> None:
    real, phantom = drawn(0.5, 0.0, 4_000, 1), drawn(2.0, 1.0, 4_000, 2)
    is_phantom = np.repeat([False, True], 4_000)
    log_odds, present = np.concatenate([real[0], phantom[0]]), np.concatenate([real[1], phantom[1]])
    scored = Scored(
        logits=np.column_stack([log_odds] * 3),
        target=np.column_stack([present, present, np.arange(8_000) < FEWEST - 1]),
        known=np.ones((8_000, 3), bool),
        phantom=is_phantom,
    )
    found = calibrate(scored, ["Pneumonia", "Mass", "Hernia"], frozenset({"Mass"}))
    assert found.method == "platt"
    assert found.slope == pytest.approx((0.5, 2.0, 1.0), abs=0.15)
    assert found.offset == pytest.approx((0.0, 1.0, 0.0), abs=0.15)
    recorded = fitted_on(scored, ["Pneumonia", "Mass", "Hernia"], frozenset({"Mass"}))
    assert set(recorded) == {"Pneumonia", "Mass"}
    assert recorded["Mass"]["prevalence"] == pytest.approx(present[is_phantom].mean())
    assert probabilities(scored.logits[:1], found)[0, 2] == pytest.approx(expit(log_odds[0]))


def test_prior_shift_turns_right_probabilities_at_one_prevalence_into_right_ones_at_another() -> None:
    rng = np.random.default_rng(0)

    def films(prevalence: float) -> tuple[np.ndarray, np.ndarray]:
        present = rng.random(200_000) < prevalence
        # Two unit normals a distance of 1.5 apart: the true log odds are known in closed form.
        signal = rng.normal(1.5 * present, 1.0)
        return present, 1.5 * signal - 1.5**2 / 2 + logit(prevalence)

    _, trained = films(0.4)
    present, truth = films(0.01)
    signal_only = truth - logit(0.01)
    assert trained.mean() > truth.mean()
    shifted = signal_only + logit(0.4) + prior_shift(0.01, 0.4)
    assert shifted == pytest.approx(truth)
    assert believable(present, expit(shifted), np.ones(len(present))).ece < 0.001
    assert believable(present, expit(signal_only + logit(0.4)), np.ones(len(present))).ece > 0.1


def test_prior_shift_by_hand() -> None:
    assert prior_shift(0.01, 0.5) == pytest.approx(np.log(0.01 / 0.99))
    assert prior_shift(0.3, 0.3) == 0
    for value in (0.0, 1.0, -0.1, float("nan")):
        with pytest.raises(ValueError, match="prevalence"):
            prior_shift(value, 0.5)


def test_film_weights_make_every_stated_prevalence_hold_at_once() -> None:
    rng = np.random.default_rng(0)
    target = rng.random((400, 3)) < [0.5, 0.3, 0.2]
    weight = film_weights(target, np.ones_like(target), {0: 0.05, 2: 0.4})
    assert weight.mean() == pytest.approx(1)
    assert (weight > 0).all()
    assert np.average(target[:, 0], weights=weight) == pytest.approx(0.05)
    assert np.average(target[:, 2], weights=weight) == pytest.approx(0.4)
    assert film_weights(target, np.ones_like(target), {}) == pytest.approx(np.ones(400))


def test_prevalences_that_exclude_one_another_are_refused() -> None:
    target = np.zeros((10, 2), bool)
    target[:5, 0] = True
    target[:, 1] = ~target[:, 0]
    with pytest.raises(ValueError, match="cannot hold together"):
        film_weights(target, np.ones_like(target), {0: 0.5, 1: 0.9})
    with pytest.raises(ValueError, match="with and without"):
        film_weights(np.ones((5, 1), bool), np.ones((5, 1), bool), {0: 0.5})


def test_ece_and_brier_by_hand() -> None:
    found = believable(np.array([True, False, True, False]), np.array([0.95, 0.95, 0.25, 0.25]), np.ones(4))
    assert found.ece == pytest.approx(0.5 * 0.45 + 0.5 * 0.25)
    assert found.brier == pytest.approx((0.05**2 + 0.95**2 + 0.75**2 + 0.25**2) / 4)
    assert believable(np.array([True]), np.array([0.0]), np.ones(1)).log_loss < 20


def test_a_share_that_all_films_agree_on_still_has_an_interval() -> None:
    patients = [f"p{i}" for i in range(20)]
    everything = share_of_films(np.ones(20, bool), np.ones(20), patients)
    assert (everything.value, everything.high) == (1, 1)
    assert everything.low == pytest.approx(0.05 ** (1 / 20))
    assert share_of_films(np.zeros(20, bool), np.ones(20), patients).high > 0.1


def test_no_change_of_probabilities_is_no_change_of_the_brier_score() -> None:
    present, probability = np.arange(30) % 2 == 0, np.linspace(0, 1, 30)
    found = brier_change(present, probability, probability, np.ones(30), [str(i) for i in range(30)])
    assert (found.value, found.low, found.high) == (0, 0, 0)
