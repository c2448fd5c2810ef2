"""What Reptile, FOMAML and MAML share: inner steps over the batches of one step, by gradient descent or by Adam."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from gradworks.methods._shared.bases import Stateless, due
from gradworks.methods._shared.options import integer, number, one_of
from gradworks.methods._shared.tensors import add_, norm
from gradworks.methods.updates._shared.scaled import Adam, Descent
from gradworks.spec import Needs, Passes


class Inner(Stateless):
    """Options, the inner optimizer, and the step counter that says when the inner part is measured.

    Args:
        batches: k, how many batches the step consumes.
        inner_lr: alpha of the inner steps. Its effect depends on the model by orders of magnitude: the inner part of
            Reptile (k = 4) is 15 to 20 % of the mean gradient at 0.1 on the default benchmark's `gru`, and 4 to 9 % at
            1e-3 on its `transformer` (60 and 300 steps into training). The default makes it small on both; presets
            name their own, by the logged `inner`.
        inner_optimizer: sgd, without momentum; or adam, without first moment (see `scaled.py`): then all that is said
            of gradients holds for gradients over the root of their second moment.
        inner_state: of adam; kept = one second moment from the first group of the run to the last, as
            supervised-reptile has it, reset = each group begins without one.
        tasks: any | same | different; how the schedule fills the group.
        groups: of so many batches each, whose gradients are averaged: the meta-batch.
    """

    optimizers = ("sgd", "adam")

    def __init__(
        self, batches: int = 4, inner_lr: float = 1e-3, inner_optimizer: str = "sgd", inner_state: str = "kept",
        tasks: str = "any", groups: int = 1,
    ):  # fmt: skip
        which = one_of("tasks", tasks, ["any", "same", "different"])
        self.needs = Needs(integer("batches", batches, low=1), which, integer("groups", groups, low=1))
        self._rate = number("inner_lr", inner_lr, low=0)
        one_of("inner_optimizer", inner_optimizer, self.optimizers)
        self._reset = one_of("inner_state", inner_state, ["kept", "reset"]) == "reset"
        self._optimizer = Adam() if inner_optimizer == "adam" else Descent()
        self._steps = 0  # groups so far

    @property
    def single(self) -> bool:
        groups = range(self._steps, self._steps + self.needs.groups)
        return self.needs.batches == 1 or not any(map(due, groups))

    def due(self) -> bool:
        """Whether the inner part is measured in this group, which it counts."""
        self._steps += 1
        return due(self._steps - 1)

    def begin(self) -> Descent:
        """What makes the direction of an inner step from a gradient, for one group."""
        if self._reset:
            self._optimizer.load_state_dict({})
        return self._optimizer

    @property
    def moments(self) -> tuple[int, list[Tensor]] | None:
        """Steps so far and second moments of an inner optimizer whose state is kept."""
        return None if self._reset else self._optimizer.moments

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self._steps, **self._optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._steps = state["steps"]
        self._optimizer.load_state_dict(state)


def note(passes: Passes, found: list[Tensor], plain: list[Tensor]) -> None:
    """Log the size of found - plain, which overwrites `plain`, against that of `plain`."""
    size = norm(plain)
    add_(plain, found, -1)
    passes.log["inner"] = norm(plain) / size.clamp_min(1e-30)
