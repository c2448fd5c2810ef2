"""Joint training: the mean of one gradient of each task, and how far the tasks agree.

The sum of the losses of all tasks as one step, divided by their number, so that learning rates compare with `erm` on k
batches. The gradient is that of `erm` on the same batches; what is added is the cosine between the gradients of two
tasks on the parameters that they share: whether they help or hinder each other, before a method against conflicts is
tried.

Cost: k plain passes, k * k dot products; k gradients in memory.
"""

from __future__ import annotations

from gradworks.methods.updates._shared.tasks import Matrix, Tasks

__all__ = ["Joint"]


class Joint(Tasks):
    """The plain mean; logs `cosine` and `conflict`, as all methods against conflicts do."""

    def shares(self, dots: Matrix) -> list[float]:
        return [1 / len(dots)] * len(dots)
