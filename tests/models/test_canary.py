"""Canaries sing when an engine, its weights or its labels are not what the bundle was made with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from firstread.models.bundle import Bundle, load_bundle
from firstread.models.canary import canary_squares, check
from firstread.models.engine import Engine, EngineError, EngineOutput, open_engine
from firstread.models.metadata import Known
from tests.models.test_bundle import reseal
from tests.models.tiny import make_tiny_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return load_bundle(make_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny"))


class Drifting:
    """An engine whose answers are off."""

    def __init__(self, engine: Engine, off: float) -> None:
        self.engine, self.off = engine, off

    def run(self, batch: np.ndarray, metadata: Sequence[Known | None] | None = None) -> EngineOutput:
        output = self.engine.run(batch, metadata)
        return replace(output, probabilities=output.probabilities + np.float32(self.off))


def test_a_sound_engine_passes_and_says_how_closely(bundle: Bundle) -> None:
    result = check(open_engine(bundle, "cpu", threads=1), bundle)
    assert result.ok
    assert result.worst_difference < 1e-4
    assert "3 canaries agree" in result.detail


def test_an_engine_that_is_off_by_a_hundredth_must_not_report(bundle: Bundle) -> None:
    result = check(Drifting(open_engine(bundle, "cpu", threads=1), 0.01), bundle)
    assert not result.ok
    assert result.worst_difference == pytest.approx(0.01, abs=1e-3)
    assert "must not be reported" in result.detail


def test_an_engine_that_answers_no_number_must_not_report(bundle: Bundle) -> None:
    result = check(Drifting(open_engine(bundle, "cpu", threads=1), float("nan")), bundle)
    assert not result.ok
    assert "no number" in result.detail


def test_labels_in_another_order_are_found_out(tmp_path: Path) -> None:
    folder = make_tiny_bundle(tmp_path / "swapped")

    def swap(table: dict) -> None:
        labels = table["labels"]
        labels[4], labels[9] = labels[9], labels[4]

    reseal(folder, swap)
    with pytest.raises(EngineError, match="must not be reported"):
        open_engine(load_bundle(folder), "cpu", threads=1)


def test_other_preprocessing_is_found_out(tmp_path: Path) -> None:
    folder = make_tiny_bundle(tmp_path / "smooth")
    reseal(folder, lambda table: table["preprocessing"].update(smoothing_px=2.0))
    with pytest.raises(EngineError, match="must not be reported"):
        open_engine(load_bundle(folder), "cpu", threads=1)


def test_canaries_differ_from_one_another(bundle: Bundle) -> None:
    squares = canary_squares(bundle)
    assert squares.shape == (3, 64, 64)
    expected = np.array([[canary.expected[label] for label in bundle.labels] for canary in bundle.canaries])
    assert np.ptp(expected, axis=0).max() > 0.05
