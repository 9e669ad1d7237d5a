"""One film from file to model input: runs in a process of its own, so that a broken codec costs this film alone."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from firstread.models import eligibility, gate, preprocess
from firstread.models.data.dicom_headers import known_of_header
from firstread.models.orientation import Orientation
from firstread.models.prediction import Reason
from firstread.models.preprocess import Placement, Preprocessing
from firstread.models.radiograph import UnreadableRadiograph, read_header, read_radiograph
from firstread.models.wording import EligibilityTable, load_table

PREVIEW_SIDE = 1024
"""Longest side in pixels of the preview, from which the model input, the page's picture and the heat map are made."""


@dataclass(frozen=True)
class FilmOrder:
    """What to read, and how the model wants it. ``preview_target`` is where the upright picture goes (PGM)."""

    path: str
    preview_target: str
    preprocessing: Preprocessing
    minimum_age_years: float
    spellings: str | None = None
    """File with the site's own spellings of body parts and views."""


@dataclass(frozen=True, eq=False)
class ReadFilm:
    """What came of it: ``square`` float32 [S, S] in [0, 1] when the film is to be analysed, else ``reason``.

    ``preview`` says whether the picture was written; ``placement`` and ``orientation`` lead back to the film.
    """

    reason: Reason | None
    preview: bool = False
    square: npt.NDArray[np.float32] | None = None
    placement: Placement | None = None
    orientation: Orientation | None = None
    notes: tuple[str, ...] = ()
    gate: Mapping[str, float] = field(default_factory=dict)
    """Everything that the gate measured; empty when the film did not come as far."""
    known: Mapping[str, float | str | None] = field(default_factory=dict)
    """Age, sex and view, for models that read them beside the pixels."""
    put_right: tuple[str, ...] = ()
    """What was changed in the pixels before the model saw them: whoever reads the result must see it."""


def read_film(order: FilmOrder) -> ReadFilm:
    """Judges, decodes, shows and prepares one film. Reasons are answers, not errors."""
    path = Path(order.path)
    try:
        header = read_header(path)
        reason = eligibility.judge(header, _table(order.spellings), minimum_age_years=order.minimum_age_years)
        if reason is not None:
            return ReadFilm(reason, preview=_preview_for_the_page(path, order.preview_target))
        film = read_radiograph(path, longest_side=PREVIEW_SIDE)
    except UnreadableRadiograph as error:
        return ReadFilm(error.reason)
    admission = gate.admit(film.pixels)
    _write_preview(admission.pixels, order.preview_target)
    verdict = admission.verdict
    if verdict.reason is not None:
        return ReadFilm(verdict.reason, preview=True, notes=film.notes, gate=verdict.scores)
    placement = preprocess.place(admission.pixels, order.preprocessing)
    square = preprocess.prepare(admission.pixels, order.preprocessing, placement)
    notes = (*film.notes, *admission.notes)
    known = known_of_header(header)
    return ReadFilm(None, True, square, placement, film.orientation, notes, verdict.scores, known, admission.notes)


@cache
def _table(spellings: str | None) -> EligibilityTable:
    return load_table(Path(spellings) if spellings else None)


def _preview_for_the_page(path: Path, target: str) -> bool:
    """A film that is not analysed is still worth a picture, when one can be had."""
    try:
        film = read_radiograph(path, longest_side=PREVIEW_SIDE)
    except UnreadableRadiograph:
        return False
    _write_preview(film.pixels, target)
    return True


def _write_preview(pixels: npt.NDArray[np.float32], target: str) -> None:
    """8-bit grey PGM: packing it would cost as much as all other reading. It can be made again from the film, so that
    it is not synced."""
    os.makedirs(os.path.dirname(target), mode=0o700, exist_ok=True)
    picture = Image.fromarray((pixels * 255.0 + 0.5).astype(np.uint8))
    temporary = target + ".part"
    picture.save(temporary, format="PPM")
    os.replace(temporary, target)
