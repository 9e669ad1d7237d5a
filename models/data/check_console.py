"""A check as tables for a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

SHOWN = 5
"""Problems of one kind in a terminal."""


def print_check(t: dict[str, Any], console: Console) -> None:
    """What ``summary`` made of a check. Text from tables is printed as it is, never as markup."""
    _line(console, f"{t['table']}: {t['kind']}, {t['films']} films of {t['patients']} patients ({t['rows']} rows)")
    ages = t["ages"]
    years = f"{ages['low']:g} to {ages['high']:g} years, median {ages['median']:g}" if ages["known"] else "not stated"
    _line(console, f"  sex {_counted(t['sexes'])}; view {_counted(t['views'])}; age {years}")
    _line(console, f"  {_counted(t['sizes'])} pixels; {_counted(t['kinds'])}")
    per = t["images_per_patient"]
    _line(
        console, f"  films a patient: {per['mean']:.1f} on average, at most {per['most']}, {per['with_one']} with one"
    )
    for note in t["notes"]:
        _line(console, f"  {note}")
    _line(console, "")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, right in (("label", False), ("with", True), ("without", True), ("unknown", True), ("prevalence", True)):
        table.add_column(name, justify="right" if right else "left")
    table.add_column("told apart without anatomy")
    table.add_column("strongest alone")
    for label, one in t["labels"].items():
        share = "" if one["prevalence"] is None else f"{one['prevalence']:.1%}"
        judged = one["separability"]
        together, alone = "", ""
        if judged is not None:
            together = "too few" if judged["reason"] else _figure(judged["together"])
            if judged["alone"]:
                alone = f"{judged['alone'][0]['meaning']} {_figure(judged['alone'][0]['auroc'])}"
        cells = (label, str(one["present"]), str(one["absent"]), str(one["unknown"]), share, together, alone)
        table.add_row(*(Text(cell) for cell in cells))
    console.print(table)
    _line(console, "")
    for one in t["labels"].values():
        judged = one["separability"]
        if judged is not None and not judged["reason"] and "a network" in judged["verdict"]:
            _line(console, judged["verdict"])
    for problem in t["problems"]:
        _line(console, "")
        _line(console, f"{problem['severity']}: {problem['kind']} ({problem['count']})", loud=problem["severity"])
        for one in problem["listed"][:SHOWN]:
            _line(console, f"  {one['message']}")
        if problem["count"] > SHOWN:
            _line(console, f"  and {problem['count'] - SHOWN} more (--json lists them)")
    _line(console, "")
    if t["usable"]:
        _line(console, "usable" + ("; read the warnings first" if t["problems"] else ""))
    else:
        kinds = ", ".join(p["kind"] for p in t["problems"] if p["severity"] == "error")
        _line(console, f"not usable as it is: {kinds}", loud="error")


def _line(console: Console, text: str, loud: str = "") -> None:
    style = {"error": "bold red", "warning": "yellow"}.get(loud, "")
    console.print(Text(text, style=style), soft_wrap=True)


def _counted(values: dict[str, int], most: int = 4) -> str:
    said = [f"{name} {count}" for name, count in list(values.items())[:most]]
    return ", ".join(said) + (f" and {len(values) - most} more kinds" if len(values) > most else "")


def _figure(figure: dict[str, Any]) -> str:
    if figure["low"] is None:
        return f"{figure['value']:.2f}"
    return f"{figure['value']:.2f} ({figure['low']:.2f} to {figure['high']:.2f})"
