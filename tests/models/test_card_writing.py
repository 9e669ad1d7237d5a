"""The card: every figure from JSON, nothing that was not measured is claimed, Markdown that shows as it is meant."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from firstread.models.bundle import Bundle, load_bundle, reference_bundle
from firstread.models.bundle_writer import default_canaries, write_bundle
from firstread.models.calibration import Scored
from firstread.models.card import description_of, description_of_draft, in_bundle, training_summary, write_card
from firstread.models.card.markdown import figure, number, percent, plain, share, table
from firstread.models.card.run import card_of, read_sources
from firstread.models.card.training import summary_of_provenance
from firstread.models.data.film import Film
from firstread.models.evaluation.as_json import Source, as_json
from firstread.models.evaluation.measure import evaluate
from firstread.models.explanation.measure import LIMITS
from firstread.models.findings import LABELS
from tests.models.evaluation_films import film_of, scores_of
from tests.models.tiny import make_tiny_bundle, tiny_draft

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return load_bundle(make_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny", version="1.0.0"))


def judged(films: int = 160) -> tuple[list[Film], Scored, np.ndarray]:
    """Half of the films real and half phantoms; every other one with Pneumonia, which scores higher."""
    rng = np.random.default_rng(0)
    table = []
    for n in range(films):
        labels = ("Pneumonia",) if n % 2 else ()
        making = {"noise": float(rng.normal()), "brightness": float(rng.normal())}
        table.append(
            film_of(n, *labels, phantom=n >= films // 2, nuisances=making if n < films // 2 else {}, age=20.0 + n % 60)
        )
    target = np.stack([film.target for film in table]) > 0.5
    probability = np.clip(0.3 + 0.3 * target + rng.normal(0, 0.15, target.shape), 0.01, 0.99)
    phantom = np.array([film.phantom for film in table])
    return table, Scored(probability, target, np.ones_like(target), phantom), probability


def summary(**more: object) -> dict:
    films, scored, probability = judged()
    given: dict = {
        "labels": LABELS,
        "experimental": tuple(label for label in LABELS if label not in ("Pneumonia", "No Finding")),
        "thresholds": dict.fromkeys(LABELS, 0.5),
        "films": films,
        "scored": scored,
        "probability": probability,
        "learned": films[:80],
        "phantoms": 100,
        "method": "5-fold cross-validation by patient.",
        "recipe": "scratch",
        "recipe_toml": 'name = "scratch"\n',
        "seed": 7,
        "halving": 1e-4,
        "notes": ["Small nodules | are lost."],
        **more,
    }
    return training_summary(**given)


def explanation(hits: int = 9) -> dict:
    def of(count: int, total: int) -> dict:
        return {"value": count / total, "low": 0.5, "high": 0.99, "count": count, "total": total}

    row = {
        "experimental": True,
        "cases": 10,
        "silent": 1,
        "reason": None,
        "pointing": {"hits": of(hits, 10), "when_called": of(5, 5), "chance": 0.1, "centre": 0.2},
        "boxes": {
            way: {
                k: [{"limit": t, "accuracy": of(1, 10), "false_positives": 1.0} for t in LIMITS]
                for k in ("iou", "iobb")
            }
            for way in ("service", "wang")
        },
    }
    few = {"experimental": True, "cases": 2, "silent": 0, "reason": "too few: 2 films", "pointing": None, "boxes": None}
    drawn = {"drawn": 12, "refused": 0, "seed": 1, "side": 512, "target": 0.8, "labels": {"Mass": row, "Nodule": few}}
    stage = {"stage": "head", "rank_correlation": 0.1, "absolute": 0.2, "ssim": 0.3}
    return {
        "schema": "firstread.explanation/1",
        "method": {"tolerance_cells": 0.5},
        "data": None,
        "labels": {},
        "all": None,
        "phantoms": {**drawn, "all": row},
        "randomisation": {"stages": [stage, stage], "depends": True, "why_not": "", "films": 6, "seeds": 2},
    }


def audit() -> dict:
    figures = {"auroc": {"value": 0.8, "low": 0.7, "high": 0.9}, "nuisances": None, "paired": None, "pairs": 3}
    return {
        "schema": "firstread.audit/1",
        "verdicts": [
            {
                "label": "Pneumonia",
                "verdict": "shortcut",
                "sentence": "Follows <b>noise</b> | a lot.",
                "figures": figures,
            },
            {"label": "Mass", "verdict": "not_judged", "sentence": "Too few.", "figures": {}},
        ],
    }


def evaluation(bundle: Bundle, table: Path, films: int = 60) -> dict:
    rows = [film_of(n, *(("Pneumonia",) if n % 2 else ()), sex="FM"[n % 2], view="PA") for n in range(films)]
    values = np.where(np.arange(films) % 2, 0.7, 0.3) + np.random.default_rng(0).normal(0, 0.1, films)
    scores = scores_of(bundle, rows, {"Pneumonia": values.clip(0.01, 0.99), "No Finding": 1 - values.clip(0.01, 0.99)})
    return as_json(evaluate(bundle, scores, draws=100), Source(table, table.parent), NOW)


def says_nothing_senseless(card: str) -> None:
    prose = re.sub(r"```toml.*?```", "", card, flags=re.DOTALL)
    assert not re.search(r"\b(None|nan|NaN|inf|null|True|False)\b", prose), prose
    assert "{" not in prose and "}" not in prose
    for line in prose.splitlines():
        if line.startswith("|"):
            cells = len(re.findall(r"(?<!\\)\|", line))
            assert cells >= 3
    blocks = re.findall(r"(?:^\|.*\n)+", card, re.MULTILINE)
    for block in blocks:
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
        assert len(widths) == 1, block


def test_a_card_of_nothing_measured_says_so_everywhere(bundle: Bundle) -> None:
    card = write_card(description_of(bundle))
    says_nothing_senseless(card)
    assert card.count("not measured") >= 8
    assert "Not a medical device" in card
    assert "NIH" not in card
    assert not re.search(r"\d \(\d", card)


def test_a_card_of_everything_tells_each_figure_once_measured(bundle: Bundle, tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("x")
    told = summary()
    found = evaluation(bundle, labels)
    card = write_card(
        description_of(bundle), found, audit(), explanation(), told, hashes={"evaluation.json": "ab" * 32}
    )
    says_nothing_senseless(card)
    held = told["labels"]["Pneumonia"]["auroc"]
    assert f"{held['value']:.2f} ({held['low']:.2f} to {held['high']:.2f})" in card
    seen = found["labels"]["Pneumonia"]["auroc"]
    assert f"{seen['value']:.2f} ({seen['low']:.2f} to {seen['high']:.2f})" in card
    assert f"({told['labels']['Pneumonia']['auroc_matched']['pairs']} pairs)" in card
    assert "**follows how the film was made**" in card
    assert "| Mass | 9 of 10, 90 % (50 to 99) | 5 of 5 | 10 % | reached |" in card
    assert "too few: 2 films" in card
    assert "sex F" in card
    assert 'name = "scratch"' in card
    assert bundle.weights_sha256 in card
    assert "ab" * 32 in card
    assert str(tmp_path) not in card


def test_a_finding_that_misses_eight_of_ten_is_told_as_missed(bundle: Bundle) -> None:
    card = write_card(description_of(bundle), explanation=explanation(hits=7))
    assert "| **missed** |" in card


@pytest.mark.parametrize("missing", range(4))
def test_each_part_may_be_missing(bundle: Bundle, tmp_path: Path, missing: int) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("x")
    parts: list = [evaluation(bundle, labels), audit(), explanation(), summary()]
    parts[missing] = None
    says_nothing_senseless(write_card(description_of(bundle), *parts))


def test_figures_at_another_operating_point_are_not_told_as_this_one_s(bundle: Bundle, tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("x")
    found, told = evaluation(bundle, labels), summary()
    about = replace(description_of(bundle), thresholds={**bundle.thresholds, "Pneumonia": 0.7})
    card = write_card(about, found, None, None, told)
    row = next(line for line in card.splitlines() if line.startswith("| Pneumonia | 0.7 |"))
    assert row == "| Pneumonia | 0.7 | not measured | not measured | not measured | not measured |"
    assert "| a finding is called |" not in card
    assert "| No Finding is not called |" in card


def test_what_a_site_changed_is_told(bundle: Bundle) -> None:
    told = {
        "site_calibration": {
            "made": "2026-11-24",
            "from": "tiny 1.0.0",
            "used": 300,
            "patients": 200,
            "table": "labels.csv",
            "table_sha256": "0" * 64,
            "films_per_day": 300.0,
            "raised_before": 0.1,
            "raised_after": 0.05,
            "labels": {
                "Pneumonia": {"why": "as asked", "threshold": [0.5, 0.7], "threshold_by": "sensitivity 0.9"},
            },
        }
    }
    card = write_card(replace(description_of(bundle), provenance=told))
    says_nothing_senseless(card)
    assert "30.0 before, 15.0 after" in card
    assert "0.500 → 0.700, sensitivity 0.9" in card


def test_words_from_elsewhere_cannot_break_the_card_or_bring_html(bundle: Bundle) -> None:
    hostile = "a | b\n# heading <script>alert(1)</script> [x](http://evil) `code` *bold*\x07"
    card = write_card(
        replace(description_of(bundle), name=hostile, version="1"),
        audit={"verdicts": [{"label": "Pneumonia", "verdict": hostile, "sentence": hostile, "figures": {}}]},
        training=summary(notes=[hostile], method=hostile),
        notes=[hostile],
    )
    says_nothing_senseless(card)
    assert "<script>" not in card.replace("\\<script\\>", "")
    assert "\n# heading" not in card and "\x07" not in card
    assert card.count("\n# ") == 0


def test_a_recipe_with_a_fence_of_its_own_stays_inside(bundle: Bundle) -> None:
    card = write_card(description_of(bundle), training=summary(recipe_toml='note = "```"\n'))
    assert '````toml\nnote = "```"\n````' in card


def test_a_summary_counts_what_was_learned_and_judges_real_films_apart_from_phantoms() -> None:
    told = summary()
    assert told["learned"]["films"] == 80 and told["learned"]["labels"]["Pneumonia"] == 40
    assert told["learned"]["sources"] == ["other films"]
    assert told["judged"] == {"films": 80, "patients": 80, "phantoms": 80}
    row = told["labels"]["Pneumonia"]
    assert row["auroc"]["positives"] == row["auroc"]["negatives"] == 40
    assert row["auroc"]["value"] > 0.8
    assert row["sensitivity"]["total"] == 40
    assert set(told["phantoms"]) == {"Pneumonia", "No Finding"}
    assert told["labels"]["Hernia"]["auroc"] is None
    assert "0 with it and 80 without" in told["labels"]["Hernia"]["reason"]
    assert json.loads(json.dumps(told, allow_nan=False)) == told


def test_a_fresh_bundle_carries_its_summary_and_the_next_card_finds_it(tmp_path: Path) -> None:
    draft = tiny_draft()
    told = summary()
    card = write_card(description_of_draft(draft), training=told)
    says_nothing_senseless(card)
    made = write_bundle(replace(draft, card=card, extra_files=in_bundle(told)), tmp_path / "fresh")
    assert len(made.canaries) == description_of_draft(draft).canaries == 3
    sources = read_sources(made, {})
    assert sources.found["training"] == told
    assert made.weights_sha256 in card_of(made, sources)


def test_a_draft_without_canaries_is_told_with_those_it_will_get() -> None:
    assert description_of_draft(replace(tiny_draft(), canaries=())).canaries == len(default_canaries(64))


def test_films_of_nih_are_told_by_their_names() -> None:
    films = [replace(film, key=f"{n:08}_000.png") for n, film in enumerate(judged()[0][:80])]
    told = summary(learned=films)
    assert told["learned"]["sources"] == ["NIH ChestX-ray14"]
    card = write_card(description_of(load_bundle(reference_bundle())), training=told)
    assert "Summers" in card and "CVPR 2017" in card


def test_the_shipped_bundle_tells_its_training_by_provenance_or_summary() -> None:
    shipped = load_bundle(reference_bundle())
    told = summary_of_provenance(shipped)
    card = write_card(description_of(shipped), training=told)
    says_nothing_senseless(card)
    assert "No Finding" in card


def test_words_and_figures() -> None:
    assert plain("a|b_c*d\ne") == "a\\|b\\_c\\*d e"
    assert plain("x & <y>") == "x &amp; \\<y\\>"
    assert number(float("nan")) == number(None) == number(True) == "not measured"
    assert percent(0.125) == "12 %"
    assert figure({"value": 0.8, "low": None, "high": None}) == "0.80"
    assert figure({"value": None, "reason": "too few | films"}) == "too few \\| films"
    assert share({"value": 0.5, "low": 0.4, "high": 0.6}) == "50 % (40 to 60)"
    assert share(0.5) == "50 %"
    assert table(("a",), []) == []
