"""Where the gate's numbers come from: real chest films against the same films turned, cut and inverted, and drawings.

``python -m firstread.models.gate_training FILMS LABELS OUTPUT`` writes ``gate.toml`` anew and prints what it refuses
of films of patients that had no say in it, neither in what was learnt nor in the threshold. FILMS: a folder of frontal
chest films as NIH's ChestX-ray14 gives them; LABELS: its table (``Image Index``, ``Patient ID``).
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from firstread.models.data.film import DataError
from firstread.models.gate_material import FOLDS, NEGATIVE, Material, RealFilm, prepare, read_films
from firstread.models.likeness import RANKS, Likeness, Matrix, Variety, coordinates, to_table

RANK_DIRECTIONS = 30
EDGE_DIRECTIONS = 60
REFUSED_SHARE = 0.03
"""Of unseen chest films. At most 0.05 may be: the rest is left for films that are unlike NIH's."""
UNCERTAIN_SHARE = 0.10
"""Of chest films, how many score too low for their negative to be put right."""
PENALTY = 0.02
"""Inverse strength of the ridge (scikit-learn's C)."""
PHANTOM_WEIGHT = 3.0
"""A drawn chest counts as much as so many films: demos must pass. At 8 stouter ones do, and side views."""
RESAMPLINGS = 2000

Chosen = npt.NDArray[np.bool_]


def fit(material: Material, chosen: Chosen) -> Likeness:
    """Learn from the chosen rows: principal components of the real films, then a ridge logistic regression."""
    films = material.traits[chosen & (material.kinds == "film")]
    ranks = _variety(films[:, :RANKS], RANK_DIRECTIONS)
    edges = _variety(films[:, RANKS:], EDGE_DIRECTIONS)
    inputs = coordinates(material.traits[chosen], ranks, edges)
    scaler = StandardScaler().fit(inputs)
    learner = LogisticRegression(C=PENALTY, class_weight="balanced", max_iter=1000)
    weight = np.where(material.kinds[chosen] == "phantom", PHANTOM_WEIGHT, 1.0)
    learner.fit(scaler.transform(inputs), material.chest[chosen], weight)
    weights = learner.coef_[0] / scaler.scale_
    return Likeness(ranks, edges, weights, float(learner.intercept_[0] - weights @ scaler.mean_))


def _variety(films: Matrix, count: int) -> Variety:
    mean = films.mean(axis=0)
    _, spread, directions = np.linalg.svd(films - mean, full_matrices=False)
    return Variety(mean, directions[:count], spread[:count] / np.sqrt(len(films)))


def unseen_scores(material: Material, chosen: Chosen) -> tuple[Matrix, Matrix]:
    """Scores of the chosen rows [n], and with black and white exchanged, by a likeness that saw none of their fold.

    NaN for all others.
    """
    own, exchanged = (np.full(len(material.kinds), np.nan) for _ in range(2))
    for fold in np.unique(material.folds[chosen]):
        unseen = chosen & (material.folds == fold)
        likeness = fit(material, chosen & ~unseen)
        own[unseen] = likeness(material.traits[unseen])
        exchanged[unseen] = likeness(material.exchanged[unseen])
    return own, exchanged


def with_thresholds(likeness: Likeness, material: Material, own: Matrix, exchanged: Matrix) -> Likeness:
    """The likeness with its thresholds, from scores of rows that it has not seen (NaN rows have no say)."""
    known = np.isfinite(own)
    films = own[known & material.as_they_are]
    # Nothing else than a negative may ever be taken for one: neither a positive film nor an impostor.
    others = exchanged[known & ((~material.chest & (material.kinds != NEGATIVE)) | material.as_they_are)]
    return replace(
        likeness,
        threshold=float(np.quantile(films, REFUSED_SHARE)),
        certain=max(float(np.quantile(films, UNCERTAIN_SHARE)), float(others.max())),
    )


@dataclass(frozen=True, eq=False)
class Judged:
    """What gates that had not seen a row's patient make of every row of the material.

    ``scores``: own likeness less that gate's threshold; ``passed``: let through as it is; ``put_right``: let through
    with black and white exchanged.
    """

    scores: Matrix
    passed: Chosen
    put_right: Chosen


def cross_validate(material: Material) -> Judged:
    """Judge every row by a gate that has seen nothing of its fold, neither for its table nor for its thresholds."""
    scores = np.zeros(len(material.kinds))
    put_right = np.zeros(len(scores), bool)
    for fold in range(FOLDS):
        unseen = material.folds == fold
        likeness = with_thresholds(fit(material, ~unseen), material, *unseen_scores(material, ~unseen))
        scores[unseen] = likeness(material.traits[unseen]) - likeness.threshold
        put_right[unseen] = (scores[unseen] < 0) & (likeness(material.exchanged[unseen]) >= likeness.certain)
    looked_at = material.as_they_are | ~material.chest
    return Judged(scores, scores >= 0, put_right & looked_at)


def share_with_interval(refused: Chosen, patients: Sequence[str], seed: int = 0) -> tuple[float, float, float]:
    """Refused share of films and its 95 % interval: patients are drawn with replacement, films go with them."""
    _, who = np.unique(np.asarray(patients), return_inverse=True)
    films, lost = np.bincount(who), np.bincount(who, refused)
    drawn = np.random.default_rng(seed).integers(0, len(films), (RESAMPLINGS, len(films)))
    shares = lost[drawn].sum(axis=1) / films[drawn].sum(axis=1)
    low, high = np.quantile(shares, [0.025, 0.975])
    return float(refused.mean()), float(low), float(high)


def _groups(film: RealFilm) -> list[str]:
    row = film.row
    named = [f"label {label}" for label in row.get("Finding Labels", "").split("|") if label]
    for column, name in (("View Position", "view"), ("Patient Gender", "sex")):
        if row.get(column):
            named.append(f"{name} {row[column]}")
    age = row.get("Patient Age", "").rstrip("Y")
    return [*named, f"age {int(age) // 20 * 20} to {int(age) // 20 * 20 + 19}"] if age.isdigit() else named


def report(films: Sequence[RealFilm], material: Material, judged: Judged) -> list[str]:
    """What is refused of real films, in all and by group, and what is let through of anything else: lines to print."""
    refused = ~judged.passed[material.as_they_are] | np.array([bool(film.outside) for film in films])
    share, low, high = share_with_interval(refused, [film.patient for film in films])
    lines = [
        f"of {len(films)} real chest films, each judged by a gate that had not seen its patient, "
        f"{refused.sum()} are refused: {share:.1%} (95 % interval {low:.1%} to {high:.1%})",
        f"  by the simple limits alone: {sum(bool(film.outside) for film in films)}",
        f"  taken for negatives by mistake: {int(judged.put_right[material.as_they_are].sum())}",
    ]
    groups: dict[str, list[bool]] = {}
    for film, lost in zip(films, refused, strict=True):
        for name in _groups(film):
            groups.setdefault(name, []).append(bool(lost))
    lines += [f"  {name}: {sum(lost)} of {len(lost)} refused" for name, lost in sorted(groups.items())]
    drawn = material.kinds == "phantom"
    lines.append(f"of {drawn.sum()} chest phantoms, {int((~judged.passed[drawn]).sum())} are refused")
    lines.append("let through of what must not be:")
    for kind in np.unique(material.kinds[~material.chest]):
        rows = material.kinds == kind
        passed = int(judged.passed[rows].sum())
        tail = f", {int(judged.put_right[rows].sum())} put right" if judged.put_right[rows].any() else ""
        lines.append(f"  {kind}: {passed} of {rows.sum()}{tail}")
    return lines


def without_each(material: Material, threshold: float, families: dict[str, Callable[[str], bool]]) -> list[str]:
    """How much of a family of impostors is let through by a gate that was never shown any of it: lines to print."""
    lines = [f"let through at the same threshold ({threshold:.2f}) when a family was left out of training:"]
    for name, belongs in families.items():
        left_out = np.array([belongs(kind) for kind in material.kinds])
        scores = fit(material, ~left_out)(material.traits[left_out])
        lines.append(f"  {name}: {int((scores >= threshold).sum())} of {len(scores)}")
    return lines


_BONES = ("drawn hand", "drawn foot", "drawn knee", "drawn shoulder")
_TRUNK = ("drawn pelvis", "drawn abdomen", "drawn spine", "drawn spine from the side")
_HEAD = ("drawn skull", "drawn teeth", "drawn tooth")
_PATIENTLESS = ("drawn blank", "drawn noise", "drawn bars", "drawn screenshot", "drawn photograph", "drawn document")
_TESTS = ("drawn slice", "drawn ultrasound", "drawn step wedge", "drawn test object", "drawn clipped")
_TURNS = ("upside down", "half a turn", "a turn to the left", "a turn to the right", "transposed", "tilted")
_PARTS = ("a quarter", "left or right half", "lower half", "upper half", "the belly", "neck and shoulders", "the spine")
FAMILIES: dict[str, Callable[[str], bool]] = {
    "limbs": lambda kind: kind in _BONES,
    "belly, pelvis and spine": lambda kind: kind in _TRUNK,
    "head": lambda kind: kind in _HEAD,
    "lateral chest": lambda kind: kind == "drawn lateral",
    "dog and breast": lambda kind: kind in ("drawn dog", "drawn breast"),
    "no film at all": lambda kind: kind in (*_PATIENTLESS, *_TESTS, "shapes", "clouds"),
    "turned": lambda kind: kind in _TURNS,
    "inverted": lambda kind: kind.startswith(NEGATIVE),
    "parts of a chest": lambda kind: kind in _PARTS,
}
"""Kinds that are alike: what the gate has never seen is judged a family at a time."""


def train(films: Sequence[RealFilm], say: Callable[[str], None] = print) -> Likeness:
    """Learn from all films, after saying what gates that had not seen them make of them."""
    material = prepare(films)
    judged = cross_validate(material)
    for line in report(films, material, judged):
        say(line)
    everything = np.ones(len(material.kinds), bool)
    likeness = with_thresholds(fit(material, everything), material, *unseen_scores(material, everything))
    for line in without_each(material, likeness.threshold, FAMILIES):
        say(line)
    return likeness


def main(arguments: Sequence[str] | None = None) -> None:
    """Learn, report, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("films", type=Path, help="folder of the films")
    parser.add_argument("labels", type=Path, help="table that names them and their patients")
    parser.add_argument("output", type=Path, help="where gate.toml is written")
    chosen = parser.parse_args(arguments)
    try:
        films = read_films(chosen.films, chosen.labels)
    except DataError as error:
        parser.exit(1, f"{error}\n")
    text = to_toml(train(films))
    temporary = chosen.output.with_name(chosen.output.name + ".part")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(chosen.output)


def to_toml(likeness: Likeness) -> str:
    """The text of ``gate.toml``."""
    lines = [
        "# Written by firstread.models.gate_training: statistics of real frontal chest films, in thousandths.",
        "# What the numbers mean: firstread.models.likeness.",
    ]
    table = to_table(likeness)
    parts = {"likeness": table, "likeness.ranks": table.pop("ranks"), "likeness.edges": table.pop("edges")}
    for title, part in parts.items():
        lines += ["", f"[{title}]"]
        for name, value in part.items():
            if name == "directions":
                lines += ["directions = [", *(f"  {row}," for row in value), "]"]
            else:
                lines.append(f"{name} = {value}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
