"""Films on disk and scores out of nothing, for the tests of evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from firstread.models.bundle import Bundle
from firstread.models.data.film import Film
from firstread.models.evaluation.score import Scores
from firstread.models.findings import LABELS, NO_FINDING

KNOWN = np.ones(len(LABELS), np.float32)


def target_of(*labels: str) -> np.ndarray:
    """A target [15] with these labels, No Finding when there are none."""
    wanted = labels or (NO_FINDING,)
    return np.array([label in wanted for label in LABELS], np.float32)


def film_of(number: int, *labels: str, **more: object) -> Film:
    """A film without a file."""
    film = Film(f"film_{number:04}.png", f"patient-{number}", target_of(*labels), KNOWN, False, row=number + 2)
    return replace(film, **more)  # type: ignore[arg-type]


def picture(number: int, side: int = 144) -> np.ndarray:
    """A lively 8-bit picture, another one for every number."""
    rng = np.random.default_rng(number)
    coarse = np.kron(rng.random((6, 6)), np.ones((side // 6, side // 6)))
    return (coarse * 200 + rng.random(coarse.shape) * 55).astype(np.uint8)


def films_on_disk(folder: Path, count: int) -> list[Film]:
    """Films with pictures, every other one with Pneumonia."""
    folder.mkdir(parents=True, exist_ok=True)
    films = []
    for number in range(count):
        path = folder / f"film_{number:04}.png"
        Image.fromarray(picture(number)).save(path)
        labels = ("Pneumonia",) if number % 2 else ()
        films.append(film_of(number, *labels, path=path, sex="FM"[number % 2], age=20.0 + number, view="PA"))
    return films


def scores_of(bundle: Bundle, films: Sequence[Film], by_label: Mapping[str, np.ndarray], seed: int = 0) -> Scores:
    """Scores as a bundle would give them: ``by_label`` where stated, chance elsewhere."""
    rng = np.random.default_rng(seed)
    table = rng.random((len(films), len(bundle.labels)))
    for label, values in by_label.items():
        table[:, bundle.labels.index(label)] = values
    count = len(films)
    logits = np.log(np.clip(table, 1e-6, 1 - 1e-6) / (1 - np.clip(table, 1e-6, 1 - 1e-6)))
    making = tuple(film.nuisances for film in films)
    none: tuple[None, ...] = (None,) * count
    return Scores(
        bundle.labels, tuple(films), table, logits, none, none, ((),) * count, making, none, None, "none/planted"
    )
