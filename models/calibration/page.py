"""A site's calibration as one self-contained page: what changes, what it does in a day, and reliability plots."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from firstread.models import evaluation
from firstread.models.calibration.console import raised_sentence
from firstread.models.calibration.fitting import Numbers
from firstread.models.calibration.measure import BINS
from firstread.models.calibration.site import LabelFilms, SiteCalibration

COLUMNS = 4
_QUIET, _LINE = "#64707a", "#1f5f8b"


def page(told: Mapping[str, Any], site: SiteCalibration, written: str = "") -> str:
    """The page as HTML. ``told``: ``site`` as JSON (``version.as_json``); ``written``: the version made, if one was."""
    folders = [Path(__file__).parent / "templates", Path(evaluation.__path__[0]) / "templates"]
    environment = Environment(
        loader=FileSystemLoader(folders),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("calibration.html").render(
        t=told, plot=reliability_uri(site.by_label), raised=raised_sentence(told), written=written
    )


def reliability_uri(by_label: Mapping[str, LabelFilms]) -> str:
    """Observed share against probability, before (grey) and after (blue), as a ``data:`` URI; empty without labels."""
    if not by_label:
        return ""
    rows = -(-len(by_label) // COLUMNS)
    columns = min(COLUMNS, len(by_label))
    with matplotlib.rc_context({"svg.fonttype": "path", "svg.hashsalt": "firstread", "font.size": 8}):
        figure = Figure(figsize=(2.5 * columns, 2.6 * rows), layout="constrained")
        for number, (label, films) in enumerate(by_label.items(), start=1):
            axes = figure.add_subplot(rows, columns, number)
            axes.plot([0, 1], [0, 1], color=_QUIET, linewidth=0.6, linestyle=":")
            axes.plot(*_bins(films, films.before), color=_QUIET, linewidth=1, marker="o", markersize=3, label="before")
            axes.plot(*_bins(films, films.after), color=_LINE, linewidth=1.4, marker="o", markersize=3, label="after")
            axes.set(title=label.replace("_", " "), xlim=(0, 1), ylim=(0, 1), aspect="equal")
            axes.spines[["top", "right"]].set_visible(False)
            if number == 1:
                axes.legend(frameon=False, loc="upper left")
        figure.supxlabel("probability")
        figure.supylabel("share with the label")
        stream = io.BytesIO()
        FigureCanvasSVG(figure).print_svg(stream, metadata={"Date": None})  # type: ignore[no-untyped-call]
    return "data:image/svg+xml;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def _bins(films: LabelFilms, probability: Numbers) -> tuple[list[float], list[float]]:
    which = np.minimum((probability * BINS).astype(int), BINS - 1)
    across, up = [], []
    for number in np.unique(which):
        inside = which == number
        across.append(float(np.average(probability[inside], weights=films.weight[inside])))
        up.append(float(np.average(films.present[inside], weights=films.weight[inside])))
    return across, up
