"""The audit's plots as SVG: AUROC as films are compared in ever fairer ways, and the noise of the classes."""

from __future__ import annotations

import io
from collections.abc import Mapping

import matplotlib
import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure as Drawing

from firstread.models.audit.audit import LabelAudit
from firstread.models.audit.spectrum import HIGHEST, RINGS, Spectrum
from firstread.models.evaluation.figures import Figure

_INK, _QUIET, _SCORE, _MAKING = "#1c2831", "#64707a", "#1f5f8b", "#b05a2a"


def forest_svg(one: LabelAudit) -> str:
    """AUROC of the score (blue) and of what is no anatomy (brown), each with its interval; empty without figures."""
    rows = forest_rows(one)
    if not rows:
        return ""
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "firstread", "font.size": 8}):
        drawing = Drawing(figsize=(7.2, 0.55 + 0.24 * len(rows)), layout="constrained")
        FigureCanvasSVG(drawing)
        axes = drawing.subplots()
        for height, (_, figure, is_score) in enumerate(reversed(rows)):
            colour = _SCORE if is_score else _MAKING
            axes.plot([figure.low, figure.high], [height, height], color=colour, linewidth=1.4)
            axes.plot(figure.value, height, marker="o" if is_score else "D", color=colour, markersize=4)
            axes.text(
                1.02, height, f"{figure.value:.2f} ({figure.low:.2f} to {figure.high:.2f})", va="center", fontsize=7
            )
        axes.axvline(0.5, color="#b0bac3", linewidth=0.8)
        axes.axvline(rows[0][1].value, color=_QUIET, linewidth=0.8, linestyle=(0, (2, 2)))
        axes.set_yticks(range(len(rows)), [words for words, _, _ in reversed(rows)], fontsize=8, color=_INK)
        axes.set(xlim=(min(0.3, *(figure.low for _, figure, _ in rows)), 1.0), ylim=(-0.7, len(rows) - 0.3))
        axes.set_xlabel("AUROC", fontsize=7, color=_QUIET)
        axes.tick_params(axis="x", labelsize=7, colors=_QUIET, length=2)
        axes.tick_params(axis="y", length=0)
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        return _svg(drawing)


def forest_rows(one: LabelAudit) -> list[tuple[str, Figure, bool]]:
    """What is compared, its figure, and whether it is the model's score (else what is no anatomy)."""
    if one.auroc is None:
        return []
    rows = [(f"all films ({one.positives} with, {one.negatives} without)", one.auroc, True)]
    for each in one.within:
        rows += [
            (f"within {each.by} {level}", figure, True) for level, figure in each.groups.items() if figure is not None
        ]
    for pairs in one.pairs:
        if pairs.figure is not None:
            words = (
                "each variable within the calliper" if pairs.kind == "nuisances" else "propensity within the calliper"
            )
            rows.append((f"{pairs.pairs} pairs made alike ({words})", pairs.figure, True))
            if pairs.left is not None:
                rows.append(("  what the making still tells on these pairs", pairs.left, False))
    if one.nuisances is not None:
        rows.append(("making alone, logistic regression", one.nuisances.logistic, False))
        rows.append(("making alone, boosted trees", one.nuisances.boosting, False))
    return rows


def spectra_svg(spectra: Mapping[str, tuple[Spectrum, Spectrum]]) -> str:
    """Mean amplitude of the noise against spatial frequency, films with the label and without, one panel a label."""
    if not spectra:
        return ""
    columns = min(4, len(spectra))
    lines = -(-len(spectra) // columns)
    frequency = (np.arange(RINGS) + 0.5) / RINGS * HIGHEST
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "firstread", "font.size": 8}):
        drawing = Drawing(figsize=(2.9 * columns, 2.2 * lines), layout="constrained")
        FigureCanvasSVG(drawing)
        panels = drawing.subplots(lines, columns, squeeze=False).ravel()
        for axes, (label, (without, with_label)) in zip(panels, spectra.items(), strict=False):
            axes.plot(frequency, with_label * 255, color=_MAKING, label="with")
            axes.plot(frequency, without * 255, color=_SCORE, linestyle=(0, (4, 2)), label="without")
            axes.set_yscale("log")
            axes.set_title(label, fontsize=8, color=_INK, loc="left", parse_math=False)
            axes.tick_params(labelsize=7, colors=_QUIET, length=2)
            axes.set_xlabel("cycles per pixel at 512 px", fontsize=7, color=_QUIET)
            axes.set_ylabel("grey levels", fontsize=7, color=_QUIET)
            axes.legend(fontsize=7, frameon=False)
            for side in ("top", "right"):
                axes.spines[side].set_visible(False)
        for axes in panels[len(spectra) :]:
            axes.set_visible(False)
        return _svg(drawing)


def _svg(drawing: Drawing) -> str:
    with io.StringIO() as stream:
        drawing.savefig(stream, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
        return stream.getvalue()
