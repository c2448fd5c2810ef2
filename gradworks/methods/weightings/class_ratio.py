"""The control for class imbalance: every class counts the same, regardless of its share.

"Proportion" of Ren et al. (2018, section 4.1): w_i = 1 / (frequency of the class of example i), here times the mean
over the classes, so that a balanced batch has weights of 1. They count classes over the training set; without `counts`
they are counted here over the examples trained on so far, which needs no pass over the data. Cost: one plain pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gradworks.methods._shared.bases import BaseWeighting
from gradworks.methods._shared.options import number
from gradworks.spec import Batch, Outputs, Pass, Reduce, Sum, Visit

__all__ = ["ClassRatio"]


class ClassRatio(BaseWeighting):
    """Weights N / (K * N_c) for an example of class c, N_c of N examples, K classes that occur.

    Args:
        counts: examples (or shares) of each class in the training data, in the order of the class indices, for one
            task. None: of each task, what the steps so far consumed and the batch itself, over all its micro-batches
            and ranks; the first step balances its own batch.

    Labels must be (n,) class indices; others are refused at the first batch.

    Attributes:
        classes: it reads labels as classes.
    """

    classes = True

    def __init__(self, counts: Sequence[float] | None = None):
        if counts is not None and (isinstance(counts, str) or not isinstance(counts, Sequence) or not counts):
            raise ValueError(f"counts: found {counts!r}, expected one number per class: [3000, 300, 300]")
        self._given = None if counts is None else [number("counts", c, above=0) for c in counts]
        self._counts: dict[str, list[int]] = {}  # by task
        self._seen: list[tuple[str, list[int]]] = []  # the batches of this step

    def prepare(self, visit: Visit) -> None:
        """The weight of each class for this batch."""
        batches = [here.batch for here in visit.passes]
        labels = torch.cat([_classes(b) for b in batches])
        if self._given is None:
            task = batches[0].task
            own = _counted(labels, visit.reduce)
            self._seen.append((task, own))
            counts: Sequence[float] = _added(self._counts.get(task, []), own)
        else:
            counts = self._given
            if int(labels.max()) >= len(counts):
                raise ValueError(f"class_ratio: found label {int(labels.max())}, expected one of {len(counts)} counts")
        total, classes = sum(counts), sum(c > 0 for c in counts)
        by_class = torch.tensor([total / (classes * c) if c else 0.0 for c in counts], dtype=torch.float64)
        for here in visit.passes:
            here.held["by_class"] = by_class

    def weights(self, here: Pass, outputs: Outputs, losses: Tensor) -> tuple[Tensor, None]:
        by_class = here.held.pop("by_class").to(losses)
        return by_class[here.batch.labels.long()] * here.batch.mass.to(losses), None

    def end(self, done: Sequence[Sequence[tuple[Batch, Sum]]], reduce: Reduce) -> None:
        for task, own in self._seen:
            self._counts[task] = _added(self._counts.get(task, []), own)
        self._seen = []

    def state_dict(self) -> dict[str, Any]:
        return {"counts": {task: list(counts) for task, counts in self._counts.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._counts = {task: list(counts) for task, counts in state["counts"].items()}


def _classes(batch: Batch) -> Tensor:
    """(n,) class indices.

    Raises:
        ValueError: the labels are something else.
    """
    labels, expected = batch.labels, "expected class indices, one per example: (n,) whole numbers from 0"
    if not isinstance(labels, Tensor):
        raise ValueError(
            f"class_ratio: found labels of type {type(labels).__name__}, {expected}\n"
            "a loader of your own yields gradworks.spec.Batch(..., labels=...)"
        )
    if labels.is_floating_point() or labels.shape != (len(batch.mass),):
        found = f"{str(labels.dtype).removeprefix('torch.')} labels of shape {tuple(labels.shape)}"
        raise ValueError(f"class_ratio: found {found} in task {batch.task!r}, {expected}")
    if int(labels.min()) < 0:
        raise ValueError(f"class_ratio: found label {int(labels.min())} in task {batch.task!r}, {expected}")
    return labels.long()


def _counted(labels: Tensor, reduce: Reduce) -> list[int]:
    """Examples of each class over all ranks."""
    # ranks can meet different classes, and all must send as much: the sum of what each would need is enough for all
    reduce(size := [labels.new_tensor([int(labels.max()) + 1])])
    reduce(counts := [torch.bincount(labels, minlength=int(size[0]))])
    return counts[0].tolist()


def _added(x: list[int], y: list[int]) -> list[int]:
    """x + y, the shorter one followed by zeros."""
    size = max(len(x), len(y))
    return [sum(pair) for pair in zip(*(one + [0] * (size - len(one)) for one in (x, y)), strict=True)]
