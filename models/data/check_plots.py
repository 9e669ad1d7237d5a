"""The pictures of a check as SVG: prevalence, co-occurrence, ages, and how far each cue tells each label apart."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from firstread.models.data.check import Checked
from firstread.models.findings import LABELS

_INK, _QUIET, _LINE, _PALE = "#1c2831", "#55636e", "#1f5f8b", "#c9a27a"
_WITH, _WITHOUT = "#1f5f8b", "#b9743a"


def prevalence_svg(t: Mapping[str, Any]) -> str:
    """Films with each label, of those where it is known."""
    labels = t["labels"]
    figure, axes = _figure(6.2, 3.6)
    counts = [labels[label]["present"] for label in LABELS]
    axes.barh(range(len(LABELS)), counts, color=_LINE, height=0.7)
    for place, (label, count) in enumerate(zip(LABELS, counts, strict=True)):
        share = labels[label]["prevalence"]
        said = "not assessed" if share is None else f"{count} ({share:.1%})"
        axes.text(count, place, f" {said}", va="center", fontsize=7, color=_QUIET)
    axes.set_yticks(range(len(LABELS)), [label.replace("_", " ") for label in LABELS])
    axes.set_xlim(0, max([*counts, 1]) * 1.25)
    axes.invert_yaxis()
    axes.set_xlabel("films")
    return _svg(figure)


def co_occurrence_svg(t: Mapping[str, Any]) -> str:
    """Of the films with the label of a row, the share that carries the label of a column too."""
    counts = np.array([[t["co_occurrence"][row][column] for column in LABELS] for row in LABELS], np.float64)
    own = np.diag(counts).copy()
    shares = np.divide(counts, own[:, None], out=np.full_like(counts, np.nan), where=own[:, None] > 0)
    np.fill_diagonal(shares, np.nan)
    figure, axes = _figure(6.2, 5.4)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for row in range(len(LABELS)):
        for column in range(len(LABELS)):
            if row != column and counts[row, column]:
                colour = "white" if shares[row, column] > 0.55 else _INK
                axes.text(column, row, f"{counts[row, column]:.0f}", ha="center", va="center", fontsize=6, color=colour)
    names = [label.replace("_", " ") for label in LABELS]
    axes.set_xticks(range(len(LABELS)), names, rotation=60, ha="right")
    axes.set_yticks(range(len(LABELS)), names)
    return _svg(figure)


def ages_svg(t: Mapping[str, Any]) -> str:
    """Films by age decade; empty where no age is known."""
    decades = t["ages"]["decades"]
    if not decades:
        return ""
    figure, axes = _figure(4.4, 2.4)
    axes.bar([int(decade) + 5 for decade in decades], list(decades.values()), width=9, color=_LINE)
    axes.set_xlabel("age in years")
    axes.set_ylabel("films")
    return _svg(figure)


def cues_svg(t: Mapping[str, Any]) -> str:
    """AUROC of each variable alone (columns) for each label (rows); empty where no label could be judged."""
    judged = {
        label: one["separability"]
        for label, one in t["labels"].items()
        if one["separability"] is not None and one["separability"]["alone"]
    }
    if not judged:
        return ""
    strongest: dict[str, float] = {}
    words = {}
    for one in judged.values():
        for cue in one["alone"]:
            strongest[cue["name"]] = max(strongest.get(cue["name"], 0.0), cue["auroc"]["value"])
            words[cue["name"]] = cue["meaning"]
    names = sorted(strongest, key=lambda name: -strongest[name])
    table = np.full((len(judged), len(names) + 1), np.nan)
    for row, one in enumerate(judged.values()):
        table[row, 0] = one["together"]["value"]
        for cue in one["alone"]:
            table[row, 1 + names.index(cue["name"])] = cue["auroc"]["value"]
    figure, axes = _figure(1.9 + 0.42 * table.shape[1], 1.6 + 0.27 * len(judged))
    axes.imshow(table, cmap="Oranges", vmin=0.5, vmax=1, aspect="auto")
    for row, column in np.argwhere(np.isfinite(table)):
        value = table[row, column]
        colour = "white" if value > 0.85 else _INK
        axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=6.5, color=colour)
    columns = ["all together", *(words[name] for name in names)]
    axes.set_xticks(range(len(columns)), columns, rotation=60, ha="right")
    axes.set_yticks(range(len(judged)), [label.replace("_", " ") for label in judged])
    axes.axvline(0.5, color="white", linewidth=3)
    return _svg(figure)


def strongest_svg(checked: Checked, t: Mapping[str, Any], most: int = 6) -> str:
    """For the labels that are told apart best: the strongest cue in films with and without them."""
    ranked = sorted(
        (
            (one["separability"]["alone"][0], label)
            for label, one in t["labels"].items()
            if one["separability"] is not None and one["separability"]["alone"]
        ),
        key=lambda pair: -pair[0]["auroc"]["value"],
    )[:most]
    if not ranked:
        return ""
    columns = min(3, len(ranked))
    rows = -(-len(ranked) // columns)
    figure = Figure(figsize=(3.1 * columns, 2.3 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (cue, label) in zip(panels, ranked, strict=False):
        _distribution(axes, checked, cue, label)
    for axes in panels[len(ranked) :]:
        axes.set_visible(False)
    return _svg(figure)


def _distribution(axes: Axes, checked: Checked, cue: Mapping[str, Any], label: str) -> None:
    column = LABELS.index(label)
    values: dict[bool, list[float]] = {True: [], False: []}
    for film, variables in zip(checked.table.films, checked.nuisances, strict=True):
        if film.known[column] and cue["name"] in variables:
            values[bool(film.target[column])].append(variables[cue["name"]])
    both = np.array([*values[True], *values[False]])
    low, high = np.quantile(both, [0.005, 0.995])
    edges = np.linspace(low, high if high > low else low + 1, 25)
    for present, colour in ((False, _WITHOUT), (True, _WITH)):
        heights, _ = np.histogram(np.clip(values[present], edges[0], edges[-1]), bins=edges)
        share = heights / max(1, len(values[present]))
        axes.stairs(share, edges, fill=True, alpha=0.45, color=colour, label="with it" if present else "without")
    axes.set_title(f"{label.replace('_', ' ')}: {cue['auroc']['value']:.2f}", fontsize=8, color=_INK, loc="left")
    axes.set_xlabel(cue["meaning"], fontsize=7, color=_QUIET)
    axes.set_yticks([])
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.legend(fontsize=6.5, frameon=False)
    _plain(axes)


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    _plain(axes)
    return figure, axes


def _plain(axes: Axes) -> None:
    axes.tick_params(labelsize=7, colors=_QUIET, length=2)
    axes.xaxis.label.set(fontsize=7, color=_QUIET)
    axes.yaxis.label.set(fontsize=7, color=_QUIET)
    hidden: Sequence[str] = ("top", "right")
    for side in hidden:
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#b0bac3")


def _svg(figure: Figure) -> str:
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "firstread"}):
        FigureCanvasSVG(figure)
        with io.StringIO() as stream:
            figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
            return stream.getvalue()
