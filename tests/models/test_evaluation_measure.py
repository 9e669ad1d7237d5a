"""From scores to an evaluation: labels, groups, normal against abnormal, and JSON that holds its promises."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from firstread.models.bundle import Bundle, load_bundle
from firstread.models.data.film import DataError
from firstread.models.evaluation.as_json import Source, as_json
from firstread.models.evaluation.groups import groups_of, in_order
from firstread.models.evaluation.measure import evaluate
from firstread.models.evaluation.score import Scores
from firstread.models.findings import LABELS, NO_FINDING, ReasonCode
from firstread.models.prediction import Reason
from tests.models.evaluation_films import film_of, scores_of
from tests.models.tiny import make_tiny_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return load_bundle(make_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny"))


@pytest.fixture
def source(tmp_path: Path) -> Source:
    (tmp_path / "labels.csv").write_text("as it was\n")
    return Source(tmp_path / "labels.csv", tmp_path)


def planted(bundle: Bundle, count: int = 120) -> tuple[Scores, np.ndarray]:
    """Every third film has Pneumonia, four have Hernia; the score of Pneumonia knows, better in women."""
    rng = np.random.default_rng(1)
    films, truth = [], np.arange(count) % 3 == 0
    for n in range(count):
        labels = [*(["Pneumonia"] if truth[n] else []), *(["Hernia"] if n % 30 == 1 else [])]
        more = {"sex": "FM"[n % 2], "age": 20.0 + n % 60, "view": "AP" if n % 4 else "PA"}
        films.append(film_of(n, *labels, **more, columns={"site": f"house {n % 3}", "kilovolt": str(60 + n / 7)}))
    women = np.array([film.sex == "F" for film in films])
    said = np.clip(0.3 + 0.1 * rng.normal(size=count) + np.where(women, 0.35, 0.08) * truth, 0.01, 0.99)
    return scores_of(bundle, films, {"Pneumonia": said, NO_FINDING: 1 - said}), truth


def made(bundle: Bundle, scores: Scores, source: Source, **more: Any) -> dict[str, Any]:
    found = as_json(evaluate(bundle, scores, draws=200, **more), source, datetime(2026, 1, 2, tzinfo=UTC))
    again: dict[str, Any] = json.loads(json.dumps(found, allow_nan=False))
    return again


def test_a_label_gets_its_figure_and_one_with_too_few_films_says_so(bundle: Bundle, source: Source) -> None:
    scores, truth = planted(bundle)
    t = made(bundle, scores, source)
    pneumonia, hernia, mass = (t["labels"][name] for name in ("Pneumonia", "Hernia", "Mass"))
    expected = roc_auc_score(truth, scores.probabilities[:, scores.column("Pneumonia")])
    assert pneumonia["auroc"]["value"] == pytest.approx(expected)
    assert pneumonia["auroc"]["low"] < expected < pneumonia["auroc"]["high"]
    assert (pneumonia["auroc"]["positives"], pneumonia["auroc"]["negatives"]) == (40, 80)
    assert pneumonia["reason"] is None and not pneumonia["experimental"] and hernia["experimental"]
    assert hernia["auroc"]["value"] is None and "4 with it and 116 without" in hernia["auroc"]["reason"]
    assert hernia["operating"] is None and hernia["calibration"] is None and hernia["positives"] == 4
    assert mass["auroc"]["value"] is None and mass["positives"] == 0
    assert pneumonia["operating"]["sensitivity"]["total"] == 40
    assert set(t["labels"]) == set(LABELS)


def test_the_json_names_bundle_data_and_how_intervals_were_made(bundle: Bundle, source: Source) -> None:
    scores, _ = planted(bundle)
    t = made(bundle, scores, source)
    assert t["schema"] == "firstread.evaluation/1" and t["made_at"] == "2026-01-02T00:00:00+00:00"
    assert t["bundle"]["weights_sha256"] == bundle.weights_sha256 and t["bundle"]["version"] == "0.0.1"
    assert t["data"]["films"] == t["data"]["patients"] == t["data"]["read"] == 120
    assert len(t["data"]["table_sha256"]) == 64 and t["data"]["sex"] == {"F": 60, "M": 60}
    assert t["data"]["prevalence"]["Hernia"] == {"positives": 4, "known": 120}
    assert "bootstrap by patient" in t["interval"]["auroc"] and "Wilson" in t["interval"]["shares"]
    assert all(p["caution"] == "other data, other split" and p["source"] for p in t["published"])
    assert t["published"][0]["auroc"]["Cardiomegaly"] == 0.8141


def test_normal_against_abnormal_reaches_the_sensitivities_asked_for(bundle: Bundle, source: Source) -> None:
    scores, _ = planted(bundle)
    n = made(bundle, scores, source)["normal_abnormal"]
    specificity = []
    for wanted in ("0.95", "0.98", "0.99"):
        assert n["at_sensitivity"][wanted]["sensitivity"]["value"] >= float(wanted)
        specificity.append(n["at_sensitivity"][wanted]["specificity"]["value"])
    assert specificity == sorted(specificity, reverse=True)
    # The operating point of No Finding is 0.5: abnormal is what lies strictly below it.
    below = scores.probabilities[:, scores.column(NO_FINDING)] < 0.5
    abnormal = np.array([not film.target[LABELS.index(NO_FINDING)] for film in scores.films])
    assert n["operating"]["sensitivity"]["count"] == int((below & abnormal).sum())
    assert n["any_finding"]["sensitivity"]["total"] == n["positives"] == int(abnormal.sum())


def test_a_bundle_without_no_finding_ranks_by_its_highest_finding(
    bundle: Bundle, tmp_path: Path, source: Source
) -> None:
    few = load_bundle(make_tiny_bundle(tmp_path / "few", labels=("Mass", "Pneumonia")))
    scores, _ = planted(bundle)
    scores = scores_of(few, scores.films, {"Pneumonia": scores.probabilities[:, scores.column("Pneumonia")]})
    t = made(few, scores, source)
    assert "highest probability" in t["normal_abnormal"]["score"] and t["normal_abnormal"]["operating"] is None
    assert t["data"]["not_assessed"] == ["Hernia", NO_FINDING] and set(t["labels"]) == {"Mass", "Pneumonia"}


def test_groups_show_where_a_model_is_worse(bundle: Bundle, source: Source) -> None:
    scores, _ = planted(bundle)
    t = made(bundle, scores, source, by=["site", "kilovolt"])
    by = {(group["by"], group["level"]): group for group in t["groups"]}
    women, men = (by[("sex", sex)]["labels"]["Pneumonia"]["auroc"]["value"] for sex in "FM")
    assert women > 0.95 and men < 0.85
    assert {level for name, level in by if name == "site"} == {"house 0", "house 1", "house 2"}
    assert sum(group["films"] for (name, _), group in by.items() if name == "kilovolt") == 120
    assert len([level for name, level in by if name == "kilovolt"]) == 4
    young = by[("age", "20 to 29")]["labels"]["Pneumonia"]["auroc"]
    assert young["value"] is None and "too few" in young["reason"]
    with pytest.raises(DataError, match="no column 'ward'"):
        evaluate(bundle, scores, by=["ward"])


def test_ages_and_rare_levels_are_grouped_and_ordered_for_reading() -> None:
    ages = [3.0, 9.0, 15.0, 94.0, 110.0, None, float("nan")]
    films = [film_of(n, age=age, columns={"scanner": f"type {n % 30:02}"}) for n, age in enumerate(ages * 10)]
    found = groups_of(films, ["scanner"])
    assert in_order(found["age"]) == ["0 to 9", "10 to 19", "90 and more", "not stated"]
    assert len(set(found["scanner"])) == 13 and in_order(found["scanner"])[-1] == "other"
    assert "sex" not in found  # the same for all


def test_films_refused_or_unreadable_are_counted_and_listed(bundle: Bundle, source: Source) -> None:
    scores, _ = planted(bundle)
    scores.probabilities[5] = np.nan
    reason = Reason(ReasonCode.NOT_A_CHEST, "unlike a frontal chest film")
    scores = replace(
        scores,
        refused=tuple(reason if n in (1, 2) else None for n in range(120)),
        problems=tuple("film_0005.png, row 7: broken" if n == 5 else None for n in range(120)),
    )
    t = made(bundle, scores, source)
    assert t["data"]["refused"]["count"] == 2 and t["data"]["refused"]["by_reason"] == {"NOT_A_CHEST": 2}
    assert t["data"]["refused"]["films"][0] == {
        "film": "film_0001.png",
        "row": 3,
        "code": "NOT_A_CHEST",
        "reason": "not a chest: unlike a frontal chest film",
    }
    assert t["data"]["unreadable"] == [{"film": "film_0005.png", "row": 7, "problem": "film_0005.png, row 7: broken"}]
    assert t["data"]["read"] == 119
    assert t["labels"]["Pneumonia"]["positives"] + t["labels"]["Pneumonia"]["negatives"] == 119
    gate = {group["level"]: group["films"] for group in t["groups"] if group["by"] == "gate"}
    assert gate == {"analysed": 117, "refused": 2, "not readable": 1}


def test_labels_that_a_table_does_not_know_are_left_out_of_their_figure(bundle: Bundle, source: Source) -> None:
    scores, _ = planted(bundle)
    known = np.ones(len(LABELS), np.float32)
    known[LABELS.index("Pneumonia")] = 0
    films = tuple(replace(film, known=known) if n < 60 else film for n, film in enumerate(scores.films))
    t = made(bundle, replace(scores, films=films), source)
    assert t["labels"]["Pneumonia"]["positives"] == 20 and t["labels"]["Pneumonia"]["negatives"] == 40


def test_matched_pairs_are_reported_with_what_they_were_matched_in(bundle: Bundle, source: Source) -> None:
    scores, truth = planted(bundle, 240)
    rng = np.random.default_rng(2)
    noise = rng.normal(size=240) + 1.5 * truth
    films = tuple(
        replace(film, nuisances={"noise": float(value)}) for film, value in zip(scores.films, noise, strict=True)
    )
    cheat = scores_of(bundle, films, {"Pneumonia": 1 / (1 + np.exp(-noise))})
    matched = made(bundle, cheat, source)["labels"]["Pneumonia"]
    assert matched["auroc"]["value"] > 0.8 and matched["matched"]["nuisances"] == ["noise"]
    assert matched["matched"]["auroc"]["value"] < 0.62 and matched["matched"]["pairs"] >= 10
    assert made(bundle, scores, source)["labels"]["Pneumonia"]["matched"] is None
    known = scores_of(bundle, films[:3] + scores.films[3:], {})
    few = made(bundle, known, source)["labels"]["Pneumonia"]["matched"]
    assert few["auroc"]["value"] is None and "too few pairs" in few["auroc"]["reason"]


def test_one_class_only_gives_reasons_and_no_nan(bundle: Bundle, source: Source) -> None:
    films = [film_of(n) for n in range(30)]
    t = made(bundle, scores_of(bundle, films, {}), source)
    assert t["normal_abnormal"]["auroc"]["value"] is None and "0 with it" in t["normal_abnormal"]["reason"]
    assert all(one["auroc"]["value"] is None and one["reason"] for one in t["labels"].values())


def test_nothing_readable_is_a_sentence(bundle: Bundle) -> None:
    films = [film_of(n) for n in range(3)]
    scores = replace(scores_of(bundle, films, {}), problems=("a.png, row 2: broken",) * 3)
    with pytest.raises(DataError, match=r"none of the 3 films could be read: a\.png, row 2"):
        evaluate(bundle, scores)


def test_every_number_in_the_json_is_finite(bundle: Bundle, source: Source) -> None:
    scores, _ = planted(bundle)

    def walk(value: Any) -> None:
        if isinstance(value, dict | list):
            for one in value.values() if isinstance(value, dict) else value:
                walk(one)
        assert not isinstance(value, float) or math.isfinite(value)

    walk(as_json(evaluate(bundle, scores, draws=200), source, datetime.now(UTC)))
