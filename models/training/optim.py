"""How weights move: which of them, by which optimiser, how fast, and in which precision."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn

from firstread.models.network import ChestNetwork
from firstread.models.training.recipe import Recipe, Stage

_ORDER = ("layer1", "layer2", "layer3", "layer4", "fc")
_LOWEST = {"head": "fc", "layer4": "layer4", "layer3": "layer3", "layer2": "layer2"}


def lock(network: ChestNetwork, stage: Stage) -> None:
    """Training mode, with what the stage does not train locked: no gradient, batch normalisation as in service."""
    network.train()
    for part in locked_parts(network, stage):
        part.eval()
        for parameter in part.parameters():
            parameter.requires_grad_(False)


def locked_parts(network: ChestNetwork, stage: Stage) -> list[nn.Module]:
    """The parts of the backbone that the stage leaves as they are."""
    if stage.trains == "all":
        return []
    net = network.resnet
    below = _ORDER[: _ORDER.index(_LOWEST[stage.trains])]
    return [net.conv1, net.bn1, *(getattr(net, name) for name in below)]


def optimiser_of(recipe: Recipe, stage: Stage, network: ChestNetwork) -> torch.optim.Optimizer:
    """The optimiser over what the stage trains: the head at its rate, the backbone at its share of it; kernels decay,
    biases and batch normalisation do not."""
    groups: list[dict[str, Any]] = []
    for share, parameters in ((1.0, list(_head(network))), (stage.backbone_rate, list(_backbone(network)))):
        for decay, chosen in (
            (stage.weight_decay, [p for p in parameters if p.ndim > 1]),
            (0.0, [p for p in parameters if p.ndim <= 1]),
        ):
            if chosen and share > 0:
                groups.append({"params": chosen, "weight_decay": decay, "lr": stage.rate * share})
    if recipe.optimiser == "rmsprop":
        # Keras's defaults, which are not torch's (0.99 and 1e-8).
        return torch.optim.RMSprop(groups, lr=stage.rate, alpha=0.9, eps=1e-7)
    return torch.optim.AdamW(groups, lr=stage.rate)


def schedule_of(stage: Stage, optimiser: torch.optim.Optimizer, per_epoch: int) -> torch.optim.lr_scheduler.LRScheduler:
    """How the rate goes over the stage's steps."""
    if stage.schedule == "constant":
        return torch.optim.lr_scheduler.ConstantLR(optimiser, factor=1.0, total_iters=0)
    steps = per_epoch * stage.epochs + 1
    warm = max(0.25, 2 / steps)  # the scheduler divides by the length of the rise less one
    peaks = [float(group["lr"]) for group in optimiser.param_groups]
    return torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=peaks, total_steps=steps, pct_start=warm)


def precision_of(recipe: Recipe, device: torch.device) -> torch.dtype:
    """The precision of the network's arithmetic: weights and their average stay in float32.

    bfloat16 is twice as fast on a processor that has it; float16 needs its loss scaled (see ``scaler_of``).
    """
    if recipe.precision != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[recipe.precision]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else torch.float32


def autocast(device: torch.device, precision: torch.dtype) -> Any:
    """The context in which the network answers."""
    return nullcontext() if precision is torch.float32 else torch.autocast(device.type, precision)


def scaler_of(device: torch.device, precision: torch.dtype) -> torch.amp.GradScaler:
    """Scales the loss where float16's small gradients would vanish; does nothing in other precisions."""
    return torch.amp.GradScaler(device.type, enabled=precision is torch.float16)


def _head(network: ChestNetwork) -> Iterator[nn.Parameter]:
    parts = [network.resnet.fc, *([network.metadata] if network.metadata is not None else [])]
    return (p for part in parts for p in part.parameters() if p.requires_grad)


def _backbone(network: ChestNetwork) -> Iterator[nn.Parameter]:
    head = {id(p) for p in _head(network)}
    return (p for p in network.parameters() if p.requires_grad and id(p) not in head)
