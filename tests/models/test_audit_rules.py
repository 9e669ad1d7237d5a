"""Verdicts at the borders of the rules, and signs from measurements."""

from __future__ import annotations

import numpy as np
import pytest

from firstread.models.audit import signs
from firstread.models.audit.counterfactual import Effect, NoiseExchange
from firstread.models.audit.maps import Outside
from firstread.models.audit.nuisances import Alone, Correlation, NuisanceFigures
from firstread.models.audit.pairs import Matched, Within
from firstread.models.audit.rules import Evidence, Grade, Sign, Verdict, judged, too_few
from firstread.models.evaluation.figures import Figure, wilson


def sign(name: str, grade: Grade, caused: bool = False) -> Sign:
    return Sign(name, grade, caused, f"{name} is {grade}")


def evidence(*found: Sign, **changed: object) -> Evidence:
    usual: dict[str, object] = {
        "positives": 30,
        "negatives": 30,
        "auroc": (0.8, 0.7, 0.9),
        "paired": (0.75, 0.6, 0.85),
        "pairs": 30,
        "left": 0.599,
        "offered": (0.9, 0.85, 0.95),
        "signs": found,
    }
    return Evidence(**{**usual, **changed})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "verdict"),
    [
        (evidence(), "clean"),
        (evidence(positives=29), "not_judged"),
        (evidence(negatives=29), "not_judged"),
        (evidence(sign("change", "strong", True)), "shortcut"),
        (evidence(sign("change", "weak", True)), "suspect"),
        (evidence(sign("device", "strong", True)), "shortcut"),
        (evidence(sign("device", "weak", True)), "suspect"),
        (evidence(sign("exchange", "strong", True)), "shortcut"),
        (evidence(sign("view", "strong")), "suspect"),
        (evidence(sign("map", "weak")), "suspect"),
        # strongly following, but it sees more than that on pairs: suspect; without that proof: a shortcut
        (evidence(sign("follows", "strong")), "suspect"),
        (evidence(sign("follows", "strong"), paired=(0.6, 0.5, 0.7)), "shortcut"),
        (evidence(sign("follows", "strong"), paired=(0.6, 0.501, 0.7)), "suspect"),
        (evidence(sign("follows", "strong"), paired=None, pairs=29), "shortcut"),
        (evidence(sign("follows", "weak"), paired=None, pairs=29), "suspect"),
        (evidence(sign("follows", "strong"), left=0.6), "shortcut"),
        (evidence(left=0.6), "not_judged"),  # the making still tells the pairs apart
        (evidence(left=None), "clean"),
        # no sign: cleared only by pairs that show something, or where the making tells nothing
        (evidence(paired=(0.6, 0.5, 0.7)), "not_judged"),
        (evidence(paired=None, pairs=29), "not_judged"),
        (evidence(paired=None, pairs=29, offered=(0.5, 0.42, 0.599)), "clean"),
        (evidence(paired=None, pairs=29, offered=(0.5, 0.42, 0.6)), "not_judged"),
        (evidence(paired=None, pairs=0, offered=None), "not_judged"),
        (evidence(auroc=(0.55, 0.5, 0.6)), "not_judged"),
        (evidence(auroc=(0.55, 0.501, 0.6)), "clean"),
        (evidence(auroc=(float("nan"), float("nan"), float("nan"))), "not_judged"),
    ],
)
def test_the_verdict_at_its_borders(given: Evidence, verdict: Verdict) -> None:
    assert judged(given)[0] == verdict


def test_every_sentence_says_its_numbers() -> None:
    assert judged(evidence(sign("change", "strong", True)))[1] == "Follows how the film was made: change is strong."
    assert "0.75 (0.60 to 0.85) on 30 pairs made alike" in judged(evidence())[1]
    assert "only 7 pairs made alike, 30 are needed" in judged(evidence(paired=None, pairs=7))[1]
    assert "the making alone still reaches AUROC 0.70, the score 0.75" in judged(evidence(left=0.7))[1]
    assert judged(evidence(sign("device", "strong", True)))[1] == "Follows devices on the patient: device is strong."
    both = evidence(sign("device", "weak", True), sign("view", "weak"))
    assert judged(both)[1].startswith("Partly follows how the film was made, and devices on the patient: ")
    assert "may be chance" in judged(evidence(paired=(0.6, 0.5, 0.7)))[1]


@pytest.mark.parametrize(
    ("positives", "negatives", "sentence"),
    [
        (12, 900, "Cannot be judged: only 12 films with it; 30 of either kind are needed."),
        (1, 900, "Cannot be judged: only 1 film with it; 30 of either kind are needed."),
        (0, 900, "Cannot be judged: no film with it; 30 of either kind are needed."),
        (900, 4, "Cannot be judged: only 4 films without it; 30 of either kind are needed."),
        (30, 30, ""),
    ],
)
def test_too_few_films_are_counted(positives: int, negatives: int, sentence: str) -> None:
    assert too_few(positives, negatives) == sentence


def effect(key: str = "blur-1", turned: int = 0, films: int = 200, shift: float = 0.0, margin: float = 0.05) -> Effect:
    return Effect(
        key=key,
        films=films,
        median=0.01,
        p95=0.05,
        with_label=0.0,
        without_label=0.0,
        shift=shift,
        shift_low=shift - margin,
        shift_high=shift + margin,
        flips=wilson(turned, films),
        raised=0,
        refused=0,
    )


@pytest.mark.parametrize(
    ("found", "grade"),
    [
        (effect(turned=10), "none"),  # 5 %, but the interval begins at 2.7 %
        (effect(turned=17), "weak"),  # 8.5 %, 5.4 to 13
        (effect(turned=38), "weak"),  # 19 %, 14 to 25
        (effect(turned=42), "strong"),  # 21 %, 16 to 27
        (effect(shift=0.24), "none"),
        (effect(shift=0.25), "weak"),
        (effect(shift=-0.25), "weak"),
        (effect(shift=0.5), "strong"),
        (effect(shift=0.5, margin=0.6), "none"),  # it may be nothing
    ],
)
def test_a_change_is_graded_by_turned_results_and_by_the_shift(found: Effect, grade: Grade) -> None:
    assert signs.change([found]).grade == grade


def test_strong_changes_and_few_films_do_not_count() -> None:
    assert signs.change([effect(), effect("blur-2", turned=200), effect("mirrored", turned=200)]).grade == "none"
    assert signs.change([effect(turned=19, films=19)]).grade == "not measured"
    assert signs.change([]).grade == "not measured"


def test_devices_are_a_sign_of_their_own() -> None:
    drawn = [effect(), effect("chest-tube", 60), effect("ecg-leads")]
    assert signs.change(drawn).grade == "none"
    assert signs.device(drawn).grade == "strong"
    assert signs.device(drawn).sentence.startswith("a chest tube drawn in turns 30 % of the results (24 to 37 %)")
    assert signs.device([effect()]).grade == "not measured"


def test_the_worst_change_is_named_first() -> None:
    sentence = signs.change([effect("jpeg-90", 50), effect("blur-1", 90), effect("noise-3", 60)]).sentence
    assert sentence.startswith("Gaussian blur, sigma 1 px at 512 px turns 45 % of the results (38 to 52 %)")
    assert sentence.endswith("so do JPEG quality 90")


def exchange(lost: float, low: float) -> NoiseExchange:
    return NoiseExchange(40, 40, 0.2, 0.8, 0.8 - lost, Figure(lost, low, 2 * lost - low, 40, 40))


@pytest.mark.parametrize(
    ("lost", "low", "grade"),
    [(0.02, 0.01, "none"), (0.03, 0.01, "weak"), (0.09, 0.0, "none"), (0.1, 0.01, "strong"), (-0.2, -0.3, "none")],
)
def test_exchanged_noise_is_graded_by_what_is_lost(lost: float, low: float, grade: Grade) -> None:
    assert signs.exchange(exchange(lost, low)).grade == grade


def test_what_was_not_measured_is_called_so() -> None:
    missing = (
        signs.follows(None),
        signs.pairs(FIGURE, None),
        signs.view([]),
        signs.exchange(None),
        signs.saliency(None),
    )
    assert {each.grade for each in missing} == {"not measured"}


FIGURE = Figure(0.8, 0.75, 0.85, 100, 100)


def nuisances(name: str, value: float, safe: float, together: float = 0.0) -> NuisanceFigures:
    one = Correlation(value, value - 0.1, value + 0.1, safe)
    return NuisanceFigures(
        (Alone(name, FIGURE, one),),
        FIGURE,
        FIGURE,
        Correlation(together, together - 0.1, together + 0.1, max(0.0, together - 0.15)),
        np.zeros(2),
    )


@pytest.mark.parametrize(
    ("found", "grade"),
    [
        (nuisances("noise", 0.24, 0.15), "none"),
        (nuisances("noise", 0.25, 0.15), "weak"),
        (nuisances("noise", -0.25, 0.15), "weak"),
        (nuisances("noise", 0.4, 0.09), "none"),  # it may be chance
        (nuisances("noise", 0.5, 0.35), "strong"),
        (nuisances("brightness", 0.9, 0.8), "none"),  # fluid is bright as well
        (nuisances("brightness", 0.9, 0.8, together=0.6), "strong"),
    ],
)
def test_following_is_graded_by_rank_correlation_within_the_classes(found: NuisanceFigures, grade: Grade) -> None:
    assert signs.follows(found).grade == grade


def test_a_fall_on_pairs_must_be_more_than_chance() -> None:
    def matched(value: float, high: float) -> Matched:
        return Matched("nuisances", ("noise",), 0.3, 40, Figure(value, 0.4, high, 40, 40), None, ())

    assert signs.pairs(FIGURE, matched(0.70, 0.79)).grade == "weak"
    assert signs.pairs(FIGURE, matched(0.70, 0.81)).grade == "none"
    assert signs.pairs(FIGURE, matched(0.71, 0.79)).grade == "none"


def test_a_fall_within_views_is_graded_and_within_sexes_is_not() -> None:
    def within(by: str, lost: float) -> Within:
        return Within(by, {}, 0.7, Figure(lost, lost - 0.04, lost + 0.04, 100, 100))

    assert signs.view([within("view", 0.05)]).grade == "weak"
    assert signs.view([within("view", 0.04)]).grade == "none"
    assert signs.view([within("view", 0.0), within("Manufacturer", 0.2)]).grade == "strong"
    assert signs.view([within("sex", 0.3)]).grade == "not measured"


def test_a_map_denser_outside_than_inside_is_a_weak_sign() -> None:
    assert signs.saliency(Outside(50, 0.7, 0.5, 0.4, 0.3, 0.99)).grade == "weak"
    assert signs.saliency(Outside(50, 0.5, 0.5, 1.0, 0.9, 1.0)).grade == "none"
