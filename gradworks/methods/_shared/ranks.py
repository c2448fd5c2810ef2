"""This process among those over which a method sums: its micro-batches, and what all of them say of a step."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from gradworks.spec import Drawn, Reduce, Sum

T = TypeVar("T")
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by bytes of an element


def required(clean: Drawn, index: int) -> Drawn:
    """The clean batch beside a batch of the step; raises ValueError where there is none."""
    if not clean:
        raise ValueError(
            f"clean: found no clean batch beside batch {index} of the step, whose weighting needs one now\n"
            "expected one where `Method.clean_for` says so just before the step, and where what is trained changes"
        )
    return clean


class Ranks:
    """Called with a list of tensors, it sums them over ranks, in place.

    Args:
        reduce: sums a list of tensors over ranks, in place; None = one process.
        rank: of this process.
        size: how many ranks share each batch, all of which they know; None = each knows its own micro-batches only.
    """

    def __init__(self, reduce: Reduce | None = None, rank: int = 0, size: int | None = None):
        self._reduce, self.rank, self.size = reduce, rank, size

    @property
    def together(self) -> bool:
        """Whether several ranks know each batch, and report of all of it."""
        return self._reduce is not None and self.size is not None

    @property
    def alone(self) -> bool:
        """Whether there is one process."""
        return self._reduce is None

    def __call__(self, tensors: list[Tensor]) -> None:
        if self._reduce is not None:
            self._reduce(tensors)

    def mine(self, parts: Sequence[T]) -> list[T]:
        """Which micro-batches of a whole batch are this rank's."""
        return list(parts[self.rank :: self.size])

    def divide(self, batches: Sequence[Sequence[Any]]) -> bool:
        """Whether each batch has as many micro-batches for every rank."""
        return all(len(drawn) % self.size == 0 for drawn in batches)

    def number(self, micro: int, of: int) -> int:
        """Which micro-batch of the whole batch is the one of this number among the `of` of this rank."""
        return self.rank * of + micro if self.size is None else micro * self.size + self.rank

    def gather(self, parts: Sequence[Tensor]) -> list[Tensor]:
        """What there is for each micro-batch of a batch, to the bit and in their order: `together`, of all ranks.

        Args:
            parts: (n, ...) for each micro-batch of this rank; n may differ, the rest and the type may not.
        """
        if not self.together:
            return list(parts)
        device, kind, rest = parts[0].device, parts[0].dtype, parts[0].shape[1:]
        count = self.size * len(parts)
        places = range(self.rank, count, self.size)
        lengths = torch.zeros(count, dtype=torch.int64, device=device)
        lengths[list(places)] = torch.tensor([len(part) for part in parts], device=device)
        self([lengths])
        # sums of bits, not of values: -0 and every nan stay what they are
        whole = [torch.zeros(n, *rest, dtype=_BITS[kind.itemsize], device=device) for n in lengths.tolist()]
        for place, part in zip(places, parts, strict=True):
            whole[place] = part.detach().contiguous().view(_BITS[kind.itemsize]).clone()
        self(whole)
        return [t.view(kind) for t in whole]

    def gather_values(self, rows: Sequence[Any], device: torch.device) -> list[Any]:
        """`gather` of values that JSON can hold, one for each micro-batch of this rank."""
        if not self.together:
            return list(rows)
        texts = [torch.tensor(list(json.dumps(row).encode()), dtype=torch.int32, device=device) for row in rows]
        return [json.loads(bytes(text.tolist())) for text in self.gather(texts)]

    def gather_sums(self, sums: Sequence[Sum]) -> list[Sum]:
        """`gather` of losses, weights and scores."""
        if not self.together:
            return list(sums)
        columns = [
            self.gather([getattr(one, name) for one in sums])
            for name in ("losses", "weights", "score")
            if getattr(sums[0], name) is not None
        ]
        return [Sum([], row[1].sum(), *row) for row in zip(*columns, strict=True)]

    def mean_loss(self, sums: Sequence[Sum]) -> Tensor:
        """() of a batch, by weight, over micro-batches and ranks; nan where nothing has weight."""
        parts = [torch.stack([torch.dot(one.weights, one.losses), one.weight]) for one in sums]
        self([total := functools.reduce(torch.add, parts)])
        return total[0] / torch.where(total[1] == 0, torch.nan, total[1])
