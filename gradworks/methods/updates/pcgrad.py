"""PCGrad: each task's gradient without what conflicts with the others, then the mean.

Yu, Kumar, Gupta, Levine, Hausman, Finn, "Gradient Surgery for Multi-Task Learning" (NeurIPS 2020), algorithm 1: the
gradient of task i is projected onto the normal plane of each other task's gradient g_j, in random order, where their
dot product is negative:

    g_i <- g_i - (g_i . g_j) / |g_j|^2 * g_j        (g_j as it came, not projected)

The paper adds the projected gradients; here they are averaged, so that learning rates compare with `erm` on k batches.
Conflicts are those of the parameters that tasks share. Every projected gradient is a combination of the k gradients,
so projections are made on k numbers, from their dot products.

Cost: k plain passes, k * k dot products; k gradients in memory.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from gradworks.methods.updates._shared.tasks import Matrix, Tasks

__all__ = ["Pcgrad"]


class Pcgrad(Tasks):
    """The mean of the projected gradients; without a conflict that is `erm` on the same batches.

    The order of the projections depends on the number of the step alone.

    Args:
        batches: of one step, each taken for a task; None = one of each task of the mixture.
    """

    def __init__(self, batches: int | None = None):
        super().__init__(batches)
        self._steps = 0

    def shares(self, dots: Matrix) -> list[float]:
        generator = torch.Generator().manual_seed(self._steps)
        self._steps += 1
        k = len(dots)
        total = [0.0] * k
        for i in range(k):
            counts = [float(i == j) for j in range(k)]
            for j in torch.randperm(k, generator=generator).tolist():
                dot = math.fsum(count * row[j] for count, row in zip(counts, dots, strict=True))
                if j != i and dot < 0:  # so |g_j| is not 0
                    counts[j] -= dot / dots[j][j]
            total = [a + b / k for a, b in zip(total, counts, strict=True)]
        return total

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self._steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._steps = state["steps"]
