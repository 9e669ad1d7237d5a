"""Films become batches ahead of the step that needs them: varied, prepared, with targets, in workers or in a thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields, replace

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from firstread.models.data.film import DataError, Film, FilmSet
from firstread.models.findings import LABELS
from firstread.models.metadata import encode
from firstread.models.prediction import Box
from firstread.models.preprocess import Preprocessing, place, prepare
from firstread.models.resize import FloatImage
from firstread.models.training.augment import vary
from firstread.models.training.entries import Entry
from firstread.models.training.recipe import AUXILIARY_WEIGHT, Recipe, Stage

AHEAD = 3
"""Batches that are ready or in the making besides the one that is learned from (per worker, with worker processes)."""


@dataclass(frozen=True)
class Batch:
    """Squares [N, S, S], targets [N, L], loss weights [N, L] (0 where a label is unknown) and, for each lesion whose
    place is known, the cells [N, L, h, w] of the activation map that it covers (all 0 elsewhere).

    ``targets`` have the auxiliary outputs after the labels. ``metadata``: [N, 2 M], see ``models.metadata``.
    """

    squares: Tensor
    targets: Tensor
    weights: Tensor
    cells: Tensor
    metadata: Tensor

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        return Batch(*(getattr(self, each.name).to(device, non_blocking=True) for each in fields(self)))

    def pin(self) -> Batch:
        """The same in memory that a GPU reads directly."""
        return Batch(*(getattr(self, each.name).pin_memory() for each in fields(self)))


def stage_preprocessing(recipe: Recipe, stage: Stage) -> Preprocessing:
    """The recipe's preprocessing at the stage's size."""
    if stage.input_size is None:
        return recipe.preprocessing
    return replace(recipe.preprocessing, input_size=stage.input_size)


def known_of(film: Film) -> dict[str, float | str | None]:
    """What is known of a film besides its pixels, as ``models.metadata`` takes it."""
    return {"age": film.age, "sex": film.sex, "view": film.view}


class Sight(Dataset[dict[str, npt.NDArray[np.float32]]]):
    """Entries of a film set as a stage sees them. The same entry gives the same sight, in whatever process."""

    def __init__(self, recipe: Recipe, stage: Stage, films: FilmSet) -> None:
        self.recipe, self.stage, self.films = recipe, stage, films
        self.preprocessing = stage_preprocessing(recipe, stage)
        self.stride = recipe.architecture(len(LABELS), stage).stride
        self.side = -(-self.preprocessing.input_size // self.stride)
        augmentations = (recipe.augmentation, recipe.augmentation_phantoms)
        self._for_films, self._for_phantoms = (replace(a, blur_px=a.blur_px / stage.reduce) for a in augmentations)

    def __getitem__(self, entry: Entry) -> dict[str, npt.NDArray[np.float32]]:
        """One varied film with all that is to be learned from it."""
        recipe, film = self.recipe, self.films.films[entry.film]
        rng = np.random.default_rng(
            [recipe.seed, entry.epoch, entry.film, *([] if entry.label is None else [entry.label])]
        )
        augmentation = self._for_phantoms if film.phantom else self._for_films
        varied = vary(self._image(entry.film), rng, augmentation)
        placement = place(varied.image, self.preprocessing)
        targets, weights = self._targets(film, entry.label)
        cells = np.zeros((len(LABELS), self.side, self.side), np.float32)
        if self.stage.pointing > 0:
            for label, box in film.boxes.items():
                for each in (box, *film.more_boxes.get(label, ())):
                    square = placement.to_square(varied.follow(self._reduced(each)))
                    column = LABELS.index(label)
                    cells[column] = np.maximum(cells[column], covered(square, self.side, self.stride))
        known = known_of(film)
        if recipe.metadata:
            hidden = rng.random(len(recipe.metadata)) < recipe.metadata_missing
            known = {n: None if away else known[n] for n, away in zip(recipe.metadata, hidden, strict=True)}
        return {
            "squares": prepare(varied.image, self.preprocessing, placement),
            "targets": targets,
            "weights": weights,
            "cells": cells,
            "metadata": encode([known], recipe.metadata)[0],
        }

    def batch(self, entries: Sequence[Entry]) -> Batch:
        """Several, stacked."""
        return stacked([self[entry] for entry in entries])

    def _image(self, index: int) -> FloatImage:
        if self.stage.reduce == 1:
            return self.films.image(index)
        small = Image.fromarray(np.asarray(self.films.pixels[index])).reduce(self.stage.reduce)
        return np.asarray(small, np.float32) / np.float32(255)

    def _reduced(self, box: Box) -> Box:
        factor = self.stage.reduce
        return Box(box.left / factor, box.top / factor, box.right / factor, box.bottom / factor)

    def _targets(self, film: Film, label: int | None) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        smoothing = 0.0 if film.phantom else self.stage.smoothing
        if label is not None:
            target = np.zeros(len(LABELS), np.float32)
            target[label] = 1
            return target, np.ones(len(LABELS), np.float32)
        target = film.target * (1 - smoothing) + smoothing / 2
        weight = film.known.astype(np.float32).copy()
        if not film.phantom:
            for name, times in self.recipe.label_weights.items():
                weight[LABELS.index(name)] *= times
        if self.stage.labels:
            weight *= np.isin(LABELS, self.stage.labels)
        values = {
            "sex": {"M": 1.0, "F": 0.0}.get(film.sex),
            "age": None if film.age is None else min(max(film.age / 100, 0.0), 1.0),
        }
        asked = [None if film.phantom else values[name] for name in self.recipe.auxiliary]
        extra = np.array([0.0 if value is None else value for value in asked], np.float32)
        heavy = np.array([0.0 if value is None else AUXILIARY_WEIGHT for value in asked], np.float32)
        heavy *= not self.stage.labels
        return np.concatenate([target, extra]).astype(np.float32), np.concatenate([weight, heavy])


def stacked(sights: Sequence[dict[str, npt.NDArray[np.float32]]]) -> Batch:
    """A batch of sights."""
    names = [each.name for each in fields(Batch)]
    return Batch(*(torch.from_numpy(np.stack([sight[name] for sight in sights])) for name in names))


def covered(box: Box, side: int, stride: int) -> npt.NDArray[np.float32]:
    """The cells [h, w] of an activation map that a box covers by a third or more, or the one it covers most."""
    edges = np.arange(side) * stride
    across = np.clip(np.minimum(box.right, edges + stride) - np.maximum(box.left, edges), 0, None)
    down = np.clip(np.minimum(box.bottom, edges + stride) - np.maximum(box.top, edges), 0, None)
    part = down[:, None] * across[None, :] / stride**2
    if part.max() <= 0:  # moved out of the film
        return np.zeros((side, side), np.float32)
    return np.asarray(part >= min(1 / 3, part.max()), np.float32)


def made_ahead(sight: Sight, batches: Iterator[list[Entry]], workers: int, pin: bool = False) -> Iterator[Batch]:
    """The batches, in order, made before they are asked for.

    ``workers``: processes that make them; with 0 one thread does it, which is enough where the network itself takes
    most of the time (NumPy and Pillow let other threads run). ``pin``: in memory that a GPU reads directly.
    """
    if workers > 0:
        loader = DataLoader(
            sight,
            batch_sampler=_Batches(batches),
            num_workers=workers,
            prefetch_factor=AHEAD,
            collate_fn=stacked,
            multiprocessing_context="fork",
        )
        try:
            for batch in loader:
                yield batch.pin() if pin else batch
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise DataError(
                f"a process that prepares films was ended from outside ({str(error).splitlines()[0]}): this machine's "
                "memory or /dev/shm is too small for so many; run again with fewer --workers"
            ) from error
        return
    waiting: deque[Future[Batch]] = deque()
    with ThreadPoolExecutor(1, thread_name_prefix="films") as pool:
        try:
            for entries in batches:
                waiting.append(pool.submit(sight.batch, entries))
                if len(waiting) > AHEAD:
                    batch = waiting.popleft().result()
                    yield batch.pin() if pin else batch
            while waiting:
                batch = waiting.popleft().result()
                yield batch.pin() if pin else batch
        finally:
            for future in waiting:
                future.cancel()


class _Batches:
    """An iterator as a batch sampler: DataLoader wants something that it can begin."""

    def __init__(self, batches: Iterator[list[Entry]]) -> None:
        self._batches = batches

    def __iter__(self) -> Iterator[list[Entry]]:
        return self._batches
