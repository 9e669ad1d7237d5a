"""Which patients judge, which are kept aside to choose by, which are learned from; never one patient in two parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from firstread.models.data.film import DataError, Film, fold_of

Indices = npt.NDArray[np.int64]

VALIDATION_SALT = "firstread-validation"
_FINE = 1000


@dataclass(frozen=True)
class Part:
    """One training: the films that it learns from, those kept aside to choose by, those that judge it (all as places in
    the film set), and the name of its folder."""

    name: str
    learned: Indices
    aside: Indices
    judged: Indices


@dataclass(frozen=True)
class Plan:
    """The trainings of a course; the last one's weights are kept. ``method``: how films were judged, for the card."""

    parts: tuple[Part, ...]
    method: str


def planned(
    films: Sequence[Film], validation: float, *, folds: int, hold_out: bool, test: Indices | None = None
) -> Plan:
    """The trainings of a course over these films.

    ``folds``: into how many parts the patients are divided by hash. With ``hold_out`` the first part judges one
    training, which is the one that is kept. Without, every part judges once, and the weights come from one more
    training on all films: more to judge by, and ``folds`` times the work. ``test``: a given part that judges
    instead (NIH's own test list). ``validation``: share of the learning patients kept aside to choose by.

    Raises:
        DataError: a part has no films, or a patient of ``test`` has films outside it.
    """
    everyone = np.arange(len(films))
    if test is not None:
        within = {films[i].patient for i in test}
        leaking = sorted({films[i].patient for i in np.setdiff1d(everyone, test)} & within)
        if leaking:
            raise DataError(
                f"{len(leaking)} patients of the test list have films outside it, the first is {leaking[0]}: these are "
                "not NIH's own lists; use --split hash"
            )
        part = _part("held-out", films, np.setdiff1d(everyone, test), validation, test)
        return Plan((part,), _held_out(films, test, "NIH's own test list"))
    if folds < 2:
        raise DataError(f"--folds {folds}: patients are divided into at least 2 parts")
    fold = np.array([fold_of(film.patient, folds) for film in films], np.int64)
    parts = []
    for number in range(1 if hold_out else folds):
        away = np.flatnonzero(fold == number)
        parts.append(_part(f"fold-{number}", films, np.flatnonzero(fold != number), validation, away))
    if hold_out:
        return Plan(tuple(parts), _held_out(films, parts[0].judged, f"one of {folds} parts by patient"))
    parts.append(_part("final", films, everyone, validation, everyone[:0], must_judge=False))
    patients = len({film.patient for film in films})
    method = (
        f"{folds}-fold cross-validation by patient: {len(films)} films of {patients} patients, each scored by a "
        "network that never saw the patient."
    )
    return Plan(tuple(parts), method)


def kept_aside(films: Sequence[Film], learned: Indices, share: float) -> Indices:
    """The films of a share of the learning patients, chosen by a hash of its own, so that neither the other films nor
    the folds matter."""
    if share <= 0:
        return learned[:0]
    limit = round(share * _FINE)
    chosen = [i for i in learned if fold_of(films[int(i)].patient, _FINE, VALIDATION_SALT) < limit]
    return np.array(chosen, np.int64)


def _part(
    name: str, films: Sequence[Film], learning: Indices, validation: float, judged: Indices, must_judge: bool = True
) -> Part:
    aside = kept_aside(films, learning, validation)
    learned = np.setdiff1d(learning, aside)
    empty = "to learn from" if not len(learned) else "to judge" if must_judge and not len(judged) else ""
    empty = empty or ("to choose by" if validation > 0 and not len(aside) else "")
    if empty:
        raise DataError(
            f"{name}: no film is left {empty} when {len(films)} films are split by patient: more patients are needed, "
            "another --folds, or --set validation=0 in a recipe without patience"
        )
    return Part(name, learned, aside, judged)


def _held_out(films: Sequence[Film], judged: Indices, which: str) -> str:
    patients = len({films[int(i)].patient for i in judged})
    return f"{len(judged)} films of {patients} patients were held out ({which}): the network never saw these patients."
