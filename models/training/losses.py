"""What a batch's answers cost: per label or per class, rare ones heavier, and maps that point beside their lesion."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from firstread.models.training.batches import Batch
from firstread.models.training.ranks import Ranks


@dataclass(frozen=True)
class Loss:
    """``kind``: ``sigmoid`` or ``softmax``. ``balance``: what a positive weighs per output [L]. ``pointing``: weight of
    the demand on the maps."""

    kind: str
    balance: Tensor
    pointing: float = 0.0

    def __call__(self, logits: Tensor, activations: Tensor | None, batch: Batch, ranks: Ranks) -> Tensor:
        """The batch's loss, as if all processes' films were in one batch: their gradients are averaged afterwards."""
        logits = logits.float()
        if self.kind == "softmax":
            errors = -(batch.targets * torch.log_softmax(logits, dim=1) * self.balance).sum(dim=1)
            total = batch.targets.sum()  # as Keras has it: the mean over entries of weight times error
        else:
            errors = functional.binary_cross_entropy_with_logits(
                logits, batch.targets, weight=batch.weights, pos_weight=self.balance, reduction="none"
            )
            total = batch.weights.sum()
        loss = errors.sum() / mean_over(total, ranks)
        if self.pointing > 0 and activations is not None:
            loss = loss + self.pointing * astray(activations[:, : batch.cells.shape[1]].float(), batch.cells, ranks)
        return loss


def mean_over(total: Tensor, ranks: Ranks) -> Tensor:
    """The mean of a positive quantity over all processes, never 0."""
    return ranks.sum(total.detach().clone()).clamp_min(1e-6) / ranks.world


def astray(activations: Tensor, cells: Tensor, ranks: Ranks) -> Tensor:
    """How far the maps of placed lesions point elsewhere: minus the log of the softmax mass on the lesion's cells."""
    placed = cells.flatten(2).sum(dim=2) > 0
    number = ranks.sum(placed.sum().float()) / ranks.world
    if not bool(placed.any()):
        return activations.sum() * 0.0
    mass = torch.log_softmax(activations.flatten(2)[placed], dim=1)
    on_lesion = cells.flatten(2)[placed] > 0
    return -torch.logsumexp(mass.masked_fill(~on_lesion, float("-inf")), dim=1).sum() / number
