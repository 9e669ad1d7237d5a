"""Age, sex and view as a network reads them: standardised numbers, and for each a flag that says when it is missing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

METADATA = ("age", "sex", "view")
METADATA_UNITS = 32
"""Hidden units of the network that reads them."""

Known = Mapping[str, float | str | None]
"""What is known of one film, by name; what is absent, None, empty or implausible counts as missing."""

AGE_MEAN, AGE_STD = 45.0, 20.0
"""Years. Any other scale would do as well; this one is part of the bundle format and never changes."""

OLDEST = 120.0
SEXES = {"F": 1.0, "FEMALE": 1.0, "M": -1.0, "MALE": -1.0}
VIEWS = {"AP": 1.0, "PA": -1.0}


def encoded_length(names: Sequence[str]) -> int:
    """Numbers per film that :func:`encode` gives for these inputs."""
    return 2 * len(names)


def encode(rows: Sequence[Known | None], names: Sequence[str]) -> npt.NDArray[np.float32]:
    """What is known of N films as float32 [N, 2 M]: M standardised values (0 when missing), then M missing flags.

    ``names``: the M inputs in the network's order. ``age`` is in years (0 to 120), ``sex`` F or M, ``view`` AP or PA;
    anything else is missing, never an error. A row may be None when nothing is known.
    """
    coded = np.zeros((len(rows), encoded_length(names)), np.float32)
    for row, known in enumerate(rows):
        for column, name in enumerate(names):
            value = _standardised(name, (known or {}).get(name))
            coded[row, column] = 0.0 if value is None else value
            coded[row, len(names) + column] = value is None
    return coded


def _standardised(name: str, value: object) -> float | None:
    if value is None:
        return None
    if name == "age":
        try:
            years = float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            return None
        return (years - AGE_MEAN) / AGE_STD if math.isfinite(years) and 0 <= years <= OLDEST else None
    return (SEXES if name == "sex" else VIEWS).get(str(value).strip().upper())
