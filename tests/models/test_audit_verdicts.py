"""The audit finds a planted shortcut and clears a judge that sees the disease, on the very same films."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from firstread.models.audit.alterations import ALTERATIONS, TOLD
from firstread.models.audit.as_json import figures_json, verdicts_json
from firstread.models.audit.audit import Audit, audit
from firstread.models.audit.judge import Answer, Ready, log_odds
from firstread.models.audit.rules import RULES
from firstread.models.data.film import DataError, Film
from firstread.models.findings import LABELS
from tests.models.audit_world import (
    LABEL,
    Stub,
    audited,
    reads_anatomy,
    reads_mark,
    reads_noise,
    reads_nothing,
    world,
)


@cache
def of_noise() -> Audit:
    return audited(world(), reads_noise)


@cache
def of_anatomy() -> Audit:
    return audited(world(), reads_anatomy)


def grades(found: Audit) -> dict[str, str]:
    return {sign.name: sign.grade for sign in found.labels[0].signs}


def test_a_judge_of_noise_is_found_to_follow_how_films_were_made() -> None:
    one = of_noise().labels[0]
    assert one.verdict == "shortcut"
    assert one.sentence.startswith("Follows how the film was made: ")
    assert grades(of_noise())["follows"] == "strong"
    assert grades(of_noise())["change"] == "strong"
    assert grades(of_noise())["exchange"] == "strong"


def test_exchanged_noise_turns_a_judge_of_noise_upside_down() -> None:
    exchange = of_noise().labels[0].exchange
    assert exchange is not None
    assert exchange.before > 0.7
    assert exchange.after < 0.45
    assert exchange.towards > 0.7


def test_little_is_left_of_a_judge_of_noise_on_pairs_made_alike() -> None:
    one = of_noise().labels[0]
    assert one.auroc is not None and one.auroc.value > 0.75
    pairs = one.pairs[0]
    assert pairs.pairs >= RULES.fewest_pairs
    assert pairs.figure is not None and pairs.figure.value < one.auroc.value - 0.15
    noise = next(each for each in pairs.imbalance if each.name == "noise")
    assert abs(noise.before) > 0.8
    assert abs(noise.after) < 0.2


def test_a_judge_of_anatomy_is_cleared_on_the_same_films() -> None:
    one = of_anatomy().labels[0]
    assert one.verdict == "clean"
    assert one.sentence.startswith("No sign of a shortcut: ")
    assert not {"weak", "strong"} & set(grades(of_anatomy()).values())
    assert one.nuisances is not None and one.nuisances.together.value > 0.7  # the cue is there all the same
    assert one.pairs[0].figure is not None and one.pairs[0].figure.low > 0.8
    assert one.exchange is not None and abs(one.exchange.lost.value) < 0.02


def test_a_judge_of_letters_is_found_where_letters_are_painted_in() -> None:
    marks = tuple(each for each in ALTERATIONS if each.family == "marks")
    found = audited(world(0.0), reads_mark, alterations=marks)
    effects = {effect.key: effect for effect in found.labels[0].effects}
    assert found.labels[0].verdict == "shortcut"
    assert effects["mark-own-side"].shift > 0.3
    assert abs(effects["mark-other-side"].shift) < 0.01
    assert "painted in" in found.labels[0].sentence


def test_a_judge_that_goes_by_the_view_it_is_told_is_found() -> None:
    class Told(Stub):
        def answer(self, film: Film, pictures: Sequence[Ready]) -> Answer:
            found = super().answer(film, pictures)
            odds = log_odds(found.probabilities) + (2.5 if film.view == "AP" else 0.0)
            return Answer(1 / (1 + np.exp(-odds)), None)

    made = world(0.0)
    judge = Told(reads_anatomy)
    said = np.array([judge.answer(film, [judge.ready(made.picture_of(film))]).probabilities[0] for film in made.films])
    told = (TOLD["view"], TOLD["age"])
    options: dict[str, Any] = {"alterations": told, "most_films": 30, "phantoms": 0}
    one = audit(made.films, said, made.measured, judge, made.picture_of, **options).labels[0]
    assert [effect.key for effect in one.effects] == ["told-other-view"]  # no film's age is known
    assert one.effects[0].shift > 0.5
    assert one.verdict == "shortcut"
    assert "told AP for PA" in one.sentence


def test_a_judge_of_nothing_is_neither_accused_nor_cleared() -> None:
    found = audited(world(0.0), reads_nothing, alterations=())
    assert found.labels[0].verdict == "not_judged"
    assert "does not tell these films apart" in found.labels[0].sentence


def test_the_same_films_give_the_same_audit() -> None:
    few = ALTERATIONS[:4]
    first, second = (audited(world(), reads_noise, alterations=few, most_films=12) for _ in range(2))
    assert verdicts_json(first) == verdicts_json(second)
    assert first.altered == second.altered


def test_too_few_films_are_said_and_not_judged() -> None:
    made = world()
    few = replace(made, films=made.films[:40], measured=made.measured[:40])
    found = audited(few, reads_anatomy, alterations=ALTERATIONS[:2])
    assert found.labels[0].verdict == "not_judged"
    assert found.labels[0].sentence == "Cannot be judged: only 20 films with it; 30 of either kind are needed."
    assert found.labels[0].effects  # what changes do can be seen all the same
    assert found.labels[0].auroc is None


def test_the_card_gets_verdict_sentence_and_figures() -> None:
    verdict = verdicts_json(of_anatomy())[0]
    assert list(verdict) == ["label", "experimental", "verdict", "sentence", "figures", "signs"]
    assert verdict["label"] == LABEL
    assert verdict["verdict"] == "clean"
    figures = verdict["figures"]
    assert figures["positives"] == figures["negatives"] == 70
    assert figures["auroc"]["value"] == pytest.approx(1.0, abs=0.02)
    assert figures["paired"]["value"] > 0.9
    assert figures["pairs"] >= 30
    assert figures["flips"]["value"] < 0.05
    assert figures["device_flips_by"] in ("chest-tube", "ecg-leads")
    assert figures["outside_thorax"] is None
    whole = figures_json(of_anatomy())
    assert whole["rules"]["fewest_films"] == RULES.fewest_films
    assert {each["key"] for each in whole["alterations"]} == {each.key for each in ALTERATIONS}
    assert len(whole["labels"][LABEL]["effects"]) >= len(ALTERATIONS) - 1


def test_films_of_one_class_are_refused_with_a_sentence() -> None:
    made = world()
    ill = tuple(film for film in made.films if film.target[LABELS.index(LABEL)])
    with pytest.raises(DataError, match="no label can be audited: of Consolidation none is both present and absent"):
        audited(replace(made, films=ill, measured=made.measured[: len(ill)]), reads_anatomy)


@pytest.mark.parametrize(
    ("label", "sentence"),
    [("Fever", "label 'Fever' is unknown"), ("Mass", "does not assess 'Mass': it knows Consolidation")],
)
def test_a_label_that_cannot_be_audited_is_refused_with_a_sentence(label: str, sentence: str) -> None:
    made = world()
    with pytest.raises(DataError, match=sentence):
        audit(made.films, np.zeros((140, 1)), made.measured, Stub(reads_noise), made.picture_of, labels=[label])


def test_a_column_that_is_not_there_is_refused_with_a_sentence() -> None:
    with pytest.raises(DataError, match="no column 'Scanner'"):
        audited(world(), reads_noise, by=("Scanner",))
