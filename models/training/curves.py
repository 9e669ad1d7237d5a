"""How a training went, epoch by epoch: a table, a picture, and TensorBoard's event files."""

from __future__ import annotations

import csv
import io
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from firstread.models.findings import LABELS
from firstread.models.training.checkpoint import write_whole

CSV, PNG, EVENTS = "curves.csv", "curves.png", "tensorboard"

Row = dict[str, float | int | str]
"""One epoch: stage, epoch (from 1 in its stage), step, loss, rate, films, films_per_second, waiting (share of the time
in which the network waited for films) and, where films are kept aside, watched_loss and ``auroc.<label>``."""


def write_curves(folder: Path, rows: Sequence[Row], watched: str) -> None:
    """Write table and picture anew from the epochs so far, each file whole. ``watched``: what the films kept aside are
    called."""
    _write_csv(folder / CSV, rows)
    _write_png(folder / PNG, rows, watched)


def _write_csv(path: Path, rows: Sequence[Row]) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, restval="")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: _shown(value) for name, value in row.items()})
    write_whole(path, lambda stream: stream.write(text.getvalue().encode()))


def _shown(value: float | int | str) -> str:
    if isinstance(value, float):
        return f"{value:.8g}" if math.isfinite(value) else ""
    return str(value)


def _write_png(path: Path, rows: Sequence[Row], watched: str) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(12, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    losses, areas = figure.subplots(1, 2)
    epochs = range(1, len(rows) + 1)
    losses.plot(epochs, _column(rows, "loss"), color="#1f4e79", label="learned from")
    if any("watched_loss" in row for row in rows):
        losses.plot(epochs, _column(rows, "watched_loss"), color="#b5541c", label=watched)
    losses.set(xlabel="epoch", ylabel="loss", title="Loss")
    losses.legend(frameon=False)
    colours = _colours()
    for label in LABELS:
        values = _column(rows, f"auroc.{label}")
        if any(math.isfinite(value) for value in values):
            areas.plot(epochs, values, color=colours[label], label=label.replace("_", " "), linewidth=1)
    areas.axhline(0.5, color="#999999", linewidth=0.8, linestyle="--")
    areas.set(xlabel="epoch", ylabel="AUROC", title=f"AUROC, {watched}", ylim=(0.0, 1.0))
    if areas.get_legend_handles_labels()[0]:
        areas.legend(frameon=False, fontsize=7, ncols=3, loc="lower left")
    for axis in (losses, areas):
        _mark_stages(axis, rows)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.spines[["top", "right"]].set_visible(False)
    write_whole(path, lambda stream: figure.savefig(stream, format="png", dpi=110))


def _mark_stages(axis: Any, rows: Sequence[Row]) -> None:
    for number in range(1, len(rows)):
        if rows[number]["stage"] != rows[number - 1]["stage"]:
            axis.axvline(number + 0.5, color="#cccccc", linewidth=0.8)


def _colours() -> dict[str, Any]:
    from matplotlib import colormaps

    palette = colormaps["tab20"].colors  # type: ignore[attr-defined]
    return {label: palette[number] for number, label in enumerate(LABELS)}


def _column(rows: Sequence[Row], name: str) -> list[float]:
    return [float(row[name]) if name in row else math.nan for row in rows]


class Board:
    """TensorBoard's event files, when tensorboard is installed: begun anew from the epochs that a checkpoint knows, so
    that a resumed training shows no epoch twice."""

    def __init__(self, folder: Path, done: Sequence[Row]) -> None:
        self._writer: Any = None
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:  # an optional extra: the table and the picture say the same
            return
        shutil.rmtree(folder / EVENTS, ignore_errors=True)
        self._writer = SummaryWriter(str(folder / EVENTS))
        for number, row in enumerate(done, start=1):
            self._add(number, row)
        self._writer.flush()

    def add(self, number: int, row: Mapping[str, float | int | str]) -> None:
        """One more epoch; ``number`` counts from 1 over all stages."""
        if self._writer is not None:
            self._add(number, row)
            self._writer.flush()

    def close(self) -> None:
        """The end."""
        if self._writer is not None:
            self._writer.close()

    def _add(self, number: int, row: Mapping[str, float | int | str]) -> None:
        for name, value in row.items():
            if isinstance(value, float) and math.isfinite(value):
                group = "auroc/" + name.removeprefix("auroc.") if name.startswith("auroc.") else f"training/{name}"
                self._writer.add_scalar(group, value, number)
