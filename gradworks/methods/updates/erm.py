"""The mean gradient of k batches in one step: plain training. Cost: k plain passes."""

from __future__ import annotations

import torch

from gradworks.methods._shared.bases import Stateless
from gradworks.methods._shared.options import integer
from gradworks.methods.updates._shared.fused import mean_
from gradworks.spec import Needs, Passes

__all__ = ["Erm"]


class Erm(Stateless):
    """Empirical risk minimisation.

    Logs for k > 1 `dot` and `cosine`, the mean dot product and cosine between the gradients of two batches of the step,
    and `conflict`, the share of batches after the first that point against the mean gradient of those before them.

    Args:
        batches: k; more than one makes as many steps of the same size as a method that consumes k batches a step.
    """

    once = single = True

    def __init__(self, batches: int = 1):
        self.needs = Needs(integer("batches", batches, low=1))
        self.sparse = batches == 1  # gradients of sparse embeddings are taken as they come

    @property
    def plain(self) -> bool:
        return self.needs.batches == 1

    def gradient(self, passes: Passes) -> list:
        k = self.needs.batches
        total = passes.gradient(0)
        if k == 1:
            return total
        norms, dots = [], []
        for i in range(1, k):
            before, one, after = mean_(total, passes.gradient(i), 1 / (i + 1))
            norms += [before, one] if i == 1 else [one]
            # ((i + 1) * after)^2 = (i * before)^2 + one^2 + 2 * dot of `one` with the sum of those before
            dots.append((((i + 1) * after).square() - (i * before).square() - one.square()) / 2)
        sizes, products = torch.stack(norms), torch.stack(dots)
        pairs = (sizes.sum().square() - sizes.square().sum()) / 2
        passes.log["dot"] = products.sum() / (k * (k - 1) / 2)
        passes.log["cosine"] = products.sum() / pairs.clamp_min(1e-30)
        passes.log["conflict"] = (products < 0).float().mean()
        return total
