"""How each film was made, in numbers: the variables of the data's own check, and the spectrum of its noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from firstread.models.audit.picture import Picture, at_most
from firstread.models.audit.spectrum import Spectrum, spectrum_of
from firstread.models.data import nuisance
from firstread.models.data.film import DataError, Film
from firstread.models.data.processes import Failed, OnProgress, in_processes
from firstread.models.evaluation.score import admitted, upright

LONGEST_SIDE = 1024
"""The service analyses no film at more pixels than that; nothing is altered at more either."""


@dataclass(frozen=True, eq=False)
class Measured:
    """One film's variables (see ``data.nuisance``) and the amplitude spectrum of its noise."""

    variables: dict[str, float]
    spectrum: Spectrum


@dataclass(frozen=True, eq=False)
class _Job:
    film: Film
    picture_of: Callable[[Film], Picture]


def shown(film: Film) -> Picture:
    """The film as the service analyses it [rows, columns] in [0, 1]: upright, a negative put right, at most 1024 px.

    Raises:
        DataError: it cannot be read.
    """
    return at_most(np.ascontiguousarray(admitted(upright(film)[0])[0], np.float32), LONGEST_SIDE)


def measure_films(
    films: Sequence[Film],
    picture_of: Callable[[Film], Picture] = shown,
    workers: int | None = None,
    on_progress: OnProgress | None = None,
) -> tuple[Measured | None, ...]:
    """Measure each film; None for one that cannot be read.

    ``picture_of``: a function of a module, or ``workers`` is 1.
    """
    jobs = [_Job(film, picture_of) for film in films]
    made = in_processes(_measure, jobs, workers, on_progress)
    return tuple(None if isinstance(each, Failed) else each for each in made)


def _measure(job: _Job) -> Measured | None:
    try:
        picture = job.picture_of(job.film)
        path = job.film.path
        variables = nuisance.measure(picture, path if path is not None and path.is_file() else None)
    except (DataError, OSError, ValueError):
        return None
    return Measured(variables | nuisance.of_film(job.film), spectrum_of(picture))
