"""What uncertainty weighting and FAMO share: a weight for each task, from the losses of the steps so far.

Unlike the methods against conflicts, a weight holds for all parameters that a task reaches, its head included.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from gradworks.methods._shared.options import integer
from gradworks.methods._shared.tensors import add_, scale_
from gradworks.spec import Needs, Passes


class Balanced:
    """Base class: a subclass says how much each gradient counts, from the losses of all of them.

    Of one batch alone the gradient is plain, and nothing is learned from its loss. Logs `share_TASK`.

    Args:
        batches: of one step, each taken for a task; None = one of each task of the mixture.
    """

    once = True

    def __init__(self, batches: int | None = None):
        self._fixed = batches is not None
        self.needs = Needs("one_per_task" if batches is None else integer("batches", batches, low=1))

    def shares(self, losses: Mapping[str, float]) -> dict[str, float]:
        """How much each gradient counts; state moves here.

        Args:
            losses: the mean loss of each task's batch; nan where no label has weight.
        """
        raise NotImplementedError

    def gradient(self, passes: Passes) -> list[Tensor]:
        gradients = [passes.gradient(i) for i in range(len(passes.tasks))]
        if len(gradients) == 1:
            return gradients[0]
        names = [f"{task}_{i}" if self._fixed else task for i, task in enumerate(passes.tasks)]
        losses = {name: float(passes.value(i)) for i, name in enumerate(names)}
        shares = self.shares(losses)
        passes.log.update({f"share_{name}": share for name, share in shares.items()})
        total = gradients[0]
        scale_(total, shares[names[0]])
        for name, one in zip(names[1:], gradients[1:], strict=True):
            add_(total, one, shares[name])
        return total

    def state_dict(self) -> dict[str, Any]:
        raise NotImplementedError

    def load_state_dict(self, state: dict[str, Any]) -> None:
        raise NotImplementedError


def known(losses: Mapping[str, float]) -> dict[str, float]:
    """The losses that are numbers."""
    return {name: loss for name, loss in losses.items() if math.isfinite(loss)}
