"""A task whose passes are counted, and a person's own two functions as a task."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import register_multi_grad_hook

from gradworks.methods._shared.buffers import Rest
from gradworks.methods._shared.point import fresh_autocast
from gradworks.spec import Batch, Outputs, Task

FLOAT16 = (
    "float16 needs a GradScaler, whose scale would enter norms and finite differences; use bf16 "
    "(float32 parameters under torch.autocast(..., torch.bfloat16)) and no GradScaler"
)


def refuse_float16(outputs: Outputs) -> None:
    """Raises ValueError: an autocast inside the model's own forward pass."""
    if any(t.dtype == torch.float16 for t in outputs):
        raise ValueError(f"outputs: {FLOAT16}")


class Meter:
    """Counts work in thirds of a pass over one example: forward, backward through activations, weight gradients."""

    def __init__(self) -> None:
        self.thirds = 0
        self.weights = False  # while weight gradients are formed
        self.look: Callable[[Tensor], None] | None = None  # sees each loss before its backward pass
        self.watch: Callable[[Tensor, Any], None] | None = None  # sees losses (n,) and whose they are


class Watched:
    """A task that counts its passes; one pass over the micro-batch moves buffers (see `buffers.py`).

    Backward passes are seen by a hook on the raw outputs, behind a view of them: a gradient of the loss by the outputs
    alone stops at the view and counts nothing. Where each pass is `plain`, a forward and a backward pass to the
    parameters, it is counted without a hook.
    """

    def __init__(self, task: Task, meter: Meter, rest: Callable[[], Rest], plain: bool = False):
        self._task, self._meter, self._plain = task, meter, plain
        self._whole, self._embedding = rest(), rest()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def settle(self, model: nn.Module, batch: Batch) -> None:
        """A forward pass without a graph that moves the buffers; nothing where they have been moved."""
        with torch.no_grad():
            fresh_autocast()
            if self._whole.settle(lambda: self._task.outputs(model, batch)):
                self._meter.thirds += len(batch.mass)

    def embed(self, model: nn.Module, batch: Batch) -> Tensor:
        return self._embedding.run(model, lambda: self._task.embed(model, batch))

    def outputs(self, model: nn.Module, batch: Batch, embedded: Tensor | None = None) -> Outputs:
        graph = torch.is_grad_enabled()
        fresh_autocast()
        given = () if embedded is None else (embedded,)
        raw = self._whole.run(model, lambda: self._task.outputs(model, batch, *given))
        refuse_float16(raw)
        n = len(batch.mass)
        self._meter.thirds += 3 * n if self._plain else n
        seen = [] if self._plain else [t for t in raw if t.requires_grad]
        if not graph or not seen:
            return raw

        def count(_: Tensor) -> None:
            self._meter.thirds += 2 * n if self._meter.weights else n

        if len(seen) == 1:
            seen[0].register_hook(count)  # the same, and cheaper to set up
        else:
            register_multi_grad_hook(seen, count, mode="any")
        return tuple(t.view_as(t) for t in raw)


class Wrapped(Batch):
    """A batch of a person's own loader, as it came, in `inputs`."""


def _own(batch: Batch) -> Any:
    return batch.inputs if isinstance(batch, Wrapped) else batch


class FunctionTask:
    """Functions as a task. What `outputs` returns, a tensor or a tuple, is what `loss` and `divergence` get.

    Args:
        outputs: (model, batch) -> a tensor or tuple of tensors, dim 0 the example; one forward pass. Where `embed` is
            given also (model, batch, embedded): the pass from these embeddings on.
        loss: (outputs, batch) -> (n,) losses, one per example, not reduced.
        embed: (model, batch) -> (n, L, D) the embeddings of a batch, in the graph of their parameters.
        divergence: (outputs, outputs) -> (n,), symmetric, 0 where equal.

    Raises:
        ValueError: `embed` is given and `outputs` takes no third argument.
    """

    PARTS = ("embed", "divergence")  # optional parts of a task that can be given as functions

    def __init__(
        self,
        outputs: Callable[..., Any],
        loss: Callable[[Any, Any], Tensor],
        embed: Callable[[nn.Module, Any], Tensor] | None = None,
        divergence: Callable[[Any, Any], Tensor] | None = None,
    ):
        self._outputs, self._loss = outputs, loss
        self._single = False
        # an attribute only where it is given: `spec.offers` asks for it
        if embed is not None:
            if not _takes_embedded(outputs):
                raise ValueError(
                    "Method: embed=... was given, and outputs takes no embeddings; "
                    "expected outputs(model, batch, embedded=None)"
                )
            self.embed = lambda model, batch: embed(model, _own(batch))
        if divergence is not None:
            self.divergence = lambda p, q: divergence(self._as_made(p), self._as_made(q))

    def outputs(self, model: nn.Module, batch: Batch, embedded: Tensor | None = None) -> Outputs:
        made = self._outputs(model, _own(batch), *(() if embedded is None else (embedded,)))
        self._single = isinstance(made, Tensor)
        made = (made,) if self._single else made
        if not isinstance(made, tuple) or not all(isinstance(t, Tensor) for t in made):
            raise TypeError(f"outputs: found {type(made).__name__}, expected a tensor or a tuple of tensors")
        return made

    def loss(self, outputs: Outputs, batch: Batch) -> Tensor:
        return self._loss(self._as_made(outputs), _own(batch))

    def _as_made(self, outputs: Outputs) -> Any:
        return outputs[0] if self._single else outputs


def _takes_embedded(outputs: Callable[..., Any]) -> bool:
    try:
        inspect.signature(outputs).bind(None, None, None)
    except TypeError:
        return False
    except ValueError:  # a callable without a signature
        pass
    return True
