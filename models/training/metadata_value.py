"""What age, sex and view add: judged films with them, without them, and by them alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression

from firstread.models.data.film import Film
from firstread.models.evaluation.figures import FEWEST, Figure, auroc_difference, auroc_figure
from firstread.models.findings import LABELS
from firstread.models.metadata import encode
from firstread.models.training.batches import known_of

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Added:
    """One label's AUROC on judged films: with metadata, with them hidden, of metadata alone, and what they add (with
    minus without, interval by paired bootstrap)."""

    label: str
    with_metadata: Figure
    without: Figure
    alone: Figure
    gain: Figure

    def __str__(self) -> str:
        gain = f"{self.gain.value:+.3f} ({self.gain.low:+.3f} to {self.gain.high:+.3f})"
        return (
            f"{self.label}: AUROC {self.with_metadata} with metadata, {self.without} without, {self.alone} of metadata "
            f"alone; they add {gain}"
        )


def added_by_metadata(
    names: Sequence[str],
    films: Sequence[Film],
    logits: Numbers,
    without: Numbers,
    learned: Sequence[Sequence[Film]],
    counts: Sequence[int],
) -> tuple[Added, ...]:
    """What the metadata add per label; labels with too few films of either kind are left out.

    ``logits``, ``without``: [N, L] of the judged films, with metadata and with them hidden. ``learned``: what each fold
    learned from; ``counts``: how many of the judged films, in order, are each fold's.
    """
    alone = np.full(logits.shape, np.nan)
    start = 0
    for theirs, count in zip(learned, counts, strict=True):
        alone[start : start + count] = _by_metadata_alone(names, theirs, films[start : start + count])
        start += count
    found = []
    for column, label in enumerate(LABELS):
        rows = [i for i, film in enumerate(films) if film.known[column] > 0.5 and np.isfinite(alone[i, column])]
        present = np.array([films[i].target[column] > 0.5 for i in rows], bool)
        if min(int(present.sum()), int((~present).sum())) < FEWEST:
            continue
        patients = [films[i].patient for i in rows]
        one, other = logits[rows, column], without[rows, column]
        found.append(
            Added(
                label,
                auroc_figure(present, one, patients),
                auroc_figure(present, other, patients),
                auroc_figure(present, alone[rows, column], patients),
                auroc_difference(present, one, other, patients),
            )
        )
    return tuple(found)


def _by_metadata_alone(names: Sequence[str], learned: Sequence[Film], judged: Sequence[Film]) -> Numbers:
    """Log odds [N, L] of logistic regressions on the metadata, NaN where a label could not be fitted."""
    seen = _terms(names, learned)
    asked = _terms(names, judged)
    answers = np.full((len(judged), len(LABELS)), np.nan)
    for column in range(len(LABELS)):
        rows = [i for i, film in enumerate(learned) if film.known[column] > 0.5]
        present = np.array([learned[i].target[column] > 0.5 for i in rows], bool)
        if 0 < int(present.sum()) < len(rows):
            fit = LogisticRegression(max_iter=1000).fit(seen[rows], present)
            answers[:, column] = fit.decision_function(asked)
    return answers


def _terms(names: Sequence[str], films: Sequence[Film]) -> Numbers:
    """The metadata as the network reads them, with the square of each number: risk need not rise with age alone."""
    coded = encode([known_of(film) for film in films], names).astype(np.float64)
    return np.concatenate([coded, coded[:, : len(names)] ** 2], axis=1)
