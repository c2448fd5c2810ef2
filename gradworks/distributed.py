"""This process among those that train one model together.

Each rank knows the whole keyed batch and takes `parts[rank::size]` of its micro-batches, so that m ranks are one
process with m micro-batches, bit for bit. One process is a World of size 1.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from gradworks.base.errors import InputError

T = TypeVar("T")
_CHUNK = 2**24  # elements of one message where sums are made here: bounds the copies of the other ranks' tensors


@dataclass(frozen=True)
class World:
    """This process among `size`, and what they decide together.

    Every method that communicates is a collective: all ranks call it, in the same order.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @classmethod
    def current(cls, device: torch.device | str = "cpu") -> World:
        """The world of torchrun's environment: gloo on CPU, nccl on CUDA; a World of size 1 without torchrun.

        Raises:
            InputError: see `place`.
        """
        rank, size = place(os.environ)
        device = torch.device(device)
        if size > 1 and not dist.is_initialized():
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo", rank=rank, world_size=size)
        return cls(rank, size, device)

    @property
    def first(self) -> bool:
        """Whether this rank writes."""
        return self.rank == 0

    def mine(self, parts: Sequence[T]) -> list[T]:
        """Which micro-batches of a batch are this rank's."""
        return list(parts[self.rank :: self.size])

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Sum over ranks, in place, and in the order of the ranks: as one process adds its micro-batches."""
        if self.size == 1:
            return
        for kind in dict.fromkeys(t.dtype for t in tensors):
            some = [t for t in tensors if t.dtype == kind]
            flat = torch.cat([t.reshape(-1) for t in some])
            for chunk in flat.split(_CHUNK):
                self._sum(chunk)
            for t, part in zip(some, flat.split([t.numel() for t in some]), strict=True):
                t.copy_(part.view_as(t))

    def _sum(self, flat: Tensor) -> None:
        if self.size == 2:  # a + b is b + a
            dist.all_reduce(flat)
            return
        parts = [torch.empty_like(flat) for _ in range(self.size)]
        dist.all_gather(parts, flat)
        flat.copy_(parts[0])
        for part in parts[1:]:
            flat += part

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any rank."""
        if self.size == 1:
            return flag
        self.sum([found := torch.tensor(float(flag), device=self.device)])
        return bool(found > 0)

    def close(self) -> None:
        """Leave the group; nothing in a World of size 1."""
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()


def place(environment: Mapping[str, str]) -> tuple[int, int]:
    """Rank and number of the processes, as torchrun says; (0, 1) without it.

    Raises:
        InputError: several nodes, or a number of processes that torchrun did not start.
    """
    size = environment.get("WORLD_SIZE", "1")
    if size == "1":
        return 0, 1
    local, rank = environment.get("LOCAL_WORLD_SIZE"), environment.get("RANK", "")
    if local is None or not (rank.isdigit() and size.isdigit()):
        raise InputError(f"WORLD_SIZE: found {size} without torchrun's RANK and LOCAL_WORLD_SIZE\nexpected: torchrun")
    if local != size:
        raise InputError(
            f"WORLD_SIZE: found {size} processes, {local} of them on this node\n"
            "expected all on one node: several nodes are not supported"
        )
    return int(rank), int(size)
