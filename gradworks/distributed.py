"""This process among those that train one model together.

Each rank knows the whole keyed batch and takes `parts[rank::size]` of its micro-batches, so that m ranks are one
process with m micro-batches, bit for bit. One process is a World of size 1.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from gradworks.base.device import ASKED
from gradworks.base.errors import InputError

T = TypeVar("T")
_LONGEST = timedelta(hours=1)  # that a rank waits for another: the first writes all outputs
_CHUNK = 2**24  # elements of one message where sums are made here: bounds the copies of the other ranks' tensors


@dataclass(frozen=True)
class World:
    """This process among `size`, and what they decide together.

    Every method that communicates is a collective: all ranks call it, in the same order.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    store: dist.Store | None = field(default=None, repr=False, compare=False)

    @classmethod
    def current(cls, device: torch.device | str = "cpu") -> World:
        """The world of torchrun's environment: gloo on CPU, nccl on CUDA; a World of size 1 without torchrun.

        Raises:
            InputError: see `place`.
        """
        rank, size = place(os.environ)
        device = torch.device(device)
        if size == 1:
            return cls(device=device)
        if device.type == "cuda":
            local, there = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
            if local >= there:
                raise InputError(f"{size} processes: found {there} GPUs\nexpected one for each process")
            torch.cuda.set_device(local)
            device = torch.device("cuda", local)
        store, _, _ = next(dist.rendezvous("env://", rank, size))
        group = dist.PrefixStore("group", store)
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", store=group, rank=rank, world_size=size)
        return cls(rank, size, device, store)

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

    def same(self, step: int) -> None:
        """Raises InputError on every rank unless all have resumed from the same step: nodes fetch checkpoints each."""
        if self.size == 1:
            return
        steps = torch.zeros(self.size, dtype=torch.int64, device=self.device)
        steps[self.rank] = step
        self.sum([steps])
        if (steps != steps[0]).any():
            found = ", ".join(map(str, steps.tolist()))
            raise InputError(f"checkpoints: found those of the steps {found} on the ranks\nexpected one: start again")

    def end(self, reason: str) -> None:
        """Say why this rank goes before the others, whose next message to it fails."""
        if self.store is not None:
            self.store.set("ended", reason)

    def ended(self) -> str:
        """Why another rank has gone; empty where none said so."""
        return self.store.get("ended").decode() if self.store is not None and self.store.check(["ended"]) else ""

    def close(self) -> None:
        """Leave the group when all ranks do: what one still waits for would fail if another had gone."""
        if self.store is not None:
            self.store.set(f"closed {self.rank}", "")
            self.store.wait([f"closed {rank}" for rank in range(self.size)], _LONGEST)
            dist.destroy_process_group()


def place(environment: Mapping[str, str]) -> tuple[int, int]:
    """Rank and number of the processes, as torchrun says; (0, 1) without it.

    Raises:
        InputError: a number of processes that torchrun did not start, or nodes with different numbers of them.
    """
    size = environment.get("WORLD_SIZE", "1")
    if size == "1":
        return 0, 1
    local, rank = environment.get("LOCAL_WORLD_SIZE", ""), environment.get("RANK", "")
    if not (local.isdigit() and rank.isdigit() and size.isdigit()):
        raise InputError(f"WORLD_SIZE: found {size} without torchrun's RANK and LOCAL_WORLD_SIZE\nexpected: torchrun")
    nodes = environment.get("GROUP_WORLD_SIZE", "1")
    if int(local) * int(nodes) != int(size):
        raise InputError(
            f"WORLD_SIZE: found {size} processes, {local} of them on this node of {nodes}\n"
            "expected the same number on each node"
        )
    return int(rank), int(size)


def wanted(device: str, count: int, environment: Mapping[str, str]) -> int:
    """How many processes this one should start instead of training itself; 0 = none.

    As many as a pod asked the cluster for GPUs, or on a machine with `device: cuda` as `gpu.count` says; `auto` there
    takes one. On one of several nodes as Trainer says. What torchrun has started starts none.
    """
    if "LOCAL_WORLD_SIZE" in environment:
        return 0
    if nodes(environment) > 1:
        return int(environment["PET_NPROC_PER_NODE"])
    if device == "cpu":
        return 0
    asked = environment.get(ASKED) or (str(count) if device == "cuda" else "1")
    return int(asked) if int(asked) > 1 else 0


def nodes(environment: Mapping[str, str]) -> int:
    """How many nodes Kubeflow Trainer has started, of which this is one; 1 without it."""
    return int(environment.get("PET_NNODES") or 1)


def launch(count: int, module: str, arguments: Sequence[str], device: str = "cuda") -> None:
    """Run `python -m module` as `count` processes of this machine, each with a GPU of its own, to their end.

    On one of several nodes they are processes of one world, which Trainer's variables lead them to.

    Raises:
        InputError: torch sees fewer GPUs, and the device is `cuda` or the pod asked for some.
        SystemExit: a process failed, with its code; or this one was asked to stop, and they have stopped.
    """
    there = torch.cuda.device_count()
    if there < count and (device == "cuda" or os.environ.get(ASKED)):
        raise InputError(f"gpu.count: found {count}, but torch sees {there} GPUs\nexpected one for each process")
    torchrun(count, module, arguments)


def torchrun(count: int, module: str, arguments: Sequence[str]) -> None:
    """`torchrun --standalone`, or torchrun as Trainer's PET_ variables say; its errors are those of the processes."""
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # the processes have said what is wrong
    try:
        how = [] if nodes(os.environ) > 1 else ["--standalone"]  # else torchrun reads address, port and rank itself
        run.run(run.parse_args([*how, "--nproc-per-node", str(count), "-m", "--", module, *arguments]))
    except ChildFailedError as error:
        code = min(error.failures.values(), key=lambda one: one.timestamp).exitcode
        raise SystemExit(code if code > 0 else 128 - code) from None
    except SignalException as error:
        raise SystemExit(128 + error.sigval) from None
