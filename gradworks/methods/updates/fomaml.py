"""First-order MAML: the gradient of the last batch behind k - 1 inner steps of gradient descent over the others.

Finn, Abbeel and Levine, "Model-Agnostic Meta-Learning" (2017), section 5.2, in the form of Nichol, Achiam and Schulman
(2018), section 5.1: theta_{i+1} = theta_i - alpha * g_i(theta_i) and the gradient is g_{k-1}(theta_{k-1}), k batches in
all. In expectation that is the mean gradient minus alpha * (k - 1) / 2 times the gradient of the dot product of the
gradients of two batches: twice Reptile's inner part, but from one batch instead of k. Already a mean over one batch, so
the scale law asks for no factor. Held quantities are made where a batch is first visited, which is the moved point.
With `inner_optimizer: adam` all k gradients are over the root of their second moment, the last too: supervised-reptile
(`--foml`) moves by the last inner step, which with a meta-step s is plain descent with a learning rate of s * alpha.

Cost: k plain passes; 1 more now and then, to measure the inner part.
"""

from __future__ import annotations

from torch import Tensor

from gradworks.methods._shared.tensors import add_, move
from gradworks.methods.updates._shared.inner import Inner, note
from gradworks.spec import Passes

__all__ = ["Fomaml"]


class Fomaml(Inner):
    """The gradient of batch k - 1 at theta_{k-1}.

    Logs `inner`, the size of what the inner steps change against the same batch's gradient at theta, at steps 1, 3, 9,
    33 and every 200.

    Args:
        batches: k in all. inner_lr: alpha, in units of plain gradient descent with any outer optimizer
            (see `_shared/inner.py`).
        inner_optimizer: sgd | adam. inner_state: kept | reset.
        tasks: any | same | different; episodes of one task: same.
    """

    once = True

    def gradient(self, passes: Passes) -> list[Tensor]:
        k, due, direction = self.needs.batches, self.due(), self.begin()
        if k == 1:
            return direction(passes.gradient(0))
        at = direction(passes.gradient(0))
        move(at, passes.theta, at, -self._rate)
        for i in range(1, k - 1):
            add_(at, direction(passes.gradient(i, at)), -self._rate)
        unmoved = direction.copy() if due else direction
        last = direction(passes.gradient(k - 1, at))
        del at
        if due:
            note(passes, last, unmoved(passes.gradient(k - 1)))
        return last
