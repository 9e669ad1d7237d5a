"""Markdown that says no more and no less than it was given: escaped words, figures in words, tables."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

NOT_MEASURED = "not measured"

_MARKS = re.compile(r"([\\`*_\[\]<>|#])")


def plain(text: object) -> str:
    """Words from elsewhere (labels, files, sentences) so that they show as they are: one line, no Markdown, no HTML."""
    words = " ".join(str(text).split())
    words = "".join(letter for letter in words if letter.isprintable())
    return _MARKS.sub(r"\\\1", words.replace("&", "&amp;"))


def name_of(label: str) -> str:
    """A label as a radiologist writes it."""
    return plain(label.replace("_", " "))


def number(value: object, digits: int = 2) -> str:
    """A number with so many decimals, or that it was not measured."""
    known = _finite(value)
    return NOT_MEASURED if known is None else f"{known:.{digits}f}"


def percent(value: object, digits: int = 0) -> str:
    """A share as per cent."""
    known = _finite(value)
    return NOT_MEASURED if known is None else f"{100 * known:.{digits}f} %"


def figure(found: Mapping[str, Any] | None) -> str:
    """``0.75 (0.65 to 0.83)``, or why there is none."""
    if not found or _finite(found.get("value")) is None:
        reason = (found or {}).get("reason")
        return plain(reason) if reason else NOT_MEASURED
    low, high = _finite(found.get("low")), _finite(found.get("high"))
    interval = "" if low is None or high is None else f" ({low:.2f} to {high:.2f})"
    return f"{number(found['value'])}{interval}"


def share(found: Mapping[str, Any] | float | None) -> str:
    """``37 % (27 to 49)``, or that it was not measured. A bare number is shown as a share without interval."""
    if not isinstance(found, Mapping):
        return percent(found)
    if _finite(found.get("value")) is None:
        return NOT_MEASURED
    low, high = _finite(found.get("low")), _finite(found.get("high"))
    interval = "" if low is None or high is None else f" ({100 * low:.0f} to {100 * high:.0f})"
    return f"{percent(found['value'])}{interval}"


def counts(found: Mapping[str, Any] | None) -> str:
    """``(75 with, 98 without)`` of a figure that has them, empty else."""
    if not found or found.get("positives") is None or found.get("negatives") is None:
        return ""
    return f"({int(found['positives'])} with, {int(found['negatives'])} without)"


def joined(labels: Sequence[str]) -> str:
    """Labels in a sentence, ``none`` when there are none."""
    return ", ".join(name_of(label) for label in labels) or "none"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table's lines, followed by an empty one; cells are written already. Nothing without rows."""
    if not rows:
        return []
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    return [*lines, *(f"| {' | '.join(row)} |" for row in rows), ""]


def _finite(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None
