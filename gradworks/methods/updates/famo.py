"""FAMO: the step that makes the losses of all tasks fall at the same relative rate, without comparing gradients.

Liu, Feng, Stone, Liu, "FAMO: Fast Adaptive Multitask Optimization" (NeurIPS 2023), algorithm 1, with L_i > 0 the losses
and z = softmax(xi), xi = 0 at first:

    d_t = c_t * sum of z_i / L_i * grad L_i,    c_t = 1 / (sum of z_i / L_i)
    delta_i = log L_i(theta_t) - log L_i(theta_(t+1))
    xi <- xi - beta * (J' delta + gamma * xi),  J the Jacobian of softmax at xi

A task whose loss fell less than others' (in proportion) gets a larger weight. The weights of d_t add to one, so that
learning rates compare with `erm` on k batches. The paper evaluates the batches of step t once more after it, for
L_i(theta_(t+1)), which costs a forward pass a task; here the losses of the next step's batches are taken, whose noise
cancels in the sum of delta over steps. xi moves by the gradient descent of the algorithm (the authors' code has Adam).

Cost: k plain passes; k gradients in memory.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from gradworks.methods._shared.options import number
from gradworks.methods.updates._shared.balanced import Balanced, known

__all__ = ["Famo"]

_LEAST = 1e-8  # added to losses, as in the authors' code


class Famo(Balanced):
    """The weighted mean of the gradients; weights z_i / L_i, divided by their sum. Logs `share_TASK`, these weights.

    Args:
        rate: beta, by which xi moves; 0 = z stays 1 / k: gradients of the logarithms of the losses.
        decay: gamma, by which xi returns to 0.
        batches: of one step, each taken for a task; None = one of each task of the mixture.
    """

    def __init__(self, rate: float = 0.025, decay: float = 0.001, batches: int | None = None):
        super().__init__(batches)
        self._rate, self._decay = number("rate", rate, low=0), number("decay", decay, low=0)
        self._xi: dict[str, float] = {}
        self._before: dict[str, float] = {}  # logarithms of the losses of the last step

    def shares(self, losses: Mapping[str, float]) -> dict[str, float]:
        """Raises ValueError where a loss is negative."""
        for name, loss in losses.items():
            if loss < 0:
                raise ValueError(
                    f"famo: found a loss of {loss:.3g} in task {name!r}\nexpected 0 or more: it compares logarithms"
                )
        logs = {name: math.log(loss + _LEAST) for name, loss in known(losses).items()}
        self._move(list(losses), {n: self._before[n] - log for n, log in logs.items() if n in self._before})
        self._before |= logs
        z = softmax({name: self._xi[name] for name in losses})
        # a task without a loss has no gradient
        weights = {name: z[name] / math.exp(logs[name]) if name in logs else 0.0 for name in losses}
        total = math.fsum(weights.values()) or 1.0
        return {name: weight / total for name, weight in weights.items()}

    def _move(self, names: list[str], delta: Mapping[str, float]) -> None:
        z = softmax({name: self._xi.setdefault(name, 0.0) for name in names})
        mean = math.fsum(z[name] * delta.get(name, 0.0) for name in names)
        for name in names if delta else ():
            slope = z[name] * (delta.get(name, 0.0) - mean)  # J is symmetric: diag(z) - z z'
            self._xi[name] -= self._rate * (slope + self._decay * self._xi[name])

    def state_dict(self) -> dict[str, Any]:
        return {"xi": dict(self._xi), "before": dict(self._before)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._xi, self._before = dict(state["xi"]), dict(state["before"])


def softmax(x: Mapping[str, float]) -> dict[str, float]:
    most = max(x.values())
    powers = {name: math.exp(value - most) for name, value in x.items()}
    total = math.fsum(powers.values())
    return {name: power / total for name, power in powers.items()}
