"""What a model answers to many examples."""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from gradworks.base.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

    from gradworks.data.batching import Examples
    from gradworks.tasks.kinds import Kind

_TOKENS = 2048  # of a forward pass on a CPU, padding counted: BERT 4x256 on texts of 25 and of 160 tokens


@torch.no_grad()
def answers(model: nn.Module, kind: Kind, examples: Examples, batch_size: int = 256, name: str = "") -> np.ndarray:
    """Answers to all examples, in their order, without dropout.

    The model's training mode and the random state are left as they were. Examples are sorted by length over all of
    them. On a CPU a batch is no larger than its caches: beyond, a BERT of width 256 gets up to three times slower.

    Args:
        model: in evaluation mode while it answers.
        kind: its `respond` gives the answers of a batch.
        examples: n examples, on the model's device.
        batch_size: how many examples one forward pass takes at most.
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
            for rows in _batches(examples, order, batch_size):
                parts.append(kind.respond(model, examples.batch(rows), [examples.encodings[i] for i in rows]))
                if bar:
                    bar.advance(len(rows))
    finally:
        model.train(training)
    return np.concatenate(parts)[np.argsort(order)] if parts else np.empty((0, 0))


def _batches(examples: Examples, order: list[int], most: int) -> Iterator[list[int]]:
    """The rows of each forward pass, from rows in order of length."""
    tokens = _TOKENS if examples.device.type == "cpu" else math.inf
    rows: list[int] = []
    for row in order:
        if rows and (len(rows) == most or (len(rows) + 1) * examples.tokens[row] > tokens):
            yield rows
            rows = []
        rows.append(row)
    if rows:
        yield rows
