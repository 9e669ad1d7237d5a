"""What a site's calibration would change, as a terminal shows it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text


def print_calibration(told: Mapping[str, Any], console: Console) -> None:
    """Print what :func:`firstread.models.calibration.version.as_json` gives."""
    films = told["films"]
    console.print(
        Text(
            f"{told['bundle']['name']} {told['bundle']['version']} on {films['used']} films of {films['patients']}"
            f" patients ({films['refused_by_gate']} kept out by the gate and {films['unreadable']} unreadable)"
        )
    )
    console.print(Text("After: cross-validated over patients; each film was judged by what the others gave.\n"))
    table = _table(
        "label", "with", "of", "calibration", "ECE", "Brier (change)", "operating point", "sensitivity", "specificity"
    )
    for name, row in told["labels"].items():
        table.add_row(
            *(
                Text(str(cell))
                for cell in (
                    f"{name}{' (experimental)' if row['experimental'] else ''}",
                    row["positives"],
                    row["films"],
                    row["method"],
                    _arrow(row["before"], row["after"], "ece"),
                    _brier(row),
                    _threshold(row),
                    _shares(row["sensitivity_before"], row["sensitivity_after"]),
                    _shares(row["specificity_before"], row["specificity_after"]),
                )
            )
        )
    console.print(table)
    console.print()
    for name, row in told["labels"].items():
        if row["why"]:
            console.print(Text(f"  {name}: {row['why']}"))
    for note in told["notes"]:
        console.print(Text(f"  Note: {note}"))
    console.print()
    console.print(Text(raised_sentence(told)))


def raised_sentence(told: Mapping[str, Any]) -> str:
    """How many films are raised, before and after."""
    names = ", ".join(told["wishes"]["raising"]) or "no label"
    day, volume = told["alerts_per_day"], told["wishes"]["films_per_day"]
    if day is None:
        before, after = (_interval(told["raised"][when], 100) for when in ("before", "after"))
        return f"Of 100 films, {names} would raise {after}; before: {before}."
    before, after = (_interval(day[when], 1) for when in ("before", "after"))
    return f"Of {volume:g} films a day, {names} would raise {after}; before: {before}."


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _arrow(before: Mapping[str, float] | None, after: Mapping[str, float] | None, name: str) -> str:
    if before is None or after is None:
        return "too few films"
    return f"{before[name]:.3f} → {after[name]:.3f}"


def _brier(row: Mapping[str, Any]) -> str:
    change = row["brier_change"]
    if change is None:
        return "too few films"
    return f"{_arrow(row['before'], row['after'], 'brier')} ({change['low']:+.3f} to {change['high']:+.3f})"


def _threshold(row: Mapping[str, Any]) -> str:
    before, after = f"{row['threshold_before']:.3g}", f"{row['threshold_after']:.3g}"
    return f"{before} → {after}, {row['threshold_by']}" if row["changed"] else before


def _shares(before: Mapping[str, float] | None, after: Mapping[str, float] | None) -> str:
    if before is None or after is None:
        return "too few films"
    low, high = 100 * after["low"], 100 * after["high"]
    return f"{100 * before['value']:.0f} → {100 * after['value']:.0f} % ({low:.0f} to {high:.0f})"


def _interval(one: Mapping[str, float], factor: float) -> str:
    return f"{factor * one['value']:.1f} ({factor * one['low']:.1f} to {factor * one['high']:.1f})"
