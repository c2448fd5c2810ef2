"""Outputs of a model for many examples."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import torch

from gradworks.base.progress import Progress

if TYPE_CHECKING:
    from torch import nn

    from gradworks.data.batching import Examples
    from gradworks.spec import Outputs, Task


@torch.no_grad()
def predict(model: nn.Module, task: Task, examples: Examples, batch_size: int = 256, name: str = "") -> Outputs:
    """Raw outputs of every example, in the order of the examples, without dropout.

    The model's training mode and the random state are left as they were. Examples of like length share a batch.

    Args:
        model: in evaluation mode while it predicts.
        task: gives its outputs.
        examples: n examples, on the model's device.
        batch_size: how many examples one forward pass takes.
        name: what the progress is called; "" = none is shown.

    Returns:
        Tensors (n, ...) on the CPU, in float32. Cost: one forward pass per example.
    """
    training = model.training
    model.eval()
    try:
        order = sorted(range(len(examples)), key=lambda i: examples.lengths[i])
        parts = []
        with Progress(name, len(order), "example") if name else contextlib.nullcontext() as bar:
            for start in range(0, len(order), batch_size):
                rows = order[start : start + batch_size]
                parts.append([one.float().cpu() for one in task.outputs(model, examples.batch(rows))])
                if bar:
                    bar.advance(len(rows))
    finally:
        model.train(training)
    if not parts:
        return (torch.empty(0, 0),)
    back = torch.tensor(order).argsort()
    return tuple(torch.cat(one)[back] for one in zip(*parts, strict=True))
