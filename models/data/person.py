"""Age, sex and view as tables and headers write them."""

from __future__ import annotations

import re
from typing import Final

OLDEST_YEARS: Final = 125.0

_DAYS: Final = {"D": 1 / 365.2425, "W": 7 / 365.2425, "M": 1 / 12, "Y": 1.0, "": 1.0}
_SEXES: Final = {"f": "F", "female": "F", "w": "F", "woman": "F", "m": "M", "male": "M", "man": "M"}

LATERAL: Final = "LATERAL"


def age_of(said: str) -> float | None:
    """Years: ``058Y``, ``58``, ``58.5``, ``006M``, ``3 months``. None when empty, impossible or not an age."""
    found = re.fullmatch(r"(\d{1,3}(?:\.\d+)?)\s*([DWMY]?)(?:AYS?|EEKS?|ONTHS?|EARS?|RS?|O)?\.?", said.strip().upper())
    if found is None:
        return None
    age = float(found.group(1)) * _DAYS[found.group(2)]
    return age if age <= OLDEST_YEARS else None


def sex_of(said: str) -> str:
    """F, M, or empty for anything else."""
    return _SEXES.get(said.strip().casefold(), "")


def view_of(said: str) -> str:
    """AP, PA, LATERAL, or empty: ``AP SUPINE`` is AP, ``LL`` and ``RL`` are lateral, ``Frontal`` alone is neither."""
    words = re.findall(r"[A-Z]+", said.upper())
    if not words:
        return ""
    if words[0] in ("LL", "RL", "LLAT", "RLAT", "LAT", "LATERAL", "L", "R") or {"LAT", "LATERAL"} & set(words):
        return LATERAL
    for view in ("AP", "PA"):
        if view in words:
            return view
    if {"POSTEROANTERIOR", "POSTERO"} & set(words):
        return "PA"
    return "AP" if {"ANTEROPOSTERIOR", "ANTERO"} & set(words) else ""
