"""A film with its labels, as every tool of the lab sees it, and the split by patient."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from firstread.models.data.pixel_view import PixelView
from firstread.models.prediction import Box


class DataError(Exception):
    """A table or an image cannot be used; the message names file and row and says what to do."""


@dataclass(frozen=True)
class Film:
    """One film and what is known of it.

    ``key``: names the film; ``patient``: no patient's films are ever on both sides of a split.
    ``target``, ``known``: per label [15] 0 or 1, and whether that is known at all.
    ``path``: the PNG, JPEG or DICOM file, where there is one; ``row``: its row in the table (the header is row 1).
    ``sex``: F, M or empty; ``age``: years; ``view``: AP, PA, LATERAL or empty.
    ``boxes``: where a label's lesion lies, in stored pixels, if that is known (the largest, where there are several;
    ``more_boxes`` holds the others).
    ``nuisances``: how the film was made, in numbers, for judging (never an input).
    ``columns``: every column of its row as text, for subgroups that nobody foresaw.
    """

    key: str
    patient: str
    target: npt.NDArray[np.float32]
    known: npt.NDArray[np.float32]
    phantom: bool
    view: str = ""
    boxes: Mapping[str, Box] = field(default_factory=dict)
    nuisances: Mapping[str, float] = field(default_factory=dict)
    path: Path | None = None
    row: int | None = None
    sex: str = ""
    age: float | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    more_boxes: Mapping[str, tuple[Box, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class FilmSet:
    """Films and their pixels: uint8 [N, R, R], bone bright, area-averaged from the whole film.

    ``pixels``: an array, or a view of arrays and files on disk that is indexed alike; take films by :meth:`image` and
    :meth:`subset` and it does not matter which.
    """

    films: tuple[Film, ...]
    pixels: npt.NDArray[np.uint8] | PixelView

    def subset(self, indices: Sequence[int]) -> FilmSet:
        """The films at ``indices``, in that order. Nothing is copied from disk."""
        chosen = tuple(self.films[i] for i in indices)
        if isinstance(self.pixels, np.memmap | PixelView):
            return FilmSet(chosen, PixelView.of(self.pixels).select(np.asarray(indices, np.intp)))
        return FilmSet(chosen, self.pixels[np.asarray(indices, np.intp)])

    def __len__(self) -> int:
        return len(self.films)

    def image(self, index: int) -> npt.NDArray[np.float32]:
        """One film [R, R] in [0, 1]."""
        return np.asarray(self.pixels[index], np.float32) / np.float32(255)


def concatenate(sets: Sequence[FilmSet]) -> FilmSet:
    """One set of several; what lies on disk stays there.

    Raises:
        ValueError: their sides differ.
    """
    films = tuple(film for part in sets for film in part.films)
    if any(isinstance(part.pixels, np.memmap | PixelView) for part in sets):
        return FilmSet(films, PixelView.joined([PixelView.of(part.pixels) for part in sets]))
    return FilmSet(films, np.concatenate([np.asarray(part.pixels) for part in sets]))


def fold_of(patient: str, folds: int, salt: str = "firstread") -> int:
    """The fold in which a patient's films are held out: a hash, so that it never depends on order or on others."""
    digest = hashlib.sha256(f"{salt}:{patient}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % folds
