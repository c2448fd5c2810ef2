"""Outputs of a model for many examples."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import torch

from gradworks.base.progress import Progress

if TYPE_CHECKING:
    from torch import Tensor, nn

    from gradworks.data.batching import Examples


@torch.no_grad()
def predict(model: nn.Module, examples: Examples, batch_size: int = 256, name: str = "") -> Tensor:
    """Logits of every example, in the order of the examples, without dropout.

    The model's training mode and the random state are left as they were. Examples of like length share a batch.

    Args:
        model: maps a batch's inputs to outputs.
        examples: n examples, on the model's device.
        batch_size: how many examples one forward pass takes.
        name: what the progress is called; "" = none is shown.

    Returns:
        (n, outputs) on the CPU. Cost: one forward pass per example.
    """
    training = model.training
    model.eval()
    try:
        order = sorted(range(len(examples)), key=lambda i: examples.lengths[i])
        parts = []
        with Progress(name, len(order), "example") if name else contextlib.nullcontext() as bar:
            for start in range(0, len(order), batch_size):
                rows = order[start : start + batch_size]
                parts.append(model(examples.batch(rows).inputs).float().cpu())
                if bar:
                    bar.advance(len(rows))
    finally:
        model.train(training)
    if not parts:
        return torch.empty(0, 0)
    outputs = torch.empty_like(torch.cat(parts))
    outputs[torch.tensor(order)] = torch.cat(parts)
    return outputs
