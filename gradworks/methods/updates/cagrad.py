"""CAGrad: the step near the mean gradient that helps the worst-served task most.

Liu, Liu, Jin, Stone, Liu, "Conflict-Averse Gradient Descent for Multi-task Learning" (NeurIPS 2021), algorithm 1. With
g_0 the mean of the k gradients, the update is the d that maximises min_i g_i . d subject to |d - g_0| <= c * |g_0|:

    d = g_0 + c * |g_0| / |g_w| * g_w,    g_w = sum of w_i * g_i,
    w = argmin over the simplex of g_w . g_0 + c * |g_0| * |g_w|        (eq. 5, their dual)

The dual is convex in k numbers and solved from dot products alone, two weights at a time, each pair in closed form.
The authors' code also divides d by 1 + c^2 by default; here it is as in the paper. Conflicts are those of the
parameters that tasks share.

Cost: k plain passes, k * k dot products; k gradients in memory.
"""

from __future__ import annotations

import math

from gradworks.methods._shared.options import number
from gradworks.methods.updates._shared.tasks import Matrix, Tasks

__all__ = ["Cagrad"]

_TURNS = 1000  # pairs of weights that are moved at most; a few times k suffice
_GAP = 1e-14  # slopes of two tasks, as a share of the terms of the dual: weights are then right to about 1e-12


class Cagrad(Tasks):
    """The mean gradient plus a step of c times its length towards what the worst-served task needs.

    Args:
        c: radius around the mean gradient as a share of its length; 0 = `erm`. At 1 and above the paper's promise to
            reach a minimum of the mean loss is gone.
        batches: of one step, each taken for a task; None = one of each task of the mixture.
    """

    def __init__(self, c: float = 0.4, batches: int | None = None):
        super().__init__(batches)
        self._c = number("c", c, low=0)

    def shares(self, dots: Matrix) -> list[float]:
        k = len(dots)
        towards = [math.fsum(row) / k for row in dots]  # g_i . g_0
        radius = self._c * math.sqrt(max(math.fsum(towards) / k, 0.0))  # c * |g_0|
        if radius == 0:
            return [1 / k] * k
        weights = solve(dots, towards, radius)
        size = math.sqrt(max(_quadratic(dots, weights), 0.0))
        if size <= 1e-12 * math.sqrt(max(dots[i][i] for i in range(k))):  # no direction helps all: a Pareto point
            return [1 / k] * k
        return [1 / k + radius / size * w for w in weights]


def solve(dots: Matrix, towards: list[float], radius: float) -> list[float]:
    """w on the simplex that minimises w . towards + radius * sqrt(w' dots w), which is convex.

    The weight of the task with the largest slope moves to that with the smallest until no move is worth it.
    """
    k = len(dots)
    weights = [1 / k] * k
    scale = max(abs(t) for t in towards) + radius * math.sqrt(max(dots[i][i] for i in range(k)))
    for _ in range(_TURNS):
        inner = [math.fsum(w * g for w, g in zip(weights, row, strict=True)) for row in dots]
        size = math.sqrt(max(math.fsum(w * g for w, g in zip(weights, inner, strict=True)), 0.0))
        if size == 0:
            break
        slopes = [t + radius * g / size for t, g in zip(towards, inner, strict=True)]
        low = min(range(k), key=slopes.__getitem__)
        high = max((i for i in range(k) if weights[i] > 0), key=slopes.__getitem__)
        if slopes[high] - slopes[low] <= _GAP * scale:
            break
        moved = _move(dots, inner, size * size, towards[low] - towards[high], radius, low, high)
        moved = weights[high] if moved is None else min(max(moved, 0.0), weights[high])
        weights[low] += moved
        weights[high] -= moved
    return weights


def _move(
    dots: Matrix, inner: list[float], square: float, slope: float, radius: float, low: int, high: int
) -> float | None:
    """t that minimises slope * t + radius * sqrt(a t^2 + 2 b t + square), the weight that goes from `high` to `low`.

    None where it falls without end.
    """
    a = dots[low][low] - 2 * dots[low][high] + dots[high][high]
    b = inner[low] - inner[high]
    if a <= 0:
        return None
    rest = max(square - b * b / a, 0.0)
    ratio = -slope / radius  # (a t + b) / sqrt(...) at the minimum
    if ratio * ratio >= a:
        return None if ratio > 0 else 0.0
    return (ratio * math.sqrt(rest / (1 - ratio * ratio / a)) - b) / a


def _quadratic(dots: Matrix, weights: list[float]) -> float:
    return math.fsum(a * b * d for a, row in zip(weights, dots, strict=True) for b, d in zip(weights, row, strict=True))
