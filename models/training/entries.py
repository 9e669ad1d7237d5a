"""Which films an epoch sees, in what order, and who of several processes takes which: a pure matter of the seed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from firstread.models.data.film import DataError, Film
from firstread.models.findings import LABELS
from firstread.models.training.recipe import Recipe, Stage


@dataclass(frozen=True)
class Entry:
    """One film as it is seen once: its place in the film set, the epoch (which varies it), and under which label it is
    entered (its column; None where it stands for all of its labels)."""

    film: int
    epoch: int
    label: int | None = None


def epoch_entries(recipe: Recipe, stage: Stage, films: Sequence[Film], epoch: int) -> list[Entry]:
    """An epoch's entries, in order: every real film once (or once under each of its labels), and as many phantoms as
    the stage says.

    Raises:
        DataError: there are fewer than two.
    """
    rng = np.random.default_rng([recipe.seed, epoch])
    phantoms = np.array([i for i, film in enumerate(films) if film.phantom], np.int64)
    real = np.array([i for i, film in enumerate(films) if not film.phantom], np.int64)
    chosen = rng.permutation(phantoms)[: stage.phantoms_per_epoch]
    if stage.films == "all":
        chosen = np.concatenate([chosen, real])
    if recipe.once_per_label:
        entries = [Entry(int(i), epoch, label) for i in chosen for label in labels_of(films[int(i)])]
        order = rng.permutation(len(entries))
        entries = [entries[int(place)] for place in order]
    else:
        entries = [Entry(int(i), epoch) for i in rng.permutation(chosen)]
    if len(entries) < 2:
        raise DataError(f"stage {stage.name} has no films to learn from: give films with labels, or more phantoms")
    return entries


def labels_of(film: Film) -> list[int]:
    """The columns of the labels that a film is known to carry."""
    return [int(column) for column in np.flatnonzero((film.target > 0.5) & (film.known > 0.5))]


def in_batches(entries: Sequence[Entry], batch: int, ranks: int = 1) -> list[list[Entry]]:
    """The entries in batches of ``batch`` for all processes together; what is left over joins the last one.

    Batch normalisation needs two films per process, so that a rest of fewer is no batch of its own.
    """
    batches = [list(entries[start : start + batch]) for start in range(0, len(entries), batch)]
    if len(batches) > 1 and len(batches[-1]) < 2 * ranks:
        rest = batches.pop()
        batches[-1] += rest
    return batches


def share(batch: Sequence[Entry], rank: int, ranks: int) -> list[Entry]:
    """What one of several processes takes of a batch."""
    return list(batch[rank::ranks])


def course(recipe: Recipe, stage: Stage, films: Sequence[Film], begun: int, ranks: int) -> Iterator[list[Entry]]:
    """Every batch from epoch ``begun`` to the end of the stage, one after the other, so that the first films of an
    epoch are made while the one before is judged."""
    for epoch in range(begun, stage.epochs):
        yield from in_batches(epoch_entries(recipe, stage, films, epoch), stage.batch, ranks)


def learnable(recipe: Recipe, films: Sequence[Film]) -> tuple[str, ...]:
    """The labels that can be learned: some film is known to carry it and another not to.

    Raises:
        DataError: there is none: all films say the same.
    """
    target = np.stack([film.target for film in films]) > 0.5
    known = np.stack([film.known for film in films]) > 0.5
    both = np.asarray((target & known).any(axis=0) & (~target & known).any(axis=0))
    found = tuple(label for label, yes in zip(LABELS, both.tolist(), strict=True) if yes)
    if not found or (recipe.loss == "softmax" and len(found) < 2):
        carried = sorted({LABELS[column] for film in films for column in labels_of(film)})
        said = f"all carry {', '.join(carried)} and nothing else" if carried else "none carries a label"
        raise DataError(f"{len(films)} films to learn from, and {said}: films with and without a label are needed")
    return found


def label_balance(recipe: Recipe, films: Sequence[Film]) -> npt.NDArray[np.float32]:
    """How much a positive weighs, per label [15]: 1 without balance.

    For ``sigmoid``, (without / with) ** balance; for ``softmax``, (entries / (classes * entries of the class)) **
    balance, as scikit-learn's ``balanced``. Never more than ``balance_limit``; real films alone are counted, as long as
    there are any.
    """
    counted = [film for film in films if not film.phantom] or list(films)
    target = np.stack([film.target for film in counted]) > 0.5
    known = np.stack([film.known for film in counted]) > 0.5
    present, absent = (target & known).sum(axis=0), (~target & known).sum(axis=0)
    if recipe.loss == "softmax":
        classes = max(int((present > 0).sum()), 1)
        ratio = np.where(present > 0, present.sum() / (classes * np.maximum(present, 1)), 1.0)
    else:
        ratio = np.where((present > 0) & (absent > 0), absent / np.maximum(present, 1), 1.0)
    return np.minimum(ratio**recipe.balance, recipe.balance_limit).astype(np.float32)
