"""What the gate learns from: chest films as they come, and the same films turned, cut and inverted; drawn impostors."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.ndimage import gaussian_filter

from firstread.models.data.film import DataError, fold_of
from firstread.models.gate import broken_limit
from firstread.models.likeness import WORKING_SIDE, Matrix, Picture, traits
from firstread.models.phantoms import DRAWABLE, NON_CHEST, draw, draw_non_chest, random_spec

FOLDS = 5
KINDS_PER_FILM = 0.55
"""Of the impostors, how many are made of each film."""
PHANTOMS = 400
"""Chests, lean and stout alike; each is seen twice."""
DRAWN_EACH = 60
"""Pictures of each kind that is no chest; each is seen twice, once placed otherwise and perhaps mirrored."""

_SIZE = WORKING_SIDE

Random = np.random.Generator


def vary(film: Picture, rng: Random) -> Picture:
    """The same film placed, turned and collimated a little differently, perhaps blurred and noisy."""
    width = _SIZE * rng.uniform(0.82, 1.15)
    across, down = _SIZE / 2 + rng.normal(0, 5, 2)
    turned = Image.fromarray(film).rotate(rng.normal(0, 4), resample=Image.Resampling.BILINEAR)
    corners = (across - width / 2, down - width / 2, across + width / 2, down + width / 2)
    placed = turned.transform((_SIZE, _SIZE), Image.Transform.EXTENT, corners, Image.Resampling.BILINEAR)
    image: npt.NDArray[np.floating] = np.asarray(placed, np.float32)
    if rng.random() < 0.3:
        image = gaussian_filter(image, rng.uniform(0.3, 1.2))
    if rng.random() < 0.3:
        image = image + rng.normal(0, rng.uniform(0.0, 0.02), image.shape)
    return np.asarray(np.clip(image, 0, 1), np.float32)


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


def clouds(film: Picture, rng: Random) -> Picture:
    """Noise with the spectrum of natural pictures, some of it mirrored: what a photograph is like from afar."""
    frequency = np.hypot(np.fft.fftfreq(_SIZE)[:, None], np.fft.rfftfreq(_SIZE)[None, :])
    steepness = rng.uniform(0.8, 2.2)
    waves = np.fft.rfft2(rng.standard_normal((_SIZE, _SIZE))) / np.maximum(frequency, 1 / _SIZE) ** steepness
    field = np.fft.irfft2(waves, (_SIZE, _SIZE))
    if rng.random() < 0.4:
        field = field + field[:, ::-1]
    low, high = np.percentile(field, [1, 99])
    field = np.clip((field - low) / max(high - low, 1e-9), 0, 1).astype(np.float32)
    return np.asarray((field + shapes(film, rng)) / 2 if rng.random() < 0.5 else field, np.float32)


def _quarter(film: Picture, rng: Random) -> Picture:
    half = _SIZE // 2
    row, column = rng.choice([0, half], 2)
    return film[row : row + half, column : column + half]


def _side(film: Picture, rng: Random) -> Picture:
    edge = int(rng.integers(56, 73))
    return film[:, edge:] if rng.random() < 0.5 else film[:, :edge]


def _tilted(film: Picture, rng: Random) -> Picture:
    angle = float(rng.choice([-1, 1]) * rng.uniform(38, 60))
    return np.asarray(Image.fromarray(film).rotate(angle, Image.Resampling.BILINEAR), np.float32)


IMPOSTORS: dict[str, Callable[[Picture, Random], Picture]] = {
    "upside down": lambda film, _: film[::-1],
    "half a turn": lambda film, _: film[::-1, ::-1],
    "a turn to the left": lambda film, _: np.rot90(film),
    "a turn to the right": lambda film, _: np.rot90(film, 3),
    "transposed": lambda film, _: film.T,
    "tilted": _tilted,
    "inverted": lambda film, _: 1 - film,
    "inverted, upside down": lambda film, _: 1 - film[::-1],
    "a quarter": _quarter,
    "left or right half": _side,
    "lower half": lambda film, rng: film[int(rng.integers(56, 73)) :],
    "upper half": lambda film, rng: film[: int(rng.integers(56, 73))],
    "the belly": lambda film, rng: film[int(rng.integers(80, 98)) :],
    "neck and shoulders": lambda film, rng: film[: int(rng.integers(30, 52))],
    "the spine": lambda film, _: film[:, 45:83],
    "slid": lambda film, rng: np.roll(film, _SIZE // 2, axis=int(rng.integers(0, 2))),
    "quilt": lambda film, _: np.roll(film, (_SIZE // 2, _SIZE // 2), axis=(0, 1)),
    "shapes": shapes,
    "clouds": clouds,
}
HARD = frozenset({"upper half", "lower half", "left or right half", "lateral"})
"""What is taken for a chest most easily is shown most often."""
NEGATIVE = "inverted"
"""The one impostor that the gate may put right."""


@dataclass(frozen=True)
class RealFilm:
    """A film 128 x 128 in [0, 1], and its row of the table.

    ``outside``: the gate's sentence when a simple limit alone refuses it.
    """

    pixels: Picture
    patient: str
    row: dict[str, str]
    outside: str = ""


@dataclass(frozen=True, eq=False)
class Material:
    """Traits [n, RANKS + EDGES] with what they are of.

    ``kinds``: "film" (real, varied or not), "phantom" (a chest), else an impostor's name; ``folds``: of the patient.
    ``as_they_are``: real films without any variation, in the order of the films: what the figures are taken from.
    ``exchanged``: the traits with black and white exchanged, 0 where they were not looked at.
    """

    traits: Matrix
    exchanged: Matrix
    kinds: npt.NDArray[np.str_]
    folds: npt.NDArray[np.int64]
    as_they_are: npt.NDArray[np.bool_]

    @property
    def chest(self) -> npt.NDArray[np.bool_]:
        """Which rows are frontal chests, real or drawn."""
        return np.isin(self.kinds, ["film", "phantom"])


@dataclass(frozen=True)
class _Row:
    traits: Matrix
    exchanged: Matrix
    kind: str
    fold: int
    as_it_is: bool = False


def prepare(films: Sequence[RealFilm], seed: int = 0, *, phantoms: int = PHANTOMS, drawn: int = DRAWN_EACH) -> Material:
    """Everything to learn from: films, films varied and made sick, impostors, phantoms, pictures of anything else."""
    rng = np.random.default_rng(seed)
    rows: list[_Row] = []
    for film in films:
        fold = fold_of(film.patient, FOLDS)
        rows.append(_row(film.pixels, "film", fold, as_it_is=True))
        rows.append(_row(vary(film.pixels, rng), "film", fold))
        rows.append(_row(sicken(vary(film.pixels, rng), rng), "film", fold))
        for kind, impostor in IMPOSTORS.items():
            if rng.random() < (1.0 if kind in HARD else KINDS_PER_FILM):
                base = film.pixels if rng.random() < 0.4 else vary(film.pixels, rng)
                rows.append(_row(impostor(base, rng), kind, fold))
    for number in range(phantoms):
        labels = [DRAWABLE[number % len(DRAWABLE)]] if number % 2 else []
        spec = replace(random_spec(rng, labels, (2 * _SIZE, 2 * _SIZE)), habitus=float(rng.uniform(0, 1)))
        image = _small(draw(spec).image)
        rows += [_row(image, "phantom", number % FOLDS), _row(vary(image, rng), "phantom", number % FOLDS)]
    for kind in NON_CHEST:
        for number in range(3 * drawn if kind in HARD else drawn):
            image = _small(draw_non_chest(kind, 1000 + number, (2 * _SIZE, 2 * _SIZE)))
            other = vary(image, rng)
            other = other[:, ::-1] if rng.random() < 0.5 else other
            rows += [_row(image, f"drawn {kind}", number % FOLDS), _row(other, f"drawn {kind}", number % FOLDS)]
    return Material(
        np.stack([row.traits for row in rows]),
        np.stack([row.exchanged for row in rows]),
        np.array([row.kind for row in rows]),
        np.array([row.fold for row in rows]),
        np.array([row.as_it_is for row in rows]),
    )


def _row(image: Picture, kind: str, fold: int, *, as_it_is: bool = False) -> _Row:
    image = np.ascontiguousarray(image, np.float32)
    looked_at = as_it_is or kind not in ("film", "phantom")
    own = traits(image)
    return _Row(own, traits(np.float32(1) - image) if looked_at else np.zeros_like(own), kind, fold, as_it_is)


def _small(image: Picture) -> Picture:
    shrunk = Image.fromarray(np.asarray(image, np.float32)).resize((_SIZE, _SIZE), Image.Resampling.BOX)
    return np.asarray(shrunk, np.float32)


def read_films(folder: Path, labels: Path) -> list[RealFilm]:
    """The films in ``folder`` that a table in NIH's form names.

    Raises:
        DataError: the table or its columns are missing, or it names no film that is there, or one cannot be read.
    """
    try:
        with labels.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{labels}: cannot be read ({error}): give NIH's Data_Entry_2017 table as UTF-8") from error
    missing = {"Image Index", "Patient ID"} - set(rows[0] if rows else ())
    if missing:
        raise DataError(f"{labels}: no column {' and no '.join(sorted(missing))}: give a table in NIH's form")
    films = []
    for number, row in enumerate(rows, start=2):
        path = folder / row["Image Index"]
        if not path.is_file():
            continue
        try:
            with Image.open(path) as image:
                grey = np.asarray(image.convert("L"), np.float32) / np.float32(255)
        except (OSError, ValueError) as error:
            raise DataError(f"{path}, row {number}: cannot be read ({error}): fetch it again") from error
        broken = broken_limit(grey)
        films.append(RealFilm(_small(grey), row["Patient ID"], row, broken.text if broken is not None else ""))
    if not films:
        raise DataError(f"{labels}: none of its films is in {folder}: give the folder that holds them")
    return films
