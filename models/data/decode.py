"""One film's file to grey: PNG and JPEG of any kind, and DICOM the same way as the service reads it."""

from __future__ import annotations

import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from firstread.models.data.film import DataError, Film
from firstread.models.data.folder import looks_like_dicom
from firstread.models.header import UnreadableRadiograph
from firstread.models.radiograph import read_radiograph

Grey = npt.NDArray[np.float32]

_COLOURFUL = 40
"""Of 255: how far a pixel's channels lie apart before it counts as coloured (as models.radiograph has it)."""
_MOST_COLOURED = 0.02

_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "JPEG2000", "PPM")
_DEEP_MODES = ("I", "I;16", "I;16L", "I;16B", "I;16N", "F")


class Undecodable(Exception):
    """No film can be shown from a file; the message says why, without naming the file."""


def grey_of(film: Film, longest_side: int | None = None) -> Grey:
    """The film as float32 [rows, columns] in [0, 1], upright, bone bright, at its full size.

    DICOM goes through :func:`firstread.models.radiograph.read_radiograph`, as in the service. Of PNG and JPEG 8 bits
    stay as they are (0 to 255 is 0 to 1); deeper greys are stretched from their lowest to their highest value, since
    such files do not say which of 16 bits they use. Bone is taken to be bright: nothing in a PNG says otherwise.
    ``longest_side``: DICOM is shrunk to it by the reader, as the service does; other files are not.

    Raises:
        DataError: no file, a broken one, several frames, a colour picture; names file and row.
    """
    if film.path is None:
        raise DataError(f"film {film.key!r} has no file: it cannot be read")
    try:
        return grey_of_file(film.path, longest_side)
    except Undecodable as error:
        raise DataError(broken_sentence(film, str(error))) from error


def broken_sentence(film: Film, reason: str) -> str:
    """What to say about a film that cannot be read: file, row, reason and what to do."""
    row = "" if film.row is None else f" (row {film.row} of the table)"
    remedy = "take it out" if film.row is None else f"take row {film.row} out"
    return f"{film.path}{row}: cannot be read: {reason}: fetch it again or {remedy}"


def grey_of_file(path: Path, longest_side: int | None = None) -> Grey:
    """As :func:`grey_of`, of a file.

    Raises:
        Undecodable: no film can be shown from it.
    """
    if looks_like_dicom(path):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of values that break their VR
                return read_radiograph(path, longest_side).pixels
        except UnreadableRadiograph as error:
            raise Undecodable(str(error)) from error
    values = stored_values(path)
    if values.dtype == np.uint8:
        return values.astype(np.float32) / np.float32(255)
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all():
        raise Undecodable("it holds values that are not numbers")
    span = high - low if high > low else 1.0
    return ((values.astype(np.float64) - low) / span).astype(np.float32)


def stored_values(path: Path) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16] | npt.NDArray[np.float32]:
    """The greys of a PNG or JPEG as stored, [rows, columns]: uint8, or uint16 or float32 for deeper ones.

    Colour pictures of a grey film become one channel; a coloured one is refused.

    Raises:
        Undecodable: broken, cut short, several frames, coloured, or no image at all.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large images and odd metadata: what matters raises
            with Image.open(path, formats=_FORMATS) as opened:
                if getattr(opened, "n_frames", 1) > 1 and opened.format != "MPO":
                    raise Undecodable(f"it holds {getattr(opened, 'n_frames', 0)} frames, a film is one image")
                opened.load()
                values = _grey(ImageOps.exif_transpose(opened))
    except Undecodable:
        raise
    except UnidentifiedImageError as error:
        size = path.stat().st_size if path.exists() else 0
        reason = "the file is empty" if size == 0 else "it is neither PNG, JPEG nor DICOM"
        raise Undecodable(reason) from error
    except MemoryError as error:
        raise Undecodable("not enough memory") from error
    except Image.DecompressionBombError as error:
        raise Undecodable("it is larger than any film") from error
    except (OSError, SyntaxError, ValueError, EOFError, KeyError, IndexError, struct.error, zlib.error) as error:
        # What Pillow raises for a broken file depends on where it breaks.
        raise Undecodable(f"broken image ({' '.join(str(error).split())[:160] or type(error).__name__})") from error
    if min(values.shape) < 2:
        raise Undecodable(f"an image of {values.shape[1]} x {values.shape[0]} pixels is no film")
    return values


def _grey(image: Image.Image) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16] | npt.NDArray[np.float32]:
    if image.mode == "F":
        return np.asarray(image, np.float32)
    if image.mode in _DEEP_MODES:
        deep = np.asarray(image)
        if deep.min() < 0 or deep.max() > 65535:
            return deep.astype(np.float32)
        return deep.astype(np.uint16)
    if image.mode in ("L", "1", "LA"):
        return np.array(image.convert("L"), np.uint8)
    colours = np.asarray(image.convert("RGB"))
    sample = colours[:: max(1, colours.shape[0] // 256), :: max(1, colours.shape[1] // 256)].astype(np.int16)
    coloured = float(np.mean(sample.max(axis=2) - sample.min(axis=2) > _COLOURFUL))
    if coloured > _MOST_COLOURED:
        raise Undecodable(f"a colour picture ({coloured:.0%} of it coloured), a film is grey")
    return np.array(image.convert("RGB").convert("L"), np.uint8)
