"""The audit: every measurement on every label, and a verdict for each. The judge may be anything that answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from firstread.models.audit import signs
from firstread.models.audit.alterations import ALTERATIONS, Alteration
from firstread.models.audit.choose import of_either_kind, subset
from firstread.models.audit.counterfactual import (
    Effect,
    Exchange,
    NoiseExchange,
    Progress,
    Retold,
    effects,
    noise_exchange,
    retell,
)
from firstread.models.audit.judge import Judge, log_odds
from firstread.models.audit.maps import InLesion, Outside, in_lesions, outside_of
from firstread.models.audit.measured import Measured
from firstread.models.audit.nuisances import Alone, NuisanceFigures, NuisanceTable, nuisance_figures, table_of
from firstread.models.audit.pairs import Matched, Within, matched, within
from firstread.models.audit.picture import Picture
from firstread.models.audit.rules import RULES, Evidence, Rules, Sign, Verdict, judged, too_few
from firstread.models.audit.spectrum import Spectrum, gain_between, mean_spectrum
from firstread.models.data.film import DataError, Film
from firstread.models.evaluation.figures import FEWEST, Figure, Flags, Numbers, auroc_figure
from firstread.models.evaluation.groups import groups_of
from firstread.models.findings import LABELS

MOST_FILMS = 200
"""Films that are altered, unless said otherwise: two hundred tell 5 % of flips from 10 %."""

EXCHANGED = 40
"""Films of either kind, per label, whose noise is exchanged."""

PERSON = ("age", "sex_male")
"""What is of the patient and not of the making: shown, but no part of what is called a shortcut here."""

SITES = (
    "site",
    "institution",
    "institutionname",
    "hospital",
    "manufacturer",
    "scanner",
    "station",
    "stationname",
    "device",
)
"""Columns (in any spelling of case, spaces and underlines) that say where a film was made."""


@dataclass(frozen=True)
class LabelAudit:
    """Everything found about one label.

    ``reason``: why it was not judged by films with and without it, empty when it was; then the figures from ``auroc``
    on are None or empty. ``effects`` need no label and are there whenever films were altered. ``nuisances``,
    ``person``: what the making, and what age and sex tell. ``pairs``: matched on the nuisances, then on their
    propensity.
    """

    label: str
    experimental: bool
    threshold: float | None
    positives: int
    negatives: int
    reason: str
    verdict: Verdict
    sentence: str
    signs: tuple[Sign, ...]
    effects: tuple[Effect, ...]
    outside: Outside | None
    in_lesion: InLesion | None
    auroc: Figure | None = None
    nuisances: NuisanceFigures | None = None
    person: tuple[Alone, ...] = ()
    within: tuple[Within, ...] = ()
    pairs: tuple[Matched, ...] = ()
    exchange: NoiseExchange | None = None


@dataclass(frozen=True, eq=False)
class Audit:
    """The whole audit. ``films``: those judged; ``altered``: indices of those that were altered.

    ``thorax_found``: in how many of the altered films the thorax was seen, not assumed. ``spectra``: per label, mean
    noise spectrum of films without it and with it.
    """

    films: tuple[Film, ...]
    altered: tuple[int, ...]
    thorax_found: int
    labels: tuple[LabelAudit, ...]
    rules: Rules
    alterations: tuple[Alteration, ...]
    spectra: Mapping[str, tuple[Spectrum, Spectrum]]


def usable_pairs(pairs: Sequence[Matched], rules: Rules) -> list[Matched]:
    """Those matchings that gave pairs enough."""
    return [each for each in pairs if each.pairs >= rules.fewest_pairs and each.figure is not None]


def balanced(pairs: Matched, rules: Rules) -> bool:
    """Whether the making no longer tells these pairs apart."""
    return pairs.left is None or pairs.left.value < rules.offered


def check_labels(wanted: Sequence[str], assessed: Sequence[str]) -> tuple[str, ...]:
    """The labels to audit: those wanted, or all that the model assesses.

    Raises:
        DataError: one of them is unknown or not assessed.
    """
    for label in wanted:
        if label not in LABELS:
            raise DataError(f"label {label!r} is unknown: choose among {', '.join(LABELS)}")
        if label not in assessed:
            raise DataError(f"the bundle does not assess {label!r}: it knows {', '.join(assessed)}")
    return tuple(dict.fromkeys(wanted)) or tuple(assessed)


def must_be_judgeable(films: Sequence[Film], labels: Sequence[str]) -> None:
    """Refuse films that have every label on all of them or on none: nothing can be compared.

    Raises:
        DataError: says so.
    """
    for label in labels:
        column = LABELS.index(label)
        if len({bool(film.target[column]) for film in films if film.known[column]}) == 2:
            return
    names = ", ".join(labels)
    raise DataError(
        f"no label can be audited: of {names} none is both present and absent among the {len(films)} films; "
        "give films with and without a finding"
    )


def audit(
    films: Sequence[Film],
    probabilities: Numbers,
    measured: Sequence[Measured],
    judge: Judge,
    picture_of: Callable[[Film], Picture],
    *,
    labels: Sequence[str] = (),
    experimental: frozenset[str] = frozenset(),
    matched_on: Sequence[str] = (),
    by: Sequence[str] = (),
    most_films: int = MOST_FILMS,
    alterations: Sequence[Alteration] = ALTERATIONS,
    phantoms: int = 10,
    rules: Rules = RULES,
    threads: int = 2,
    on_progress: Progress | None = None,
) -> Audit:
    """Audit a judge on N films.

    ``probabilities``: [N, L], what the judge said of the films as they are. ``measured``: how each was made.
    ``matched_on``: nuisances that films of a pair must share; all that the table has, if left out. ``by``: columns to
    compare within, besides sex, view and what looks like a site. ``most_films``: how many films are altered.
    ``phantoms``: drawn per finding, to see whether the map lies on the lesion; 0 for none. ``on_progress``: told how
    many films have been altered and read again.

    Raises:
        DataError: an unknown label or column, or no label is both present and absent.
    """
    wanted = check_labels(labels, judge.labels)
    must_be_judgeable(films, wanted)
    target = np.array([film.target for film in films]) > 0
    known = np.array([film.known for film in films]) > 0
    making = table_of([_made(each) for each in measured])
    person = table_of([_of_person(each) for each in measured])
    groups = _groups(films, by)
    judged_labels = [label for label in wanted if not _reason(known, target, label, rules)]
    spectra = {label: _spectra(measured, known, target, label) for label in judged_labels}
    exchanges = _exchanges(films, known, target, spectra, min(EXCHANGED, most_films // 2))
    columns = [LABELS.index(label) for label in wanted]
    altered = subset(films, (target & known)[:, columns], most_films)
    retold = retell(judge, films, picture_of, alterations, exchanges, frozenset(altered), threads, on_progress)
    lesions = in_lesions(judge, wanted, phantoms) if phantoms else {}
    one = _Labels(films, probabilities, judge, known, target, making, person, groups, retold, alterations, rules)
    return Audit(
        films=tuple(films),
        altered=tuple(altered),
        thorax_found=int(retold.thorax_found[altered].sum()),
        labels=tuple(
            one.audited(label, label in experimental, lesions.get(label), [n for n in matched_on if n in making.names])
            for label in wanted
        ),
        rules=rules,
        alterations=tuple(alterations),
        spectra=spectra,
    )


@dataclass(frozen=True, eq=False)
class _Labels:
    """What the measurements of every label share."""

    films: Sequence[Film]
    probabilities: Numbers
    judge: Judge
    known: Flags
    target: Flags
    making: NuisanceTable
    person: NuisanceTable
    groups: Mapping[str, Sequence[str]]
    retold: Retold
    alterations: Sequence[Alteration]
    rules: Rules

    def audited(self, label: str, experimental: bool, lesion: InLesion | None, on: Sequence[str]) -> LabelAudit:
        place, column = LABELS.index(label), self.judge.labels.index(label)
        known, present = self.known[:, place], self.target[:, place]
        threshold = self.judge.thresholds.get(label)
        found = effects(self.retold, self.alterations, column, known, present, threshold)
        outside = outside_of(self.retold.inside[:, column], self.retold.area)
        positives, negatives = int((known & present).sum()), int((known & ~present).sum())
        reason = _reason(self.known, self.target, label, self.rules)
        altered = (signs.change(found, self.rules), signs.device(found, self.rules))
        looks = signs.saliency(outside, self.rules)
        bare = LabelAudit(
            label=label,
            experimental=experimental,
            threshold=threshold,
            positives=positives,
            negatives=negatives,
            reason=reason,
            verdict="not_judged",
            sentence=reason,
            signs=(*altered, looks),
            effects=found,
            outside=outside,
            in_lesion=lesion,
        )
        if reason:
            return bare
        rows: list[int] = np.flatnonzero(known).tolist()
        films = [self.films[row] for row in rows]
        patients = [film.patient for film in films]
        flags, score = present[rows], log_odds(self.probabilities[rows, column])
        auroc = auroc_figure(flags, score, patients)
        making = NuisanceTable(self.making.names, self.making.values[rows])
        nuisances = nuisance_figures(making, flags, score, patients)
        person = nuisance_figures(NuisanceTable(self.person.names, self.person.values[rows]), flags, score, patients)
        predicted = None if nuisances is None else nuisances.predicted
        pairs = tuple(
            matched(films, flags, score, making, on or making.names, predicted, kind)
            for kind in (("nuisances", "propensity") if nuisances is not None else ())
        )
        chosen = usable_pairs(pairs, self.rules)
        proof = next((each for each in chosen if balanced(each, self.rules)), chosen[0] if chosen else None)
        compared = (
            within(by, [levels[row] for row in rows], flags, score, patients) for by, levels in self.groups.items()
        )
        groups = tuple(each for each in compared if each is not None)
        exchange = noise_exchange(self.retold, label, present, [film.patient for film in self.films])
        every = (
            signs.follows(nuisances, self.rules),
            signs.pairs(auroc, chosen[0] if chosen else None, self.rules),
            signs.view(groups, self.rules),
            altered[0],
            signs.exchange(exchange, self.rules),
            altered[1],
            looks,
        )
        verdict, sentence = judged(
            Evidence(
                positives=positives,
                negatives=negatives,
                auroc=_triple(auroc),
                paired=None if proof is None or proof.figure is None else _triple(proof.figure),
                pairs=max((each.pairs for each in pairs), default=0) if proof is None else proof.pairs,
                left=None if proof is None or proof.left is None else proof.left.value,
                offered=None if nuisances is None else _triple(nuisances.together),
                signs=every,
            ),
            self.rules,
        )
        return replace(
            bare,
            verdict=verdict,
            sentence=sentence,
            signs=every,
            auroc=auroc,
            nuisances=nuisances,
            person=() if person is None else person.alone,
            within=groups,
            pairs=pairs,
            exchange=exchange,
        )


def _triple(figure: Figure) -> tuple[float, float, float]:
    return figure.value, figure.low, figure.high


def _reason(known: Flags, target: Flags, label: str, rules: Rules) -> str:
    place = LABELS.index(label)
    with_label, without = known[:, place] & target[:, place], known[:, place] & ~target[:, place]
    return too_few(int(with_label.sum()), int(without.sum()), rules)


def _made(measured: Measured) -> dict[str, float]:
    return {name: value for name, value in measured.variables.items() if name not in PERSON}


def _of_person(measured: Measured) -> dict[str, float]:
    return {name: value for name, value in measured.variables.items() if name in PERSON}


def _groups(films: Sequence[Film], by: Sequence[str]) -> dict[str, list[str]]:
    """View, sex, what looks like a site, and the columns asked for."""
    there = {name for film in films for name in film.columns}
    sites = [name for name in sorted(there) if "".join(c for c in name.lower() if c.isalnum()) in SITES]
    groups = groups_of(films, list(dict.fromkeys([*sites, *by])))
    groups.pop("age", None)
    return groups


def _spectra(measured: Sequence[Measured], known: Flags, target: Flags, label: str) -> tuple[Spectrum, Spectrum]:
    place = LABELS.index(label)
    sides = []
    for wanted in (False, True):
        rows: list[int] = np.flatnonzero(known[:, place] & (target[:, place] == wanted)).tolist()
        sides.append(mean_spectrum([measured[row].spectrum for row in rows]))
    return sides[0], sides[1]


def _exchanges(
    films: Sequence[Film],
    known: Flags,
    target: Flags,
    spectra: Mapping[str, tuple[Spectrum, Spectrum]],
    most: int,
) -> dict[int, list[Exchange]]:
    found: dict[int, list[Exchange]] = {}
    if most < FEWEST:
        return found
    for label, (without, with_label) in spectra.items():
        place = LABELS.index(label)
        gains = {True: gain_between(with_label, without), False: gain_between(without, with_label)}
        for index in of_either_kind(films, known[:, place], target[:, place], most):
            found.setdefault(index, []).append(Exchange(label, gains[bool(target[index, place])]))
    return found
