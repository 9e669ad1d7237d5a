"""The whole way of a recipe: phantoms first, then films with some patients held out, who judge the outcome."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.torch import load_file, save_file

from firstread.models.data.film import Film, FilmSet, concatenate, fold_of
from firstread.models.findings import LABELS
from firstread.models.network import ChestNetwork, load_state
from firstread.models.training.calibrate import Scored
from firstread.models.training.dataset import draw_phantoms
from firstread.models.training.evaluate import logits_of
from firstread.models.training.recipe import Recipe
from firstread.models.training.train import State, network_of, train

Say = Callable[[str], None]


@dataclass(frozen=True)
class Outcome:
    """What a course leaves: the weights, and films scored by a network that never saw their patient.

    ``learned``: the real films that the weights learned from. ``films``, ``scored``: the judged ones, real and
    phantom. ``method``: how they were judged, as a sentence for the card.
    """

    weights: State
    learned: tuple[Film, ...]
    films: tuple[Film, ...]
    scored: Scored
    method: str


def run_course(recipe: Recipe, real: FilmSet, out: Path, folds: int, hold_out: bool, say: Say) -> Outcome:
    """Train and score; every finished step in ``out`` is taken up instead of done again.

    ``folds``: into how many parts the patients are divided. With ``hold_out`` the first part is held out, the network
    trained on the others is the one that is kept, and the first part judges it. Without, every part is held out once,
    and the weights come from one more training on all films: more to judge by, and ``folds`` times the work.

    Phantoms are judged by the weights that are kept: they are drawn from another seed than those it learned from.
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
    logits = np.full((len(real), len(LABELS)), np.nan)
    for number in range(1 if hold_out else folds):
        learned = real.subset(np.flatnonzero(fold != number).tolist())
        course = partial(train, recipe, concatenate([learned, phantoms]), start=start, stages=rest)
        weights = _step(out / f"fold-{number}", say, course)
        away = np.flatnonzero(fold == number)
        logits[away] = logits_of(_network(recipe, weights), real.subset(away.tolist()), recipe.preprocessing)
    if not hold_out:
        learned = real
        everything = partial(train, recipe, concatenate([real, phantoms]), start=start, stages=rest)
        weights = _step(out / "final", say, everything)
    of_phantoms = logits_of(_network(recipe, weights), judged, recipe.preprocessing)
    seen = np.flatnonzero(np.isfinite(logits).all(axis=1))
    films = (*real.subset(seen.tolist()).films, *judged.films)
    scored = _scored(films, np.concatenate([logits[seen], of_phantoms]))
    return Outcome(weights, learned.films, films, scored, _method(films, folds, hold_out))


def _method(films: tuple[Film, ...], folds: int, hold_out: bool) -> str:
    real = [film for film in films if not film.phantom]
    judged = f"{len(real)} films of {len({film.patient for film in real})} patients"
    if hold_out:
        return f"{judged} were held out: the network never saw these patients."
    return f"{folds}-fold cross-validation by patient: {judged}, each scored by a network that never saw the patient."


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
