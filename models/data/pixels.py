"""The pixels of films: one at its full size, or all of them as small squares, decoded once and kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from firstread.models.data.cache import SHARD_BYTES, Cache, key_of
from firstread.models.data.decode import Undecodable, broken_sentence, grey_of, grey_of_file
from firstread.models.data.film import DataError, Film, FilmSet
from firstread.models.data.pixel_view import PixelView
from firstread.models.data.processes import Failed, OnProgress, in_processes

__all__ = ["grey_of", "load", "square_of"]

Square = npt.NDArray[np.uint8]
_SERVICE_SIDE = 1024
"""The service shrinks a film to this many pixels first; squares are made from the same."""


def square_of(path: Path, side: int) -> Square:
    """A file as uint8 [side, side]: stretched to the square, each grey the mean of what it covers.

    Raises:
        Undecodable: no film can be shown from it.
    """
    grey = grey_of_file(path, max(_SERVICE_SIDE, 2 * side))
    method = Image.Resampling.BOX if min(grey.shape) >= side else Image.Resampling.BILINEAR
    small = Image.fromarray(grey).resize((side, side), method)
    return np.asarray(np.clip(np.asarray(small), 0, 1) * 255 + 0.5, np.uint8)


def load(
    films: Sequence[Film],
    side: int,
    cache: Path | None = None,
    *,
    workers: int | None = None,
    on_progress: OnProgress | None = None,
) -> FilmSet:
    """All films as squares of ``side`` pixels, in their order.

    ``cache``: a folder where they are kept; what lies there is mapped into memory and not decoded again, as long as the
    film's file is the same. Without it they are held in memory. ``workers``: processes, by default one per core;
    ``on_progress``: told (done, all) of the films that have to be decoded.

    Raises:
        DataError: films cannot be read (the first few are named; those that could be are kept), the disk is full.
    """
    if side < 8:
        raise DataError(f"squares of {side} pixels are too small to hold a film: ask for 8 or more")
    films = tuple(films)
    for film in films:
        if film.path is None:
            raise DataError(f"film {film.key!r} has no file: it cannot be read")
    if cache is None:
        pixels = np.empty((len(films), side, side), np.uint8)
        broken = []
        for number, made in enumerate(_squares([film.path for film in films if film.path], side, workers, on_progress)):
            if isinstance(made, Failed):
                broken.append(broken_sentence(films[number], made.reason))
            else:
                pixels[number] = made
        _refuse(broken)
        return FilmSet(films, pixels)
    return FilmSet(films, _cached(films, side, Cache(cache, side), workers, on_progress))


def _cached(
    films: tuple[Film, ...], side: int, cache: Cache, workers: int | None, on_progress: OnProgress | None
) -> PixelView:
    keys, gone = [], []
    for film in films:
        try:
            keys.append(key_of(film.path or Path()))
        except OSError as error:
            gone.append(broken_sentence(film, error.strerror or str(error)))
    _refuse(gone)
    places = cache.places()
    owing = {key: film for key, film in zip(keys, films, strict=True) if key not in places}
    broken: list[str] = []
    done = 0
    per_shard = max(1, SHARD_BYTES // (side * side))
    todo = list(owing.items())
    for start in range(0, len(todo), per_shard):
        part = todo[start : start + per_shard]

        def told(now: int, _: int, before: int = done) -> None:
            if on_progress is not None:
                on_progress(before + now, len(todo))

        def kept(part: list[tuple[str, Film]] = part) -> Iterator[Square | None]:
            paths = [film.path for _, film in part if film.path]
            for (_, film), made in zip(part, _squares(paths, side, workers, told), strict=True):
                if isinstance(made, Failed):
                    broken.append(broken_sentence(film, made.reason))
                yield None if isinstance(made, Failed) else made

        cache.write([key for key, _ in part], kept())
        done += len(part)
    _refuse(broken)
    if todo:
        places = cache.places()
    lost = [film for key, film in zip(keys, films, strict=True) if key not in places]
    if lost:
        raise DataError(
            f"{cache.folder}: lost {len(lost)} films while they were kept there: is somebody deleting them?"
        )
    shards = sorted({places[key].shard for key in keys})
    number = {shard: n for n, shard in enumerate(shards)}
    source = np.array([number[places[key].shard] for key in keys], np.int32)
    return PixelView(shards, source, np.array([places[key].row for key in keys], np.int32), side)


def _squares(
    paths: Sequence[Path], side: int, workers: int | None, on_progress: OnProgress | None
) -> Iterator[Square | Failed]:
    return in_processes(_square_or_failed, [(path, side) for path in paths], workers, on_progress)


def _square_or_failed(job: tuple[Path, int]) -> Square | Failed:
    try:
        return square_of(*job)
    except Undecodable as error:
        return Failed(str(error))


def _refuse(broken: Sequence[str]) -> None:
    if broken:
        more = f" (and {len(broken) - 1} more: firstread data check lists them)" if len(broken) > 1 else ""
        raise DataError(broken[0] + more)
