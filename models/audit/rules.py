"""When is it a shortcut? Every threshold of the audit, and how signs become a verdict, in one place.

A *sign* is one way in which a score can depend on how a film was made. Each is graded: none, weak, strong, or not
measured. What was caused by changing films weighs more than what was merely observed, since how a film was made and
how ill the patient is go together in the clinic too (the ill are filmed in bed).

- ``shortcut``: a strong sign that was caused; or the score strongly follows how films were made within the classes and
  the evidence that it sees more than that is missing (pairs made alike show nothing, or there are too few of them).
- ``suspect``: any other sign, weak or strong.
- ``clean``: no sign, the score tells the classes apart, and either it does so on pairs made alike too (so alike that
  the making no longer tells them apart), or how the films were made tells nothing in these data.
- ``not_judged``: too few films; or no sign, but nothing that clears it either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

Verdict = Literal["shortcut", "suspect", "clean", "not_judged"]
Grade = Literal["none", "weak", "strong", "not measured"]


@dataclass(frozen=True)
class Rules:
    """The thresholds. ``fewest_films``: with the label and without, below which nothing is judged.

    ``fewest_pairs``: below which pairs say nothing. ``fewest_altered``: films that an alteration must have touched to
    count. ``follows_*``: rank correlation within the classes between score and
    nuisance, which must also be safely (Bonferroni) above ``follows_safe``. ``view_*``: AUROC lost when films are only
    compared within a view; its interval must exclude 0. ``pairs_weak``: AUROC lost from all films to pairs.
    ``flips_*``: share of films whose result turns under a mild change; the lower end of the 95 % interval counts.
    ``shift_*``: mean shift of the log odds under a mild change, in standard deviations of the log odds over the films.
    ``exchange_*``: AUROC lost when the classes' mean noise is exchanged; its interval must exclude 0. ``offered``: when
    the nuisances' AUROC lies below this they tell nothing, of all films or of pairs. ``map_weak``: the map is less
    dense inside the thorax than this multiple of its density outside.
    """

    fewest_films: int = 30
    fewest_pairs: int = 30
    fewest_altered: int = 20
    follows_weak: float = 0.25
    follows_strong: float = 0.5
    follows_safe: float = 0.1
    view_weak: float = 0.05
    view_strong: float = 0.15
    pairs_weak: float = 0.1
    flips_weak: float = 0.05
    flips_strong: float = 0.15
    shift_weak: float = 0.25
    shift_strong: float = 0.5
    exchange_weak: float = 0.03
    exchange_strong: float = 0.1
    offered: float = 0.6
    map_weak: float = 1.0

    def as_table(self) -> dict[str, float]:
        """Name to value, for JSON and page."""
        return asdict(self)


RULES = Rules()


@dataclass(frozen=True)
class Sign:
    """One sign. ``name``: ``follows``, ``pairs``, ``view``, ``change``, ``exchange``, ``device`` or ``map``.

    ``caused``: films were changed and the score answered; else it was only observed. ``sentence``: with its numbers.
    """

    name: str
    grade: Grade
    caused: bool
    sentence: str


@dataclass(frozen=True)
class Evidence:
    """What a verdict on one label rests on, besides its signs; each value with its 95 % interval (low, high).

    ``auroc``: on all films. ``paired``: on pairs made alike, None with too few; ``left``: what the making alone still
    reaches on them, None where that is not known. ``offered``: what nuisances alone reach on all films.
    """

    positives: int
    negatives: int
    auroc: tuple[float, float, float]
    paired: tuple[float, float, float] | None
    pairs: int
    left: float | None
    offered: tuple[float, float, float] | None
    signs: tuple[Sign, ...]


def too_few(positives: int, negatives: int, rules: Rules = RULES) -> str:
    """Why a label cannot be judged, as a sentence; empty when there are films enough of either kind."""
    for count, which in ((positives, "with it"), (negatives, "without it")):
        if count < rules.fewest_films:
            films = "no film" if count == 0 else f"only {count} film{'s' * (count != 1)}"
            return f"Cannot be judged: {films} {which}; {rules.fewest_films} of either kind are needed."
    return ""


def graded(value: float, weak: float, strong: float, sure: bool = True) -> Grade:
    """``strong`` or ``weak`` from the threshold on, upwards, if the data are ``sure`` that there is anything."""
    if not sure or not value >= weak:
        return "none"
    return "strong" if value >= strong else "weak"


def judged(evidence: Evidence, rules: Rules = RULES) -> tuple[Verdict, str]:
    """The verdict on one label and its sentence."""
    few = too_few(evidence.positives, evidence.negatives, rules)
    if few:
        return "not_judged", few
    signs = evidence.signs
    caused = [sign for sign in signs if sign.grade == "strong" and sign.caused]
    follows = [sign for sign in signs if sign.name == "follows" and sign.grade == "strong"]
    if caused:
        return "shortcut", f"Follows {_what(caused)}: {'; '.join(sign.sentence for sign in caused)}."
    if follows and not shows_more(evidence, rules):
        lacking = "pairs made alike prove nothing more" if evidence.paired else "too few pairs made alike to show more"
        return "shortcut", f"Follows how the film was made: {follows[0].sentence}, and {lacking}."
    found = [sign for sign in signs if sign.grade in ("weak", "strong")]
    if found:
        return "suspect", f"Partly follows {_what(found)}: {'; '.join(sign.sentence for sign in found)}."
    return _cleared(evidence, rules)


def shows_more(evidence: Evidence, rules: Rules = RULES) -> bool:
    """Whether pairs made alike, which the making really does not tell apart, are told apart by the score."""
    balanced = evidence.left is None or evidence.left < rules.offered
    return evidence.paired is not None and evidence.paired[1] > 0.5 and balanced


def _what(found: Sequence[Sign]) -> str:
    """What a score follows, in words."""
    devices = [sign for sign in found if sign.name == "device"]
    if len(devices) == len(found):
        return "devices on the patient"
    return "how the film was made, and devices on the patient" if devices else "how the film was made"


def _cleared(evidence: Evidence, rules: Rules) -> tuple[Verdict, str]:
    value, low, high = evidence.auroc
    if not low > 0.5:
        return (
            "not_judged",
            f"Cannot be judged: no sign of a shortcut, but the score does not tell these films apart either "
            f"(AUROC {value:.2f}, {low:.2f} to {high:.2f}).",
        )
    if evidence.offered is not None and evidence.offered[2] < rules.offered:
        return (
            "clean",
            f"No sign of a shortcut: how the films were made tells nothing here (AUROC {evidence.offered[0]:.2f}), "
            f"and the score tells them apart (AUROC {value:.2f}, {low:.2f} to {high:.2f}).",
        )
    if evidence.paired is not None and shows_more(evidence, rules):
        return (
            "clean",
            f"No sign of a shortcut: AUROC {evidence.paired[0]:.2f} ({evidence.paired[1]:.2f} to "
            f"{evidence.paired[2]:.2f}) on {evidence.pairs} pairs made alike, {value:.2f} on all films, and changes to "
            f"the films hardly move it.",
        )
    if evidence.paired is not None and evidence.paired[1] > 0.5:
        return (
            "not_judged",
            f"Cannot be cleared: no sign of a shortcut was found, but on {evidence.pairs} pairs made alike "
            f"the making alone still reaches AUROC {evidence.left:.2f}, the score {evidence.paired[0]:.2f}.",
        )
    lacking = (
        f"on {evidence.pairs} pairs made alike AUROC is {evidence.paired[0]:.2f} ({evidence.paired[1]:.2f} to "
        f"{evidence.paired[2]:.2f}), which may be chance"
        if evidence.paired is not None
        else f"only {evidence.pairs} pairs made alike, {rules.fewest_pairs} are needed"
    )
    return "not_judged", f"Cannot be cleared: no sign of a shortcut was found, but {lacking}."
