"""Pictures of films: the upright preview, its thumbnail, and the heat map that is laid over it."""

from __future__ import annotations

import io
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from firstread.agent import evidence
from firstread.agent.evidence import Evidence

THUMBNAIL_SIDE = 96
HEAT_SIDE = 512
"""The map is smooth: half the film's size is enough, and the browser enlarges it."""

FAINT, STRONG = 0.3, 0.5
"""Below FAINT the film is left alone; at the peak this much of the colour covers it."""

# Dark violet to pale yellow, lightness rising evenly (after matplotlib's inferno): reads the same to every eye.
_RAMP = np.array(
    [[66, 10, 104], [147, 38, 103], [221, 81, 58], [252, 165, 10], [252, 255, 164]], dtype=np.float32
)  # fmt: skip


class NoPicture(Exception):
    """There is no picture of this film."""


def preview(spool: Path, place: str | None) -> bytes:
    """The PNG of the upright film. Raises NoPicture when it was purged or never made."""
    with Image.open(_inside(spool, place)) as picture:
        buffer = io.BytesIO()
        picture.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def thumbnail(spool: Path, place: str | None) -> bytes:
    """A small JPEG of the film, kept in memory once made."""
    return _thumbnail(str(_inside(spool, place)))


@lru_cache(maxsize=4096)
def _thumbnail(path: str) -> bytes:
    with Image.open(path) as picture:
        small = picture.convert("L")
        small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BOX)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def heat(stored: bytes | None, label: str) -> bytes:
    """The evidence for a label as a PNG with transparency, over the whole film. Raises NoPicture."""
    seen = read_evidence(stored)
    if seen is None or label not in seen.labels:
        raise NoPicture("no evidence was kept for this finding")
    rows, columns = seen.placement.film_rows, seen.placement.film_columns
    scale = HEAT_SIDE / max(rows, columns)
    size = (max(1, round(rows * scale)), max(1, round(columns * scale)))
    values = seen.over_film(label, size)
    peak = float(values.max())
    share = np.clip(values / peak if peak > 0 else values, 0.0, 1.0)
    at = share * (len(_RAMP) - 1)
    low = np.clip(at.astype(int), 0, len(_RAMP) - 2)
    part = (at - low)[..., None]
    colour = _RAMP[low] * (1 - part) + _RAMP[low + 1] * part
    alpha = np.clip((share - FAINT) / (1 - FAINT), 0, 1) ** 0.75 * STRONG * 255
    picture = Image.fromarray(np.dstack([colour, alpha]).astype(np.uint8), "RGBA")
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def read_evidence(stored: bytes | None) -> Evidence | None:
    """The evidence kept with a film; None when none was kept or it cannot be read."""
    if not stored:
        return None
    try:
        return evidence.thaw(stored)
    except ValueError:
        return None


def _inside(spool: Path, place: str | None) -> Path:
    if not place:
        raise NoPicture("no picture was made of this film")
    path = (spool / place).resolve()
    if not path.is_relative_to(spool.resolve()) or not path.is_file():
        raise NoPicture("the picture was deleted when the film's days were over")
    return path
