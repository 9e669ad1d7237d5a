"""The steps of a stage, an epoch at a time: loss, gradient, moving average, and how long films were waited for."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch.nn.parallel import DistributedDataParallel

from firstread.models.data.film import DataError, FilmSet
from firstread.models.findings import LABELS
from firstread.models.network import ChestNetwork, state_of
from firstread.models.training.batches import Batch
from firstread.models.training.curves import Row
from firstread.models.training.entries import epoch_entries, in_batches, label_balance
from firstread.models.training.losses import Loss
from firstread.models.training.optim import autocast, lock, precision_of
from firstread.models.training.progress import Progress, Say, to_stderr
from firstread.models.training.ranks import Ranks
from firstread.models.training.recipe import Recipe, Stage
from firstread.models.training.start import State

LONGEST_STEP = 5.0
"""Gradients are cut to this norm."""


class NotANumber(DataError):
    """The loss is no number any more: the rate is too high for this recipe."""


@dataclass(frozen=True)
class Setup:
    """What does not decide the outcome: on which machine, in how many processes, what is said meanwhile.

    ``workers``: processes that make batches (0: a thread). ``profile``: say after each epoch how long the network
    waited for films. ``on_epoch``: told each epoch's figures, those of a resumed training again; may raise to end
    the training there.
    """

    ranks: Ranks = field(default_factory=Ranks)
    workers: int = 0
    say: Say = to_stderr
    profile: bool = False
    on_epoch: Callable[[Row], None] | None = None


def outputs_of(recipe: Recipe) -> tuple[str, ...]:
    """What the network's outputs mean while it is trained."""
    return (*LABELS, *recipe.auxiliary)


class Stepper:
    """The steps of a stage, an epoch at a time."""

    def __init__(
        self,
        recipe: Recipe,
        stage: Stage,
        films: FilmSet,
        network: ChestNetwork,
        average: State,
        optimiser: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LRScheduler,
        scaler: torch.amp.GradScaler,
        setup: Setup,
    ) -> None:
        self._recipe, self._stage, self._films, self._setup = recipe, stage, films, setup
        self._network, self._average = network, average
        self._optimiser, self._schedule, self._scaler = optimiser, schedule, scaler
        self._precision = precision_of(recipe, setup.ranks.device)
        self._model: torch.nn.Module = network
        if setup.ranks.world > 1:
            self._model = DistributedDataParallel(network)
        balance = torch.ones(len(outputs_of(recipe)))
        balance[: len(LABELS)] = torch.from_numpy(label_balance(recipe, films.films))
        self._loss = Loss(recipe.loss, balance.to(setup.ranks.device), stage.pointing)
        self.step = 0

    def epoch(self, epoch: int, stream: Iterator[Batch]) -> Row:
        """One pass over the films; returns what is to be noted of it.

        Raises:
            NotANumber: the loss is no number.
        """
        recipe, stage, ranks = self._recipe, self._stage, self._setup.ranks
        lock(self._network, stage)
        sizes = [
            len(b) for b in in_batches(epoch_entries(recipe, stage, self._films.films, epoch), stage.batch, ranks.world)
        ]
        title = f"{stage.name} {epoch + 1}/{stage.epochs}"
        losses: list[float] = []
        waited, begun = 0.0, time.monotonic()
        with Progress(title, sum(sizes), self._setup.say, shown=ranks.leads) as progress:
            for size in sizes:
                before = time.monotonic()
                batch = next(stream)
                waited += time.monotonic() - before
                loss = self._fitting(batch)
                if not math.isfinite(loss):
                    raise NotANumber(self._not_a_number(epoch, len(losses) + 1, loss))
                losses.append(loss)
                progress.advance(size, loss)
        seconds = max(time.monotonic() - begun, 1e-9)
        return {
            "stage": stage.name,
            "epoch": epoch + 1,
            "step": self.step,
            "loss": float(np.mean(losses)),
            "rate": float(self._optimiser.param_groups[0]["lr"]),
            "films": sum(sizes),
            "films_per_second": sum(sizes) / seconds,
            "waiting": waited / seconds,
        }

    def _fitting(self, batch: Batch) -> float:
        """A step; a batch that the device cannot hold is a sentence (halving it silently would change the outcome)."""
        try:
            return self._learn(batch.to(self._setup.ranks.device))
        except torch.OutOfMemoryError as error:
            stage = self._stage
            raise DataError(
                f"stage {stage.name}: the device has no memory for a batch of {stage.batch} squares of "
                f"{batch.squares.shape[-1]} px: --set stage.{stage.name}.batch={max(2, stage.batch // 2)}, and another "
                "--out"
            ) from error

    def _learn(self, batch: Batch) -> float:
        ranks = self._setup.ranks
        self._optimiser.zero_grad(set_to_none=True)
        with autocast(ranks.device, self._precision):
            logits, activations = self._model(batch.squares, batch.metadata)
        loss = self._loss(logits, activations, batch, ranks)
        shown = float(ranks.sum(loss.detach().clone()) / ranks.world)
        if not math.isfinite(shown):
            return shown  # nothing is moved by it
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self._scaler.unscale_(self._optimiser)
        torch.nn.utils.clip_grad_norm_([p for p in self._network.parameters() if p.requires_grad], LONGEST_STEP)
        self._scaler.step(self._optimiser)
        self._scaler.update()
        self._schedule.step()
        self.step += 1
        _blend(self._average, self._network, min(self._stage.average, (1 + self.step) / (10 + self.step)))
        return shown

    def _not_a_number(self, epoch: int, step: int, loss: float) -> str:
        name = self._stage.name
        kept = f"the checkpoint of epoch {epoch} is kept" if epoch else "no epoch of this stage was kept"
        return (
            f"stage {name}, epoch {epoch + 1}, step {step}: the loss is {loss}; {kept}. Lower the rate "
            f"(--set stage.{name}.rate={self._stage.rate / 3:.0e}) or set precision=float32, and give another --out"
        )


def _blend(average: State, network: ChestNetwork, decay: float) -> None:
    with torch.no_grad():
        for name, tensor in state_of(network).items():
            average[name].lerp_(tensor.to(average[name].dtype), 1 - decay)
