"""Squares of many films that lie in several arrays or files, taken as one array without copying it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Squares = npt.NDArray[np.uint8]
Source = Path | Squares
Index = Sequence[int] | npt.NDArray[np.integer[Any]] | npt.NDArray[np.bool_]


class PixelView:
    """Looks like an array uint8 [N, R, R]; each square lies in one of ``sources`` at a row of its own.

    Files (``.npy``) are mapped into memory when first needed, in each process for itself: a worker that gets a view
    gets file names, not pixels. Indexing by a number gives a square [R, R], by a slice or a list a copy of those
    squares; :meth:`select` takes some of them without copying.
    """

    dtype = np.dtype(np.uint8)
    ndim = 3

    def __init__(
        self, sources: Sequence[Source], source: npt.NDArray[np.int32], row: npt.NDArray[np.int32], side: int
    ) -> None:
        self._sources, self._source, self._row, self._side = tuple(sources), source, row, side
        self._opened: dict[int, Squares] = {}

    @classmethod
    def of(cls, pixels: Squares | PixelView) -> PixelView:
        """A view of a whole array; of a view, itself."""
        if isinstance(pixels, PixelView):
            return pixels
        rows = np.arange(len(pixels), dtype=np.int32)
        return cls([pixels], np.zeros_like(rows), rows, pixels.shape[-1])

    @classmethod
    def joined(cls, views: Sequence[PixelView]) -> PixelView:
        """Views of the same side one after the other.

        Raises:
            ValueError: none, or of different sides.
        """
        sides = {view._side for view in views}
        if len(sides) != 1:
            raise ValueError(f"films of {sorted(sides)} pixels cannot be joined: load them at one side")
        sources: list[Source] = []
        source = []
        for view in views:
            source.append(view._source + np.int32(len(sources)))
            sources += view._sources
        return cls(sources, np.concatenate(source), np.concatenate([view._row for view in views]), sides.pop())

    @property
    def shape(self) -> tuple[int, int, int]:
        """[N, R, R]"""
        return len(self), self._side, self._side

    @property
    def nbytes(self) -> int:
        """Bytes that all squares would take in memory."""
        return len(self) * self._side * self._side

    def __len__(self) -> int:
        return len(self._row)

    def select(self, indices: Index) -> PixelView:
        """The squares at ``indices``, in that order; nothing is copied."""
        at = np.asarray(indices)
        at = at if at.dtype == bool else at.astype(np.intp)
        view = PixelView(self._sources, self._source[at], self._row[at], self._side)
        view._opened = self._opened
        return view

    def __getitem__(self, index: int | np.integer[Any] | slice | Index) -> Squares:
        if isinstance(index, int | np.integer):
            square: Squares = self._array(int(self._source[index]))[int(self._row[index])]
            return square
        chosen = self.select(np.arange(len(self))[index])
        squares = np.empty(chosen.shape, np.uint8)
        for number in range(len(chosen)):
            squares[number] = chosen[number]
        return squares

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        if copy is False:
            raise ValueError("these squares lie in several places: an array of them is always a copy")
        return self[:].astype(dtype or np.uint8, copy=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": {}}

    def _array(self, number: int) -> Squares:
        array = self._opened.get(number)
        if array is None:
            source = self._sources[number]
            array = np.load(source, mmap_mode="r", allow_pickle=False) if isinstance(source, Path) else source
            self._opened[number] = array
        return array
