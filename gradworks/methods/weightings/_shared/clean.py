"""The clean gradient kept from batch to batch: made for every k-th batch of a task, and a running mean of those made.

With g_1, g_2, ... the clean gradients that are made, each at the parameters of its time, the direction of the scores is

    v_t = (momentum^(t-1) g_1 + ... + momentum g_(t-1) + g_t) / (momentum^(t-1) + ... + momentum + 1),

a mean whose weights sum to one at every t (Kingma and Ba, 2015, section 3, correct the same bias). Each task has its
own, because heads differ. Between two of them v_t serves as it is. What is old is wrong by how far the parameters have
moved since; benchmarks/PRICE.md measures what that does to scores and to accuracy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from gradworks.methods._shared.tensors import at_least_float32
from gradworks.spec import Pass, Sum, Visit

Sums = Callable[[Pass], Sum] | None  # see Visit.clean_gradient


@dataclass
class _Mean:
    """Of one task.

    Attributes:
        batches: that were scored so far.
        weight: sum of the weights of the mean, 0 before the first gradient.
        names: of the parameters that were trained when it was made.
        mean: one tensor for each of them, at least float32.
    """

    batches: int = 0
    weight: float = 0.0
    names: list[str] = field(default_factory=list)
    mean: list[Tensor] = field(default_factory=list)


class Kept:
    """Memory: one gradient for each task, in at least float32.

    Args:
        every: a clean gradient is made for batch 0, k, 2 k, ... of each task, counted over those that are scored.
        momentum: in [0, 1).
    """

    def __init__(self, every: int, momentum: float) -> None:
        self._every, self._momentum = every, momentum
        self._of: dict[str, _Mean] = {}
        self._trained: list[nn.Module | nn.Parameter] = []  # the model and parameters that `_names` are of
        self._names: list[str] = []

    @property
    def off(self) -> bool:
        """Nothing is kept: each batch has a clean gradient of its own and no other."""
        return self._every == 1 and self._momentum == 0

    def due(self, tasks: Sequence[str]) -> list[bool]:
        """For which of the next batches, of these tasks, a clean gradient is made."""
        met: dict[str, int] = {}
        found = []
        for task in tasks:
            number = met.setdefault(task, self._of[task].batches if task in self._of else 0)
            found.append(number % self._every == 0)
            met[task] += 1
        return found

    def visit(self, visit: Visit) -> Visit:
        """The same visit, whose clean gradient is the mean; counts a batch.

        Where other parameters are trained than before, a mean begins again.
        """
        here = visit.passes[0]
        of = self._of.setdefault(here.batch.task, _Mean())
        if (names := self._named(here)) != of.names:
            of.weight, of.names, of.mean = 0.0, names, []
        made = of.batches % self._every == 0 or not of.mean
        of.batches += 1
        if not made:
            return _Kept(visit, lambda sums=None: _as(of.mean, here, sums))
        before, of.weight = of.mean, self._momentum * of.weight + 1

        def fresh(sums: Sums = None) -> list[Tensor]:
            # every call makes it, as those of the visit itself do; the last one counts
            of.mean = _moved(before, visit.clean_gradient(sums), 1 / of.weight)
            return _as(of.mean, here, sums)

        return _Kept(visit, fresh)

    def _named(self, here: Pass) -> list[str]:
        trained = [here.model, *here.parameters]
        if list(map(id, trained)) != list(map(id, self._trained)):
            self._names = [name for name, p in here.model.named_parameters() if p.requires_grad]
            self._trained = trained
        return self._names

    def state_dict(self) -> dict[str, Any]:
        return {
            task: {"batches": of.batches, "weight": of.weight, "names": list(of.names), "mean": list(of.mean)}
            for task, of in self._of.items()
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._of = {task: _Mean(**one) for task, one in state.items()}


class _Kept:
    """A visit with another clean gradient."""

    def __init__(self, visit: Visit, gradient: Callable[[Sums], list[Tensor]]) -> None:
        self._visit, self.clean_gradient = visit, gradient

    def __getattr__(self, name: str) -> Any:
        return getattr(self._visit, name)


def _moved(mean: Sequence[Tensor], gradient: Sequence[Tensor], share: float) -> list[Tensor]:
    """In new memory: a state that was given away does not change."""
    wide = [g.to(at_least_float32(g.dtype)) for g in gradient]
    if share == 1 or not mean:
        return wide
    return torch._foreach_lerp([m.to(w) for m, w in zip(mean, wide, strict=True)], wide, share)


def _as(mean: Sequence[Tensor], here: Pass, sums: Sums) -> list[Tensor]:
    """The caller owns them: back-ends write into them."""
    if sums:  # of something else than the parameters
        return [m.to(here.parameters[0].device, copy=True) for m in mean]
    return [m.to(p.device, p.dtype, copy=True) for m, p in zip(mean, here.parameters, strict=True)]
