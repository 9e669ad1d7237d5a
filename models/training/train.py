"""Training itself: the recipe's stages over the films, resumable at every epoch, the same from the same seed."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from firstread.models.data.film import DataError, FilmSet
from firstread.models.findings import LABELS
from firstread.models.network import ChestNetwork, load_state, state_of
from firstread.models.training.batches import Sight, made_ahead, stage_preprocessing
from firstread.models.training.checkpoint import load_checkpoint, save_checkpoint
from firstread.models.training.curves import Board, Row, write_curves
from firstread.models.training.entries import course, epoch_entries, in_batches, share
from firstread.models.training.optim import lock, optimiser_of, precision_of, scaler_of, schedule_of
from firstread.models.training.recipe import Recipe, Stage
from firstread.models.training.scoring import logits_of, watch
from firstread.models.training.start import State, network_of, take, without_rows
from firstread.models.training.steps import Setup, Stepper, outputs_of


@dataclass(frozen=True)
class Aside:
    """Films that are not learned from. ``name``: what the curves call them. ``chooses``: whether early stopping may
    look at them (films that judge the outcome must not)."""

    films: FilmSet
    name: str
    chooses: bool


def train(
    recipe: Recipe,
    films: FilmSet,
    out: Path,
    *,
    start: State | None = None,
    stages: Sequence[str] = (),
    aside: Aside | None = None,
    setup: Setup | None = None,
) -> State:
    """Run the recipe's stages over the films and return the averaged weights, auxiliary outputs cut off.

    ``start``: weights to begin with; random ones from the recipe's seed without. ``stages``: only these, by name.
    ``aside``: films to watch after every epoch, on which stages with patience are stopped. In ``out`` lie
    ``<stage>.pt`` (the checkpoint, replaced whole after every epoch; a second call goes on from it), ``curves.csv``,
    ``curves.png`` and ``tensorboard/``.

    Raises:
        NotANumber: a loss that is no number.
        DataError: a checkpoint of another recipe, a full disk.
    """
    setup = setup or Setup()
    chosen = [stage for stage in recipe.stages if not stages or stage.name in stages]
    if not chosen:
        raise DataError(f"recipe {recipe.name} has no stage named {', '.join(stages)}")
    course = _Course(recipe, films, out, aside, setup, identity_of(recipe, films, start))
    state = start
    for stage in chosen:
        state = course.run(stage, state)
    course.end()
    assert state is not None
    outputs = list(range(len(LABELS)))
    return without_rows(state, recipe.architecture(len(LABELS)), outputs) if recipe.auxiliary else state


def identity_of(recipe: Recipe, films: FilmSet, start: State | None) -> str:
    """A hash of what a checkpoint must agree with: recipe, films with their labels, first weights."""
    digest = hashlib.sha256(recipe.text.encode())
    for film in films.films:
        digest.update(f"{film.key}\0{film.patient}\0".encode() + film.target.tobytes() + film.known.tobytes())
    for name in sorted(start or {}):
        assert start is not None
        digest.update(name.encode() + np.ascontiguousarray(start[name].float().cpu().numpy()).tobytes())
    return digest.hexdigest()


@dataclass
class _Progressing:
    """Where a stage stands: what its checkpoint holds besides weights and optimiser."""

    epoch: int = 0
    best: float = -math.inf
    best_epoch: int = 0
    best_weights: State | None = None
    ended: bool = False


class _Course:
    """The stages of one training, with the history that goes through all of them."""

    def __init__(
        self, recipe: Recipe, films: FilmSet, out: Path, aside: Aside | None, setup: Setup, identity: str
    ) -> None:
        self._recipe, self._films, self._out, self._aside, self._setup = recipe, films, out, aside, setup
        self._identity = identity
        self._precision = precision_of(recipe, setup.ranks.device)
        self._rows: list[Row] = []
        self._board: Board | None = None
        out.mkdir(parents=True, exist_ok=True)

    def run(self, stage: Stage, start: State | None) -> State:
        """One stage, from its checkpoint if there is one; returns the weights it hands on."""
        recipe, ranks = self._recipe, self._setup.ranks
        network = network_of(recipe, len(outputs_of(recipe)), stage)
        if start is not None:
            take(network, start, outputs_of(recipe), "the first weights")
        network = network.to(device=ranks.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        lock(network, stage)
        if ranks.world > 1 and ranks.device.type == "cuda":
            network = torch.nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        average = {name: tensor.detach().clone() for name, tensor in state_of(network).items()}
        per_epoch = len(in_batches(epoch_entries(recipe, stage, self._films.films, 0), stage.batch, ranks.world))
        optimiser = optimiser_of(recipe, stage, network)
        schedule = schedule_of(stage, optimiser, per_epoch)
        scaler = scaler_of(ranks.device, self._precision)
        parts = {"optimiser": optimiser, "schedule": schedule, "scaler": scaler}
        at = self._resume(stage, network, average, parts)
        if at.epoch < stage.epochs and not at.ended:
            stepper = Stepper(recipe, stage, self._films, network, average, optimiser, schedule, scaler, self._setup)
            stepper.step = at.epoch * per_epoch
            self._epochs(stage, stepper, network, average, parts, at)
        handed = at.best_weights if stage.patience and at.best_weights is not None else average
        return {name: tensor.detach().cpu().clone() for name, tensor in handed.items()}

    def end(self) -> None:
        """Close what is open."""
        if self._board is not None:
            self._board.close()

    def _epochs(
        self,
        stage: Stage,
        stepper: Stepper,
        network: ChestNetwork,
        average: State,
        parts: dict[str, Any],
        at: _Progressing,
    ) -> None:
        recipe, ranks, setup = self._recipe, self._setup.ranks, self._setup
        sight = Sight(recipe, stage, self._films)
        batches = course(recipe, stage, self._films.films, at.epoch, ranks.world)
        own = (share(batch, ranks.rank, ranks.world) for batch in batches)
        with closing(made_ahead(sight, own, setup.workers, pin=ranks.device.type == "cuda")) as stream:  # type: ignore[type-var]
            while at.epoch < stage.epochs and not at.ended:
                row = stepper.epoch(at.epoch, stream)
                row |= self._watched(stage, network, average, at)
                at.epoch += 1
                self._rows.append(row)
                if ranks.leads:
                    self._keep(stage, network, average, parts, at)
                    setup.say(_sentence(row, stage.epochs, self._aside, setup.profile))
                ranks.wait()
                if setup.on_epoch is not None:
                    setup.on_epoch(row)
        if at.ended and ranks.leads:
            setup.say(
                f"stage {stage.name} ends: no better {recipe.stop_on} in {stage.patience} epochs; "
                f"the weights of epoch {at.best_epoch} go on"
            )

    def _watched(self, stage: Stage, network: ChestNetwork, average: State, at: _Progressing) -> Row:
        """The averaged weights asked about the films kept aside; notes the best epoch so far."""
        if self._aside is None or len(self._aside.films) == 0:
            return {}
        recipe, ranks = self._recipe, self._setup.ranks
        ranks.lead(average)
        asked = network_of(recipe, len(outputs_of(recipe)), stage)
        load_state(asked, average)
        asked = asked.to(device=ranks.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        logits = logits_of(
            asked,
            self._aside.films,
            stage_preprocessing(recipe, stage),
            batch=stage.batch,
            ranks=ranks,
            workers=self._setup.workers,
        )
        found = watch(self._aside.films.films, logits, recipe.loss == "softmax")
        row: Row = {"watched_loss": found.loss, "auroc": found.figure("auroc")}
        row |= {f"auroc.{label}": value for label, value in found.auroc.items()}
        if stage.patience and self._aside.chooses:
            figure = found.figure(recipe.stop_on)
            if math.isnan(figure):
                raise DataError(
                    f"stage {stage.name}: {recipe.stop_on} cannot be measured on the {len(self._aside.films)} films "
                    "kept aside (none with it, or none without): set validation higher, or another stop_on"
                )
            if figure > at.best:
                at.best, at.best_epoch = figure, at.epoch + 1
                at.best_weights = {name: tensor.detach().cpu().clone() for name, tensor in average.items()}
            at.ended = at.epoch + 1 - at.best_epoch >= stage.patience
        return row

    def _keep(
        self, stage: Stage, network: ChestNetwork, average: State, parts: dict[str, Any], at: _Progressing
    ) -> None:
        """Checkpoint first, then the curves: what is shown was kept."""
        saved = {
            "identity": self._identity,
            "recipe": self._recipe.text,
            "stage": stage.name,
            "epoch": at.epoch,
            "state_dict": {name: tensor.cpu() for name, tensor in average.items()},
            "network": network.state_dict(),
            "rows": self._rows,
            "best": {"figure": at.best, "epoch": at.best_epoch, "weights": at.best_weights, "ended": at.ended},
            **{name: part.state_dict() for name, part in parts.items()},
        }
        save_checkpoint(saved, self._out / f"{stage.name}.pt")
        write_curves(self._out, self._rows, self._aside.name if self._aside else "films kept aside")
        if self._board is None:
            self._board = Board(self._out, self._rows[:-1])
        self._board.add(len(self._rows), self._rows[-1])

    def _resume(self, stage: Stage, network: ChestNetwork, average: State, parts: dict[str, Any]) -> _Progressing:
        path = self._out / f"{stage.name}.pt"
        saved = load_checkpoint(path, self._recipe.text, stage.name)
        if saved is None:
            return _Progressing()
        if saved["identity"] != self._identity:
            raise DataError(f"{path} was made with other films or first weights: give another --out or remove it")
        network.load_state_dict(saved["network"])
        for name, tensor in saved["state_dict"].items():
            average[name].copy_(tensor)
        for name, part in parts.items():
            part.load_state_dict(saved[name])
        known, self._rows = len(self._rows), list(saved["rows"])
        for row in self._rows[known:]:
            if self._setup.on_epoch is not None:
                self._setup.on_epoch(row)
        best = saved["best"]
        return _Progressing(saved["epoch"], best["figure"], best["epoch"], best["weights"], best["ended"])


def _sentence(row: Row, epochs: int, aside: Aside | None, profile: bool) -> str:
    watched = ""
    if aside is not None and math.isfinite(float(row.get("auroc", math.nan))):
        watched = f", mean AUROC {row['auroc']:.3f} on {aside.name}"
    waiting = f", {100 * float(row['waiting']):.1f} % of it waiting for films" if profile else ""
    return (
        f"{row['stage']} {row['epoch']}/{epochs}: loss {row['loss']:.4f}{watched}, "
        f"{row['films_per_second']:.1f} films/s{waiting}"
    )
