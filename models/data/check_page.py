"""A check as one self-contained page: what is wrong, what the set consists of, what gives its labels away."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from firstread.models.data import check_plots as plots
from firstread.models.data.check import Checked

LISTED = 20
"""Problems of one kind on the page; all of them are counted, and the JSON lists more."""


def page(checked: Checked, t: dict[str, Any]) -> str:
    """The page as HTML. ``t``: what :func:`firstread.models.data.summary.summary` made of the same check."""
    here = Path(__file__).resolve().parent
    environment = Environment(
        # One style sheet for every page of the lab.
        loader=FileSystemLoader([here / "templates", here.parent / "evaluation" / "templates"]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    drawn = {
        "prevalence": plots.prevalence_svg(t),
        "co_occurrence": plots.co_occurrence_svg(t),
        "ages": plots.ages_svg(t),
        "cues": plots.cues_svg(t),
        "strongest": plots.strongest_svg(checked, t),
    }
    return environment.get_template("check.html").render(
        t=t, listed=LISTED, plots={name: _uri(svg) for name, svg in drawn.items()}
    )


def _uri(svg: str) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}" if svg else ""
