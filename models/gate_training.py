"""Where the gate's numbers come from: real chest films against the same films turned, cut and inverted.

``python -m firstread.models.gate_training FILMS LABELS OUTPUT`` writes ``gate.toml`` anew and prints what it refuses
of films of patients that it was not trained on. FILMS: a folder of frontal chest films as NIH's ChestX-ray14 gives
them; LABELS: its table (``Image Index``, ``Patient ID``).
"""

from __future__ import annotations

import argparse
import csv
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.optimize import minimize

from firstread.models.likeness import SIDE, Likeness, Matrix, Picture, coordinates, from_table, thumbnail, to_table

DIRECTIONS = 30
FOLDS = 5
REFUSED_SHARE = 0.01
"""Of unseen chest films: the sickest look the least like chests, so few may be lost here."""
RIDGE = 50.0
_SIZE = 128

Random = np.random.Generator


def vary(film: Picture, rng: Random) -> Picture:
    """The same film placed, turned and collimated a little differently."""
    width = _SIZE * rng.uniform(0.82, 1.15)
    across, down = _SIZE / 2 + rng.normal(0, 5, 2)
    turned = Image.fromarray(film).rotate(rng.normal(0, 4), resample=Image.Resampling.BILINEAR)
    corners = (across - width / 2, down - width / 2, across + width / 2, down + width / 2)
    placed = turned.transform((_SIZE, _SIZE), Image.Transform.EXTENT, corners, Image.Resampling.BILINEAR)
    return np.asarray(placed, np.float32)


def sicken(film: Picture, rng: Random) -> Picture:
    """One lung partly or wholly white, as large effusions and consolidations make it."""
    down, across = np.mgrid[0:_SIZE, 0:_SIZE].astype(np.float32) / _SIZE
    centre = (0.5 + rng.choice([-1, 1]) * rng.uniform(0.15, 0.3), rng.uniform(0.3, 0.85))
    width, height = rng.uniform(0.1, 0.22), rng.uniform(0.12, 0.4)
    veil = np.exp(-(((across - centre[0]) / width) ** 2) - ((down - centre[1]) / height) ** 2) * rng.uniform(0.5, 1.0)
    bright = np.float32(np.percentile(film, 85))
    return np.asarray(film + veil * np.maximum(bright - film, 0), np.float32)


def shapes(_film: Picture, rng: Random) -> Picture:
    """No film at all: soft and hard ellipses on black or grey."""
    down, across = np.mgrid[0:_SIZE, 0:_SIZE].astype(np.float32)
    drawn = np.full((_SIZE, _SIZE), rng.uniform(0, 1) * (rng.random() < 0.5), np.float32)
    for _ in range(rng.integers(1, 6)):
        (x, y), (a, b), turn = rng.uniform(0, _SIZE, 2), rng.uniform(5, 90, 2), rng.uniform(0, np.pi)
        u = (across - x) * np.cos(turn) + (down - y) * np.sin(turn)
        v = (down - y) * np.cos(turn) - (across - x) * np.sin(turn)
        distance = (u / a) ** 2 + (v / b) ** 2
        drawn += np.float32(rng.uniform(-1, 1)) * (np.exp(-distance) if rng.random() < 0.5 else distance < 1)
    drawn -= drawn.min()
    return np.asarray(drawn / max(float(drawn.max()), 1e-3), np.float32)


def _quarter(film: Picture, rng: Random) -> Picture:
    half = _SIZE // 2
    row, column = rng.choice([0, half], 2)
    return film[row : row + half, column : column + half]


def _half(film: Picture, rng: Random) -> Picture:
    return film[:, _SIZE // 2 :] if rng.random() < 0.5 else film[:, : _SIZE // 2]


def _slid(film: Picture, rng: Random) -> Picture:
    return np.roll(film, _SIZE // 2, axis=int(rng.integers(0, 2)))


def _quilt(film: Picture, _rng: Random) -> Picture:
    return np.roll(film, (_SIZE // 2, _SIZE // 2), axis=(0, 1))


IMPOSTORS: dict[str, Callable[[Picture, Random], Picture]] = {
    "upside down": lambda film, _: film[::-1],
    "half a turn": lambda film, _: film[::-1, ::-1],
    "a turn to the left": lambda film, _: np.rot90(film),
    "a turn to the right": lambda film, _: np.rot90(film, 3),
    "inverted": lambda film, _: 1 - film,
    "a quarter": _quarter,
    "a half": _half,
    "the belly": lambda film, rng: film[int(rng.integers(80, 98)) :],
    "neck and shoulders": lambda film, rng: film[: int(rng.integers(30, 52))],
    "the spine": lambda film, _: film[:, 45:83],
    "slid": _slid,
    "quilt": _quilt,
    "shapes": shapes,
}


@dataclass(frozen=True)
class Material:
    """Thumbnails [n, 256] with their kind ("film" or an impostor's name) and the fold of their patient."""

    thumbnails: Matrix
    kinds: npt.NDArray[np.str_]
    folds: npt.NDArray[np.int64]
    as_they_are: npt.NDArray[np.bool_]
    """Real films without any variation: what the figures are taken from."""


def prepare(films: Sequence[Picture], patients: Sequence[str], seed: int = 0) -> Material:
    """Everything to learn from: films, films varied and made sick, impostors, side views and hands of phantoms."""
    rng = np.random.default_rng(seed)
    rows: list[tuple[Matrix, str, int, bool]] = []
    for film, patient in zip(films, patients, strict=True):
        fold = int(hashlib.sha1(patient.encode(), usedforsecurity=False).hexdigest(), 16) % FOLDS
        rows.append((thumbnail(film), "film", fold, True))
        rows.append((thumbnail(vary(film, rng)), "film", fold, False))
        rows.append((thumbnail(sicken(vary(film, rng), rng)), "film", fold, False))
        for kind, impostor in IMPOSTORS.items():
            if rng.random() < 0.7:
                impression = np.ascontiguousarray(impostor(vary(film, rng), rng))
                rows.append((thumbnail(impression), kind, fold, False))
    rows += _phantoms(rng)
    thumbnails, kinds, folds, real = zip(*rows, strict=True)
    return Material(np.stack(thumbnails), np.array(kinds), np.array(folds), np.array(real))


def _phantoms(rng: Random, each: int = 40, variations: int = 8) -> list[tuple[Matrix, str, int, bool]]:
    from firstread.models.phantoms import draw, random_spec

    rows = []
    for view in ("LATERAL", "HAND"):
        for number in range(each):
            drawn = draw(random_spec(rng, size=(_SIZE, _SIZE), view=view)).image.astype(np.float32)
            for _ in range(variations):
                varied = vary(drawn, rng)
                varied = np.ascontiguousarray(varied[:, ::-1]) if rng.random() < 0.5 else varied
                rows.append((thumbnail(varied), f"phantom {view.lower()}", number % FOLDS, False))
    return rows


def fit(material: Material, chosen: npt.NDArray[np.bool_], threshold: float = 0.0) -> Likeness:
    """Learn from the chosen rows: principal components of the films, then a ridge logistic regression."""
    film = material.kinds == "film"
    films = material.thumbnails[chosen & film]
    mean = films.mean(axis=0)
    _, spread, directions = np.linalg.svd(films - mean, full_matrices=False)
    directions, scales = directions[:DIRECTIONS], spread[:DIRECTIONS] / np.sqrt(len(films))
    inputs = coordinates(material.thumbnails[chosen], mean, directions, scales)
    centre, width = inputs.mean(axis=0), inputs.std(axis=0)
    is_film = film[chosen]
    balance = np.where(is_film, 0.5 / is_film.mean(), 0.5 / (1 - is_film.mean()))
    weights, offset = _logistic((inputs - centre) / width, is_film, balance)
    return Likeness(mean, directions, scales, weights / width, offset - float(weights @ (centre / width)), threshold)


def _logistic(inputs: Matrix, is_film: npt.NDArray[np.bool_], balance: Matrix) -> tuple[Matrix, float]:
    sign = np.where(is_film, 1.0, -1.0)

    def loss(solution: Matrix) -> tuple[float, Matrix]:
        margin = sign * (inputs @ solution[:-1] + solution[-1])
        pull = -balance * sign / (1 + np.exp(np.clip(margin, -500, 500)))
        slope = np.append(inputs.T @ pull + RIDGE * solution[:-1], pull.sum())
        value = float(balance @ np.logaddexp(0, -margin) + RIDGE / 2 * solution[:-1] @ solution[:-1])
        return value, slope

    solution = minimize(loss, np.zeros(inputs.shape[1] + 1), jac=True, method="L-BFGS-B").x
    return solution[:-1], float(solution[-1])


def cross_validate(material: Material) -> npt.NDArray[np.float64]:
    """The score of every row by a likeness that has seen nothing of its patient."""
    scores = np.zeros(len(material.kinds))
    for fold in range(FOLDS):
        unseen = material.folds == fold
        scores[unseen] = fit(material, ~unseen)(material.thumbnails[unseen])
    return scores


def read_films(folder: Path, labels: Path) -> tuple[list[Picture], list[str]]:
    """The films that a table in NIH's form names, 128 x 128 in [0, 1], and their patients."""
    with labels.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if (folder / row["Image Index"]).is_file()]
    films: list[Picture] = []
    for row in rows:
        with Image.open(folder / row["Image Index"]) as image:
            grey = image.convert("L").resize((_SIZE, _SIZE), Image.Resampling.BOX)
        films.append(np.asarray(grey, np.float32) / np.float32(255))
    return films, [row["Patient ID"] for row in rows]


def main(arguments: Sequence[str] | None = None) -> None:
    """Learn, report, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("films", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("output", type=Path)
    chosen = parser.parse_args(arguments)
    material = prepare(*read_films(chosen.films, chosen.labels))
    scores = cross_validate(material)
    real = scores[material.as_they_are]
    threshold = float(np.quantile(real, REFUSED_SHARE))
    print(f"{len(real)} films, threshold {threshold:.2f}: {np.mean(real < threshold):.1%} of unseen films refused")
    for kind in np.unique(material.kinds[material.kinds != "film"]):
        passed = float(np.mean(scores[material.kinds == kind] >= threshold))
        print(f"  {kind}: {passed:.1%} let through")
    likeness = fit(material, np.ones(len(scores), bool), threshold)
    likeness = replace(from_table(to_table(likeness)), threshold=threshold)
    chosen.output.write_text(_toml(likeness), encoding="utf-8")


def _toml(likeness: Likeness) -> str:
    lines = [
        "# Written by firstread.models.gate_training: statistics of real frontal chest films, in thousandths.",
        f"# mean and directions are {SIDE} x {SIDE} thumbnails of ranks, row by row.",
        "",
        "[likeness]",
    ]
    for name, value in to_table(likeness).items():
        if name == "directions":
            lines += ["directions = [", *(f"  {row}," for row in value), "]"]
        else:
            lines.append(f"{name} = {value}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
