"""An explanation as a terminal shows it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text


def print_explanation(told: Mapping[str, Any], console: Console) -> None:
    """Print what ``run.as_json`` gives."""
    console.print(Text(f"{told['bundle']['name']} {told['bundle']['version']}, {told['bundle']['engine']}"))
    if not told["has_maps"]:
        console.print(Text("The bundle has no maps: it cannot show where it saw anything, and nothing was measured."))
        return
    cells, method = told["method"]["cells"], told["method"]
    if cells is not None:
        console.print(
            Text(
                f"A map has {cells[0]} x {cells[1]} cells; a peak may lie {method['tolerance_cells']:g} cells"
                " outside the box."
            )
        )
    if told["data"] is not None:
        data = told["data"]
        console.print(
            Text(
                f"\n{data['cases']} boxes on {data['films']} films ({data['refused']} kept out by the gate,"
                f" {data['unreadable']} unreadable)"
            )
        )
        console.print(_pointing({**told["labels"], "all": told["all"]}, None))
        console.print(Text("\nThe box that the service draws: share of films with more overlap than T"))
        console.print(_boxes({**told["labels"], "all": told["all"]}, method["limits"]))
    if told["phantoms"] is not None:
        phantoms = told["phantoms"]
        console.print(Text(f"\n{phantoms['drawn']} phantoms ({phantoms['refused']} kept out by the gate)"))
        console.print(_pointing({**phantoms["labels"], "all": phantoms["all"]}, phantoms["target"]))
    if told["randomisation"] is not None:
        console.print(Text("\n" + randomisation_sentence(told["randomisation"])))


def randomisation_sentence(told: Mapping[str, Any]) -> str:
    """What the randomisation test found."""
    if told["why_not"]:
        return f"Randomisation test: not done, {told['why_not']}."
    first, last = told["stages"][0], told["stages"][-1]
    verdict = "the maps depend on what was learned" if told["depends"] else "THE MAPS HARDLY DEPEND ON WHAT WAS LEARNED"
    head, everything = (f"{number(one['rank_correlation'])} (SSIM {number(one['ssim'])})" for one in (first, last))
    return (
        f"Randomisation test: {verdict}. Rank correlation with the trained network's maps: {head} with a random head,"
        f" {everything} with all weights random, on {told['films']} phantoms, {told['seeds']} times."
    )


def number(value: float | None) -> str:
    """Two digits, or a word where there is none."""
    return "not measurable" if value is None else f"{value:.2f}"


def share(one: Mapping[str, Any] | None) -> str:
    """``17 of 20, 85 % (64 to 95)``."""
    if one is None or one["value"] is None:
        return "none"
    low, high = 100 * one["low"], 100 * one["high"]
    return f"{one['count']} of {one['total']}, {100 * one['value']:.0f} % ({low:.0f} to {high:.0f})"


def _pointing(labels: Mapping[str, Mapping[str, Any]], target: float | None) -> Table:
    names = ["finding", "peak in the box", "of those called", "by chance", "at the centre", "no evidence"]
    table = _table(*names, *(["8 of 10"] if target is not None else []))
    for name, row in labels.items():
        words = f"{name} (experimental)" if row["experimental"] else name
        if row["reason"]:
            table.add_row(Text(words), Text(row["reason"]))
            continue
        points = row["pointing"]
        cells = [
            words,
            share(points["hits"]),
            share(points["when_called"]),
            f"{100 * points['chance']:.0f} %",
            f"{100 * points['centre']:.0f} %",
            str(row["silent"]),
        ]
        if target is not None:
            cells.append("reached" if points["hits"]["value"] >= target else "missed")
        table.add_row(*map(Text, cells))
    return table


def _boxes(labels: Mapping[str, Mapping[str, Any]], limits: list[float]) -> Table:
    table = _table("finding", "overlap", *(f"T = {limit:g}" for limit in limits), f"false boxes at {limits[0]:g}")
    for name, row in labels.items():
        if row["reason"]:
            continue
        for kind, words in (("iou", "IoU"), ("iobb", "IoBB")):
            rows = row["boxes"]["service"][kind]
            cells = [f"{100 * one['accuracy']['value']:.0f} %" for one in rows]
            table.add_row(*map(Text, (name, words, *cells, f"{rows[0]['false_positives']:.2f}")))
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
