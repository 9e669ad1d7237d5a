"""A small world of phantoms in which it is known who sees disease and who sees how the film was made.

Films with a consolidation were made with more noise than the others, as far as ``planted`` says, but the two overlap,
so that there are pairs made alike. Judges are hand-made: they read noise, anatomy, a letter at the rim, or chance.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np
from scipy import ndimage

from firstread.models.audit.audit import Audit, audit
from firstread.models.audit.judge import Answer, Ready, log_odds
from firstread.models.audit.measured import Measured, measure_films
from firstread.models.audit.picture import Picture, generator
from firstread.models.data.film import Film
from firstread.models.data.nuisance import measure
from firstread.models.findings import LABELS
from firstread.models.phantoms import Lesion, draw, random_spec
from firstread.models.preprocess import Preprocessing, place

LABEL = "Consolidation"
SIDE = 96
COUNT = 140

Score = Callable[[Picture], float]


@dataclass(frozen=True, eq=False)
class World:
    """Films, their pictures by key, and what was measured of each."""

    films: tuple[Film, ...]
    pictures: Mapping[str, Picture]
    measured: tuple[Measured, ...]

    def picture_of(self, film: Film) -> Picture:
        return self.pictures[film.key]


@cache
def world(planted: float = 1.2, count: int = COUNT) -> World:
    """``planted``: by how many standard deviations films with the label are noisier. The same world every time."""
    films, pictures = [], {}
    for number in range(count):
        rng = np.random.default_rng([5, number])
        ill = number % 2 == 0
        # A plain lesion in the image's left lung: the other lung is what it is compared with.
        lesions = (Lesion(LABEL, 0.24, 0.6, 0.34, 1.0),) if ill else ()
        plain = random_spec(rng, (), (SIDE, SIDE), view="PA")
        spec = replace(plain, lesions=lesions, devices=(), noise=0.3, collimation=(0.0, 0.0, 0.0, 0.0))
        levels = float(np.exp(1.2 + 0.45 * (rng.normal() + planted * ill)))
        noise = levels / 255 * rng.standard_normal((SIDE, SIDE), dtype=np.float32)
        target = np.zeros(len(LABELS), np.float32)
        target[LABELS.index(LABEL)] = ill
        known = np.zeros(len(LABELS), np.float32)
        known[LABELS.index(LABEL)] = 1
        film = Film(f"film-{number}", f"patient-{number}", target, known, phantom=False, view="PA")
        films.append(film)
        pictures[film.key] = np.clip(draw(spec).image + noise, 0, 1).astype(np.float32)
    made = World(tuple(films), pictures, ())
    measured = measure_films(made.films, made.picture_of, workers=1)
    assert all(each is not None for each in measured)
    return World(made.films, pictures, tuple(each for each in measured if each is not None))


def reads_noise(picture: Picture) -> float:
    """How noisy it is: the planted shortcut."""
    return 2.0 * float(np.log(measure(picture)["noise"] + 0.1)) - 6.0


def reads_anatomy(picture: Picture) -> float:
    """How much brighter the image's left lung is than the right, coarsely: the disease, whatever the film is like."""
    rows, columns = picture.shape
    smooth = ndimage.uniform_filter(picture, 0.08 * rows)
    ranks = np.argsort(np.argsort(smooth, axis=None)).reshape(picture.shape) / picture.size
    low, high = int(0.4 * rows), int(0.62 * rows)
    left = ranks[low:high, int(0.2 * columns) : int(0.4 * columns)]
    right = ranks[low:high, int(0.6 * columns) : int(0.8 * columns)]
    return 14.0 * float(left.mean() - right.mean()) - 1.5


def reads_mark(picture: Picture) -> float:
    """Whether there is something very bright in the upper right corner."""
    rows, columns = picture.shape
    return 30.0 * float(picture[: int(0.15 * rows), int(0.8 * columns) :].max()) - 24.0


def reads_nothing(picture: Picture) -> float:
    """Chance, the same for the same coarse film."""
    coarse = np.round(ndimage.zoom(picture, 2 / picture.shape[0], order=1), 0)
    return float(generator("chance", coarse.tobytes(), round(float(picture.mean()), 2)).normal())


@dataclass(frozen=True, eq=False)
class Stub:
    """A judge of one label that turns a picture into log odds by a function."""

    score: Score
    maps: np.ndarray | None = None
    labels: tuple[str, ...] = (LABEL,)
    thresholds: Mapping[str, float] = field(default_factory=lambda: {LABEL: 0.5})

    def ready(self, picture: Picture) -> Ready:
        return Ready(picture, place(picture, Preprocessing(input_size=32)), refused=False)

    def answer(self, film: Film, pictures: Sequence[Ready]) -> Answer:
        odds = np.array([[self.score(each.square)] for each in pictures])
        maps = None if self.maps is None else np.repeat(self.maps[None, None], len(pictures), axis=0)
        return Answer(1 / (1 + np.exp(-odds)), maps)


def audited(made: World, score: Score, **options: object) -> Audit:
    """The audit of a hand-made judge in a world."""
    judge = Stub(score)
    probabilities = np.array([1 / (1 + np.exp(-score(made.picture_of(film)))) for film in made.films])[:, None]
    assert np.isfinite(log_odds(probabilities)).all()
    settings: dict[str, object] = {"most_films": 32, "phantoms": 0, "threads": 1, "matched_on": ("noise",)}
    return audit(
        made.films,
        probabilities,
        made.measured,
        judge,
        made.picture_of,
        **{**settings, **options},  # type: ignore[arg-type]
    )
