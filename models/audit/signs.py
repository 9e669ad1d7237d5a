"""Measurements become signs: each with its grade by the rules, and a sentence with its numbers."""

from __future__ import annotations

from collections.abc import Sequence

from firstread.models.audit.alterations import ALTERATIONS, TOLD
from firstread.models.audit.counterfactual import Effect, NoiseExchange
from firstread.models.audit.maps import Outside
from firstread.models.audit.nuisances import Correlation, NuisanceFigures
from firstread.models.audit.pairs import Matched, Within
from firstread.models.audit.rules import RULES, Grade, Rules, Sign, graded
from firstread.models.data.nuisance import meaning
from firstread.models.evaluation.figures import Figure

ANATOMY_TOO = ("brightness", "contrast")
"""Fluid makes a film brighter, and a score may well follow that: these count only when films are changed in them."""

_RANK: dict[Grade, int] = {"not measured": -1, "none": 0, "weak": 1, "strong": 2}
_ALL = (*ALTERATIONS, *TOLD.values())
_WORDS = {each.key: each.words for each in _ALL}
_MILD = frozenset(each.key for each in _ALL if each.mild and each.family != "devices")
_DEVICES = frozenset(each.key for each in _ALL if each.mild and each.family == "devices")


def follows(figures: NuisanceFigures | None, rules: Rules = RULES) -> Sign:
    """Does the score follow how films were made, among films of the same label?"""
    if figures is None:
        return Sign("follows", "not measured", False, "nothing is known of how the films were made")
    candidates: list[tuple[str, Correlation]] = [("what all of it together says of the label", figures.follows)]
    candidates += [(meaning(one.name), one.follows) for one in figures.alone if one.name not in ANATOMY_TOO]
    words, best = max(candidates, key=lambda each: (each[1].safe >= rules.follows_safe, abs(each[1].value)))
    grade = graded(abs(best.value), rules.follows_weak, rules.follows_strong, best.safe >= rules.follows_safe)
    return Sign(
        "follows",
        grade,
        False,
        f"among films of the same label the score follows {words} with rank correlation {best.value:.2f} "
        f"({best.low:.2f} to {best.high:.2f})",
    )


def pairs(whole: Figure, found: Matched | None, rules: Rules = RULES) -> Sign:
    """Is less left on pairs made alike than on all films?"""
    if found is None or found.figure is None:
        return Sign("pairs", "not measured", False, "there are too few pairs of films made alike")
    figure = found.figure
    lost = whole.value - figure.value
    grade = graded(lost, rules.pairs_weak, float("inf"), figure.high < whole.value)
    return Sign(
        "pairs",
        grade,
        False,
        f"AUROC is {whole.value:.2f} on all films and {figure.value:.2f} ({figure.low:.2f} to {figure.high:.2f}) on "
        f"{found.pairs} pairs made alike",
    )


def view(found: Sequence[Within], rules: Rules = RULES) -> Sign:
    """Is less left when films are compared only within their view, or their site, device or station?"""
    told = [one for one in found if one.by not in ("sex", "age")]
    if not told:
        return Sign("view", "not measured", False, "there are no two views or sites with enough films")
    worst = max(told, key=lambda one: one.lost.value)
    grade = graded(worst.lost.value, rules.view_weak, rules.view_strong, worst.lost.low > 0)
    return Sign(
        "view",
        grade,
        False,
        f"AUROC falls by {worst.lost.value:.2f} ({worst.lost.low:.2f} to {worst.lost.high:.2f}) when films are "
        f"compared only within the same {worst.by}",
    )


def change(effects: Sequence[Effect], rules: Rules = RULES) -> Sign:
    """Do results turn, or does the score move, under changes that leave the disease alone?"""
    return _altered("change", mild_effects(effects, rules), "under any mild change of the films", rules)


def device(effects: Sequence[Effect], rules: Rules = RULES) -> Sign:
    """Do results turn, or does the score move, when a tube or leads are drawn in?"""
    return _altered("device", device_effects(effects, rules), "when a device is drawn in", rules)


def _altered(name: str, mild: Sequence[Effect], when: str, rules: Rules) -> Sign:
    if not mild:
        return Sign(name, "not measured", True, "too few films were altered")
    grades = {effect.key: change_grade(effect, rules) for effect in mild}
    worst = max(grades.values(), key=lambda grade: _RANK[grade])
    if worst == "none":
        most = max(mild, key=lambda effect: effect.flips.value if effect.flips else 0.0)
        share = (
            f"at most {100 * most.flips.value:.1f} % of the results turn" if most.flips else "the score hardly moves"
        )
        return Sign(name, "none", True, f"{share} {when}")
    named = sorted(
        (effect for effect in mild if grades[effect.key] == worst),
        key=lambda effect: -max(effect.flips.value if effect.flips else 0.0, abs(effect.shift) / 3),
    )
    others = ", ".join(_WORDS[effect.key] for effect in named[2:])
    more = f"; so do {others}" if others else ""
    return Sign(name, worst, True, "; ".join(_said(effect) for effect in named[:2]) + more)


def mild_effects(effects: Sequence[Effect], rules: Rules = RULES) -> list[Effect]:
    """The effects that count in the verdict: of mild alterations, on films enough."""
    return [effect for effect in effects if effect.key in _MILD and effect.films >= rules.fewest_altered]


def device_effects(effects: Sequence[Effect], rules: Rules = RULES) -> list[Effect]:
    """The effects of devices drawn in, on films enough."""
    return [effect for effect in effects if effect.key in _DEVICES and effect.films >= rules.fewest_altered]


def change_grade(effect: Effect, rules: Rules = RULES) -> Grade:
    """The grade of one alteration's effect: by results that turn, or by how far the score is shifted."""
    turned: Grade = "none"
    if effect.flips is not None:
        turned = graded(effect.flips.low, rules.flips_weak, rules.flips_strong)
    sure = effect.shift_low > 0 or effect.shift_high < 0
    shifted = graded(abs(effect.shift), rules.shift_weak, rules.shift_strong, sure)
    return max(turned, shifted, key=lambda grade: _RANK[grade])


def exchange(found: NoiseExchange | None, rules: Rules = RULES) -> Sign:
    """Does the score go with the noise when the classes' noise is exchanged?"""
    if found is None:
        return Sign("exchange", "not measured", True, "too few films underwent the exchange of noise")
    grade = graded(found.lost.value, rules.exchange_weak, rules.exchange_strong, found.lost.low > 0)
    return Sign(
        "exchange",
        grade,
        True,
        f"with the noise of the two classes exchanged AUROC goes from {found.before:.2f} to {found.after:.2f} "
        f"(lost {_plain(found.lost.value)}, {_plain(found.lost.low)} to {_plain(found.lost.high)})",
    )


def saliency(found: Outside | None, rules: Rules = RULES) -> Sign:
    """Does the map lie outside the thorax more than inside?"""
    if found is None:
        return Sign("map", "not measured", False, "there are no maps, or too few films with any evidence")
    grade: Grade = "weak" if found.high < rules.map_weak else "none"
    return Sign(
        "map",
        grade,
        False,
        f"{100 * found.share:.0f} % of the map lies outside the thorax, which is {100 * found.area:.0f} % of the film",
    )


def _plain(value: float) -> str:
    return f"{round(value, 2) + 0.0:.2f}"  # no -0.00


def _said(effect: Effect) -> str:
    words = _WORDS[effect.key]
    parts = []
    if effect.flips is not None and effect.flips.value >= 0.01:
        parts.append(
            f"turns {100 * effect.flips.value:.0f} % of the results "
            f"({100 * effect.flips.low:.0f} to {100 * effect.flips.high:.0f} %)"
        )
    parts.append(f"shifts the score by {effect.shift:+.2f} standard deviations")
    return f"{words} {' and '.join(parts)}"
