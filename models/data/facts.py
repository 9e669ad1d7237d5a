"""What is measured on each film of a set: that it can be read, its size and kind, its making, and its fingerprints."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.fft import dctn

from firstread.models.data.decode import Undecodable, grey_of_file, stored_values
from firstread.models.data.folder import looks_like_dicom
from firstread.models.data.nuisance import measure
from firstread.models.data.processes import Failed, OnProgress, in_processes
from firstread.models.header import integer, read_header

HASH_SIDE = 16
"""A perceptual hash has 16 x 16 bits: of 64 too many chest films share all but a few."""
THUMB_SIDE = 32
"""Two kilobytes a film: a release of a hundred thousand is held in memory at once."""


@dataclass(frozen=True, eq=False)
class FilmFacts:
    """One film that could be read.

    ``exact``: hash of size and greys, the same for the same film in another file. ``bits``: perceptual hash, uint8
    [32] packed. ``thumb``: float16 [32 * 32], mean 0 and length 1, so that a product is a correlation.
    ``kind``: ``8-bit grey PNG``. ``nuisances``: see :func:`firstread.models.data.nuisance.measure`.
    """

    width: int
    height: int
    kind: str
    exact: str
    bits: npt.NDArray[np.uint8]
    thumb: npt.NDArray[np.float16]
    nuisances: Mapping[str, float]


def measure_films(
    paths: Sequence[Path], workers: int | None = None, on_progress: OnProgress | None = None
) -> tuple[FilmFacts | Failed, ...]:
    """The facts of each file, in order; ``Failed`` with the reason where no film can be read from it."""
    return tuple(in_processes(facts_of_film, paths, workers, on_progress))


def facts_of_film(path: Path) -> FilmFacts | Failed:
    """The facts of one file."""
    try:
        if not path.is_file():
            return Failed("there is no such file")
        grey = grey_of_file(path)
        if min(grey.shape) < THUMB_SIDE:
            return Failed(f"{grey.shape[1]} x {grey.shape[0]} pixels are too few for a film")
        kind = kind_of(path)
        nuisances = measure(grey, path)
    except Undecodable as error:
        return Failed(str(error))
    except OSError as error:
        return Failed(error.strerror or str(error))
    levels = (grey * 65535 + 0.5).astype(np.uint16)
    exact = hashlib.blake2b(f"{grey.shape}".encode() + levels.tobytes(), digest_size=16).hexdigest()
    small = Image.fromarray(grey)
    thumb = np.asarray(small.resize((THUMB_SIDE, THUMB_SIDE), Image.Resampling.BOX), np.float64).ravel()
    thumb -= thumb.mean()
    length = float(np.linalg.norm(thumb))
    side = 4 * HASH_SIDE
    coarse = dctn(np.asarray(small.resize((side, side), Image.Resampling.BOX), np.float64), norm="ortho")
    # The first row and column hold slow shading, which is much the same in all chest films.
    waves = coarse[1 : HASH_SIDE + 1, 1 : HASH_SIDE + 1]
    return FilmFacts(
        width=grey.shape[1],
        height=grey.shape[0],
        kind=kind,
        exact=exact,
        bits=np.packbits(waves > np.median(waves)),
        thumb=(thumb / length if length > 1e-6 else thumb).astype(np.float16),
        nuisances=nuisances,
    )


def kind_of(path: Path) -> str:
    """Depth, colour and format of a file that can be read: ``8-bit grey PNG``, ``12-bit DICOM``.

    Raises:
        Undecodable: it cannot be read after all.
    """
    if looks_like_dicom(path):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of values that break their VR
            return f"{integer(read_header(path), 'BitsStored') or 16}-bit DICOM"
    with Image.open(path) as opened:
        form, mode = opened.format or "image", opened.mode
    if mode in ("L", "LA", "1"):
        return f"{'1' if mode == '1' else '8'}-bit grey {form}"
    if mode.startswith("I") or mode == "F":
        top = float(np.max(stored_values(path)))
        return f"16-bit grey {form}" + (f" using {max(1, int(top).bit_length())} bits" if mode != "F" else "")
    return f"8-bit {mode} {form}"
