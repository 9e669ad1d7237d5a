"""Training itself: stages of AdamW with a one-cycle rate, resumable at every epoch, the same from the same seed."""

from __future__ import annotations

import csv
import math
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from firstread.models.architecture import Architecture
from firstread.models.data.film import FilmSet
from firstread.models.findings import LABELS
from firstread.models.network import ChestNetwork, load_state, state_of
from firstread.models.prediction import Box
from firstread.models.preprocess import place, prepare
from firstread.models.training.augment import vary
from firstread.models.training.dataset import TrainingDataError
from firstread.models.training.recipe import Recipe, Stage

State = dict[str, Tensor]


@dataclass(frozen=True)
class Batch:
    """Squares [N, S, S], targets [N, L], loss weights [N, L] (0 where a label is unknown) and, for each lesion whose
    place is known, the cells [N, L, h, w] of the activation map that it covers (all 0 elsewhere)."""

    squares: Tensor
    targets: Tensor
    weights: Tensor
    cells: Tensor


def train(
    recipe: Recipe, films: FilmSet, out: Path, *, start: State | None = None, stages: Sequence[str] = ()
) -> State:
    """Run the recipe's stages over the films and return the averaged weights.

    ``start``: weights to begin with; random ones from the recipe's seed without. ``stages``: only these, by name.
    In ``out`` lie ``<stage>.pt`` (the checkpoint, replaced whole after every epoch; a second call goes on from it) and
    ``losses.csv``.

    Raises:
        TrainingDataError: a loss that is no number, a checkpoint of another recipe, a full disk.
    """
    out.mkdir(parents=True, exist_ok=True)
    state = start
    for stage in recipe.stages:
        if not stages or stage.name in stages:
            state = _train_stage(recipe, stage, films, out, state)
    if state is None:
        raise TrainingDataError(f"recipe {recipe.name} has no stage named {', '.join(stages)}")
    return state


def device_of_choice() -> torch.device:
    """The GPU when there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def architecture_of(recipe: Recipe) -> Architecture:
    """The network that the recipe trains and its bundle serves."""
    return Architecture(outputs=len(LABELS), dilate_last=recipe.dilate_last, pooling=recipe.pooling)


def network_of(recipe: Recipe) -> ChestNetwork:
    """The recipe's network with random weights from its seed."""
    torch.manual_seed(recipe.seed)
    return ChestNetwork(architecture_of(recipe))


def _train_stage(recipe: Recipe, stage: Stage, films: FilmSet, out: Path, start: State | None) -> State:
    device = device_of_choice()
    network = network_of(recipe)
    if start is not None:
        load_state(network, start)
    network = network.to(device=device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    average = {name: tensor.detach().clone() for name, tensor in state_of(network).items()}
    per_epoch = math.ceil(len(_order(recipe, stage, films, 0)) / stage.batch)
    optimiser = torch.optim.AdamW(_groups(network, stage.weight_decay), lr=stage.rate)
    steps = per_epoch * stage.epochs + 1
    warm = max(0.25, 2 / steps)  # the scheduler divides by the length of the rise less one
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=stage.rate, total_steps=steps, pct_start=warm)
    checkpoint = out / f"{stage.name}.pt"
    begun = _resume(checkpoint, recipe, stage, network, average, optimiser, cycle)
    step = begun * per_epoch
    for epoch in range(begun, stage.epochs):
        started, losses = time.monotonic(), []
        for batch in _batches(recipe, stage, films, epoch):
            loss = _step(network, batch, optimiser, device, stage.pointing)
            if not math.isfinite(loss):
                raise TrainingDataError(f"stage {stage.name}, epoch {epoch + 1}: the loss is {loss}: lower the rate")
            cycle.step()
            step += 1
            _blend(average, network, min(stage.average, (1 + step) / (10 + step)))
            losses.append(loss)
        seconds = time.monotonic() - started
        _note(out / "losses.csv", stage.name, epoch + 1, float(np.mean(losses)), len(losses) * stage.batch / seconds)
        saved = {"recipe": recipe.text, "stage": stage.name, "epoch": epoch + 1, "network": network.state_dict()}
        saved |= {"average": average, "optimiser": optimiser.state_dict(), "cycle": cycle.state_dict()}
        _save(saved, checkpoint)
    return {name: tensor.cpu() for name, tensor in average.items()}


def _groups(network: ChestNetwork, weight_decay: float) -> list[dict[str, Any]]:
    """Weights decay; biases and batch normalisation do not."""
    decayed = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def _order(recipe: Recipe, stage: Stage, films: FilmSet, epoch: int) -> npt.NDArray[np.int64]:
    """Which films an epoch sees, in order: every real one once and as many phantoms as the stage says."""
    rng = np.random.default_rng([recipe.seed, epoch])
    phantoms = np.array([i for i, film in enumerate(films.films) if film.phantom], np.int64)
    real = np.array([i for i, film in enumerate(films.films) if not film.phantom], np.int64)
    chosen = rng.permutation(phantoms)[: stage.phantoms_per_epoch]
    if stage.films == "all":
        chosen = np.concatenate([chosen, real])
    if len(chosen) < 2:
        raise TrainingDataError(f"stage {stage.name} has no films to learn from: give --nih-images or more phantoms")
    return rng.permutation(chosen)


def _batches(recipe: Recipe, stage: Stage, films: FilmSet, epoch: int) -> Iterator[Batch]:
    """An epoch's batches, the next one made while the network works on this one."""
    order = _order(recipe, stage, films, epoch)
    chunks = [order[i : i + stage.batch] for i in range(0, len(order), stage.batch)]
    chunks = [chunk for chunk in chunks if len(chunk) > 1]  # batch normalisation needs two
    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(_batch, recipe, stage, films, epoch, chunks[0])
        for following in [*chunks[1:], None]:
            batch = ahead.result()
            if following is not None:
                ahead = pool.submit(_batch, recipe, stage, films, epoch, following)
            yield batch


def _batch(recipe: Recipe, stage: Stage, films: FilmSet, epoch: int, chunk: npt.NDArray[np.int64]) -> Batch:
    preprocessing = recipe.preprocessing
    if stage.input_size is not None:
        preprocessing = replace(preprocessing, input_size=stage.input_size)
    stride = architecture_of(recipe).stride
    side = -(-preprocessing.input_size // stride)
    squares, targets, weights, cells = [], [], [], []
    for index in chunk:
        film = films.films[index]
        rng = np.random.default_rng([recipe.seed, epoch, int(index)])
        augmentation = recipe.augmentation_phantoms if film.phantom else recipe.augmentation
        varied = vary(films.image(int(index)), rng, augmentation)
        placement = place(varied.image, preprocessing)
        squares.append(prepare(varied.image, preprocessing, placement))
        smoothing = 0.0 if film.phantom else stage.smoothing
        targets.append(film.target * (1 - smoothing) + smoothing / 2)
        weights.append(film.known)
        covered = np.zeros((len(LABELS), side, side), np.float32)
        for label, box in film.boxes.items():
            covered[LABELS.index(label)] = _cells(placement.to_square(varied.follow(box)), side, stride)
        cells.append(covered)
    return Batch(*(torch.from_numpy(np.stack(part)) for part in (squares, targets, weights, cells)))


def _cells(box: Box, side: int, stride: int) -> npt.NDArray[np.float32]:
    """The cells [h, w] of an activation map that a box covers by a third or more, or the one it covers most."""
    edges = np.arange(side) * stride
    across = np.clip(np.minimum(box.right, edges + stride) - np.maximum(box.left, edges), 0, None)
    down = np.clip(np.minimum(box.bottom, edges + stride) - np.maximum(box.top, edges), 0, None)
    share = down[:, None] * across[None, :] / stride**2
    if share.max() <= 0:  # moved out of the film
        return np.zeros((side, side), np.float32)
    return np.asarray(share >= min(1 / 3, share.max()), np.float32)


def _step(
    network: ChestNetwork, batch: Batch, optimiser: torch.optim.Optimizer, device: torch.device, pointing: float
) -> float:
    optimiser.zero_grad(set_to_none=True)
    with _precision(device):
        logits, activations = network(batch.squares.to(device))
    errors = torch.nn.functional.binary_cross_entropy_with_logits(
        logits.float(), batch.targets.to(device), reduction="none"
    )
    weights = batch.weights.to(device)
    loss = (errors * weights).sum() / weights.sum()
    if pointing > 0:
        loss = loss + pointing * _astray(activations.float(), batch.cells.to(device))
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
    optimiser.step()
    return float(loss.detach())


def _astray(activations: Tensor, cells: Tensor) -> Tensor:
    """How far the maps of placed lesions point elsewhere: minus the log of the softmax mass on the lesion's cells."""
    placed = cells.flatten(2).sum(dim=2) > 0
    if not bool(placed.any()):
        return activations.new_zeros(())
    mass = torch.log_softmax(activations.flatten(2)[placed], dim=1)
    covered = cells.flatten(2)[placed] > 0
    return -torch.logsumexp(mass.masked_fill(~covered, float("-inf")), dim=1).mean()


def _precision(device: torch.device) -> Any:
    """bfloat16 where the processor has it: twice as fast, and the moving average stays in float32."""
    if device.type == "cuda" or torch.cpu._is_avx512_bf16_supported():
        return torch.autocast(device.type, torch.bfloat16)
    return nullcontext()


def _blend(average: State, network: ChestNetwork, decay: float) -> None:
    with torch.no_grad():
        for name, tensor in state_of(network).items():
            average[name].lerp_(tensor.to(average[name].dtype), 1 - decay)


def _resume(path: Path, recipe: Recipe, stage: Stage, network: ChestNetwork, average: State, *parts: Any) -> int:
    """Take up a checkpoint; returns the number of epochs already done."""
    if not path.is_file():
        return 0
    saved = torch.load(path, map_location="cpu", weights_only=True)
    if saved["recipe"] != recipe.text or saved["stage"] != stage.name:
        raise TrainingDataError(f"{path} is the checkpoint of another recipe: give another --out or remove it")
    network.load_state_dict(saved["network"])
    for name, tensor in saved["average"].items():
        average[name].copy_(tensor)
    for part, name in zip(parts, ("optimiser", "cycle"), strict=True):
        part.load_state_dict(saved[name])
    return int(saved["epoch"])


def _save(saved: dict[str, Any], path: Path) -> None:
    """Replace a checkpoint whole: a full disk or a kill leaves the one before."""
    partial = path.with_suffix(".partial")
    try:
        with partial.open("wb") as stream:
            torch.save(saved, stream)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise TrainingDataError(f"{path} could not be written ({error}): make room; the one before is kept") from error
    partial.replace(path)


def _note(path: Path, stage: str, epoch: int, loss: float, rate: float) -> None:
    first = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        if first:
            writer.writerow(["stage", "epoch", "loss", "films_per_second"])
        writer.writerow([stage, epoch, f"{loss:.8f}", f"{rate:.1f}"])
