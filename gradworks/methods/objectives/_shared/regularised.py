"""What objectives share that add terms to the task's loss: figures for the log, shares of the gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from gradworks.methods._shared.bases import BaseObjective, due
from gradworks.spec import Batch, Outputs, Task


def wide(term: Tensor) -> Tensor:
    """`term` in float32 at least: in bf16 a sum of two terms has lost what is smaller than 1/256 of the larger."""
    return term.to(torch.promote_types(term.dtype, torch.float32))


class Regularised(BaseObjective):
    """The sum of `parts`, the first of which is the task's loss.

    The log gets the mean of each further part without its factor, by its name, and now and then `NAME_share`, the size
    of its gradient (with its factor) over that of the task's loss.
    """

    once = False

    def __init__(self, factors: dict[str, float]):
        """`factors`: of the further parts, by name; those of factor 0 are not in use and not in `_factors`."""
        self._factors = {name: factor for name, factor in factors.items() if factor}
        self._steps = 0

    def begin(self, model: nn.Module) -> None:
        self.due = bool(self._factors) and due(self._steps)
        self._steps += 1

    def terms(self, task: Task, outputs: Outputs, batch: Batch, held: dict) -> dict[str, Tensor]:
        """(n,) the task's loss as `loss`, then each further part that is in use, without its factor."""
        raise NotImplementedError

    def parts(self, task: Task, outputs: Outputs, batch: Batch, held: dict) -> dict[str, Tensor]:
        terms = self.terms(task, outputs, batch, held)
        return {name: self._factors.get(name, 1.0) * wide(term) for name, term in terms.items()}

    def loss(self, task: Task, outputs: Outputs, batch: Batch, held: dict) -> Tensor:
        total = None
        for name, term in self.terms(task, outputs, batch, held).items():
            term = wide(term)
            if total is None:
                total = term
                continue
            if name not in held["log"]:  # the first visit's, not that of a point beside it
                held["log"][name] = term.detach().mean()
            total = total + self._factors[name] * term
        return total

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self._steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._steps = state["steps"]
