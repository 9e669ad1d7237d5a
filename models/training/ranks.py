"""Several processes, one per GPU, that learn together: as torchrun starts them. Alone, everything here is a no-op."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as distributed
from torch import Tensor

from firstread.models.data.film import DataError

PATIENCE = timedelta(hours=12)
"""How long the others wait while one reads films, draws phantoms or writes: NIH's release takes hours to decode."""


@dataclass(frozen=True)
class Ranks:
    """This process among ``world`` of them. Only the one that leads writes files and speaks."""

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def leads(self) -> bool:
        """Whether this process writes."""
        return self.rank == 0

    def wait(self) -> None:
        """Until every process is here."""
        if self.world > 1:
            distributed.barrier()

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, in place."""
        if self.world > 1:
            distributed.all_reduce(tensor)
        return tensor

    def gathered(self, own: Any) -> list[Any]:
        """What each process has, in order, at every one of them."""
        if self.world == 1:
            return [own]
        found: list[Any] = [None] * self.world
        distributed.all_gather_object(found, own)
        return found

    def lead(self, tensors: Mapping[str, Tensor]) -> None:
        """Every process takes over the first one's tensors, in place."""
        if self.world > 1:
            for tensor in tensors.values():
                distributed.broadcast(tensor, 0)

    def leave(self) -> None:
        """The end of learning together."""
        if self.world > 1:
            distributed.destroy_process_group()


def join(device: str = "auto") -> Ranks:
    """This process's place, as torchrun says it in the environment (RANK, LOCAL_RANK, WORLD_SIZE).

    ``device``: ``auto`` (a GPU when there is one), ``cpu``, ``cuda`` or ``cuda:1``.

    Raises:
        DataError: there is no such device.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_RANK", "0"))
    where = _device(device, local, world)
    if world == 1:
        return Ranks(device=where)
    if where.type == "cuda":
        torch.cuda.set_device(where)
    distributed.init_process_group("nccl" if where.type == "cuda" else "gloo", timeout=PATIENCE)
    return Ranks(distributed.get_rank(), world, where)


def _device(name: str, local: int, world: int) -> torch.device:
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if name != "auto" and not (name == "cuda" or (name.startswith("cuda:") and name[5:].isdigit())):
        raise DataError(f"device {name!r} is unknown: use auto, cpu, cuda or cuda:N")
    if not torch.cuda.is_available():
        raise DataError(f"device {name} was asked for, and torch finds no GPU here: use --device cpu or auto")
    number = int(name[5:]) if name.startswith("cuda:") and world == 1 else local
    if number >= torch.cuda.device_count():
        raise DataError(f"there is no GPU number {number}: this machine has {torch.cuda.device_count()}")
    return torch.device("cuda", number)
