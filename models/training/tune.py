"""Tuning: a recipe's values are varied, each trial is judged on validation patients, bad ones are given up early."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import shutil
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import tomli_w
from optuna.trial import FrozenTrial, TrialState

from firstread.models.data.film import DataError, FilmSet, concatenate
from firstread.models.training.checkpoint import write_whole
from firstread.models.training.command import Order, first_of, plan_of, prepared, read_films, with_room
from firstread.models.training.curves import Row
from firstread.models.training.lock import alone
from firstread.models.training.phantom_films import draw_phantoms
from firstread.models.training.plan import kept_aside
from firstread.models.training.progress import Say, to_stderr
from firstread.models.training.ranks import join
from firstread.models.training.recipe import Recipe, load_recipe, recipe_of, set_value
from firstread.models.training.space import Choices, Range, Space, Value, read_space, suggested
from firstread.models.training.start import State
from firstread.models.training.steps import NotANumber, Setup
from firstread.models.training.train import Aside, train
from firstread.models.training.tune_report import write_report

VALIDATION = 0.2
"""Share of the learning patients that judge the trials where the recipe keeps none aside."""

STARTUP_TRIALS = 4
"""No trial is given up before so many have ended: a median of fewer says little."""

BEST = "best.toml"
_IDENTITY = "firstread"


@dataclass(frozen=True)
class Tuned:
    """What a tuning found.

    ``values``: the best trial's; ``figure``: what it reached; ``recipe``: the file that holds the recipe with these
    values; ``ended``: trials that ended, of which ``given_up`` early; ``report``: the page.
    """

    values: Mapping[str, Value]
    figure: float
    recipe: Path
    ended: int
    given_up: int
    report: Path


@dataclass
class _Films:
    """What every trial learns from and is judged by."""

    phantoms: FilmSet
    learned: FilmSet
    aside: FilmSet
    first: State | None = field(default=None, repr=False)


def tune(order: Order, space_file: Path, trials: int, study_file: Path, say: Say = to_stderr) -> Tuned:
    """Run trials until ``trials`` of the study have ended; write the best recipe, a page and pictures to ``order.out``.

    Films that judge a training (a fold, NIH's test list) are left out altogether; the others' validation patients judge
    the trials by the recipe's ``stop_on``. The study is a SQLite file; a second call goes on with it, and a trial that
    was stopped goes on from its checkpoint.

    Raises:
        DataError: recipe, space, study or films cannot be used; says what to do.
    """
    recipe, space = load_recipe(order.recipe, order.changes), read_space(space_file)
    table = tomllib.loads(recipe.text)
    _tried(table, recipe, {key: _example(one) for key, one in space.items()})
    ranks = join(order.device)
    if ranks.world > 1:
        raise DataError("a tuning runs in one process: start it without torchrun")
    setup = prepared(ranks, order.threads, order.workers, say, order.profile)
    with_room(order.out)
    with_room(study_file.parent)
    films = _films(order, recipe, setup)
    lock = study_file.with_name(f".{study_file.name}.lock")
    with alone(lock, f"{study_file} is in use by another tuning", "give another --study"):
        study = _opened(study_file, recipe, space, films)
        _again(study)
        while len(_ended(study)) < trials:
            study.optimize(partial(_trial, table, recipe, space, films, order.out, setup), n_trials=1)
            say(_sentence(study, trials, recipe.stop_on))
        return _result(study, table, recipe, space, order.out)


def _films(order: Order, recipe: Recipe, setup: Setup) -> _Films:
    real = read_films(order, recipe, setup.ranks, setup.say)
    if real is None:
        raise DataError(f"recipe {recipe.name} learns from no real film: there is nothing to tune it on")
    part = plan_of(replace(order, hold_out=True), replace_validation(recipe, 0.0), real).parts[0]
    aside = kept_aside(real.films, part.learned, recipe.validation or VALIDATION)
    learned = np.setdiff1d(part.learned, aside)
    if not len(aside) or not len(learned):
        raise DataError(f"{len(real)} films are too few to tune on: no validation patient is left")
    phantoms = draw_phantoms(recipe.phantoms, recipe.seed, recipe.store_side, order.out)
    first = first_of(recipe, order.weights, setup.ranks)
    return _Films(phantoms, real.subset(learned.tolist()), real.subset(aside.tolist()), first)


def replace_validation(recipe: Recipe, share: float) -> Recipe:
    """The recipe with another share of validation patients, for planning alone."""
    stages = tuple(replace(stage, patience=None) for stage in recipe.stages)
    return replace(recipe, validation=share, stages=stages)


def _opened(path: Path, recipe: Recipe, space: Space, films: _Films) -> optuna.Study:
    """The study of this recipe, space and films; another one is refused."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    keys = [film.key for part in (films.learned, films.aside) for film in part.films]
    said = json.dumps([recipe.text, sorted((key, repr(one)) for key, one in space.items()), keys])
    identity = hashlib.sha256(said.encode()).hexdigest()
    try:
        study = optuna.create_study(
            study_name="firstread",
            storage=f"sqlite:///{path.resolve()}",
            direction="maximize",
            load_if_exists=True,
            pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS, n_warmup_steps=1),
        )
        found = study.user_attrs.get(_IDENTITY)
        if found is None:
            study.set_user_attr(_IDENTITY, identity)
        # A sampler of its own seed per start: the same one again would suggest the same values again.
        study.sampler = optuna.samplers.TPESampler(seed=recipe.seed + len(study.trials))
    except Exception as error:  # whatever stands in the file, sqlalchemy raises something of its own
        reason = str(error).split("\n")[0]
        raise DataError(f"{path} is no study of Optuna ({reason}): give another --study or remove it") from error
    if found not in (None, identity):
        raise DataError(
            f"{path} is the study of another recipe, space or set of films: give another --study, or change them back"
        )
    return study


def _again(study: optuna.Study) -> None:
    """Trials that were stopped in the middle, by a kill or a full disk, are ended, and their values come first."""
    taken_up = {trial.user_attrs.get("again") for trial in study.get_trials(deepcopy=False)}
    for trial in study.get_trials(states=(TrialState.RUNNING, TrialState.FAIL)):
        if trial.state == TrialState.RUNNING:
            study.tell(trial.number, state=TrialState.FAIL)
        if trial.number not in taken_up and trial.params:
            study.enqueue_trial(trial.params, user_attrs={"again": trial.number})


def _trial(
    table: Mapping[str, Any], base: Recipe, space: Space, films: _Films, out: Path, setup: Setup, trial: optuna.Trial
) -> float:
    values = suggested(trial, space)
    recipe = _tried(table, base, values)
    folder = out / f"trial-{hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]}"
    seen: list[float] = []

    def told(row: Row) -> None:
        seen.append(_figure(row, recipe.stop_on))
        trial.report(seen[-1], len(seen))
        if trial.should_prune():
            raise optuna.TrialPruned(f"worse than the median after {len(seen)} epochs")

    alone = [stage.name for stage in recipe.stages if stage.films == "phantoms"]
    rest = [stage.name for stage in recipe.stages if stage.films != "phantoms"]
    aside = Aside(films.aside, "validation patients", chooses=True)
    setup.say(f"trial {trial.number}: {_said(values)}")
    try:
        start = films.first
        if alone:
            start = train(recipe, films.phantoms, folder / "alone", start=start, stages=alone, setup=setup)
        everything = concatenate([films.learned, films.phantoms]) if len(films.phantoms) else films.learned
        listening = replace(setup, on_epoch=told)
        train(recipe, everything, folder, start=start, stages=rest, aside=aside, setup=listening)
    except NotANumber as error:
        setup.say(str(error))
        trial.set_user_attr("ended", "the loss was no number")
        _tidy(folder)
        raise optuna.TrialPruned(str(error)) from error
    except optuna.TrialPruned:
        _tidy(folder)
        raise
    _tidy(folder)
    if not seen or not math.isfinite(seen[-1]):
        raise DataError(
            f"{recipe.stop_on} cannot be measured on the {len(films.aside)} validation films (none with it, or none "
            "without): set another stop_on, or validation higher"
        )
    last = recipe.stages[-1]
    return max(seen[-last.epochs :]) if last.patience else seen[-1]


def _tried(table: Mapping[str, Any], base: Recipe, values: Mapping[str, Value]) -> Recipe:
    """The recipe with a trial's values."""
    changed = copy.deepcopy(dict(table))
    for key, value in values.items():
        set_value(changed, key, value)
    return recipe_of(changed, tomli_w.dumps(changed), f"{base.name} with {_said(values)}")


def _figure(row: Row, name: str) -> float:
    return -float(row["watched_loss"]) if name == "loss" else float(row[name])


def _tidy(folder: Path) -> None:
    """Of a trial that has ended the curves stay; its checkpoints have the size of three networks each."""
    for checkpoint in folder.rglob("*.pt"):
        checkpoint.unlink()
    shutil.rmtree(folder / "tensorboard", ignore_errors=True)


def _ended(study: optuna.Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))


def _result(study: optuna.Study, table: Mapping[str, Any], recipe: Recipe, space: Space, out: Path) -> Tuned:
    ended = _ended(study)
    complete = [trial for trial in ended if trial.state == TrialState.COMPLETE]
    if not complete:
        raise DataError(f"none of {len(ended)} trials reached its end: give more --trials, or lower rates in the space")
    best = study.best_trial
    found = _tried(table, recipe, best.params)
    head = (
        f"# {recipe.name}, tuned: {recipe.stop_on} {best.value:.4f} on validation patients, best of {len(ended)} trials"
    )
    told = "".join(f"\n# {key} = {value}" for key, value in best.params.items())
    path = out / BEST
    write_whole(path, lambda stream: stream.write(f"{head}{told}\n\n{found.text}".encode()))
    report = write_report(study, recipe, list(space), out)
    return Tuned(
        values=dict(best.params),
        figure=float(best.value or 0.0),
        recipe=path,
        ended=len(ended),
        given_up=len(ended) - len(complete),
        report=report,
    )


def _example(one: Range | Choices) -> Value:
    """A value of a range or of choices, to see that the key exists before anything is read."""
    return one.values[0] if isinstance(one, Choices) else one.low


def _said(values: Mapping[str, Value]) -> str:
    return ", ".join(
        f"{key} = {value:.4g}" if isinstance(value, float) else f"{key} = {value}" for key, value in values.items()
    )


def _sentence(study: optuna.Study, trials: int, name: str) -> str:
    ended = _ended(study)
    complete = [trial for trial in ended if trial.state == TrialState.COMPLETE]
    best = (
        f"best {name} {study.best_value:.4f} (trial {study.best_trial.number})" if complete else "none reached its end"
    )
    return f"{len(ended)} of {trials} trials have ended, {len(ended) - len(complete)} early; {best}"
