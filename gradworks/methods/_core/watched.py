"""A task whose passes are counted, and a person's own two functions as a task."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import register_multi_grad_hook

from gradworks.methods._core.point import fresh_autocast, resting_statistics
from gradworks.spec import Batch, Outputs, Task


class Meter:
    """Counts work in thirds of a pass over one example: forward, backward through activations, weight gradients."""

    def __init__(self) -> None:
        self.thirds = 0
        self.weights = False  # while weight gradients are formed


class Watched:
    """A task that counts its passes; only its first forward with a graph moves running statistics (BatchNorm).

    Backward passes are seen by a hook on the raw outputs, behind a view of them: a gradient of the loss by the outputs
    alone stops at the view and counts nothing.
    """

    def __init__(self, task: Task, meter: Meter, moves_statistics: bool):
        self._task, self._meter, self._moves = task, meter, moves_statistics

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def outputs(self, model: nn.Module, batch: Batch, embedded: Tensor | None = None) -> Outputs:
        graph = torch.is_grad_enabled()
        moves, self._moves = self._moves and graph, self._moves and not graph
        fresh_autocast()
        with contextlib.nullcontext() if moves else resting_statistics(model):
            raw = self._task.outputs(model, batch, *(() if embedded is None else (embedded,)))
        n = len(batch.mass)
        self._meter.thirds += n
        seen = [t for t in raw if t.requires_grad]
        if not graph or not seen:
            return raw

        def count(_: Tensor) -> None:
            self._meter.thirds += 2 * n if self._meter.weights else n

        register_multi_grad_hook(seen, count, mode="any")
        return tuple(t.view_as(t) for t in raw)


class Wrapped(Batch):
    """A batch of a person's own loader, as it came, in `inputs`."""


class FunctionTask:
    """Two functions as a task.

    Args:
        outputs: (model, batch) -> a tensor or tuple of tensors, dim 0 the example; one forward pass.
        loss: (outputs, batch) -> (n,) losses, one per example, not reduced.
    """

    def __init__(self, outputs: Callable[[nn.Module, Any], Any], loss: Callable[[Any, Any], Tensor]):
        self._outputs, self._loss = outputs, loss
        self._single = False

    def outputs(self, model: nn.Module, batch: Batch) -> Outputs:
        made = self._outputs(model, batch.inputs if isinstance(batch, Wrapped) else batch)
        self._single = isinstance(made, Tensor)
        made = (made,) if self._single else made
        if not isinstance(made, tuple) or not all(isinstance(t, Tensor) for t in made):
            raise TypeError(f"outputs: found {type(made).__name__}, expected a tensor or a tuple of tensors")
        return made

    def loss(self, outputs: Outputs, batch: Batch) -> Tensor:
        return self._loss(
            outputs[0] if self._single else outputs, batch.inputs if isinstance(batch, Wrapped) else batch
        )
