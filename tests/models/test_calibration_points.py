"""Operating points: they reach what was wanted, and alerts a day count a film once."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, logit

from firstread.models.calibration import operating_points
from firstread.models.calibration.fitting import Scored
from firstread.models.calibration.points import (
    moved_threshold,
    threshold_for_sensitivity,
    threshold_for_specificity,
    thresholds_for_alerts,
)


def drawn(films: int = 500, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    present = rng.random(films) < 0.3
    return expit(rng.normal(2.0 * present - 1, 1.0)), present


@pytest.mark.parametrize("wanted", [0.5, 0.9, 0.95, 0.99, 1.0])
def test_the_wanted_sensitivity_is_reached_and_a_higher_threshold_would_miss_it(wanted: float) -> None:
    score, present = drawn()
    threshold = threshold_for_sensitivity(score, present, wanted)
    assert (score[present] >= threshold).mean() >= wanted
    next_higher = score[present & (score >= threshold)].min() + 1e-12
    assert (score[present] >= next_higher).mean() < wanted


@pytest.mark.parametrize("wanted", [0.5, 0.9, 0.98, 1.0])
def test_the_wanted_specificity_is_reached_and_a_lower_threshold_would_miss_it(wanted: float) -> None:
    score, present = drawn()
    threshold = threshold_for_specificity(score, present, wanted)
    assert (score[~present] < threshold).mean() >= wanted
    next_lower = score[~present & (score < threshold)].max()
    assert (score[~present] < next_lower).mean() < wanted


def test_a_threshold_stands_clear_of_every_score_so_that_rounding_does_not_decide() -> None:
    score, present = drawn()
    threshold = threshold_for_sensitivity(score, present, 0.9)
    assert ((score >= threshold) == (score.astype(np.float32) >= np.float32(threshold))).all()
    assert np.abs(score - threshold).min() > 0


def test_scores_that_are_all_alike_give_a_threshold_that_a_bundle_takes() -> None:
    for value in (0.0, 0.5, 1.0):
        score, present = np.full(20, value), np.arange(20) < 10
        for threshold in (
            threshold_for_sensitivity(score, present, 0.9),
            threshold_for_specificity(score, present, 0.9),
            *thresholds_for_alerts(score[:, None], 0.1),
        ):
            assert 0 < threshold <= 1
    assert (np.full(20, 0.5) >= thresholds_for_alerts(np.full((20, 1), 0.5), 0.1)[0]).sum() == 0


def test_no_film_with_the_label_or_an_impossible_share_is_refused() -> None:
    score = np.linspace(0, 1, 5)
    with pytest.raises(ValueError, match="no film carries"):
        threshold_for_sensitivity(score, np.zeros(5, bool), 0.9)
    with pytest.raises(ValueError, match="every film carries"):
        threshold_for_specificity(score, np.ones(5, bool), 0.9)
    for wanted in (0.0, 1.1, float("nan")):
        with pytest.raises(ValueError, match="share"):
            threshold_for_sensitivity(score, np.ones(5, bool), wanted)


def test_alerts_count_a_film_with_several_findings_once() -> None:
    rng = np.random.default_rng(0)
    one = rng.random(300)
    same = np.column_stack([one, one, one])
    thresholds = thresholds_for_alerts(same, 20 / 300)
    # Three labels that always agree raise the same 20 films; counted per label they would raise a third of them.
    assert (same >= thresholds).any(axis=1).sum() == 20
    apart = rng.random((300, 3))
    raised = (apart >= thresholds_for_alerts(apart, 20 / 300)).any(axis=1).sum()
    assert 17 <= raised <= 20
    assert (apart >= thresholds_for_alerts(apart, 20 / 300)).sum(axis=0) == pytest.approx([6, 6, 6], abs=1)


def test_alerts_never_exceed_the_share_whatever_the_ties_and_weights() -> None:
    rng = np.random.default_rng(1)
    for _ in range(30):
        score = 0.01 + 0.98 * np.round(rng.random((120, 4)), 1 + int(rng.integers(0, 3)))
        weight = rng.random(120) + 0.01
        share = float(rng.uniform(0.02, 0.5))
        raised = (score >= thresholds_for_alerts(score, share, weight)).any(axis=1)
        assert weight[raised].sum() / weight.sum() <= share + 1e-9


def test_films_raised_already_are_taken_off_the_alerts() -> None:
    rng = np.random.default_rng(2)
    score, already = rng.random((200, 1)), np.arange(200) < 15
    thresholds = thresholds_for_alerts(score, 0.1, already=already)
    assert (already | (score >= thresholds).any(axis=1)).sum() == 20
    with pytest.raises(ValueError, match="already"):
        thresholds_for_alerts(score, 0.05, already=already)


def test_a_moved_threshold_calls_the_same_films() -> None:
    score, _ = drawn()
    slope, offset = 0.4, -2.0
    moved = moved_threshold(0.3, slope, offset)
    assert ((score >= 0.3) == (expit(slope * logit(score) + offset) >= moved)).all()
    assert moved_threshold(1.0, 3.0, 40.0) <= 1
    assert moved_threshold(1e-9, 3.0, -40.0) > 0


def test_points_of_a_training_bound_false_alarms_on_films_and_phantoms_apart() -> None:
    rng = np.random.default_rng(0)
    present = rng.random(2000) < 0.3
    phantom = np.arange(2000) % 2 == 0
    score = 0.7 * rng.random(2000) + 0.2 * phantom
    scored = Scored(np.zeros((2000, 2)), np.column_stack([present, ~present]), np.ones((2000, 2), bool), phantom)
    points = operating_points(scored, np.column_stack([score, 1 - score]), ["Mass", "No Finding"])
    for kind in (phantom, ~phantom):
        assert (score[kind & ~present] >= points["Mass"]).mean() <= 0.02
        assert (1 - score[kind & present] >= points["No Finding"]).mean() <= 0.10
    assert set(operating_points(scored, np.column_stack([score, score]), ["Mass", "Nodule"])) == {"Mass", "Nodule"}
