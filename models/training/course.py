"""The whole way of a recipe: phantoms first, then each fold with its patients held out, then all films."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.torch import load_file, save_file

from firstread.models.network import ChestNetwork, load_state
from firstread.models.training.calibrate import Scored
from firstread.models.training.dataset import Film, FilmSet, concatenate, draw_phantoms, fold_of
from firstread.models.training.evaluate import logits_of
from firstread.models.training.recipe import Recipe
from firstread.models.training.train import State, network_of, train

Say = Callable[[str], None]


@dataclass(frozen=True)
class Outcome:
    """What a course leaves: the weights trained on everything, and every judged film scored by a network that never
    saw its patient."""

    weights: State
    films: tuple[Film, ...]
    scored: Scored
    folds: int


def run_course(recipe: Recipe, real: FilmSet, out: Path, folds: int, say: Say) -> Outcome:
    """Train and score; every finished step in ``out`` is taken up instead of done again.

    Real films are scored by the fold that held their patient out. Phantoms are scored by the last network: they are
    drawn from another seed than those it learned from.
    """
    out.mkdir(parents=True, exist_ok=True)
    say(f"drawing {recipe.phantoms + recipe.judged_phantoms} phantoms")
    phantoms = draw_phantoms(recipe.phantoms, recipe.seed, recipe.store_side, out)
    judged = draw_phantoms(recipe.judged_phantoms, recipe.seed + 1, recipe.store_side, out)
    # Stages on phantoms alone have seen no patient: the folds share them.
    alone = [stage.name for stage in recipe.stages if stage.films == "phantoms"]
    rest = [stage.name for stage in recipe.stages if stage.films != "phantoms"]
    start = _step(out / "alone", say, partial(train, recipe, phantoms, stages=alone)) if alone else None
    fold = np.array([fold_of(film.patient, folds) for film in real.films])
    logits = np.zeros((len(real), len(real.films[0].target)))
    for held_out in range(folds):
        learned = concatenate([real.subset(np.flatnonzero(fold != held_out).tolist()), phantoms])
        weights = _step(out / f"fold-{held_out}", say, partial(train, recipe, learned, start=start, stages=rest))
        away = np.flatnonzero(fold == held_out)
        logits[away] = logits_of(_network(recipe, weights), real.subset(away.tolist()), recipe.preprocessing)
    everything = concatenate([real, phantoms])
    weights = _step(out / "final", say, partial(train, recipe, everything, start=start, stages=rest))
    of_phantoms = logits_of(_network(recipe, weights), judged, recipe.preprocessing)
    films = (*real.films, *judged.films)
    return Outcome(weights, films, _scored(films, np.concatenate([logits, of_phantoms])), folds)


def _step(folder: Path, say: Say, work: Callable[[Path], State]) -> State:
    """A training whose end is kept as ``weights.safetensors``; its checkpoints go once it is there."""
    done = folder / "weights.safetensors"
    if not done.is_file():
        say(f"training: {folder.name}")
        weights = work(folder)
        unfinished = folder / "weights.partial"
        save_file({name: tensor.contiguous() for name, tensor in weights.items()}, unfinished)
        unfinished.replace(done)
        for checkpoint in folder.glob("*.pt"):
            checkpoint.unlink()
    loaded: State = load_file(done)
    return loaded


def _network(recipe: Recipe, weights: State) -> ChestNetwork:
    network = network_of(recipe)
    load_state(network, weights)
    return network


def _scored(films: tuple[Film, ...], logits: npt.NDArray[np.float64]) -> Scored:
    return Scored(
        logits=logits,
        target=np.stack([film.target for film in films]) > 0.5,
        known=np.stack([film.known for film in films]) > 0.5,
        phantom=np.array([film.phantom for film in films]),
    )
