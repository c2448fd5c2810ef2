"""What PCGrad and CAGrad share: gradients of several tasks, compared on the parameters that tasks share.

Heads and other parameters that one task alone reaches conflict with nothing and get the plain mean. A combination of
the gradients is found from their dot products, so parameters are swept twice, whatever the rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gradworks.methods._shared.bases import Stateless
from gradworks.methods._shared.options import integer
from gradworks.methods._shared.tensors import at_least_float32
from gradworks.spec import Needs, Passes

Matrix = list[list[float]]


class Tasks(Stateless):
    """Base class: a subclass says how much each gradient counts, from the dot products of all of them.

    Logs `cosine`, the mean cosine between the gradients of two tasks on shared parameters, and `conflict`, the share of
    pairs whose dot product is negative.

    Args:
        batches: of one step, each taken for a task; None = one of each task of the mixture.
    """

    once = True

    def __init__(self, batches: int | None = None):
        self.needs = Needs("one_per_task" if batches is None else integer("batches", batches, low=1))

    def shares(self, dots: Matrix) -> list[float]:
        """(k,) how much each gradient counts on shared parameters; 1 / k each is the plain mean.

        Args:
            dots: (k, k) dot products of the gradients on shared parameters.
        """
        raise NotImplementedError

    def gradient(self, passes: Passes) -> list[Tensor]:
        gradients = [passes.gradient(i) for i in range(len(passes.tasks))]
        k = len(gradients)
        if k == 1:
            return gradients[0]
        dots, shared = products(gradients)
        log(passes.log, dots)
        counts = self.shares(dots)
        total = gradients[0]
        for p, parts in enumerate(zip(*gradients, strict=True)):
            own = counts if shared[p] else [1 / k] * k
            total[p] = parts[0].mul_(own[0])
            for part, share in zip(parts[1:], own[1:], strict=True):
                total[p].add_(part, alpha=share)
        return total


def products(gradients: Sequence[Sequence[Tensor]]) -> tuple[Matrix, list[bool]]:
    """(k, k) dot products over the parameters that at least two gradients reach, and which parameters these are."""
    k, device = len(gradients), gradients[0][0].device
    pairs = [(i, j) for i in range(k) for j in range(i + 1)]
    found = []
    for parts in zip(*gradients, strict=True):
        flat = [t.reshape(-1).to(at_least_float32(t.dtype)) for t in parts]
        found += [torch.dot(flat[i], flat[j]) for i, j in pairs]
    each = torch.stack(found).double().view(-1, len(pairs))
    stacked = torch.zeros(len(each), k, k, dtype=torch.float64, device=device)
    rows, columns = map(list, zip(*pairs, strict=True))
    stacked[:, rows, columns] = stacked[:, columns, rows] = each
    shared = (stacked.diagonal(dim1=1, dim2=2) > 0).sum(1) > 1
    dots = (stacked * shared[:, None, None]).sum(0)
    return dots.tolist(), shared.tolist()


def log(figures: dict[str, Any], dots: Matrix) -> None:
    """Mean cosine and share of conflicts over the pairs of gradients of which neither is zero."""
    k = len(dots)
    pairs = [(i, j) for i in range(k) for j in range(i) if dots[i][i] > 0 and dots[j][j] > 0]
    if pairs:
        figures["cosine"] = sum(dots[i][j] / (dots[i][i] * dots[j][j]) ** 0.5 for i, j in pairs) / len(pairs)
        figures["conflict"] = sum(dots[i][j] < 0 for i, j in pairs) / len(pairs)
