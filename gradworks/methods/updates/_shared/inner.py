"""What Reptile, FOMAML and MAML share: inner steps of plain gradient descent over the batches of one step."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from gradworks.methods._shared.bases import Stateless, due
from gradworks.methods._shared.options import integer, number, one_of
from gradworks.methods._shared.tensors import add_, norm
from gradworks.spec import Needs, Passes


class Inner(Stateless):
    """Options, and the step counter that says when the inner part is measured.

    Args:
        batches: k, how many batches the step consumes.
        inner_lr: alpha of the inner steps. Its effect depends on the model by orders of magnitude: the inner part of
            Reptile (k = 4) is 15 to 20 % of the mean gradient at 0.1 on the default benchmark's `gru`, and 4 to 9 % at
            1e-3 on its `transformer` (60 and 300 steps into training). The default makes it small on both; presets
            name their own, by the logged `inner`.
        inner_optimizer: sgd, without momentum.
        tasks: any | same | different; how the schedule fills the group.
        groups: of so many batches each, whose gradients are averaged: the meta-batch.
    """

    def __init__(
        self, batches: int = 4, inner_lr: float = 1e-3, inner_optimizer: str = "sgd", tasks: str = "any",
        groups: int = 1,
    ):  # fmt: skip
        which = one_of("tasks", tasks, ["any", "same", "different"])
        self.needs = Needs(integer("batches", batches, low=1), which, integer("groups", groups, low=1))
        self._rate = number("inner_lr", inner_lr, low=0)
        one_of("inner_optimizer", inner_optimizer, ["sgd"])
        self._steps = 0

    @property
    def single(self) -> bool:
        return self.needs.batches == 1 or not due(self._steps)

    def due(self) -> bool:
        """Whether the inner part is measured in this step, which it counts."""
        self._steps += 1
        return due(self._steps - 1)

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self._steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._steps = state["steps"]


def note(passes: Passes, found: list[Tensor], plain: list[Tensor]) -> None:
    """Log the size of found - plain, which overwrites `plain`, against that of `plain`."""
    size = norm(plain)
    add_(plain, found, -1)
    passes.log["inner"] = norm(plain) / size.clamp_min(1e-30)
