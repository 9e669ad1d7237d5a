"""An evaluation as one self-contained page: tables, curves, subgroups, a gallery and the worst misses."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from firstread.models.evaluation import plots
from firstread.models.evaluation.figures import FEWEST, FEWEST_PATIENTS
from firstread.models.evaluation.measure import Evaluation, LabelEvaluation, abnormality, known_films
from firstread.models.evaluation.pictures import as_uri, diagnosis_line, heat_uri, thumbnail
from firstread.models.evaluation.score import Scores, score
from firstread.models.findings import LABELS, NO_FINDING

GALLERY = 24
"""Films in the gallery."""
MISSES = 4
"""Films of each kind per label, and at most so many labels: what bounds the size of the page."""
MISSED_LABELS = 6

_CALLED_FROM = 0.5
"""Where a label without an operating point counts as called, for choosing pictures alone."""


@dataclass(frozen=True)
class Picture:
    """A film on the page: ``data:`` URIs of the film and of the evidence on it (empty without a map)."""

    key: str
    line: str
    picture: str
    heat: str
    probability: float


@dataclass(frozen=True)
class Misses:
    """The worst misses of one kind for a label."""

    label: str
    kind: str
    threshold: float
    films: tuple[Picture, ...]


def page(evaluation: Evaluation, table: dict[str, Any], threads: int | None = None) -> str:
    """The page as HTML. ``table``: what ``as_json`` made of the same evaluation.

    The films shown are read once more, and the bundle run on the misses among them, for their maps.
    """
    curves = _curves(evaluation)
    missed = _missed(evaluation)
    mapped = _maps(evaluation, sorted({i for _, _, rows in missed for i in rows}), threads)
    matched = next((one.matched for one in evaluation.labels if one.matched is not None), None)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("evaluation.html").render(
        t=table,
        fewest=FEWEST,
        fewest_patients=FEWEST_PATIENTS,
        nuisances=None if matched is None else {"calliper": matched.calliper, "names": matched.nuisances},
        plots={
            "roc": _svg_uri(plots.roc_svg(curves)),
            "precision_recall": _svg_uri(plots.precision_recall_svg(curves)),
            "reliability": _svg_uri(plots.reliability_svg(curves)),
        },
        misses=[_drawn(evaluation, label, kind, rows, mapped) for label, kind, rows in missed],
        has_maps=mapped is not None and mapped.maps is not None,
        gallery=[shown for i in _gallery(evaluation.scores) if (shown := _picture(evaluation, i, None, None))],
    )


def _curves(evaluation: Evaluation) -> list[plots.Curve]:
    curves = []
    normal = evaluation.normal_abnormal
    if not normal.reason:
        rows, abnormal, ranked, _ = abnormality(evaluation.scores)
        patients = [evaluation.scores.films[i].patient for i in rows]
        title = "abnormal against normal"
        curves.append(plots.Curve(title, str(normal.auroc), "", abnormal, ranked, patients, normal.operating))
    for one in evaluation.labels:
        if not one.reason:
            rows, present, probability = known_films(evaluation.scores, one.label)
            patients = [evaluation.scores.films[i].patient for i in rows]
            name = one.label.replace("_", " ") + (" (experimental)" if one.experimental else "")
            texts = str(one.auroc), str(one.auprc)
            curves.append(plots.Curve(name, *texts, present, probability, patients, one.operating, one.calibration))
    return curves


def _gallery(scores: Scores) -> list[int]:
    """Films by the hash of their key: the same ones each time, and not the first of the table."""
    column = LABELS.index(NO_FINDING)
    usable = [i for i, problem in enumerate(scores.problems) if problem is None]
    usable.sort(key=lambda i: hashlib.sha256(scores.films[i].key.encode()).digest())
    normal = [i for i in usable if scores.films[i].target[column]]
    others = [i for i in usable if not scores.films[i].target[column]]
    count = min(len(normal), max(GALLERY // 2, GALLERY - len(others)))
    chosen = [*normal[:count], *others[: GALLERY - count]]
    return sorted(chosen, key=lambda i: hashlib.sha256(scores.films[i].key[::-1].encode()).digest())


def _missed(evaluation: Evaluation) -> list[tuple[LabelEvaluation, str, list[int]]]:
    """The labels with figures, experimental ones last, and the films on which they were wrong and surest."""
    judged = sorted((one for one in evaluation.labels if not one.reason), key=lambda one: one.experimental)
    found = []
    for one in judged[:MISSED_LABELS]:
        rows, present, probability = known_films(evaluation.scores, one.label)
        threshold = _CALLED_FROM if one.threshold is None else one.threshold
        called = probability >= threshold
        lowest = [i for i in np.argsort(probability, kind="stable") if present[i] and not called[i]][:MISSES]
        highest = [i for i in np.argsort(-probability, kind="stable") if not present[i] and called[i]][:MISSES]
        if lowest:
            found.append((one, "with it, but not called", [rows[i] for i in lowest]))
        if highest:
            found.append((one, "without it, but called", [rows[i] for i in highest]))
    return found


def _maps(evaluation: Evaluation, rows: Sequence[int], threads: int | None) -> Scores | None:
    """The films at ``rows`` with their maps; None where there are none to show."""
    if not rows or not evaluation.bundle.has_maps:
        return None
    films = [evaluation.scores.films[i] for i in rows]
    return score(evaluation.bundle, films, threads=threads, workers=0, maps=True)


def _drawn(
    evaluation: Evaluation, one: LabelEvaluation, kind: str, rows: Sequence[int], mapped: Scores | None
) -> Misses:
    pictures = (_picture(evaluation, i, one.label, mapped) for i in rows)
    threshold = _CALLED_FROM if one.threshold is None else one.threshold
    return Misses(one.label, kind, threshold, tuple(shown for shown in pictures if shown is not None))


def _picture(evaluation: Evaluation, row: int, label: str | None, mapped: Scores | None) -> Picture | None:
    scores = evaluation.scores
    film = scores.films[row]
    grey = thumbnail(film)
    if grey is None:
        return None
    said = dict(zip(scores.labels, map(float, scores.probabilities[row]), strict=True))
    heat = ""
    if label is not None and mapped is not None and mapped.maps is not None:
        place = next(i for i, other in enumerate(mapped.films) if other is film)
        placement, cam = mapped.placements[place], _cam(mapped, place, label)
        heat = "" if placement is None else heat_uri(grey, cam, placement)
    return Picture(
        key=film.key,
        line=diagnosis_line(film, said, evaluation.bundle.thresholds),
        picture=as_uri(grey),
        heat=heat,
        probability=said[label] if label is not None else float("nan"),
    )


def _cam(mapped: Scores, place: int, label: str) -> npt.NDArray[np.float32]:
    assert mapped.maps is not None
    cam: npt.NDArray[np.float32] = mapped.maps[place, mapped.column(label)]
    return cam


def _svg_uri(svg: str) -> str:
    """As an image the drawing is inert, whatever it may contain."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode("ascii") if svg else ""
