"""What a checked set consists of, as plain values for JSON, page and terminal: counts, prevalence, ages, kinds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from firstread.models.data.check import Checked
from firstread.models.data.film import Film
from firstread.models.data.nuisance import meaning
from firstread.models.data.problems import Problem
from firstread.models.evaluation.figures import Figure
from firstread.models.findings import LABELS

FORMAT = 1
MOST_OF_A_KIND = 1000
"""Problems of one kind that are listed; all are counted."""


def summary(checked: Checked, made_at: str, firstread: str) -> dict[str, Any]:
    """Everything that a check found, ready for JSON. ``made_at``: ISO date and time; ``firstread``: the version."""
    films, table = checked.table.films, checked.table
    return {
        "format": FORMAT,
        "made_at": made_at,
        "firstread": firstread,
        "usable": checked.usable,
        "table": str(checked.table_path),
        "kind": table.kind,
        "images": str(checked.images),
        "rows": table.rows,
        "films": len(films),
        "readable": sum(one is not None for one in checked.facts),
        "missing": table.missing,
        "patients": len({film.patient for film in films}),
        "notes": list(table.notes),
        "problems": _problems(checked.problems),
        "labels": _labels(checked, films),
        "co_occurrence": _co_occurrence(films),
        "sexes": _counted(film.sex or "not stated" for film in films),
        "views": _counted(film.view or "not stated" for film in films),
        "ages": _ages(films),
        "images_per_patient": _per_patient(films),
        "sizes": _counted(f"{one.width} x {one.height}" for one in checked.facts if one is not None),
        "kinds": _counted(one.kind for one in checked.facts if one is not None),
        "boxes": _counted(label for film in films for label in film.boxes),
        "nuisances": _nuisances(checked.nuisances),
    }


def _problems(problems: Sequence[Problem]) -> list[dict[str, Any]]:
    kinds: dict[tuple[str, str], list[Problem]] = {}
    for problem in problems:
        kinds.setdefault((problem.severity.value, problem.kind), []).append(problem)
    return [
        {
            "kind": kind,
            "severity": severity,
            "count": len(met),
            "listed": [
                {"message": one.message, "row": one.row, "path": None if one.path is None else str(one.path)}
                for one in met[:MOST_OF_A_KIND]
            ],
        }
        for (severity, kind), met in kinds.items()
    ]


def _labels(checked: Checked, films: Sequence[Film]) -> dict[str, Any]:
    judged = {one.label: one for one in checked.labels}
    result: dict[str, Any] = {}
    for column, label in enumerate(LABELS):
        known = [film for film in films if film.known[column]]
        present = [film for film in known if film.target[column]]
        one = judged.get(label)
        result[label] = {
            "present": len(present),
            "absent": len(known) - len(present),
            "unknown": len(films) - len(known),
            "prevalence": len(present) / len(known) if known else None,
            "patients": len({film.patient for film in present}),
            "separability": None
            if one is None
            else {
                "verdict": one.verdict,
                "reason": one.reason,
                "together": _figure(one.together),
                "logistic": _figure(one.logistic),
                "boosting": _figure(one.boosting),
                "alone": [
                    {"name": cue.name, "meaning": cue.meaning, "larger": cue.larger, "auroc": _figure(cue.auroc)}
                    for cue in one.alone
                ],
            },
        }
    return result


def _figure(figure: Figure | None) -> dict[str, Any] | None:
    if figure is None:
        return None
    low, high = (value if np.isfinite(value) else None for value in (figure.low, figure.high))
    return {
        "value": figure.value,
        "low": low,
        "high": high,
        "positives": figure.positives,
        "negatives": figure.negatives,
    }


def _co_occurrence(films: Sequence[Film]) -> dict[str, dict[str, int]]:
    """Films that carry both labels, for every pair; the diagonal is the label itself."""
    carried = np.stack([film.target * film.known for film in films]).astype(np.int64)
    together = carried.T @ carried
    return {
        label: {other: int(together[row, column]) for column, other in enumerate(LABELS)}
        for row, label in enumerate(LABELS)
    }


def _ages(films: Sequence[Film]) -> dict[str, Any]:
    ages = np.array([film.age for film in films if film.age is not None], np.float64)
    decades = Counter(int(age // 10) * 10 for age in ages)
    return {
        "known": len(ages),
        "unknown": len(films) - len(ages),
        "median": round(float(np.median(ages)), 1) if len(ages) else None,
        "low": round(float(ages.min()), 1) if len(ages) else None,
        "high": round(float(ages.max()), 1) if len(ages) else None,
        "below_18": int((ages < 18).sum()),
        "decades": {f"{decade}": decades[decade] for decade in sorted(decades)},
    }


def _per_patient(films: Sequence[Film]) -> dict[str, Any]:
    counts = np.array(list(Counter(film.patient for film in films).values()))
    return {
        "mean": float(counts.mean()),
        "median": float(np.median(counts)),
        "most": int(counts.max()),
        "with_one": int((counts == 1).sum()),
    }


def _nuisances(rows: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    result = {}
    for name in sorted({name for row in rows for name in row}):
        values = np.array([row[name] for row in rows if name in row])
        low, middle, high = np.quantile(values, [0.05, 0.5, 0.95])
        result[name] = {
            "meaning": meaning(name),
            "known": len(values),
            "low_5": float(low),
            "median": float(middle),
            "high_95": float(high),
        }
    return result


def _counted(values: Iterable[str]) -> dict[str, int]:
    return dict(Counter(values).most_common())
