"""Two bundles on the same films: differences, their certainty, and the films that flip."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

from firstread.models.bundle import Bundle, load_bundle
from firstread.models.data.film import DataError
from firstread.models.evaluation.as_json import Source
from firstread.models.evaluation.compare import as_json, compare
from firstread.models.evaluation.score import Scores
from tests.models.evaluation_films import film_of, scores_of
from tests.models.tiny import make_tiny_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return load_bundle(make_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny"))


def pair(bundle: Bundle, better: float) -> tuple[Scores, Scores, np.ndarray]:
    """A model, and the same with its films with Pneumonia raised by ``better``."""
    rng = np.random.default_rng(3)
    truth = np.arange(200) % 2 == 0
    films = [film_of(n, *(["Pneumonia"] if ill else []), patient=f"p{n // 2}") for n, ill in enumerate(truth)]
    said = np.clip(0.45 + 0.12 * rng.normal(size=200) + 0.08 * truth, 0.01, 0.99)
    second = np.clip(said + better * truth + 0.02 * rng.normal(size=200), 0.01, 0.99)
    return scores_of(bundle, films, {"Pneumonia": said}), scores_of(bundle, films, {"Pneumonia": second}), truth


def test_a_bundle_differs_from_itself_in_nothing(bundle: Bundle) -> None:
    scores, _, _ = pair(bundle, 0)
    for one in compare(bundle, bundle, scores, scores, draws=200).labels:
        assert not one.flips and one.calls is not None and one.calls.p == 1.0
        if not one.reason:
            assert one.difference is not None and one.difference.value == one.difference.low == one.difference.high == 0
            assert one.p == one.p_holm == 1.0


def test_a_better_bundle_is_found_better_and_its_flips_are_named(bundle: Bundle) -> None:
    first, second, truth = pair(bundle, 0.12)
    one = next(row for row in compare(bundle, bundle, first, second).labels if row.label == "Pneumonia")
    assert one.difference is not None and one.difference.low > 0.05 and one.p is not None and one.p < 0.001
    column = first.column("Pneumonia")
    called = first.probabilities[:, column] >= 0.5, second.probabilities[:, column] >= 0.5
    assert [flip.film for flip in one.flips] == [first.films[n].key for n in np.flatnonzero(called[0] != called[1])]
    assert one.flips[0].row is not None and isinstance(one.flips[0].present, bool)
    gained = int(((called[1] & ~called[0]) & truth).sum())
    lost = int(((called[0] & ~called[1]) & truth).sum())
    assert one.calls_with_label is not None
    assert (one.calls_with_label.second_right, one.calls_with_label.first_right) == (gained, lost)
    expected = min(1.0, 2 * binom.cdf(min(gained, lost), gained + lost, 0.5))
    assert one.calls_with_label.p == pytest.approx(expected)
    reverse = next(row for row in compare(bundle, bundle, second, first).labels if row.label == "Pneumonia")
    assert reverse.difference is not None and reverse.difference.value == pytest.approx(-one.difference.value)


def test_many_labels_make_each_p_count_for_less(bundle: Bundle) -> None:
    first, second, truth = pair(bundle, 0.03)
    films = [film_of(n, *(["Pneumonia", "Mass"] if ill else [])) for n, ill in enumerate(truth)]
    first, second = replace(first, films=tuple(films)), replace(second, films=tuple(films))
    found = {row.label: row for row in compare(bundle, bundle, first, second).labels if row.p is not None}
    assert set(found) == {"Pneumonia", "Mass", "No Finding"}
    pneumonia = found["Pneumonia"]
    assert pneumonia.p is not None and pneumonia.p_holm == pytest.approx(min(1.0, 3 * pneumonia.p))


def test_a_film_that_either_cannot_read_is_left_out_of_both(bundle: Bundle) -> None:
    first, second, _ = pair(bundle, 0.1)
    first = replace(first, problems=("a.png: broken", *first.problems[1:]))
    second = replace(second, problems=(*second.problems[:-1], "b.png: broken"))
    found = compare(bundle, bundle, first, second, draws=200)
    assert found.read == 198 and all(row.films == 198 for row in found.labels)


def test_other_films_and_no_common_label_are_sentences(bundle: Bundle, tmp_path: Path) -> None:
    first, second, _ = pair(bundle, 0.1)
    with pytest.raises(DataError, match="different films"):
        compare(bundle, bundle, first, replace(second, films=second.films[::-1]))
    mass = load_bundle(make_tiny_bundle(tmp_path / "mass", labels=("Mass",)))
    edema = load_bundle(make_tiny_bundle(tmp_path / "other" / "edema", labels=("Edema",)))
    with pytest.raises(DataError, match="no label in common"):
        compare(mass, edema, scores_of(mass, first.films, {}), scores_of(edema, first.films, {}))
    partly = compare(bundle, mass, first, scores_of(mass, first.films, {}), draws=200)
    assert [row.label for row in partly.labels] == ["Mass"] and len(partly.only_first) == 14 and not partly.only_second


def test_the_json_holds_figures_flips_and_no_nan(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("x\n")
    first, second, _ = pair(bundle, 0.12)
    comparison = compare(bundle, bundle, first, second, draws=200)
    t = as_json(comparison, first, Source(tmp_path / "labels.csv", tmp_path), datetime(2026, 1, 2, tzinfo=UTC))
    t = json.loads(json.dumps(t, allow_nan=False))
    assert t["schema"] == "firstread.comparison/1" and t["data"]["read"] == 200
    assert t["labels"]["Pneumonia"]["difference"]["value"] > 0 and t["labels"]["Pneumonia"]["flips"][0]["film"]
    assert t["labels"]["Hernia"]["difference"]["value"] is None and t["labels"]["Hernia"]["reason"]
