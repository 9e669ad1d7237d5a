"""The curves of an evaluation as SVG: ROC with its band, precision and recall, reliability."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from sklearn.metrics import precision_recall_curve, roc_curve

from firstread.models.evaluation.figures import CalibrationFigures, Flags, Numbers, OperatingFigures, drawn_weights

COLUMNS = 4
BAND_DRAWS = 200
_GRID = np.linspace(0, 1, 51)
_INK, _QUIET, _LINE, _BAND = "#1c2831", "#64707a", "#1f5f8b", "#bcd6e8"
_MOST_POINTS = 400


@dataclass(frozen=True, eq=False)
class Curve:
    """One panel: films with a known truth, their scores, and what stands under the title, per kind of plot."""

    title: str
    auroc: str
    auprc: str
    present: Flags
    score: Numbers
    patients: Sequence[str]
    operating: OperatingFigures | None = None
    calibration: CalibrationFigures | None = None


def roc_svg(curves: Sequence[Curve], draws: int = BAND_DRAWS) -> str:
    """ROC curves, one panel each, with the 95 % band of the bootstrap by patient and the operating point."""

    def draw(axes: Axes, curve: Curve) -> None:
        low, high = roc_band(curve.present, curve.score, curve.patients, draws)
        axes.fill_between(_GRID, low, high, color=_BAND, linewidth=0)
        false, true, _ = roc_curve(curve.present, curve.score)
        axes.plot([0, 1], [0, 1], color=_QUIET, linewidth=0.6, linestyle=":")
        axes.plot(*_thinned(false, true), color=_LINE, linewidth=1.4)
        if curve.operating is not None:
            axes.plot(1 - curve.operating.specificity.value, curve.operating.sensitivity.value, "o", color=_INK, ms=4)

    return _grid(curves, draw, lambda curve: f"AUROC {curve.auroc}", "1 - specificity", "sensitivity")


def precision_recall_svg(curves: Sequence[Curve]) -> str:
    """Precision against recall, one panel each; the dotted line is the prevalence, what chance would get."""

    def draw(axes: Axes, curve: Curve) -> None:
        precision, recall, _ = precision_recall_curve(curve.present, curve.score)
        axes.axhline(float(curve.present.mean()), color=_QUIET, linewidth=0.6, linestyle=":")
        # The last point (recall 0) was put there by convention; it is no threshold's.
        axes.plot(*_thinned(recall[:-1], precision[:-1]), color=_LINE, linewidth=1.4, drawstyle="steps-post")
        if curve.operating is not None and curve.operating.ppv.total:
            axes.plot(curve.operating.sensitivity.value, curve.operating.ppv.value, "o", color=_INK, ms=4)

    shown = [curve for curve in curves if curve.auprc]
    return _grid(shown, draw, lambda curve: f"AUPRC {curve.auprc}", "recall (sensitivity)", "precision (PPV)")


def reliability_svg(curves: Sequence[Curve]) -> str:
    """Observed share against probability in ten bins with Wilson intervals; bars below: where the films lie."""

    def draw(axes: Axes, curve: Curve) -> None:
        assert curve.calibration is not None
        bins = curve.calibration.bins
        most = max(one.observed.total for one in bins)
        for one in bins:
            axes.bar(one.low, 0.18 * one.observed.total / most, one.high - one.low, align="edge", color=_BAND)
        axes.plot([0, 1], [0, 1], color=_QUIET, linewidth=0.6, linestyle=":")
        x = [one.mean_probability for one in bins]
        y = [one.observed.value for one in bins]
        down = [max(0.0, one.observed.value - one.observed.low) for one in bins]
        up = [max(0.0, one.observed.high - one.observed.value) for one in bins]
        axes.errorbar(x, y, [down, up], color=_LINE, linewidth=1.2, elinewidth=0.8, marker="o", markersize=3)

    def note(curve: Curve) -> str:
        assert curve.calibration is not None
        return f"ECE {curve.calibration.ece:.3f}, Brier {curve.calibration.brier:.3f}"

    shown = [curve for curve in curves if curve.calibration is not None]
    return _grid(shown, draw, note, "probability", "share with the label")


def roc_band(present: Flags, score: Numbers, patients: Sequence[str], draws: int) -> tuple[Numbers, Numbers]:
    """Bounds of the middle 95 % of sensitivity at 51 values of 1 - specificity, patients drawn with replacement."""
    order = np.argsort(-score, kind="stable")
    ends = np.flatnonzero(np.r_[np.diff(score[order]) < 0, True])
    flags = present[order]
    lines = []
    for weights in drawn_weights(patients, draws):
        sorted_weights = weights[:, order]
        true = np.cumsum(sorted_weights * flags, axis=1)[:, ends]
        false = np.cumsum(sorted_weights * ~flags, axis=1)[:, ends]
        for hits, alarms in zip(true, false, strict=True):
            if hits[-1] > 0 and alarms[-1] > 0:
                lines.append(np.interp(_GRID, np.r_[0, alarms / alarms[-1]], np.r_[0, hits / hits[-1]]))
    low, high = np.quantile(lines, [0.025, 0.975], axis=0)
    return low, high


def _thinned(x: Numbers, y: Numbers) -> tuple[Numbers, Numbers]:
    """A curve of at most some hundred points: a page of twenty-five thousand films is read as well."""
    if len(x) <= _MOST_POINTS:
        return x, y
    kept = np.unique(np.linspace(0, len(x) - 1, _MOST_POINTS).astype(int))
    return x[kept], y[kept]


def _grid(
    curves: Sequence[Curve], draw: Callable[[Axes, Curve], None], note: Callable[[Curve], str], across: str, up: str
) -> str:
    if not curves:
        return ""
    rows = -(-len(curves) // COLUMNS)
    columns = min(COLUMNS, len(curves))
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "firstread", "font.size": 8}):
        figure = Figure(figsize=(2.9 * columns, 2.95 * rows), layout="constrained")
        FigureCanvasSVG(figure)
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes, curve in zip(panels, curves, strict=False):
            draw(axes, curve)
            axes.set_title(f"{curve.title}\n{note(curve)}", fontsize=8, color=_INK, loc="left", parse_math=False)
            axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal", xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
            axes.set_xlabel(across, fontsize=7, color=_QUIET)
            axes.set_ylabel(up, fontsize=7, color=_QUIET)
            axes.tick_params(labelsize=7, colors=_QUIET, length=2)
            for side in ("top", "right"):
                axes.spines[side].set_visible(False)
            for side in ("left", "bottom"):
                axes.spines[side].set_color("#b0bac3")
        for axes in panels[len(curves) :]:
            axes.set_visible(False)
        with io.StringIO() as stream:
            figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
            return stream.getvalue()
