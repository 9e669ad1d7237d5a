"""An evaluation as JSON for programs and for the card: stable names, no NaN.

Schema ``firstread.evaluation/1``. Every figure is ``{"value", "low", "high", "positives", "negatives"}``; one that
could not be had has ``"value": null`` and a ``"reason"``. Every share (sensitivity, specificity, PPV, NPV) is
``{"value", "low", "high", "count", "total"}``. ``low`` and ``high`` bound 95 %. An operating table is ``{"threshold",
"sensitivity", "specificity", "ppv", "npv"}``, or null where there is no operating point.

::

    schema            "firstread.evaluation/1"
    made_at           time of the measurement, ISO 8601, UTC
    firstread         version of this product
    bundle            name, version, weights_sha256, labels [..], experimental [..], engine
                      learned_from {real_films, real_patients, judged_by}   as the bundle says; null where it does not
    data              table, table_sha256, images, subset
                      films, patients, read, phantoms
                      unreadable [{film, row, problem}]
                      refused {count, share, by_reason {code: count}, films [{film, row, code, reason}]}
                      put_right [{film, row, note}]                 what the gate corrected before the analysis
                      sex {F: count ..}, view {..}, age {low, median, high, known}
                      prevalence {label: {positives, known}}       all 15 labels, of the films given
                      not_assessed [labels that films carry and the bundle lacks]
    interval          {auroc, shares, delong, draws}: how the intervals were made, in words
    labels.<name>     experimental, threshold, positives, negatives, reason (null when there are figures)
                      auroc, auroc_delong, auprc                    figures
                      operating                                     operating table at the bundle's own threshold
                      calibration {ece, brier, brier_of_prevalence, bins [{low, high, mean_probability, observed}]}
                      matched {pairs, calliper, nuisances [..], auroc}   null where nothing is known of the making
    normal_abnormal   score, positives, negatives, reason, auroc, auroc_delong
                      operating                                     abnormal = No Finding not called
                      any_finding                                   abnormal = a non-experimental finding called
                      at_sensitivity {"0.95", "0.98", "0.99": operating table}   threshold chosen on these films
    groups            [{by, level, films, patients, labels.<name> {auroc, sensitivity, specificity}}]
    published         [{name, source, split, caution, auroc {label: value}}]; published_note
    readers           see ``firstread.models.evaluation.readers``; null without readers
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from firstread import __version__
from firstread.models.bundle import Bundle
from firstread.models.data.film import DataError
from firstread.models.evaluation import published
from firstread.models.evaluation.figures import Figure, OperatingFigures
from firstread.models.evaluation.measure import Evaluation, Group, LabelEvaluation, Matched, NormalAbnormal
from firstread.models.evaluation.score import Scores
from firstread.models.findings import LABELS

SCHEMA = "firstread.evaluation/1"


@dataclass(frozen=True)
class Source:
    """Where the films came from: the ``table`` of labels, the folder of ``images``, and which ``subset`` was asked."""

    table: Path
    images: Path
    subset: str = ""


def as_json(evaluation: Evaluation, source: Source, now: datetime, readers: Any = None) -> dict[str, Any]:
    """The whole evaluation as plain values. ``now``: when it was made. ``readers``: as ``readers.as_json`` gives it.

    Raises:
        DataError: the table is no longer there.
    """
    table: dict[str, Any] = {
        "schema": SCHEMA,
        "made_at": now.astimezone(UTC).isoformat(timespec="seconds"),
        "firstread": __version__,
        "bundle": bundle_json(evaluation.bundle, evaluation.scores.engine),
        "data": data_json(evaluation.scores, source),
        "interval": interval_json(evaluation.draws),
        "labels": {one.label: _label(one) for one in evaluation.labels},
        "normal_abnormal": _normal_abnormal(evaluation.normal_abnormal),
        "groups": [_group(group) for group in evaluation.groups],
        "published": [{**asdict(one), "caution": published.CAUTION} for one in published.PUBLISHED],
        "published_note": published.SEED_PROJECT,
        "readers": readers,
    }
    plain: dict[str, Any] = without_nan(table)
    return plain


def bundle_json(bundle: Bundle, engine: str) -> dict[str, Any]:
    """Which model spoke."""
    return {
        "name": bundle.name,
        "version": bundle.version,
        "weights_sha256": bundle.weights_sha256,
        "labels": list(bundle.labels),
        "experimental": sorted(bundle.experimental),
        "learned_from": {
            "real_films": bundle.provenance.get("real_films"),
            "real_patients": bundle.provenance.get("real_patients"),
            "judged_by": bundle.provenance.get("judged_by"),
        },
        "engine": engine,
    }


def data_json(scores: Scores, source: Source) -> dict[str, Any]:
    """Which films it spoke of, and what became of those that are not as they should be."""
    films = scores.films
    ages = [film.age for film in films if film.age is not None and math.isfinite(film.age)]
    refused = [(film, reason) for film, reason in zip(films, scores.refused, strict=True) if reason is not None]
    unreadable = [(film, problem) for film, problem in zip(films, scores.problems, strict=True) if problem is not None]
    prevalence = {
        label: {
            "positives": sum(bool(film.known[i] and film.target[i]) for film in films),
            "known": sum(bool(film.known[i]) for film in films),
        }
        for i, label in enumerate(LABELS)
    }
    return {
        "table": str(source.table),
        "table_sha256": _sha256(source.table),
        "images": str(source.images),
        "subset": source.subset,
        "films": len(films),
        "patients": len({film.patient for film in films}),
        "read": int(scores.read.sum()),
        "phantoms": sum(film.phantom for film in films),
        "unreadable": [{"film": film.key, "row": film.row, "problem": problem} for film, problem in unreadable],
        "refused": {
            "count": len(refused),
            "share": len(refused) / len(films),
            "by_reason": dict(Counter(reason.code.value for _, reason in refused)),
            "films": [
                {"film": film.key, "row": film.row, "code": reason.code.value, "reason": reason.text}
                for film, reason in refused
            ],
        },
        "put_right": [
            {"film": film.key, "row": film.row, "note": note}
            for film, notes in zip(films, scores.notes, strict=True)
            for note in notes
        ],
        "sex": dict(Counter(film.sex or "not stated" for film in films)),
        "view": dict(Counter(film.view or "not stated" for film in films)),
        "age": {
            "low": min(ages, default=None),
            "median": float(np.median(ages)) if ages else None,
            "high": max(ages, default=None),
            "known": len(ages),
        },
        "prevalence": prevalence,
        "not_assessed": [label for label in LABELS if prevalence[label]["positives"] and label not in scores.labels],
    }


def interval_json(draws: int) -> dict[str, Any]:
    """How the intervals were made."""
    return {
        "auroc": f"95 %, bootstrap by patient (percentiles of {draws} draws, each patient with all films)",
        "shares": "95 %, Wilson, films taken as independent",
        "delong": "95 %, DeLong with one cluster per patient (Obuchowski 1997): a check of the bootstrap",
        "draws": draws,
    }


def figure_json(figure: Figure | None, positives: int, negatives: int, reason: str) -> dict[str, Any]:
    """A figure, or the reason why there is none."""
    if figure is not None:
        return asdict(figure)
    counts = {"positives": positives, "negatives": negatives}
    return {"value": None, "low": None, "high": None, **counts, "reason": reason}


def operating_json(found: OperatingFigures | None) -> dict[str, Any] | None:
    """An operating table."""
    return None if found is None else asdict(found)


def without_nan(value: Any) -> Any:
    """The same with every number that is none replaced by None: JSON knows no NaN."""
    if isinstance(value, dict):
        return {str(key): without_nan(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _label(one: LabelEvaluation) -> dict[str, Any]:
    def figure(found: Figure | None) -> dict[str, Any]:
        return figure_json(found, one.positives, one.negatives, one.reason)

    return {
        "experimental": one.experimental,
        "threshold": one.threshold,
        "positives": one.positives,
        "negatives": one.negatives,
        "reason": one.reason or None,
        "auroc": figure(one.auroc),
        "auroc_delong": figure(one.delong),
        "auprc": figure(one.auprc),
        "operating": operating_json(one.operating),
        "calibration": None if one.calibration is None else asdict(one.calibration),
        "matched": None if one.matched is None else _matched(one.matched),
    }


def _matched(one: Matched) -> dict[str, Any]:
    reason = f"too few pairs: {one.pairs} films could be paired, 10 are needed"
    return {
        "pairs": one.pairs,
        "calliper": one.calliper,
        "nuisances": list(one.nuisances),
        "auroc": figure_json(one.figure, one.pairs, one.pairs, reason),
    }


def _normal_abnormal(one: NormalAbnormal) -> dict[str, Any]:
    return {
        "score": one.score_is,
        "positives": one.positives,
        "negatives": one.negatives,
        "reason": one.reason or None,
        "auroc": figure_json(one.auroc, one.positives, one.negatives, one.reason),
        "auroc_delong": figure_json(one.delong, one.positives, one.negatives, one.reason),
        "operating": operating_json(one.operating),
        "any_finding": operating_json(one.any_finding),
        "at_sensitivity": {f"{at.wanted:.2f}": operating_json(at.figures) for at in one.at},
    }


def _group(group: Group) -> dict[str, Any]:
    return {
        "by": group.by,
        "level": group.level,
        "films": group.films,
        "patients": group.patients,
        "labels": {
            label: {
                "auroc": figure_json(one.auroc, one.positives, one.negatives, one.reason),
                "sensitivity": None if one.sensitivity is None else asdict(one.sensitivity),
                "specificity": None if one.specificity is None else asdict(one.specificity),
            }
            for label, one in group.labels.items()
        },
    }


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): give the table of labels") from error
