"""The films of a site that can have a say: calibrated log odds, what is known of each label, patients and folds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from firstread.models.bundle import Bundle
from firstread.models.calibration.fitting import FOLDS, Flags, Numbers
from firstread.models.calibration.prevalence import film_weights
from firstread.models.calibration.wishes import Wishes
from firstread.models.data.film import DataError, fold_of
from firstread.models.evaluation.score import Scores
from firstread.models.findings import LABELS


@dataclass(frozen=True, eq=False)
class SiteTable:
    """N usable films and the bundle as it was.

    ``log_odds``: calibrated, float64 [N, L]; ``target``, ``known``: [N, L]; ``fold``: [N], by patient.
    ``slope``, ``offset``, ``threshold``: the bundle's [L]. ``softmax``: its labels share one sum and cannot be
    calibrated one by one. ``was``: label to the prevalence at which its calibration was made, where that is recorded.
    """

    labels: tuple[str, ...]
    experimental: frozenset[str]
    log_odds: Numbers
    target: Flags
    known: Flags
    patients: tuple[str, ...]
    fold: npt.NDArray[np.int64]
    slope: Numbers
    offset: Numbers
    threshold: Numbers
    softmax: bool
    was: Mapping[str, float]


def site_table(bundle: Bundle, scores: Scores) -> SiteTable:
    """The films that were read and that the gate lets in, phantoms left out.

    Raises:
        DataError: there are none.
    """
    usable = [
        i
        for i, film in enumerate(scores.films)
        if scores.problems[i] is None and scores.refused[i] is None and not film.phantom
    ]
    if not usable:
        raise DataError(
            "none of the films can be used: each is broken, a phantom, or kept out by the gate; give films of the site"
        )
    films = [scores.films[i] for i in usable]
    places = [LABELS.index(label) if label in LABELS else -1 for label in bundle.labels]
    slope, offset = np.asarray(bundle.calibration.slope), np.asarray(bundle.calibration.offset)
    return SiteTable(
        labels=bundle.labels,
        experimental=bundle.experimental,
        log_odds=np.clip(scores.logits[usable] * slope + offset, -30, 30),
        target=np.stack([[p >= 0 and film.target[p] > 0.5 for p in places] for film in films]),
        known=np.stack([[p >= 0 and film.known[p] > 0.5 for p in places] for film in films]),
        patients=tuple(film.patient for film in films),
        fold=np.array([fold_of(film.patient, FOLDS, "calibration") for film in films]),
        slope=slope,
        offset=offset,
        threshold=np.array([bundle.thresholds[label] for label in bundle.labels]),
        softmax=bundle.architecture.output == "softmax",
        was=fitted_prevalences(bundle),
    )


def fitted_prevalences(bundle: Bundle) -> dict[str, float]:
    """At which prevalence each label's calibration was made, as far as the bundle's provenance says so."""
    recorded = bundle.provenance.get("calibration", {})
    found = {}
    for label in bundle.labels:
        entry = recorded.get(label, {}) if isinstance(recorded, Mapping) else {}
        value = entry.get("prevalence") if isinstance(entry, Mapping) else None
        if isinstance(value, float) and 0 < value < 1:
            found[label] = value
    return found


def site_weights(table: SiteTable, chosen: Flags, wishes: Wishes) -> Numbers:
    """How many films of the site each chosen film stands for, by the stated prevalences.

    Raises:
        DataError: they cannot hold together on these films.
    """
    stated = {}
    for label, prevalence in wishes.prevalence.items():
        column = table.labels.index(label)
        known = table.known[chosen, column]
        present = table.target[chosen, column] & known
        if 0 < int(present.sum()) < int(known.sum()):
            stated[column] = prevalence
    try:
        return film_weights(table.target[chosen], table.known[chosen], stated)
    except ValueError as error:
        raise DataError(f"{', '.join(wishes.prevalence)}: {error}") from error


def share_of(table: SiteTable, rows: Flags, column: int) -> float:
    """Share of the chosen films that carry the label."""
    return float(table.target[rows[:, column], column].mean())
