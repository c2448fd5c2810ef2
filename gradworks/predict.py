"""What a model answers to many examples."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import numpy as np
import torch

from gradworks.base.progress import Progress

if TYPE_CHECKING:
    from torch import nn

    from gradworks.data.batching import Examples
    from gradworks.tasks.kinds import Kind


@torch.no_grad()
def answers(model: nn.Module, kind: Kind, examples: Examples, batch_size: int = 256, name: str = "") -> np.ndarray:
    """Answers to all examples, in their order, without dropout.

    The model's training mode and the random state are left as they were. Examples of like length share a batch.

    Args:
        model: in evaluation mode while it answers.
        kind: its `respond` gives the answers of a batch.
        examples: n examples, on the model's device.
        batch_size: how many examples one forward pass takes.
        name: what the progress is called; "" = none is shown.

    Returns:
        (n, ...), see gradworks.tasks.kinds. Cost: that of `respond`, for most kinds one forward pass per example.
    """
    training = model.training
    model.eval()
    try:
        order = sorted(range(len(examples)), key=lambda i: examples.lengths[i])
        parts = []
        with Progress(name, len(order), "example") if name else contextlib.nullcontext() as bar:
            for start in range(0, len(order), batch_size):
                rows = order[start : start + batch_size]
                parts.append(kind.respond(model, examples.batch(rows), [examples.encodings[i] for i in rows]))
                if bar:
                    bar.advance(len(rows))
    finally:
        model.train(training)
    return np.concatenate(parts)[np.argsort(order)] if parts else np.empty((0, 0))
