"""Reptile: the mean of the gradients along k inner steps of gradient descent.

Nichol, Achiam and Schulman, "On First-Order Meta-Learning Algorithms" (2018), algorithm 1 (serial version):

    theta_0 = theta,   theta_{i+1} = theta_i - alpha * g_i(theta_i),   gradient = (theta_0 - theta_k) / (alpha * k)

which is the mean of the g_i(theta_i), and by their section 5.1 (there the sum, without the factor 1 / k)

    mean_i g_i(theta_0) - alpha / k * sum over i of H_i * sum over j < i of g_j(theta_0) + O(alpha^2):

the second part, the inner one, is in expectation minus alpha * (k - 1) / 4 times the gradient of the dot product of the
gradients of two batches, as the term of `dotprod` is minus weight / 4. What differs here, and why:

* Scale: the mean, not the difference of the parameters, so learning rates compare with `erm` on k batches.
* The last inner update would only be subtracted again; it is not made.
* theta_0 - theta_k is not formed: in float32 it would lose most of its digits; the gradients are added up instead.
* Held quantities are made where a batch is first visited, which is the moved point: inner steps weigh there.
* With `inner_optimizer: adam` each g_i is over the root of its second moment, so (theta_0 - theta_k) / (alpha * k) is
  the mean of these. supervised-reptile's meta-step of size s is plain descent with a learning rate of s * alpha * k.

Cost: k plain passes; k more now and then, to measure the inner part.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gradworks.methods._shared.tensors import add_, move, scale_
from gradworks.methods.updates._shared.fused import add_and_scale_, descend_
from gradworks.methods.updates._shared.inner import Inner, note
from gradworks.spec import Passes

__all__ = ["Reptile"]


class Reptile(Inner):
    """(theta_0 - theta_k) / (inner_lr * k).

    Logs `inner`, the size of what the inner steps change against the mean gradient at theta, at steps 1, 3, 9, 33 and
    every 200.

    Args:
        batches: k.
        inner_lr: alpha, in units of plain gradient descent with any outer optimizer; see `_shared/inner.py`.
        inner_optimizer: sgd | adam. inner_state: kept | reset.
        tasks: any | same | different; episodes of one task: same.
    """

    once = True

    def gradient(self, passes: Passes) -> list[Tensor]:
        k, due, direction = self.needs.batches, self.due(), self.begin()
        if k == 1:
            return direction(passes.gradient(0))
        unmoved = direction.copy() if due else direction
        total = direction(passes.gradient(0))
        at = [torch.empty_like(t) for t in total]
        move(at, passes.theta, total, -self._rate)
        for i in range(1, k - 1):
            descend_(at, total, direction(passes.gradient(i, at)), passes.theta, self._rate)
        add_and_scale_(total, direction(passes.gradient(k - 1, at)), 1 / k)
        del at
        if due:
            plain = unmoved(passes.gradient(0))
            for i in range(1, k):
                add_(plain, unmoved(passes.gradient(i)))
            scale_(plain, 1 / k)
            note(passes, total, plain)
        return total
