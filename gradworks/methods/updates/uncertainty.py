"""Uncertainty weighting: each task's loss over a learned variance.

Kendall, Gal, Cipolla, "Multi-Task Learning Using Uncertainty to Weigh Losses" (CVPR 2018), section 3.2, with s_i the
logarithm of the variance of task i:

    minimise sum of exp(-s_i) * L_i + s_i / 2        (eq. 10; for squared errors eq. 7 has L_i / 2)

over the parameters and over s. Where s_i settles, exp(-s_i) * L_i = 1/2: every task has the same share of the sum,
whatever the scale of its loss. Here it is a mean over the k tasks, so that learning rates compare with `erm` on k
batches, and s moves by gradient descent at a rate of its own, once a step.

Cost: k plain passes; k gradients in memory.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from gradworks.methods._shared.options import number
from gradworks.methods.updates._shared.balanced import Balanced, known

__all__ = ["Uncertainty"]


class Uncertainty(Balanced):
    """The mean of the gradients, each times exp(-s) of its task; all s begin at 0, which is `erm`.

    Logs `share_TASK`, exp(-s) / k.

    Args:
        rate: learning rate of s; 0 = s stays 0. A task's s settles in about 2 / rate steps.
        batches: of one step, each taken for a task; None = one of each task of the mixture.
    """

    def __init__(self, rate: float = 0.01, batches: int | None = None):
        super().__init__(batches)
        self._rate = number("rate", rate, low=0)
        self._s: dict[str, float] = {}

    def shares(self, losses: Mapping[str, float]) -> dict[str, float]:
        factors = {name: math.exp(-self._s.setdefault(name, 0.0)) for name in losses}
        for name, loss in known(losses).items():
            self._s[name] -= self._rate * (0.5 - factors[name] * loss)
        return {name: factor / len(losses) for name, factor in factors.items()}

    def state_dict(self) -> dict[str, Any]:
        return {"s": dict(self._s)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._s = dict(state["s"])
