"""What a training has to say for the card: what it learned from, and how films that it never saw were told apart.

Schema ``firstread.training/1``; it is kept in the bundle as ``training.json``. A figure is ``{"value", "low", "high",
"positives", "negatives"}``, a share ``{"value", "low", "high", "count", "total"}``; null with too few films.

::

    schema        "firstread.training/1"
    made_at       ISO 8601, UTC (null when not given); firstread: version of this product
    method        how films were judged, as a sentence: "5-fold cross-validation by patient: ..."
    recipe        {name, seed, toml}
    learned       {films, patients, phantoms, sources [..], labels {label: films with it}, sex {}, view {},
                   age {low, median, high, known}}
    judged        {films, patients, phantoms}
    matched       {calliper, nuisances [..]}; null where nothing is known of how films were made
    labels.<name> experimental, threshold, reason (null when there are figures)
                  auroc, auroc_matched (a figure with "pairs")       on real films alone
                  sensitivity, specificity                            shares at the operating point, real films
    phantoms      {label: {auroc, sensitivity, specificity}}; no evidence about patients
    operating     how operating points were chosen, as a sentence
    storage       {precision, worst_change}
    software      {library: version}
    tried         [{trial, gave}]: what was tried besides, if anybody says so
    notes         [sentences for the known failures]
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from firstread import __version__
from firstread.models.bundle import Bundle
from firstread.models.calibration.fitting import Scored
from firstread.models.data.film import Film
from firstread.models.evaluation.as_json import without_nan
from firstread.models.evaluation.figures import Figure, Share, auroc_figure, matched_figure, matched_pairs, wilson
from firstread.models.evaluation.matching import CALLIPER
from firstread.models.findings import LABELS

SCHEMA = "firstread.training/1"
FILE = "training.json"
NIH = "NIH ChestX-ray14"

FEWEST = 20
"""A label with fewer films of either kind gets no figure."""

OPERATING = (
    "A finding is called above the score that 5 % of the judged films without it reach, or 2 % of those with No"
    " Finding,"
    " taken on real films and phantoms apart, whichever is highest. No Finding is called above the score that 10 %"
    " of the"
    " judged films with a finding reach."
)

_NIH_NAME = re.compile(r"\d{8}_\d{3}\.png", re.IGNORECASE)

Numbers = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


def training_summary(
    *,
    labels: Sequence[str],
    experimental: Sequence[str],
    thresholds: Mapping[str, float],
    films: Sequence[Film],
    scored: Scored,
    probability: Numbers,
    learned: Sequence[Film],
    phantoms: int,
    method: str,
    recipe: str,
    recipe_toml: str,
    seed: int,
    halving: float | None = None,
    precision: str = "float16",
    operating: str = OPERATING,
    software: Mapping[str, str] | None = None,
    notes: Sequence[str] = (),
    tried: Sequence[Mapping[str, str]] = (),
    now: datetime | None = None,
) -> dict[str, Any]:
    """The summary of a training.

    ``films``, ``scored``, ``probability``: the judged films (real ones and phantoms), each scored by a network that
    never saw its patient; ``scored`` and ``probability`` [N, L] have a column per label, in the order of ``labels``.
    ``learned``: the real films that the weights learned from; their ``target`` has all fifteen labels or one per label.
    ``phantoms``: how many it learned from. ``method``: how films were judged, a sentence. ``halving``: the largest
    change of a probability by storing weights in ``precision``.
    """
    real = [film for film in films if not film.phantom]
    nuisances = sorted({name for film in real for name in film.nuisances})
    rows: dict[str, Any] = {}
    drawn: dict[str, Any] = {}
    for column, label in enumerate(labels):
        known, present = scored.known[:, column], scored.target[:, column]
        score, called = probability[:, column], probability[:, column] >= thresholds[label]
        rows[label] = {
            "experimental": label in experimental,
            "threshold": float(thresholds[label]),
            **_figures(films, present, score, called, known & ~scored.phantom, pairs=True),
        }
        of_phantoms = _figures(films, present, score, called, known & scored.phantom, pairs=False)
        if of_phantoms["reason"] is None:
            drawn[label] = {key: of_phantoms[key] for key in ("auroc", "sensitivity", "specificity")}
    found: dict[str, Any] = {
        "schema": SCHEMA,
        "made_at": None if now is None else now.astimezone(UTC).isoformat(timespec="seconds"),
        "firstread": __version__,
        "method": method,
        "recipe": {"name": recipe, "seed": seed, "toml": recipe_toml},
        "learned": {**_learned(learned, labels), "phantoms": phantoms},
        "judged": {
            "films": len(real),
            "patients": len({film.patient for film in real}),
            "phantoms": len(films) - len(real),
        },
        "matched": {"calliper": CALLIPER, "nuisances": nuisances} if nuisances else None,
        "labels": rows,
        "phantoms": drawn,
        "operating": operating,
        "storage": {"precision": precision, "worst_change": halving},
        "software": dict(software or {}),
        "tried": [dict(one) for one in tried],
        "notes": list(notes),
    }
    plain: dict[str, Any] = without_nan(found)
    return plain


def in_bundle(summary: Mapping[str, Any]) -> dict[str, bytes]:
    """The summary as a file of the bundle (``BundleDraft.extra_files``), where later cards find it."""
    return {FILE: (json.dumps(summary, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()}


def summary_of_provenance(bundle: Bundle) -> dict[str, Any] | None:
    """The summary that older bundles tell by their provenance alone; None where it has no figures."""
    told = bundle.provenance
    figures = told.get("figures")
    if not isinstance(figures, Mapping):
        return None
    rows, drawn = {}, {}
    for label in bundle.labels:
        row = figures.get(label, {})
        matched = row.get("real_matched")
        rows[label] = {
            "experimental": label in bundle.experimental,
            "threshold": bundle.thresholds[label],
            "reason": None if row.get("real") else "no figure on real films",
            "auroc": row.get("real"),
            "auroc_matched": None if matched is None else {**matched, "pairs": matched.get("positives")},
            "sensitivity": row.get("real_sensitivity"),
            "specificity": row.get("real_specificity"),
        }
        if row.get("phantoms"):
            drawn[label] = {
                "auroc": row["phantoms"],
                "sensitivity": row.get("phantom_sensitivity"),
                "specificity": row.get("phantom_specificity"),
            }
    return {
        "schema": SCHEMA,
        "made_at": told.get("made"),
        "method": told.get("judged_by", ""),
        "recipe": {"name": told.get("recipe"), "seed": told.get("seed"), "toml": told.get("recipe_toml", "")},
        "learned": {
            "films": told.get("real_films"),
            "patients": told.get("real_patients"),
            "phantoms": told.get("phantoms"),
            "sources": [NIH] if NIH in bundle.card else [],
        },
        "judged": {},
        "matched": None,
        "labels": rows,
        "phantoms": drawn,
        "storage": {"precision": "float16", "worst_change": told.get("float16_worst_change")},
        "software": dict(told.get("software", {})),
        "notes": [],
    }


def _figures(
    films: Sequence[Film], present: Flags, score: Numbers, called: Flags, rows: Flags, *, pairs: bool
) -> dict[str, Any]:
    chosen = np.flatnonzero(rows)
    positives, negatives = int(present[chosen].sum()), int((~present[chosen]).sum())
    nothing: dict[str, Any] = dict.fromkeys(("auroc", "auroc_matched", "sensitivity", "specificity"))
    if min(positives, negatives) < FEWEST:
        few = f"too few films: {positives} with it and {negatives} without, {FEWEST} of each are needed"
        return {"reason": few, **nothing}
    some = [films[int(i)] for i in chosen]
    truth, said, yes = present[chosen], score[chosen], called[chosen]
    return {
        "reason": None,
        "auroc": asdict(auroc_figure(truth, said, [film.patient for film in some])),
        "auroc_matched": _matched(some, truth, said) if pairs else None,
        "sensitivity": asdict(_share(yes[truth])),
        "specificity": asdict(_share(~yes[~truth])),
    }


def _matched(films: Sequence[Film], present: Flags, score: Numbers) -> dict[str, Any] | None:
    found = matched_pairs(films, present)
    figure: Figure | None = matched_figure(films, present, score, pairs=found) if found else None
    return None if figure is None else {**asdict(figure), "pairs": len(found)}


def _share(yes: Flags) -> Share:
    return wilson(int(yes.sum()), len(yes))


def _learned(films: Sequence[Film], labels: Sequence[str]) -> dict[str, Any]:
    ages = [film.age for film in films if film.age is not None and np.isfinite(film.age)]
    columns = LABELS if films and len(films[0].target) == len(LABELS) else tuple(labels)
    nih = sum(bool(_NIH_NAME.fullmatch(film.key.rsplit("/", 1)[-1])) for film in films)
    return {
        "films": len(films),
        "patients": len({film.patient for film in films}),
        "sources": [*([NIH] if nih else []), *(["other films"] if nih < len(films) else [])],
        "labels": {
            label: sum(bool(film.known[i] and film.target[i] > 0.5) for film in films)
            for i, label in enumerate(columns)
        },
        "sex": dict(Counter(film.sex or "not stated" for film in films)),
        "view": dict(Counter(film.view or "not stated" for film in films)),
        "age": {
            "low": min(ages, default=None),
            "median": float(np.median(ages)) if ages else None,
            "high": max(ages, default=None),
            "known": len(ages),
        },
    }
