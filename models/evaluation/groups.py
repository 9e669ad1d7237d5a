"""Into which groups films fall: sex, age by decades, view, what the gate said, and any column of their table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from firstread.models.data.film import DataError, Film
from firstread.models.prediction import Reason

NOT_STATED = "not stated"
OTHER = "other"
MOST_LEVELS = 12
"""A column of text has at most so many groups of its own; what is rarer is together under ``other``."""

USUAL = ("sex", "age", "view")


def groups_of(films: Sequence[Film], columns: Sequence[str] = ()) -> dict[str, list[str]]:
    """For sex, age, view and each of ``columns``, the group of every film; what is the same for all is left out.

    A column that holds numbers, more than twelve different ones, is cut at its quartiles.

    Raises:
        DataError: no film has such a column; names those there are.
    """
    found: dict[str, list[str]] = {
        "sex": [film.sex or NOT_STATED for film in films],
        "age": [_decade(film.age) for film in films],
        "view": [film.view or NOT_STATED for film in films],
    }
    for column in columns:
        if column in found:
            continue
        if not any(column in film.columns for film in films):
            there = sorted({name for film in films for name in film.columns})
            raise DataError(f"the table has no column {column!r}: it has {', '.join(there) or 'none besides labels'}")
        found[column] = _levels([film.columns.get(column, "").strip() for film in films])
    return {by: levels for by, levels in found.items() if len(set(levels)) > 1 or by in columns}


def by_gate(refused: Sequence[Reason | None], problems: Sequence[str | None]) -> list[str]:
    """What the service would have done with each film."""
    return [
        "not readable" if problem is not None else "analysed" if reason is None else "refused"
        for reason, problem in zip(refused, problems, strict=True)
    ]


def in_order(levels: Sequence[str]) -> list[str]:
    """The groups there are, in reading order: numbers by size, what is not stated or rare last."""
    return sorted(set(levels), key=lambda level: (level in (NOT_STATED, OTHER), _leading(level), level))


def _leading(level: str) -> float:
    text = level.split(" to ")[0].removesuffix("and more").strip()
    try:
        return float(text)
    except ValueError:
        return float("-inf")


def _decade(age: float | None) -> str:
    if age is None or not np.isfinite(age):
        return NOT_STATED
    if age >= 90:
        return "90 and more"
    decade = int(age // 10) * 10
    return f"{decade} to {decade + 9}"


def _levels(texts: Sequence[str]) -> list[str]:
    numbers = _numbers(texts)
    if numbers is not None and len(set(numbers.values())) > MOST_LEVELS:
        return _quartiles(texts, numbers)
    common = {text for text, _ in Counter(filter(None, texts)).most_common(MOST_LEVELS)}
    return [text if text in common else (OTHER if text else NOT_STATED) for text in texts]


def _numbers(texts: Sequence[str]) -> Mapping[str, float] | None:
    try:
        numbers = {text: float(text) for text in texts if text}
    except ValueError:
        return None
    return numbers if numbers and all(np.isfinite(list(numbers.values()))) else None


def _quartiles(texts: Sequence[str], numbers: Mapping[str, float]) -> list[str]:
    """Four groups of about the same size, called after the lowest and highest value in each."""
    values = np.array([numbers[text] for text in texts if text])
    cuts = np.unique(np.quantile(values, [0.25, 0.5, 0.75]))
    names = {}
    for number in range(len(cuts) + 1):
        inside = values[np.searchsorted(cuts, values, side="left") == number]
        if len(inside):
            low, high = inside.min(), inside.max()
            names[number] = f"{low:.6g}" if low == high else f"{low:.6g} to {high:.6g}"
    return [names[int(np.searchsorted(cuts, numbers[text], side="left"))] if text else NOT_STATED for text in texts]
