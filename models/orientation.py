"""How a stored film is turned to stand upright, and how places on the upright image map back to the film."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from firstread.models.prediction import Box

_UPRIGHT_COLUMN = {"L": False, "R": True}
"""Does a row that runs to the patient's left (right) have to be mirrored?"""

_UPRIGHT_ROW = {"F": False, "H": True}
"""Does a column that runs to the feet (head) have to be mirrored?"""


@dataclass(frozen=True)
class Orientation:
    """What was done to the stored film: transposed first, then its columns and rows mirrored, then shrunk.

    ``stored_rows``, ``stored_columns``: size of the film as stored. ``rows``, ``columns``: size of the upright image
    that stands for the whole film (smaller, when it was shrunk).
    """

    stored_rows: int
    stored_columns: int
    rows: int
    columns: int
    transposed: bool = False
    mirrored: bool = False
    """Columns run the other way: left and right exchanged (after the transposition)."""
    upside_down: bool = False
    """Rows run the other way: top and bottom exchanged (after the transposition)."""

    def __post_init__(self) -> None:
        if min(self.stored_rows, self.stored_columns, self.rows, self.columns) < 1:
            raise ValueError("an orientation needs images of at least one pixel")

    def upright(self, stored: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """The stored film [rows, columns] (or a shrunk copy of it) turned upright, contiguous."""
        turned = stored.T if self.transposed else stored
        return np.ascontiguousarray(turned[:: -1 if self.upside_down else 1, :: -1 if self.mirrored else 1])

    def to_film(self, box: Box) -> Box:
        """A box on the upright image, in the stored film's pixels."""
        rows, columns = self._turned_size
        left, right = box.left * columns / self.columns, box.right * columns / self.columns
        top, bottom = box.top * rows / self.rows, box.bottom * rows / self.rows
        if self.mirrored:
            left, right = columns - right, columns - left
        if self.upside_down:
            top, bottom = rows - bottom, rows - top
        return Box(top, left, bottom, right) if self.transposed else Box(left, top, right, bottom)

    def to_upright(self, box: Box) -> Box:
        """A box in the stored film's pixels, on the upright image; undoes ``to_film``."""
        rows, columns = self._turned_size
        left, top, right, bottom = box.left, box.top, box.right, box.bottom
        if self.transposed:
            left, top, right, bottom = top, left, bottom, right
        if self.mirrored:
            left, right = columns - right, columns - left
        if self.upside_down:
            top, bottom = rows - bottom, rows - top
        across, down = self.columns / columns, self.rows / rows
        return Box(left * across, top * down, right * across, bottom * down)

    @property
    def _turned_size(self) -> tuple[int, int]:
        if self.transposed:
            return self.stored_columns, self.stored_rows
        return self.stored_rows, self.stored_columns


def turns(patient_orientation: Sequence[str]) -> tuple[bool, bool, bool]:
    """(transposed, mirrored, upside down) that bring a film upright, from PatientOrientation [PS3.3 C.7.6.1.1.1].

    First value: where its rows run to, second: where its columns run to; only the main direction (first letter)
    counts. What is empty, or says nothing of left, right, head or feet, turns nothing.
    """
    along_row, along_column = (direction.strip().upper()[:1] for direction in (*patient_orientation, "", "")[:2])
    transposed = along_row in _UPRIGHT_ROW or along_column in _UPRIGHT_COLUMN
    if transposed:
        along_row, along_column = along_column, along_row
    if transposed and (along_row in _UPRIGHT_ROW or along_column in _UPRIGHT_COLUMN):
        return False, False, False  # both run along the same axis of the body: nonsense
    return transposed, _UPRIGHT_COLUMN.get(along_row, False), _UPRIGHT_ROW.get(along_column, False)
