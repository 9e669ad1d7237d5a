"""How a film was made, in numbers that say nothing of anatomy: what a network may learn instead of disease."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from firstread.models.data.film import Film

Grey = npt.NDArray[np.float32]

MEANINGS: Mapping[str, str] = MappingProxyType(
    {
        "file_bytes": "file size",
        "bytes_per_pixel": "file size per pixel",
        "is_jpeg": "JPEG and not PNG",
        "is_dicom": "DICOM file",
        "width": "width in pixels",
        "height": "height in pixels",
        "aspect": "width over height",
        "noise": "noise (mean absolute Laplacian)",
        "sharpness": "sharpness of edges",
        "brightness": "brightness (mean grey)",
        "contrast": "contrast (spread of grey)",
        "black_border": "empty dark border",
        "clipped_dark": "share of pure black",
        "clipped_bright": "share of pure white",
        "view_ap": "view (AP or PA)",
        "sex_male": "sex",
        "age": "age",
        "source_png_bytes": "file size of the original",
        "source_noise": "noise of the original",
        "source_mean_grey": "brightness of the original",
    }
)
"""What each variable is called in words; a table's other columns go by their names."""

FROM_FILE = ("file_bytes", "bytes_per_pixel", "is_jpeg", "is_dicom", "width", "height", "aspect")
FROM_PIXELS = ("noise", "sharpness", "brightness", "contrast", "black_border", "clipped_dark", "clipped_bright")
FROM_TABLE = ("view_ap", "sex_male", "age")

_FLAT = 6.0
"""Grey levels of 255: a row or column of the rim that spans no more and is dark is empty border."""
_DARK = 40.0


def measure(image: Grey, path: Path | None = None) -> dict[str, float]:
    """The variables of a film's pixels, and of its file where ``path`` is given.

    ``image``: [rows, columns] in [0, 1]. Greys are counted in levels of 0 to 255, so that films of any depth compare:

    - ``noise``: mean absolute Laplacian (four neighbours), what grain and fine detail leave between pixels;
    - ``sharpness``: mean slope after a blur of 2 pixels, what edges leave when the grain is gone;
    - ``brightness``, ``contrast``: mean and standard deviation;
    - ``black_border``: share of the film's area that lies in dark, flat rows and columns at its rim;
    - ``clipped_dark``, ``clipped_bright``: share of pixels within half a level of black, of white;
    - ``width``, ``height`` in pixels, ``aspect``; ``file_bytes``, ``bytes_per_pixel``, ``is_jpeg``, ``is_dicom``.

    Sizes in bytes are best compared by their logarithm. The values depend on the size of the image: measure all films
    of a comparison at the same stage.

    Raises:
        ValueError: not a grey image with at least three rows and columns.
    """
    if image.ndim != 2 or min(image.shape) < 3:
        raise ValueError(f"an image of shape {image.shape} cannot be measured: it must have three rows and columns")
    rows, columns = image.shape
    levels = np.asarray(image, np.float32) * np.float32(255)
    centre = levels[1:-1, 1:-1]
    laplacian = 4 * centre - levels[:-2, 1:-1] - levels[2:, 1:-1] - levels[1:-1, :-2] - levels[1:-1, 2:]
    smooth = ndimage.gaussian_filter(levels, 2.0, mode="nearest", truncate=2.5)
    down, across = np.diff(smooth, axis=0)[:, :-1], np.diff(smooth, axis=1)[:-1, :]
    measured = {
        "noise": float(np.abs(laplacian).mean()),
        "sharpness": float(np.sqrt(down * down + across * across).mean()),
        "brightness": float(levels.mean()),
        "contrast": float(levels.std()),
        "black_border": _border(levels),
        "clipped_dark": float((levels < 0.5).mean()),
        "clipped_bright": float((levels > 254.5).mean()),
        "width": float(columns),
        "height": float(rows),
        "aspect": columns / rows,
    }
    return measured | ({} if path is None else of_file(path, rows * columns))


def of_file(path: Path, pixels: int) -> dict[str, float]:
    """The variables of a file that holds ``pixels`` pixels: size and kind.

    Raises:
        OSError: there is no such file.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        head = stream.read(132)
    return {
        "file_bytes": float(size),
        "bytes_per_pixel": size / pixels,
        "is_jpeg": float(head[:2] == b"\xff\xd8"),
        "is_dicom": float(head[128:] == b"DICM"),
    }


def of_film(film: Film) -> dict[str, float]:
    """The variables that its row tells: view, sex, age, and the table's own numbers; what is unknown is left out."""
    told = dict(film.nuisances)
    if film.view in ("AP", "PA"):
        told["view_ap"] = float(film.view == "AP")
    if film.sex in ("F", "M"):
        told["sex_male"] = float(film.sex == "M")
    if film.age is not None:
        told["age"] = film.age
    return told


def meaning(name: str) -> str:
    """A variable in words."""
    return MEANINGS.get(name, name.replace("_", " "))


def _border(levels: Grey) -> float:
    rows, columns = levels.shape
    kept = []
    for axis, length in ((1, rows), (0, columns)):
        empty = (np.ptp(levels, axis=axis) <= _FLAT) & (levels.mean(axis=axis) <= _DARK)
        if empty.all():
            return 1.0
        filled = np.flatnonzero(~empty)
        kept.append((filled[-1] + 1 - filled[0]) / length)
    return float(1 - kept[0] * kept[1])
