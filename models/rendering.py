"""A frame as a picture to look at: windowed, right way of black and white, of the size asked for (PS3.18 8.3.5)."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydicom.dataset import Dataset

from firstread.models.greyscale import to_display
from firstread.models.header import integer, read_header, text
from firstread.models.radiograph import read_stored_values

MOST_PIXELS = 1 << 28
"""Of one frame; more is refused before anything is decoded."""

_COLOURED = ("RGB", "PALETTE COLOR")


class CannotRender(ValueError):
    """No picture can be made; the message says why."""


@dataclass(frozen=True)
class View:
    """What of a frame is shown, and how.

    ``width``, ``height``: of the viewport, the picture fits inside; None: the frame's own. ``region``: left, top, width
    and height in the frame, None: all of it. ``window``: centre, width and shape (``linear``, ``linear-exact``,
    ``sigmoid``) in place of the object's own.
    """

    width: int | None = None
    height: int | None = None
    region: tuple[float, float, float, float] | None = None
    window: tuple[float, float, str] | None = None


def render(path: Path, frame: int, view: View, media_type: str, quality: int = 90) -> bytes:
    """Frame ``frame`` (the first is 1) as ``image/jpeg`` or ``image/png``. Raises CannotRender, and nothing else that
    hostile pixels bring about."""
    try:
        picture = _picture(path, frame, view)
    except CannotRender:
        raise
    except MemoryError as error:
        raise CannotRender("not enough memory for this frame") from error
    except Exception as error:
        raise CannotRender(f"{type(error).__name__}: {error}") from error
    buffer = io.BytesIO()
    if media_type == "image/png":
        picture.save(buffer, "PNG", compress_level=1)
    else:
        picture.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _picture(path: Path, frame: int, view: View) -> Image.Image:
    header = read_header(path)
    rows, columns = integer(header, "Rows"), integer(header, "Columns")
    frames = integer(header, "NumberOfFrames") or 1
    if not rows or not columns:
        raise CannotRender("the object has no pixel data")
    if not 1 <= frame <= frames:
        raise CannotRender(f"frame {frame} of {frames}")
    if rows * columns > MOST_PIXELS:
        raise CannotRender(f"{columns} x {rows} pixels")
    left, top, width, height = view.region or (0.0, 0.0, float(columns), float(rows))
    if width <= 0 or height <= 0 or left < 0 or top < 0 or left + width > columns or top + height > rows:
        raise CannotRender(f"the region lies outside the frame of {columns} x {rows} pixels")
    scale = min((view.width or width) / width, (view.height or height) / height)
    shown = _greyscale(path, header, frames, round(max(rows, columns) * scale), view)
    if shown is None:
        shown = _decoded(path, header, frame, view)
    picture = Image.fromarray(shown)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    factor = picture.width / columns
    box = (left * factor, top * factor, (left + width) * factor, (top + height) * factor)
    if size != picture.size or view.region is not None:
        picture = picture.resize(size, Image.Resampling.BILINEAR, box, reducing_gap=2.0)
    return picture


def _greyscale(path: Path, header: Dataset, frames: int, longest_side: int, view: View) -> npt.NDArray[np.uint8] | None:
    """The quick way of a single grey frame: shrunk before anything is float, where the codec can inside the decoder."""
    if frames > 1 or text(header, "PhotometricInterpretation").upper() not in ("MONOCHROME1", "MONOCHROME2"):
        return None
    if integer(header, "BitsAllocated") not in (8, 16):
        return None
    values, padding = read_stored_values(path, header, max(1, longest_side))
    return _windowed(header, values, padding, view)


def _decoded(path: Path, header: Dataset, frame: int, view: View) -> npt.NDArray[np.uint8]:
    """Any other frame, by pydicom: several frames, colour, palettes, other bit depths."""
    from pydicom.pixels import apply_color_lut, pixel_array

    pixels = pixel_array(path, index=frame - 1)
    photometric = text(header, "PhotometricInterpretation").upper()
    if photometric == "PALETTE COLOR":
        pixels = apply_color_lut(pixels, header)
    if pixels.ndim == 3:
        if pixels.dtype.itemsize > 1:
            stored = integer(header, "BitsStored") or 16
            pixels = pixels >> max(0, (16 if photometric == "PALETTE COLOR" else stored) - 8)
        return np.ascontiguousarray(pixels[..., :3]).astype(np.uint8)
    return _windowed(header, pixels.astype(np.float32), None, view)


def _windowed(
    header: Dataset, values: npt.NDArray[np.float32], padding: npt.NDArray[np.bool_] | None, view: View
) -> npt.NDArray[np.uint8]:
    shown: Any
    if view.window is None:
        shown = to_display(header, values, padding, [])
    else:
        shown = to_display(_with_window(header, view.window), values, padding, [], trust_window=True)
    np.multiply(shown, 255.0, out=shown)
    np.add(shown, 0.5, out=shown)
    return np.asarray(shown, dtype=np.float32).astype(np.uint8)


def _with_window(header: Dataset, window: tuple[float, float, str]) -> Dataset:
    """The header with another window, and without a table that would come before it."""
    centre, width, shape = window
    changed = Dataset(header)
    changed.pop("VOILUTSequence", None)
    changed.WindowCenter, changed.WindowWidth = f"{centre:.8g}", f"{width:.8g}"
    changed.VOILUTFunction = {"linear-exact": "LINEAR_EXACT", "sigmoid": "SIGMOID"}.get(shape, "LINEAR")
    return changed
