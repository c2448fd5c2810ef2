"""Plain training's own way through a step: one batch, the task's own loss, a weight of 1 for each label, one process.

What `passes.py` computes, to the bit, without what serves a second look at a batch. Sums, masks, buffers and report are
those of all steps; a test holds the two ways against each other on every kind of model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gradworks.methods._shared.bases import BaseObjective, BaseWeighting
from gradworks.methods._shared.buffers import Buffers, Rest
from gradworks.methods._shared.masks import Masks
from gradworks.methods._shared.point import fresh_autocast
from gradworks.methods._shared.tensors import added, divide_, note_reached, owned, per_example
from gradworks.methods._shared.watched import refuse_float16
from gradworks.spec import Batch, Drawn, Sum, Task

_LEAST = torch.finfo(torch.float32).tiny  # a divisor that leaves a sum without weight the zero that it is
_BASES = (
    (BaseObjective, ("due", "begin", "outputs", "loss")),
    (BaseWeighting, ("prepare", "weights", "gradient", "end")),
)


def is_plain(objective: Any, weighting: Any) -> bool:
    """Whether they are the task's own loss and a weight of 1 for each label: they override nothing of the bases."""
    pairs = (
        (entry, base, name)
        for entry, (base, names) in zip((objective, weighting), _BASES, strict=True)
        for name in names
    )
    return all(
        getattr(type(entry), name, None) is getattr(base, name) and name not in vars(entry)
        for entry, base, name in pairs
    )


def takes_one_gradient(update: Any) -> bool:
    """Whether its gradient is that of its one batch; said by the class itself, as a subclass may do something else."""
    return "plain" in vars(type(update)) and update.plain


def gradient(
    model: nn.Module, parameters: Sequence[nn.Parameter], drawn: Drawn, task_of: Callable[[Batch], Task],
    masks: Callable[[int], Masks], buffers: Buffers, reached: list[bool], rows: dict[int, list[Tensor]],
) -> tuple[list[Tensor], Tensor, list[Sum]]:  # fmt: skip
    """The mean gradient over the labels of a batch, one tensor a parameter; their number; sums of the micro-batches.

    Args:
        drawn: the micro-batches. masks: of each of them, by its number.
        reached: per parameter; set where a loss depends on it.
        rows: filled with those that are read, for parameters with sparse gradients.
    """
    alone, total, weight, sums = len(drawn) == 1, [], None, []
    for k, batch in enumerate(drawn):
        task, rest = task_of(batch), Rest(buffers, moves=True)
        with masks(k)(0):
            fresh_autocast()
            outputs = rest.run(model, lambda task=task, batch=batch: task.outputs(model, batch))
        refuse_float16(outputs)
        losses = per_example(task.loss(outputs, batch), batch)
        del outputs
        weights = batch.mass.to(losses)
        one = Sum([], weights.sum(), losses.detach(), weights)
        loss = (weights * losses).sum()
        if alone:  # cheaper than dividing the gradient
            loss = loss / one.weight.clamp_min(_LEAST)
        made = torch.autograd.grad(loss, parameters, allow_unused=True)
        note_reached(made, reached, rows)
        made = owned(made, parameters, sparse=True)
        sums.append(one)
        if alone:
            return made, one.weight, sums
        one.gradient = made
        total, weight = added(total, weight, one, False)
        one.gradient = []
    divide_(total, weight)
    return [t.to(p.dtype) for t, p in zip(total, parameters, strict=True)], weight, sums
