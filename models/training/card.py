"""The card and the figures of a bundle, written from what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from firstread.models.bundle import Calibration
from firstread.models.calibration import Scored
from firstread.models.data.film import Film
from firstread.models.evaluation.figures import Figure, auroc_figure, matched_figure, matched_pairs
from firstread.models.findings import NO_FINDING

FEWEST = 20
"""A label with fewer films of either kind gets no figure."""


@dataclass(frozen=True)
class LabelFigures:
    """What was measured of one label; None where there were too few films.

    ``real``, ``phantoms``: AUROC on held-out films. ``real_matched``: on pairs made alike. Sensitivity and specificity
    are at the operating point, on real films where ``real`` is given and on phantoms.
    """

    label: str
    experimental: bool
    threshold: float
    real: Figure | None
    real_matched: Figure | None
    real_sensitivity: float | None
    real_specificity: float | None
    phantoms: Figure | None
    phantom_sensitivity: float | None
    phantom_specificity: float | None


def measure(
    labels: Sequence[str],
    experimental: Sequence[str],
    thresholds: dict[str, float],
    films: Sequence[Film],
    scored: Scored,
    probability: npt.NDArray[np.float64],
) -> tuple[LabelFigures, ...]:
    """Every label's figures. Real-film figures are made only for labels that are not experimental."""
    found = []
    for column, label in enumerate(labels):
        score, present, known = probability[:, column], scored.target[:, column], scored.known[:, column]
        above = score >= thresholds[label]
        real, drawn = known & ~scored.phantom, known & scored.phantom
        judged = label not in experimental
        found.append(
            LabelFigures(
                label=label,
                experimental=not judged,
                threshold=thresholds[label],
                real=_figure(films, present, score, real) if judged else None,
                real_matched=_matched(films, present, score, real) if judged else None,
                real_sensitivity=_share(above, real & present) if judged else None,
                real_specificity=_share(~above, real & ~present) if judged else None,
                phantoms=_figure(films, present, score, drawn),
                phantom_sensitivity=_share(above, drawn & present),
                phantom_specificity=_share(~above, drawn & ~present),
            )
        )
    return tuple(found)


def figures_table(figures: Sequence[LabelFigures]) -> dict[str, Any]:
    """The figures as a table for ``bundle.toml`` (which knows no null: what was not measured is left out)."""

    def rounded(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: rounded(inner) for key, inner in value.items() if inner is not None}
        return round(value, 4) if isinstance(value, float) else value

    return {row.label: rounded({k: v for k, v in asdict(row).items() if k != "label"}) for row in figures}


def write_card(
    *,
    title: str,
    figures: Sequence[LabelFigures],
    learned: Sequence[Film],
    films: Sequence[Film],
    scored: Scored,
    calibration: Calibration,
    labels: Sequence[str],
    method: str,
    recipe: str,
    halving: float,
    notes: Sequence[str] = (),
) -> str:
    """The card as Markdown. ``learned``: the real films that the weights learned from; ``films``, ``scored``: those
    that judged them, ``method`` says how.
    ``halving``: largest change of a probability by storing weights in float16.
    """
    real = [film for film in films if not film.phantom]
    patients = len({film.patient for film in learned})
    column = list(labels).index(NO_FINDING)
    none = sum(int(film.target[column]) for film in learned)
    pairs = len(matched_pairs(real, scored.target[~scored.phantom, column]))
    lines = [
        f"# {title}",
        "",
        "Orders a reading list. **Not a medical device, not a diagnosis**; not for deciding that a film is normal.",
        "",
        "## What it learned from",
        "",
        f"- {len(learned)} real films of {patients} patients (NIH ChestX-ray14): {none} carry"
        f" No Finding, {len(learned) - none} a finding, nearly always Pneumonia with whatever else was mined from the"
        " report. They answer one question: No Finding or not.",
        "- Phantoms: drawn radiographs with a known pneumothorax, effusion, mass, nodule, cardiomegaly or",
        "  consolidation. They are training material and the demo's subject, never evidence about patients.",
        "",
        "## What was measured on real films",
        "",
        f"{method} AUROC with its 95 % interval (bootstrap by patient). The collection was selected in a way that"
        f" shows in file size and noise, so the second figure counts: {pairs} pairs with the same view and alike in"
        " size, noise and brightness.",
        "",
        "| label | all films | matched pairs | operating point | sensitivity | specificity |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.label} | {_text(row.real)} | {_text(row.real_matched)} | {row.threshold:.3f} |"
        f" {_percent(row.real_sensitivity)} | {_percent(row.real_specificity)} |"
        for row in figures
        if not row.experimental
    ]
    lines += [
        "",
        "Every other label is **experimental**: no figure on real films exists for it, and it raises nothing unless"
        " a site's policy says so.",
        "",
        "## What was measured on phantoms it had not seen",
        "",
        "| label | AUROC | operating point | sensitivity | specificity |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.label} | {_text(row.phantoms)} | {row.threshold:.3f} | {_percent(row.phantom_sensitivity)} |"
        f" {_percent(row.phantom_specificity)} |"
        for row in figures
        if row.phantoms is not None
    ]
    lines += [
        "",
        "## How its numbers are made",
        "",
        f"Calibration: {calibration.method}, per label, on held-out films in which half carry a finding: where findings"
        " are rarer, probabilities are too high. Operating points of findings are passed by at most 5 % of the"
        " held-out films without them and 2 % of those with No Finding, real and phantom alike; that of No Finding"
        " is passed by at most 10 % of the held-out films with a finding. Weights are stored in float16, which moved"
        f" no probability by more than {halving:.1e}. Calibration and operating points were chosen on the"
        " held-out films that sensitivity and specificity above are counted on, which flatters these two a little;"
        " AUROC does not depend on either.",
        "",
        "## Known failures",
        "",
        "- Labels were mined from reports and are noisy; nothing here was read by a radiologist for this purpose.",
        "- One hospital, adults almost without exception, frontal films only.",
        "- Small nodules: the square it reads is coarse.",
        *[f"- {note}" for note in notes],
        "",
        "## Recipe",
        "",
        "```toml",
        recipe.strip(),
        "```",
        "",
    ]
    return "\n".join(lines)


def _figure(
    films: Sequence[Film], present: npt.NDArray[np.bool_], score: npt.NDArray[np.float64], rows: npt.NDArray[np.bool_]
) -> Figure | None:
    chosen = np.flatnonzero(rows)
    if min(int(present[chosen].sum()), int((~present[chosen]).sum())) < FEWEST:
        return None
    return auroc_figure(present[chosen], score[chosen], [films[int(i)].patient for i in chosen])


def _matched(
    films: Sequence[Film], present: npt.NDArray[np.bool_], score: npt.NDArray[np.float64], rows: npt.NDArray[np.bool_]
) -> Figure | None:
    chosen = np.flatnonzero(rows)
    return matched_figure([films[int(i)] for i in chosen], present[chosen], score[chosen])


def _share(yes: npt.NDArray[np.bool_], among: npt.NDArray[np.bool_]) -> float | None:
    return float(yes[among].mean()) if int(among.sum()) >= FEWEST else None


def _text(figure: Figure | None) -> str:
    return "too few films" if figure is None else f"{figure} ({figure.positives} with, {figure.negatives} without)"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.0f} %"
