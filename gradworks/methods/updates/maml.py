"""MAML: the gradient of the last batch through k - 1 inner steps of gradient descent over the others.

Finn, Abbeel and Levine, "Model-Agnostic Meta-Learning" (2017), equation 1, k batches in all:

    theta_{i+1} = theta_i - alpha * g_i(theta_i),   gradient = d loss_{k-1}(theta_{k-1}) / d theta_0

of second order, in one process; the slow exact form beside `fomaml`, which leaves the second order out. Held quantities
are made where a batch is first visited, which is the moved point, and are constants of the inner steps. Inner steps of
Adam are refused: they divide by the root of a second moment, whose derivative is infinite where a gradient is zero.

Cost: k plain passes that make what is held, k more whose graphs are kept to the end, and k - 1 backward passes through
their gradients: 10 plain passes for k = 4.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gradworks.methods.updates._shared.inner import Inner
from gradworks.spec import Passes

__all__ = ["Maml"]


class Maml(Inner):
    """The gradient of batch k - 1 at theta_{k-1} with respect to theta.

    Args:
        batches: k in all. inner_lr: alpha, in units of plain gradient descent with any outer optimizer
            (see `_shared/inner.py`).
        inner_optimizer: sgd. tasks: any | same | different; episodes of one task: same.
    """

    optimizers = ("sgd",)
    exact = True
    single = False

    def gradient(self, passes: Passes) -> list[Tensor]:
        k = self.needs.batches
        at = theta = [t.clone().requires_grad_() for t in passes.theta]
        for i in range(k - 1):
            g = torch.autograd.grad(passes.loss(i, at), at, create_graph=True, materialize_grads=True)
            at = [t - self._rate * one for t, one in zip(at, g, strict=True)]
        return list(torch.autograd.grad(passes.loss(k - 1, at), theta, materialize_grads=True))

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to restore: nothing is measured now and then."""
