"""UPGrad: each task's gradient projected onto the directions that hurt no task, then the mean.

Quinton and Rey, "Jacobian Descent for Multi-Objective Optimization" (arXiv:2406.16232), section 3 and proposition 1:
the projection of g_i onto the cone of directions with no negative dot product with any task's gradient is the
combination of the gradients with the weights

    argmin over v >= e_i of v' G v,   G the (k, k) dot products of the gradients, e_i the i-th unit vector.

Unlike `pcgrad` the result conflicts with no task, whatever their number. Conflicts are those of the parameters that
tasks share. The k quadratic programs of k numbers are solved coordinate by coordinate.

Cost: k plain passes, k * k dot products; k gradients in memory.
"""

from __future__ import annotations

from gradworks.methods.updates._shared.tasks import Matrix, Tasks

__all__ = ["Upgrad"]

_SWEEPS, _STILL = 2000, 1e-10  # at most; and how little weights move, relative to 1, when they are found


class Upgrad(Tasks):
    """The mean of the projected gradients; without a conflict that is `erm` on the same batches.

    Args:
        batches: of one step, each taken for a task; None = one of each task of the mixture.
    """

    def shares(self, dots: Matrix) -> list[float]:
        each = [_projected(dots, i) for i in range(len(dots))]
        return [sum(column) / len(dots) for column in zip(*each, strict=True)]


def _projected(dots: Matrix, i: int) -> list[float]:
    """(k,) the v >= e_i with the least v' G v: its slope by each coordinate is 0, or not negative at the bound."""
    lowest = [float(i == j) for j in range(len(dots))]
    found = list(lowest)
    for _ in range(_SWEEPS):
        moved = 0.0
        for j, row in enumerate(dots):
            if row[j] > 0:
                slope = sum(a * b for a, b in zip(row, found, strict=True))
                better = max(lowest[j], found[j] - slope / row[j])
                moved, found[j] = max(moved, abs(better - found[j])), better
        if moved < _STILL:
            break
    return found
