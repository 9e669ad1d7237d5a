"""The real films of a training: a table of labels and its images, reduced once and kept."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from firstread.models.data.boxes import stored_size
from firstread.models.data.film import DataError, Film, FilmSet
from firstread.models.data.person import LATERAL
from firstread.models.data.pixels import load
from firstread.models.data.splits import official
from firstread.models.data.tables import read_labels
from firstread.models.prediction import Box
from firstread.models.training.progress import Say, counted

LISTS = ("train_val_list.txt", "test_list.txt")


def real_films(
    labels: Path, images: Path, side: int, *, boxes: Path | None, cache: Path, workers: int | None, say: Say
) -> FilmSet:
    """The films of ``labels`` that lie in ``images``, reduced to ``side`` pixels and kept in ``cache``; boxes in those
    pixels. Lateral films are left out: the service analyses none.

    Raises:
        DataError: the table or an image cannot be used; names file and row.
    """
    films = read_labels(labels, images, boxes=boxes, on_note=say)
    frontal = [film for film in films if film.view != LATERAL]
    if len(frontal) < len(films):
        say(f"{len(films) - len(frontal)} lateral films are left out")
    if not frontal:
        raise DataError(f"{labels}: every film is lateral: frontal films are needed")
    with counted("decoding films", say, terminal=sys.stderr.isatty()) as told:
        loaded = load(frontal, side, cache, workers=workers, on_progress=told)
    return FilmSet(tuple(_at(film, side) for film in loaded.films), loaded.pixels)


def nih_test_films(films: tuple[Film, ...], labels: Path, images: Path) -> npt.NDArray[np.int64]:
    """The films of NIH's own test list, which lies beside the table or the images.

    Raises:
        DataError: there are no lists, or they do not fit the films.
    """
    places = list(dict.fromkeys((labels.parent, images, images.parent)))
    for place in places:
        train_list, test_list = (place / name for name in LISTS)
        if train_list.is_file() and test_list.is_file():
            found = official(films, train_list, test_list, validation=0.0)
            return np.array(found.test, np.int64)
    looked = ", ".join(map(str, places))
    raise DataError(f"{' and '.join(LISTS)} are in none of {looked}: put NIH's lists there, or use --split hash")


def _at(film: Film, side: int) -> Film:
    """A film whose boxes are in pixels of its square instead of its file."""
    if not film.boxes:
        return film
    size = stored_size(film)
    if size is None:
        raise DataError(f"{film.path}: its size cannot be read, so that its boxes have no place: leave --boxes out")
    across, down = side / size[0], side / size[1]

    def moved(box: Box) -> Box:
        return Box(box.left * across, box.top * down, box.right * across, box.bottom * down)

    return replace(
        film,
        boxes={label: moved(box) for label, box in film.boxes.items()},
        more_boxes={label: tuple(map(moved, boxes)) for label, boxes in film.more_boxes.items()},
    )
