"""From a bundle, a list of boxes and phantoms to an explanation's figures, as values and as JSON.

Schema ``firstread.explanation/1``. A share is ``{"value", "low", "high", "count", "total"}``, null where there was
nothing to count; no NaN stands anywhere.

::

    schema          "firstread.explanation/1"
    made_at, firstread
    bundle          name, version, weights_sha256, labels [..], experimental [..], engine
    has_maps        false: the bundle has no maps, then everything below ``method`` is null
    method          {limits [..], service_level, wang_levels [..], tolerance_cells, cells [rows, columns], square}
    data            null without a list of boxes, else table, table_sha256, images, boxes, boxes_sha256, films,
                    refused, unreadable, cases
    labels.<name>   experimental, cases, silent, reason (null when there are figures)
                    pointing {hits share, when_called share, chance, centre}
                    boxes {service, wang}: {iou, iobb}: [{limit, accuracy share, false_positives}]
    all             the same over all labels together; null without a list of boxes
    phantoms        null when none were drawn, else {drawn, refused, seed, side, target, labels.<name>, all}
    randomisation   null when not asked for, else {films, maps, seeds, alike, depends, why_not,
                    stages [{stage, rank_correlation, absolute, ssim}]}
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from firstread import __version__
from firstread.models.bundle import Bundle
from firstread.models.data.film import DataError
from firstread.models.engine import open_engine
from firstread.models.evaluation.as_json import bundle_json, without_nan
from firstread.models.evaluation.run import Films, read_films
from firstread.models.evaluation.score import Scores, score
from firstread.models.explanation.cases import (
    PHANTOM_SEED,
    PHANTOM_SIDE,
    Case,
    DrawnCases,
    drawn_phantom,
    film_cases,
    phantom_cases,
    phantom_labels,
    told_of,
)
from firstread.models.explanation.measure import LIMITS, TOLERANCE_CELLS, LabelExplanation, explain_label
from firstread.models.explanation.places import WANG_LEVELS
from firstread.models.explanation.randomisation import ALIKE, Randomisation, randomisation_test
from firstread.models.findings import LABELS
from firstread.models.phantoms import DRAWABLE
from firstread.models.preprocess import prepare
from firstread.models.saliency import LEVEL

SCHEMA = "firstread.explanation/1"
TARGET = 0.8
"""What a finding should reach on phantoms: 8 of 10 peaks in the lesion."""

RANDOMISED_FILMS = 6

Progress = Callable[[int, int], None]
__all__ = ["Explanation", "Films", "explain_bundle"]


@dataclass(frozen=True, eq=False)
class Explanation:
    """The figures, and the cases that they were made of. None or empty where nothing was asked for."""

    bundle: Bundle
    engine: str
    wanted: Films | None
    scores: Scores | None
    cases: tuple[Case, ...]
    drawn: DrawnCases | None
    labels: tuple[LabelExplanation, ...]
    all: LabelExplanation | None
    phantoms: tuple[LabelExplanation, ...]
    all_phantoms: LabelExplanation | None
    randomisation: Randomisation | None
    tolerance_cells: float


def explain_bundle(
    bundle: Bundle,
    wanted: Films | None,
    phantoms: int,
    *,
    randomise: bool = True,
    tolerance_cells: float = TOLERANCE_CELLS,
    device: str = "auto",
    threads: int | None = None,
    on_progress: Progress | None = None,
) -> Explanation:
    """Score the films that have boxes and draw so many phantoms, and judge the maps of both.

    A bundle without maps gives an explanation without figures, that says so.

    Raises:
        DataError: films or boxes cannot be used, no box belongs to any film, or nothing was asked for.
        EngineError: the bundle cannot be run here.
    """
    if wanted is None and phantoms < 1:
        raise DataError("nothing to explain: give a table, its images and a list of boxes, or a number of phantoms")
    if wanted is not None and wanted.boxes is None:
        raise DataError("a table without boxes cannot show where lesions lie: give a list such as BBox_List_2017.csv")
    if not bundle.has_maps:
        engine = open_engine(bundle, device, threads=threads).name
        return Explanation(bundle, engine, wanted, None, (), None, (), None, (), None, None, tolerance_cells)
    scores, cases = None, []
    if wanted is not None:
        films = tuple(film for film in read_films(wanted)[0] if film.boxes)
        if not films:
            raise DataError(f"{wanted.boxes} has no box for any film of {wanted.table}: is it the list of other films?")
        scores = score(bundle, films, device=device, threads=threads, maps=True, on_progress=on_progress)
        cases = film_cases(bundle, scores)
    drawn = None
    if phantoms:
        drawn = phantom_cases(bundle, phantoms, device=device, threads=threads, on_progress=on_progress)
    engine = scores.engine if scores is not None else open_engine(bundle, device, threads=threads).name
    return Explanation(
        bundle=bundle,
        engine=engine,
        wanted=wanted,
        scores=scores,
        cases=tuple(cases),
        drawn=drawn,
        labels=_per_label(bundle, cases, tolerance_cells),
        all=None if wanted is None else explain_label("all", False, cases, tolerance_cells),
        phantoms=_per_label(bundle, () if drawn is None else drawn.cases, tolerance_cells),
        all_phantoms=None if drawn is None else explain_label("all", False, drawn.cases, tolerance_cells),
        randomisation=_randomised(bundle) if randomise else None,
        tolerance_cells=tolerance_cells,
    )


def as_json(found: Explanation, now: datetime) -> dict[str, Any]:
    """The explanation as plain values; the schema stands at the head of this module.

    Raises:
        DataError: the table or the list of boxes is no longer there.
    """
    some = next((case for case in (*found.cases, *(found.drawn.cases if found.drawn else ()))), None)
    drawn = None
    if found.drawn is not None:
        drawn = {
            "drawn": found.drawn.drawn,
            "refused": found.drawn.refused,
            "seed": PHANTOM_SEED,
            "side": PHANTOM_SIDE,
            "target": TARGET,
            "labels": {one.label: _label(one) for one in found.phantoms},
            "all": None if found.all_phantoms is None else _label(found.all_phantoms),
        }
    table: dict[str, Any] = {
        "schema": SCHEMA,
        "made_at": now.astimezone(UTC).isoformat(timespec="seconds"),
        "firstread": __version__,
        "bundle": bundle_json(found.bundle, found.engine),
        "has_maps": found.bundle.has_maps,
        "method": {
            "limits": list(LIMITS),
            "service_level": LEVEL,
            "wang_levels": list(WANG_LEVELS),
            "tolerance_cells": found.tolerance_cells,
            "cells": None if some is None else list(some.cam.shape),
            "square": found.bundle.input_size,
        },
        "data": _data(found),
        "labels": {one.label: _label(one) for one in found.labels},
        "all": None if found.all is None else _label(found.all),
        "phantoms": drawn,
        "randomisation": None
        if found.randomisation is None
        else {
            **asdict(found.randomisation),
            "alike": ALIKE,
            "depends": found.randomisation.depends if found.randomisation.stages else None,
        },
    }
    plain: dict[str, Any] = without_nan(table)
    return plain


def _per_label(bundle: Bundle, cases: Sequence[Case], tolerance_cells: float) -> tuple[LabelExplanation, ...]:
    by_label = {label: [case for case in cases if case.label == label] for label in LABELS}
    return tuple(
        explain_label(label, label in bundle.experimental, some, tolerance_cells)
        for label, some in by_label.items()
        if some
    )


def _randomised(bundle: Bundle) -> Randomisation:
    """The test on phantoms, each with the map of what it carries (of the first label, where it knows none of these)."""
    drawable = phantom_labels(bundle)
    named = [(drawable or bundle.labels[:1])[number % max(1, len(drawable))] for number in range(RANDOMISED_FILMS)]
    drawn = [drawn_phantom(label if drawable else DRAWABLE[0], 10_000 + n) for n, label in enumerate(named)]
    squares = np.stack([prepare(one.image, bundle.preprocessing) for one in drawn])
    columns = [bundle.labels.index(label) for label in named]
    return randomisation_test(bundle, squares, columns, [told_of(one) for one in drawn])


def _label(one: LabelExplanation) -> dict[str, Any]:
    told = asdict(one)
    del told["label"]
    return {**told, "reason": one.reason or None}


def _data(found: Explanation) -> dict[str, Any] | None:
    if found.wanted is None or found.wanted.boxes is None or found.scores is None:
        return None
    return {
        "table": str(found.wanted.table),
        "table_sha256": _sha256(found.wanted.table),
        "images": str(found.wanted.images),
        "boxes": str(found.wanted.boxes),
        "boxes_sha256": _sha256(found.wanted.boxes),
        "films": len(found.scores.films),
        "unreadable": sum(problem is not None for problem in found.scores.problems),
        "refused": sum(
            reason is not None and problem is None
            for reason, problem in zip(found.scores.refused, found.scores.problems, strict=True)
        ),
        "cases": len(found.cases),
    }


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): check the path") from error
