"""The state in which an inner optimizer ended, as a part of the trained model: evaluation may go on from it.

supervised-reptile evaluates with the second moments that Adam has after training (they are variables of its graph).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

PREFIX = "moments."  # of its tensors in the file of a model


class Moments(nn.Module):
    """Buffers: `count`, the steps so far, and `second_J` of the model's parameter J.

    Args:
        parameters: of the model.
    """

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        for j, p in enumerate(parameters):
            self.register_buffer(f"second_{j}", torch.zeros_like(p.detach()))

    def hold(self, count: int, second: Sequence[Tensor]) -> None:
        """Take over what an optimizer has now; new tensors, since what moves in place is refused in several processes.

        Args:
            second: by parameter; none before the first step.
        """
        self.count = torch.full_like(self.count, count)
        for j, v in enumerate(second):
            setattr(self, f"second_{j}", v.detach().clone())

    def give(self, optimizer: torch.optim.Optimizer, parameters: Iterable[Tensor]) -> None:
        """Begin torch.optim.Adam with them, for as many parameters as those of the model."""
        for j, p in enumerate(parameters):
            second = getattr(self, f"second_{j}").to(p, copy=True)
            state = {"step": self.count.float().cpu(), "exp_avg": torch.zeros_like(p), "exp_avg_sq": second}
            optimizer.state[p] = state
