"""How far the labels of a set can be told apart without looking at anatomy, and what that means, in words."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from firstread.models.data.film import Film
from firstread.models.data.nuisance import meaning
from firstread.models.evaluation.figures import Figure, auroc_figure, too_few
from firstread.models.findings import LABELS

Numbers = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

FOLDS = 5
DRAWS = 300
STRONG, CLEAR, SOME = 0.80, 0.70, 0.60
"""AUROC of what is no anatomy: from these on a network will, can, may learn it instead of disease."""

_WEAK, _PROVEN = 0.5, 0.55
_MOST_FILMS = 20_000
"""Beyond so many films a sample of patients is fitted: the figure no longer changes, the time does."""


@dataclass(frozen=True)
class Cue:
    """One variable alone. ``auroc``: how well it tells the label, 0.5 to 1; ``larger``: is more in films with it."""

    name: str
    meaning: str
    auroc: Figure
    larger: bool


@dataclass(frozen=True)
class Separability:
    """One label: each cue alone (the strongest first), all together, and what to make of it.

    ``logistic``, ``boosting``: AUROC of two models of all variables, cross-validated by patient. ``reason``: why there
    are no figures, empty when there are.
    """

    label: str
    verdict: str
    reason: str = ""
    alone: tuple[Cue, ...] = ()
    logistic: Figure | None = None
    boosting: Figure | None = None

    @property
    def together(self) -> Figure | None:
        """The better of the two models."""
        if self.logistic is None or self.boosting is None:
            return None
        return max(self.logistic, self.boosting, key=lambda figure: figure.value)


def separability(films: Sequence[Film], variables: Sequence[Mapping[str, float]]) -> tuple[Separability, ...]:
    """For every label that occurs: how well ``variables`` (a mapping per film, see ``nuisance``) tell it.

    Sizes in bytes are taken by their logarithm; a variable that never varies, or that most films lack, is left out.
    """
    names, table = _table(variables)
    return tuple(
        _of_label(films, names, table, column)
        for column in range(len(LABELS))
        if any(film.target[column] and film.known[column] for film in films)
    )


def _of_label(films: Sequence[Film], names: Sequence[str], table: Numbers, column: int) -> Separability:
    label = LABELS[column]
    at = _sampled(films, [i for i, film in enumerate(films) if film.known[column]])
    present = np.array([bool(films[i].target[column]) for i in at])
    patients = [films[i].patient for i in at]
    reason = too_few(present, patients) if at else "nothing is known of it"
    if not names:
        reason = reason or "no variable differs between films"
    if reason:
        return Separability(label, f"{label}: cannot be judged ({reason}).", reason)
    values = table[at]
    cues = []
    for k, name in enumerate(names):
        known = np.isfinite(values[:, k])
        if too_few(present[known], [patient for patient, use in zip(patients, known, strict=True) if use]):
            continue
        cues.append(
            _cue(name, present[known], values[known, k], [p for p, use in zip(patients, known, strict=True) if use])
        )
    cues.sort(key=lambda cue: -cue.auroc.value)
    logistic, boosting = (
        auroc_figure(present, _cross_validated(values, present, patients, kind), patients, DRAWS)
        for kind in ("logistic", "boosting")
    )
    judged = Separability(label, "", "", tuple(cues), logistic, boosting)
    return Separability(label, _verdict(judged), "", tuple(cues), logistic, boosting)


def _cue(name: str, present: Flags, values: Numbers, patients: Sequence[str]) -> Cue:
    figure = auroc_figure(present, values, patients, DRAWS)
    larger = figure.value >= _WEAK
    if not larger:
        figure = Figure(1 - figure.value, 1 - figure.high, 1 - figure.low, figure.positives, figure.negatives)
    return Cue(name, meaning(name), figure, larger)


def _verdict(judged: Separability) -> str:
    """Strong words need a figure that is high even at the low end of its interval."""
    together, label = judged.together, judged.label
    assert together is not None
    best = judged.alone[0] if judged.alone else None
    alone = ""
    if best is not None and best.auroc.low > _PROVEN and best.auroc.value >= SOME:
        alone = f"{best.meaning} alone tells {label} apart at AUROC {best.auroc.value:.2f} ({_direction(best)}); "
    said = (
        f"{alone}all such variables together reach {together.value:.2f} ({together.low:.2f} to {together.high:.2f})"
        f"{'' if alone else f' for {label}'}"
    )
    said = said[:1].upper() + said[1:]
    strength = max(together.low, best.auroc.low if best is not None else 0.0)
    if strength >= STRONG:
        return (
            f"{said}: a network will learn that. A figure on these films as they are says little about disease: hide "
            "the cue in training, judge on matched pairs, and run `firstread models audit`."
        )
    if strength >= CLEAR:
        return f"{said}: a network can learn that. Judge on matched pairs, and run `firstread models audit`."
    if strength >= _PROVEN and together.value >= SOME:
        return f"{said}: a figure near that may be owed to how films were made and of whom. Look at matched pairs too."
    return f"{said}: no strong cue was found among those that were measured."


def _direction(cue: Cue) -> str:
    """In words, how films with the label differ."""
    more, less = _DIRECTIONS.get(cue.name, ("larger in films with it", "smaller in films with it"))
    return more if cue.larger else less


_DIRECTIONS = {
    "view_ap": ("more often AP in films with it", "more often PA in films with it"),
    "sex_male": ("more often men", "more often women"),
    "age": ("patients with it are older", "patients with it are younger"),
    "is_jpeg": ("more often JPEG in films with it", "less often JPEG in films with it"),
    "is_dicom": ("more often DICOM in films with it", "less often DICOM in films with it"),
}


def _cross_validated(values: Numbers, present: Flags, patients: Sequence[str], kind: str) -> Numbers:
    """Out-of-fold log odds [N]; all films of a patient are held out together."""
    groups = np.unique(np.asarray(patients), return_inverse=True)[1]
    fewest = min(len(np.unique(groups[present])), len(np.unique(groups[~present])))
    odds = np.zeros(len(present))
    for train, held in StratifiedGroupKFold(min(FOLDS, fewest), shuffle=True, random_state=0).split(
        values, present, groups
    ):
        if present[train].all() or not present[train].any():
            continue  # nothing can be learned from one class: these films keep even odds
        model = (
            make_pipeline(
                SimpleImputer(strategy="median", keep_empty_features=True),
                StandardScaler(),
                LogisticRegression(max_iter=500),
            )
            if kind == "logistic"
            else HistGradientBoostingClassifier(
                max_iter=60, max_leaf_nodes=8, min_samples_leaf=10, early_stopping=False, random_state=0
            )
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(values[train], present[train])
        # Folds differ a little in prevalence, hence in the level of the odds: taken off, since odds are compared.
        share = present[train].mean()
        odds[held] = model.decision_function(values[held]) - np.log(share / (1 - share))
    return odds


def _table(variables: Sequence[Mapping[str, float]]) -> tuple[tuple[str, ...], Numbers]:
    names = sorted({name for row in variables for name in row})
    values = np.array([[float(row.get(name, np.nan)) for name in names] for row in variables], np.float64)
    values = values.reshape(len(variables), len(names))
    values[~np.isfinite(values)] = np.nan
    kept = []
    for k, name in enumerate(names):
        known = values[np.isfinite(values[:, k]), k]
        if len(known) < len(values) / 2 or known.min() == known.max():
            continue
        if name.endswith("bytes") and known.min() > 0:
            values[:, k] = np.log(values[:, k])
        kept.append(k)
    return tuple(names[k] for k in kept), values[:, kept]


def _sampled(films: Sequence[Film], at: list[int]) -> list[int]:
    if len(at) <= _MOST_FILMS:
        return at
    patients = sorted({films[i].patient for i in at})
    share = _MOST_FILMS / len(at)
    drawn = np.random.default_rng(0).random(len(patients)) < share
    kept = {patient for patient, one in zip(patients, drawn, strict=True) if one}
    return [i for i in at if films[i].patient in kept]
