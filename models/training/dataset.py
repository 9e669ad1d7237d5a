"""Films to learn from: NIH's table and images, phantoms, what is known of each, and the split by patient."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from firstread.models.data.film import DataError, Film, FilmSet
from firstread.models.findings import LABELS, NO_FINDING, PATHOLOGIES
from firstread.models.prediction import Box

LOOK_ALIKES: Mapping[str, tuple[str, ...]] = {
    "Consolidation": ("Infiltration", "Atelectasis"),
    "Effusion": ("Pleural_Thickening", "Atelectasis", "Infiltration"),
    "Mass": ("Nodule",),
    "Nodule": ("Mass",),
}
"""What a drawn lesion could as well be called: unknown on that phantom, neither present nor absent."""

TEACHES: Mapping[str, str] = {"Consolidation": "Pneumonia"}
"""What a drawn lesion stands for besides itself: else every phantom would say that pneumonia is absent, and the label
would learn to tell phantoms from films."""


class TrainingDataError(DataError):
    """A training cannot begin or go on; the message says why and what to do."""


def read_nih(table: Path, images: Path, side: int) -> FilmSet:
    """NIH's rows whose image lies in ``images``, reduced to ``side`` pixels.

    All fifteen labels of a row are taken as known: a label that was not mined is absent, as NIH's own baseline has it.

    Raises:
        TrainingDataError: no such table, a column or label is not NIH's, an image is broken, nothing was found.
    """
    films: list[Film] = []
    pixels: list[npt.NDArray[np.uint8]] = []
    for number, row in _rows(table):
        path = images / row["Image Index"]
        if not path.is_file():
            continue
        try:
            with Image.open(path) as opened:
                grey = opened.convert("L").resize((side, side), Image.Resampling.BOX)
        except (OSError, UnidentifiedImageError) as error:
            raise TrainingDataError(
                f"{path}: broken image ({error}): fetch it again or take row {number} out"
            ) from error
        films.append(
            Film(
                key=row["Image Index"],
                patient=f"nih-{row['Patient ID']}",
                target=_target(row["Finding Labels"], f"{table}, row {number}"),
                known=np.ones(len(LABELS), np.float32),
                phantom=False,
                view=row.get("View Position", ""),
                nuisances={name: float(row[name]) for name in _NUISANCES if row.get(name)},
            )
        )
        pixels.append(np.asarray(grey))
    if not films:
        raise TrainingDataError(f"no image of {table} lies in {images}: give the folder that holds the .png files")
    return FilmSet(tuple(films), np.stack(pixels))


def draw_phantoms(count: int, seed: int, side: int, kept: Path | None = None) -> FilmSet:
    """Draw phantoms, each from its own number, so that ``count`` may grow without changing the first ones.

    What was not drawn is absent; what a drawn lesion could as well be called is unknown. ``kept``: a folder where they
    are kept, so that a second call reads them instead of drawing, until the drawing itself changes.
    """
    path = None if kept is None else kept / f"phantoms-{_drawing()}-{seed}-{count}-{side}.npz"
    if path is None or not path.is_file():
        pixels, target, corners = _drawn(count, seed, side)
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".partial.npz")
            np.savez(partial, pixels=pixels, target=target, corners=corners)
            partial.replace(path)
    else:
        with np.load(path, allow_pickle=False) as stored:
            pixels, target, corners = stored["pixels"], stored["target"], stored["corners"]
    films = (phantom_film(f"phantom-{seed}-{n}", target[n], corners[n]) for n in range(count))
    return FilmSet(tuple(films), pixels)


def phantom_film(key: str, target: npt.NDArray[np.float32], corners: npt.NDArray[np.float32]) -> Film:
    """What is known of a phantom. ``target``: [15] 0 or 1. ``corners``: [15, 4] left, top, right, bottom, or NaN."""
    lesions = [label for label, present in zip(LABELS, target, strict=True) if present and label != NO_FINDING]
    known = np.ones(len(LABELS), np.float32)
    target = target.copy()
    for label in lesions:
        if label in TEACHES:
            target[LABELS.index(TEACHES[label])] = 1
        for other in LOOK_ALIKES.get(label, ()):
            if other not in lesions:
                known[LABELS.index(other)] = 0
    places = {label: corners[LABELS.index(label)] for label in lesions}
    boxes = {label: Box(*map(float, place)) for label, place in places.items() if np.isfinite(place).all()}
    return Film(key=key, patient=key, target=target, known=known, phantom=True, boxes=boxes)


def _drawing() -> str:
    """A short hash of the code that draws."""
    from firstread.models import phantoms

    sources = sorted(Path(phantoms.__path__[0]).glob("*.py"))
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:12]


def _drawn(
    count: int, seed: int, side: int
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    from firstread.models.phantoms import training_phantoms

    pixels = np.zeros((count, side, side), np.uint8)
    target = np.zeros((count, len(LABELS)), np.float32)
    corners = np.full((count, len(LABELS), 4), np.nan, np.float32)
    for number, phantom in enumerate(training_phantoms(count, seed, (side, side))):
        pixels[number], target[number] = phantom.image, phantom.target
        for label, box in phantom.truth.items():
            corners[number, LABELS.index(label)] = (box.left, box.top, box.right, box.bottom)
    return pixels, target, corners


_COLUMNS = ("Image Index", "Finding Labels", "Patient ID")
_NUISANCES = ("source_png_bytes", "source_noise", "source_mean_grey")


def _rows(table: Path) -> list[tuple[int, dict[str, str]]]:
    try:
        with table.open(newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingDataError(f"{table}: cannot be read as UTF-8 text ({error})") from error
    missing = [name for name in _COLUMNS if not rows or name not in rows[0]]
    if missing:
        raise TrainingDataError(f"{table}: lacks the column(s) {', '.join(missing)}: give NIH's Data_Entry table")
    return list(enumerate(rows, start=2))


def _target(names: str, where: str) -> npt.NDArray[np.float32]:
    target = np.zeros(len(LABELS), np.float32)
    for name in names.split("|"):
        if name not in LABELS:
            raise TrainingDataError(f"{where}: {name!r} is none of the 15 labels ({', '.join(LABELS)})")
        target[LABELS.index(name)] = 1
    if target[LABELS.index(NO_FINDING)] and target[[LABELS.index(name) for name in PATHOLOGIES]].any():
        raise TrainingDataError(f"{where}: No Finding stands beside a finding: correct the row")
    return target
