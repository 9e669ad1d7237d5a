"""The whole way of a recipe: phantoms first, then films with some patients held out, who judge the outcome."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from firstread.models.calibration import Scored
from firstread.models.data.film import DataError, Film, FilmSet, concatenate
from firstread.models.findings import LABELS
from firstread.models.network import ChestNetwork
from firstread.models.training.checkpoint import write_whole
from firstread.models.training.entries import learnable
from firstread.models.training.metadata_value import Added, added_by_metadata
from firstread.models.training.phantom_films import draw_phantoms
from firstread.models.training.plan import Part, Plan
from firstread.models.training.recipe import Recipe
from firstread.models.training.scoring import logits_of
from firstread.models.training.start import State, network_of, take
from firstread.models.training.steps import Setup
from firstread.models.training.train import Aside, identity_of, train

WEIGHTS = "weights.safetensors"


@dataclass(frozen=True)
class Outcome:
    """What a course leaves: the weights, and films scored by a network that never saw their patient.

    ``labels``: those that could be learned; ``weights`` have all fifteen. ``learned``: the real films that the weights
    learned from. ``films``, ``scored``: the judged ones, real and phantom. ``method``: how they were judged, as a
    sentence for the card. ``added``: what the metadata add, when the recipe uses them and real films judged.
    """

    weights: State
    labels: tuple[str, ...]
    learned: tuple[Film, ...]
    films: tuple[Film, ...]
    scored: Scored
    method: str
    added: tuple[Added, ...] = ()


def run_course(
    recipe: Recipe, real: FilmSet | None, plan: Plan, out: Path, first: State | None, setup: Setup
) -> Outcome:
    """Train and score; every finished step in ``out`` is taken up instead of done again.

    ``real``: the films of the plan; None for a recipe on phantoms alone. ``first``: weights to begin with.

    Phantoms are judged by the weights that are kept: they are drawn from another seed than those it learned from.
    """
    phantoms, judged = _phantoms(recipe, out, setup)
    # Stages on phantoms alone have seen no patient: the folds share them.
    alone = [stage.name for stage in recipe.stages if stage.films == "phantoms"]
    rest = [stage.name for stage in recipe.stages if stage.films != "phantoms"]
    if alone:
        watched = Aside(judged, "unseen phantoms", chooses=False) if judged is not None else None
        work = partial(train, recipe, phantoms, start=first, stages=alone, aside=watched, setup=setup)
        first = _step(out / "alone", identity_of(recipe, phantoms, first), setup, work)
    weights, learned = first, (real or phantoms).films
    labels = learnable(recipe, learned)
    answers: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], npt.NDArray[np.float64]]] = []
    for part in plan.parts if real is not None and rest else ():
        assert real is not None
        everything = concatenate([real.subset(part.learned.tolist()), phantoms])
        learned, labels = everything.films, learnable(recipe, everything.films)
        work = partial(train, recipe, everything, start=first, stages=rest, aside=_aside(part, real), setup=setup)
        weights = _step(out / part.name, identity_of(recipe, everything, first), setup, work)
        if len(part.judged):
            answers.append((part.judged, *_asked(recipe, weights, real.subset(part.judged.tolist()), setup)))
    if weights is None:
        raise DataError(f"recipe {recipe.name} learns from films, and none were given")
    films, logits, added = _judged(recipe, real, plan, answers)
    if judged is not None and len(judged):
        films = (*films, *judged.films)
        logits = np.concatenate([logits, _asked(recipe, weights, judged, setup)[0]])
    if not films:
        raise DataError(f"recipe {recipe.name} has no films to judge it by: set judged_phantoms")
    return Outcome(
        weights=weights,
        labels=labels,
        learned=tuple(film for film in learned if not film.phantom),
        films=films,
        scored=_scored(films, logits),
        method=plan.method,
        added=added,
    )


def _phantoms(recipe: Recipe, out: Path, setup: Setup) -> tuple[FilmSet, FilmSet | None]:
    """Those that are learned from and those that judge; one process draws, the others read what it kept."""
    number = recipe.phantoms + recipe.judged_phantoms
    if setup.ranks.leads and number:
        setup.say(f"drawing {number} phantoms")
        draw_phantoms(recipe.phantoms, recipe.seed, recipe.store_side, out)
        draw_phantoms(recipe.judged_phantoms, recipe.seed + 1, recipe.store_side, out)
    setup.ranks.wait()
    judged = recipe.judged_phantoms
    return (
        draw_phantoms(recipe.phantoms, recipe.seed, recipe.store_side, out if number else None),
        draw_phantoms(judged, recipe.seed + 1, recipe.store_side, out) if judged else None,
    )


def _aside(part: Part, real: FilmSet) -> Aside | None:
    if len(part.aside):
        return Aside(real.subset(part.aside.tolist()), "validation patients", chooses=True)
    if len(part.judged):
        return Aside(real.subset(part.judged.tolist()), "held-out patients", chooses=False)
    return None


def _asked(
    recipe: Recipe, weights: State, films: FilmSet, setup: Setup
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Logits [N, L] with what is known of the films besides pixels, and without."""
    network: ChestNetwork = network_of(recipe, len(LABELS))
    take(network, weights, LABELS, "the trained weights")
    network = network.to(setup.ranks.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    ask = partial(logits_of, network, films, recipe.preprocessing, ranks=setup.ranks, workers=setup.workers)
    found = ask()
    return found, ask(metadata=False) if recipe.metadata else found


def _judged(
    recipe: Recipe,
    real: FilmSet | None,
    plan: Plan,
    answers: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], npt.NDArray[np.float64]]],
) -> tuple[tuple[Film, ...], npt.NDArray[np.float64], tuple[Added, ...]]:
    """Every judged film once, with the answer of the network that had not seen its patient."""
    if real is None or not answers:
        return (), np.zeros((0, len(LABELS))), ()
    places = np.concatenate([where for where, _, _ in answers])
    films = tuple(real.films[int(i)] for i in places)
    logits = np.concatenate([found for _, found, _ in answers])
    added: tuple[Added, ...] = ()
    if recipe.metadata:
        without = np.concatenate([found for _, _, found in answers])
        learned = [[real.films[int(i)] for i in part.learned] for part in plan.parts if len(part.judged)]
        counts = [len(where) for where, _, _ in answers]
        added = added_by_metadata(recipe.metadata, films, logits, without, learned, counts)
    return films, logits, added


def _step(folder: Path, identity: str, setup: Setup, work: Callable[[Path], State]) -> State:
    """A training whose end is kept as ``weights.safetensors``; its checkpoints go once it is there."""
    done = folder / WEIGHTS
    ranks = setup.ranks
    if not any(ranks.gathered(done.is_file())):
        if ranks.leads:
            setup.say(f"training: {folder.name}")
        weights = work(folder)
        if ranks.leads:
            content = save({name: t.contiguous() for name, t in weights.items()}, {"identity": identity})
            write_whole(done, lambda stream: stream.write(content))
            for checkpoint in folder.glob("*.pt"):
                checkpoint.unlink()
    ranks.wait()
    return _kept(done, identity)


def _kept(path: Path, identity: str) -> State:
    try:
        with safe_open(path, framework="pt") as stored:
            if (stored.metadata() or {}).get("identity") != identity:
                raise DataError(
                    f"{path} was trained by another recipe, on other films or from other first weights: give another "
                    "--out or remove it"
                )
            return {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path} cannot be read ({error}): remove it to train again") from error


def _scored(films: tuple[Film, ...], logits: npt.NDArray[np.float64]) -> Scored:
    return Scored(
        logits=logits,
        target=np.stack([film.target for film in films]) > 0.5,
        known=np.stack([film.known for film in films]) > 0.5,
        phantom=np.array([film.phantom for film in films]),
    )
