"""An explanation as one self-contained page: how well maps point, and the films where they point wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image, ImageDraw

from firstread.models import evaluation
from firstread.models.evaluation.pictures import SIDE, as_uri, heat_uri, thumbnail
from firstread.models.explanation.cases import Case, labels_of
from firstread.models.explanation.console import randomisation_sentence
from firstread.models.explanation.measure import points_at
from firstread.models.explanation.run import Explanation
from firstread.models.prediction import Box
from firstread.models.preprocess import Placement
from firstread.models.saliency import localise

SHOWN = 4
"""Films per finding: those that point wrong first."""


@dataclass(frozen=True)
class Picture:
    """A film with its true box (solid) and the service's (dashed), and the map over it, as ``data:`` URIs."""

    key: str
    label: str
    verdict: str
    wrong: bool
    probability: float
    film: str
    heat: str


def page(found: Explanation, told: Mapping[str, Any]) -> str:
    """The page as HTML. ``told``: what ``run.as_json`` made of the same explanation."""
    folders = [Path(__file__).parent / "templates", Path(evaluation.__path__[0]) / "templates"]
    environment = Environment(
        loader=FileSystemLoader(folders),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("explanation.html").render(
        t=told,
        randomisation="" if told["randomisation"] is None else randomisation_sentence(told["randomisation"]),
        films=_pictures(found.cases, found.tolerance_cells),
        phantoms=_pictures(found.drawn.cases if found.drawn else (), found.tolerance_cells),
    )


def _pictures(cases: Sequence[Case], tolerance_cells: float) -> list[Picture]:
    pictures = []
    for label in labels_of(cases):
        of_label = [case for case in cases if case.label == label]
        hits = [points_at(case, tolerance_cells) for case in of_label]
        order = sorted(range(len(of_label)), key=lambda n: (hits[n], -of_label[n].probability))
        # Half of them wrong, where there are so many, so that the page shows both.
        wrong = [n for n in order if not hits[n]][: SHOWN // 2]
        right = [n for n in order if hits[n]][: SHOWN - len(wrong)]
        for n in (*wrong, *right):
            picture = _picture(of_label[n], hits[n])
            if picture is not None:
                pictures.append(picture)
    return pictures


def _picture(case: Case, hit: bool) -> Picture | None:
    grey = _small(case)
    if grey is None:
        return None
    outlined = grey
    for box in case.boxes:
        outlined = _outlined(outlined, box, case.placement, dashed=False)
    if float(case.cam.max()) > 0:
        outlined = _outlined(outlined, localise(case.cam, case.placement), case.placement, dashed=True)
    heat = heat_uri(grey, case.cam, case.placement)
    silent = float(case.cam.max()) <= 0
    verdict = "no evidence on the map" if silent else ("peak in the box" if hit else "peak outside")
    return Picture(case.key, case.label, verdict, not hit, case.probability, as_uri(outlined), heat)


def _small(case: Case) -> npt.NDArray[np.float32] | None:
    if case.picture is None:
        return None if case.film is None else thumbnail(case.film)
    rows, columns = case.picture.shape
    scale = SIDE / max(rows, columns)
    size = (max(1, round(columns * scale)), max(1, round(rows * scale)))
    small = Image.fromarray(np.asarray(case.picture, np.float32)).resize(size, Image.Resampling.BOX)
    return np.asarray(small, np.float32)


def _outlined(
    grey: npt.NDArray[np.float32], box: Box, placement: Placement, *, dashed: bool
) -> npt.NDArray[np.float32]:
    picture = Image.fromarray((np.clip(grey, 0, 1) * 255).astype(np.uint8))
    across, down = grey.shape[1] / placement.film_columns, grey.shape[0] / placement.film_rows
    left, right = box.left * across, box.right * across - 1
    top, bottom = box.top * down, box.bottom * down - 1
    pen = ImageDraw.Draw(picture)
    edges = (((left, top), (right, top)), ((right, top), (right, bottom)))
    for (x1, y1), (x2, y2) in (*edges, ((right, bottom), (left, bottom)), ((left, bottom), (left, top))):
        steps = max(1, int(max(abs(x2 - x1), abs(y2 - y1)) / 3))
        for step in range(steps):
            if dashed and step % 2:
                continue
            ends = [(x1 + (x2 - x1) * s / steps, y1 + (y2 - y1) * s / steps) for s in (step, step + 1)]
            pen.line(ends, fill=255)
    return np.asarray(picture, np.float32) / np.float32(255)
