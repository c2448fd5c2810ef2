"""The mean gradient of k batches in one step: plain training. Cost: k plain passes."""

from __future__ import annotations

from gradworks.methods._core.bases import Stateless
from gradworks.methods._core.options import integer
from gradworks.methods._core.tensors import lerp_, norm
from gradworks.spec import Needs, Passes

__all__ = ["Erm"]


class Erm(Stateless):
    """Empirical risk minimisation.

    Logs for k > 1 `dot` and `cosine`, the mean dot product and cosine between the gradients of two batches of the step.

    Args:
        batches: k; more than one makes as many steps of the same size as a method that consumes k batches a step.
    """

    def __init__(self, batches: int = 1):
        self.needs = Needs(integer("batches", batches, low=1))

    def gradient(self, passes: Passes) -> list:
        k = self.needs.batches
        total = passes.gradient(0)
        if k == 1:
            return total
        norms = [norm(total)]
        for i in range(1, k):
            one = passes.gradient(i)
            norms.append(norm(one))
            lerp_(total, one, 1 / (i + 1))
        # |sum of g|^2 = sum of |g_i|^2 + twice the sum of the dot products of all pairs
        dots = ((k * norm(total)).square() - sum(n.square() for n in norms)) / 2
        sizes = (sum(norms).square() - sum(n.square() for n in norms)) / 2
        passes.log["dot"] = dots / (k * (k - 1) / 2)
        passes.log["cosine"] = dots / sizes.clamp_min(1e-30)
        return total
