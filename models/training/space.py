"""Which values of a recipe a tuning tries: a TOML table of ranges and choices under the recipe's own keys."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna

from firstread.models.data.film import DataError

_KEYS = {"low", "high", "log", "step", "choices"}

Value = bool | int | float | str


@dataclass(frozen=True)
class Range:
    """From ``low`` to ``high``, on a logarithmic scale or in steps; whole numbers where both ends are whole."""

    low: float
    high: float
    log: bool = False
    step: float | None = None

    @property
    def whole(self) -> bool:
        """Whether it holds whole numbers."""
        return isinstance(self.low, int) and isinstance(self.high, int)


@dataclass(frozen=True)
class Choices:
    """One of several values."""

    values: tuple[Value, ...]


Space = Mapping[str, Range | Choices]


def read_space(path: Path) -> Space:
    """A space of ``"stage.0.rate" = { low = 1e-5, high = 1e-2, log = true }`` and ``batch = { choices = [16, 32] }``.

    Raises:
        DataError: no such file, no values, or one that cannot be meant; names file and key.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not a space of values: {error}") from error
    space = {}
    for key, said in _flat(table, ""):
        try:
            space[key] = _one(said)
        except (TypeError, ValueError) as error:
            raise DataError(f"{path}: {key}: {error}") from error
    if not space:
        raise DataError(f'{path}: no value to try: write "stage.0.rate" = {{ low = 1e-5, high = 1e-2, log = true }}')
    return space


def suggested(trial: optuna.Trial, space: Space) -> dict[str, Value]:
    """A trial's value for every key."""
    values: dict[str, Value] = {}
    for key, one in space.items():
        if isinstance(one, Choices):
            chosen: Any = trial.suggest_categorical(key, list(one.values))
            values[key] = chosen
        elif one.whole:
            step = 1 if one.step is None else int(one.step)
            values[key] = trial.suggest_int(key, int(one.low), int(one.high), step=step, log=one.log)
        else:
            values[key] = trial.suggest_float(key, one.low, one.high, step=one.step, log=one.log)
    return values


def _flat(table: Mapping[str, Any], before: str) -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, dict) and not (set(value) & _KEYS):
            yield from _flat(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", value


def _one(said: Any) -> Range | Choices:
    if not isinstance(said, dict) or set(said) - _KEYS:
        raise ValueError(f"{said!r} is neither {{ low, high, log, step }} nor {{ choices = [...] }}")
    if "choices" in said:
        values = said["choices"]
        if (
            not isinstance(values, list)
            or not values
            or not all(isinstance(v, bool | int | float | str) for v in values)
        ):
            raise ValueError("choices must be a list of plain values")
        if len(said) > 1:
            raise ValueError("choices stand alone")
        return Choices(tuple(values))
    made = Range(**said)
    numbers = [each for each in (made.low, made.high, made.step) if each is not None]
    if not all(isinstance(each, int | float) and not isinstance(each, bool) for each in numbers):
        raise ValueError("low, high and step must be numbers")
    if not made.low < made.high:
        raise ValueError(f"low is {made.low}, high is {made.high}: low must be the smaller one")
    if made.log and (made.low <= 0 or made.step is not None):
        raise ValueError("a logarithmic scale begins above 0 and has no step")
    if made.step is not None and made.step <= 0:
        raise ValueError("step must be above 0")
    return made
