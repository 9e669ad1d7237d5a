"""Where the frames of a Part 10 file lie, so that they can be handed out without decoding (PS3.5 8, A.4)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.filereader import dcmread

_PIECE = 256 * 1024
_PIXEL_TAGS = (0x7FE00008, 0x7FE00009, 0x7FE00010)
_DEFLATED = ("1.2.840.10008.1.2.1.99",)
LARGEST_FRAME = 1 << 30


class NoFrames(ValueError):
    """The object has no such frame, or none that can be told apart; the message says which."""


@dataclass(frozen=True)
class PixelData:
    """``start``: of the value in the file; ``length``: its bytes, None when it is encapsulated."""

    path: Path
    header: Dataset
    transfer_syntax_uid: str
    start: int
    length: int | None

    @property
    def frames(self) -> int:
        """Number of Frames, at least 1."""
        return max(1, _integer(self.header, "NumberOfFrames") or 1)

    @property
    def encapsulated(self) -> bool:
        """True when frames are compressed."""
        return self.length is None

    def frame(self, number: int) -> Iterator[bytes]:
        """The bytes of frame ``number`` (the first is 1) as they lie there. Raises NoFrames."""
        if not 1 <= number <= self.frames:
            raise NoFrames(f"frame {number} of {self.frames}")
        if self.length is None:
            return iter((self._compressed(number),))
        bits = self.frame_bits()
        if bits % 8:
            raise NoFrames("frames that do not begin at a byte")
        size = bits // 8
        if size * number > self.length:
            raise NoFrames(f"frame {number}: the pixel data ends before it")
        return pieces(self.path, self.start + size * (number - 1), size)

    def frame_bits(self) -> int:
        """Bits of one native frame. Raises NoFrames where the header does not say."""
        rows, columns = _integer(self.header, "Rows"), _integer(self.header, "Columns")
        allocated, samples = _integer(self.header, "BitsAllocated"), _integer(self.header, "SamplesPerPixel") or 1
        if not rows or not columns or not allocated:
            raise NoFrames("Rows, Columns or Bits Allocated are missing")
        if str(self.header.get("PhotometricInterpretation", "")).endswith("_422"):
            samples = 2
        return rows * columns * allocated * samples

    def _compressed(self, number: int) -> bytes:
        with self.path.open("rb") as file:
            file.seek(self.start)
            try:
                return bytes(get_frame(file, number - 1, number_of_frames=self.frames))
            except Exception as error:  # pydicom raises several kinds on broken fragments
                raise NoFrames(f"frame {number} cannot be found among the fragments: {error}") from error


def find_pixel_data(path: Path) -> PixelData:
    """Where the pixel data of a file lies. Raises NoFrames where there is none, OSError for what cannot be opened."""
    with path.open("rb") as file:
        try:
            header = dcmread(file, stop_before_pixels=True, defer_size=65536)
            syntax = str(header.file_meta.TransferSyntaxUID)
        except Exception as error:  # pydicom's parser raises whatever hostile bytes lead it to
            raise NoFrames(f"the file cannot be read: {type(error).__name__}: {error}") from error
        if syntax in _DEFLATED:
            raise NoFrames("the data set is deflated")
        start, length = _element_at(file, syntax)
        return PixelData(path, header, syntax, start, length)


def _element_at(file: BinaryIO, syntax: str) -> tuple[int, int | None]:
    head = file.read(12)
    order = ">" if syntax == "1.2.840.10008.1.2.2" else "<"
    if len(head) < 12:
        raise NoFrames("the object has no pixel data")
    group, element = struct.unpack_from(f"{order}HH", head)
    if (group << 16 | element) not in _PIXEL_TAGS:
        raise NoFrames("the object has no pixel data")
    implicit = syntax == "1.2.840.10008.1.2" or not head[4:6].isalpha()
    length = struct.unpack_from(f"{order}L", head, 4 if implicit else 8)[0]
    start = file.tell() - (4 if implicit else 0)
    return start, None if length == 0xFFFFFFFF else length


def pieces(path: Path, start: int, length: int | None = None) -> Iterator[bytes]:
    """Bytes of a file from ``start`` on, piece by piece."""
    with path.open("rb") as file:
        file.seek(start)
        left = length
        while left is None or left > 0:
            piece = file.read(_PIECE if left is None else min(_PIECE, left))
            if not piece:
                return
            if left is not None:
                left -= len(piece)
            yield piece


def _integer(header: Dataset, keyword: str) -> int | None:
    try:
        value: Any = header.get(keyword)
        return None if value is None else int(value)
    except Exception:  # a value that breaks its VR
        return None
