"""A map must change when its network's weights are made random; the measures by which that is judged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from firstread.models.bundle import load_bundle, reference_bundle
from firstread.models.bundle_writer import write_bundle
from firstread.models.explanation.cases import drawn_phantom
from firstread.models.explanation.randomisation import (
    ALIKE,
    STAGES,
    Randomisation,
    RandomisedStage,
    randomisation_test,
    rank_correlation,
    shown,
    ssim,
)
from firstread.models.findings import LABELS
from firstread.models.preprocess import prepare
from tests.models.tiny import make_tiny_bundle, tiny_draft, tiny_weights


def bundle_without_maps(folder: Path) -> Path:
    """A tiny bundle with a dense head."""
    draft = tiny_draft()
    architecture = replace(draft.architecture, head="dense", hidden=(8,), input_size=64)
    write_bundle(replace(draft, architecture=architecture, weights=tiny_weights(architecture)), folder)
    return folder


def test_maps_of_the_shipped_bundle_are_others_when_its_weights_are_random() -> None:
    bundle = load_bundle(reference_bundle())
    labels = ("Pneumothorax", "Mass")
    squares = np.stack([prepare(drawn_phantom(label, 1).image, bundle.preprocessing) for label in labels])
    found = randomisation_test(bundle, squares, [bundle.labels.index(label) for label in labels], seeds=1)
    assert [one.stage for one in found.stages] == list(STAGES)
    assert found.depends
    assert found.stages[-1].absolute < 0.8


def test_the_same_network_gives_the_same_figures_twice_and_is_left_as_it_was(tmp_path: Path) -> None:
    bundle = load_bundle(make_tiny_bundle(tmp_path / "tiny"))
    squares = np.random.default_rng(0).random((2, 64, 64)).astype(np.float32)
    first = randomisation_test(bundle, squares, [3, 8], seeds=1)
    assert first == randomisation_test(bundle, squares, [3, 8], seeds=1)
    assert first.films == first.maps == 2


def test_maps_that_do_not_change_are_found_out() -> None:
    same = Randomisation(2, 2, 1, tuple(RandomisedStage(stage, 0.9, 0.9, 0.9) for stage in STAGES))
    assert not same.depends
    other = Randomisation(2, 2, 1, tuple(RandomisedStage(stage, ALIKE - 0.1, 0.4, 0.2) for stage in STAGES))
    assert other.depends
    unknown = Randomisation(2, 2, 1, tuple(RandomisedStage(stage, float("nan"), 0.4, 0.2) for stage in STAGES))
    assert not unknown.depends


def test_a_bundle_without_maps_is_not_tested_and_says_why(tmp_path: Path) -> None:
    bundle = load_bundle(bundle_without_maps(tmp_path / "dense"))
    found = randomisation_test(bundle, np.zeros((1, 64, 64), np.float32), [0])
    assert found.stages == () and not found.depends and "no maps" in found.why_not


def test_a_network_that_takes_metadata_is_tested_too(tmp_path: Path) -> None:
    bundle = load_bundle(make_tiny_bundle(tmp_path / "told", metadata=("age", "sex")))
    squares = np.random.default_rng(0).random((1, 64, 64)).astype(np.float32)
    found = randomisation_test(bundle, squares, [LABELS.index("Mass")], [{"age": 40.0, "sex": "F"}], seeds=1)
    assert len(found.stages) == len(STAGES)


def test_ssim_agrees_with_scikit_image() -> None:
    metrics = pytest.importorskip("skimage.metrics")
    rng = np.random.default_rng(0)
    for _ in range(5):
        first, second = (shown(rng.normal(size=(7, 7))) for _ in range(2))
        assert ssim(first, second) == pytest.approx(
            metrics.structural_similarity(first.astype(float), second.astype(float), data_range=1.0, win_size=7),
            abs=1e-6,
        )
    assert ssim(first, first) == pytest.approx(1)


def test_flat_maps_cannot_be_compared() -> None:
    flat, lively = np.zeros((7, 7)), np.random.default_rng(0).normal(size=(7, 7))
    assert np.isnan(rank_correlation(flat, lively))
    assert np.isnan(ssim(shown(flat), shown(lively)))
    assert rank_correlation(lively, lively**3) == pytest.approx(1)
    assert rank_correlation(lively, -lively) == pytest.approx(-1)
