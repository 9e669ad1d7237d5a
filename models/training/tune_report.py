"""What a tuning found, as one page: how the trials went, which values matter, every trial with its figure."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
from jinja2 import Environment, PackageLoader
from optuna.trial import FrozenTrial, TrialState

from firstread.models.training.checkpoint import write_whole
from firstread.models.training.recipe import Recipe

PAGE, HISTORY, VALUES = "tuning.html", "tuning_history.png", "tuning_values.png"
_INK, _WARM = "#1f4e79", "#b5541c"


def write_report(study: optuna.Study, recipe: Recipe, keys: Sequence[str], folder: Path) -> Path:
    """Write ``tuning.html`` and its two pictures into ``folder``; returns the page's path.

    Raises:
        DataError: the disk does not take them.
    """
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    pictures = {HISTORY: _history(trials, recipe.stop_on), VALUES: _values(complete, keys, recipe.stop_on)}
    for name, picture in pictures.items():
        write_whole(folder / name, lambda stream, content=picture: stream.write(content))  # type: ignore[misc]
    best = study.best_trial
    page = (
        Environment(loader=PackageLoader("firstread.models.training"), autoescape=True)
        .get_template("tuning.html")
        .render(
            recipe=recipe,
            best=best,
            keys=keys,
            importance=_importance(study, complete, keys),
            trials=[_row(trial, keys, best.number) for trial in trials],
            early=len(trials) - len(complete),
            pictures={
                name: "data:image/png;base64," + base64.b64encode(content).decode()
                for name, content in pictures.items()
            },
        )
    )
    write_whole(folder / PAGE, lambda stream: stream.write(page.encode()))
    return folder / PAGE


def _row(trial: FrozenTrial, keys: Sequence[str], best: int) -> dict[str, Any]:
    reached = (
        trial.value
        if trial.state == TrialState.COMPLETE
        else trial.intermediate_values.get(max(trial.intermediate_values, default=0))
    )
    count = len(trial.intermediate_values)
    ended = trial.user_attrs.get("ended") or f"given up after {count} epoch{'s' if count != 1 else ''}"
    return {
        "number": trial.number,
        "figure": "" if reached is None else f"{reached:.4f}",
        "values": [_shown(trial.params.get(key)) for key in keys],
        "end": "whole" if trial.state == TrialState.COMPLETE else ended,
        "best": trial.number == best,
    }


def _importance(study: optuna.Study, complete: Sequence[FrozenTrial], keys: Sequence[str]) -> list[tuple[str, str]]:
    """How much of the figure's variance each value explains (fANOVA); nothing before there are trials enough to say."""
    if len(complete) < 8 or len({trial.value for trial in complete}) < 2:
        return []
    found = optuna.importance.get_param_importances(study, params=list(keys))
    return [(key, f"{100 * share:.0f} %") for key, share in found.items()]


def _history(trials: Sequence[FrozenTrial], name: str) -> bytes:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    axis = figure.subplots()
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    early = [trial for trial in trials if trial.state == TrialState.PRUNED and trial.intermediate_values]
    axis.plot([t.number for t in complete], [t.value or 0 for t in complete], "o", color=_INK, label="whole")
    last = [t.intermediate_values[max(t.intermediate_values)] for t in early]
    axis.plot([t.number for t in early], last, "x", color=_WARM, label="given up early")
    so_far, best = [], float("-inf")
    for trial in complete:
        best = max(best, trial.value if trial.value is not None else best)
        so_far.append(best)
    axis.step([t.number for t in complete], so_far, where="post", color=_INK, linewidth=1, label="best so far")
    axis.set(xlabel="trial", ylabel=name)
    axis.legend(frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
    return _png(figure)


def _values(complete: Sequence[FrozenTrial], keys: Sequence[str], name: str) -> bytes:
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter

    across = min(3, len(keys))
    down = -(-len(keys) // across)
    figure = Figure(figsize=(3.2 * across, 2.7 * down), layout="constrained")
    for place, key in enumerate(keys):
        axis = figure.add_subplot(down, across, place + 1)
        values = [trial.params[key] for trial in complete]
        if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
            axis.plot(values, [trial.value or 0 for trial in complete], "o", color=_INK, markersize=4)
            if values and min(values) > 0 and max(values) / min(values) >= 20:
                axis.set_xscale("log")
                axis.xaxis.set_minor_formatter(NullFormatter())
        else:
            axis.plot([str(value) for value in values], [trial.value or 0 for trial in complete], "o", color=_INK)
        axis.set(xlabel=key, ylabel=name if place % across == 0 else "")
        axis.spines[["top", "right"]].set_visible(False)
    return _png(figure)


def _png(figure: Any) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110)
    return stream.getvalue()


def _shown(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
