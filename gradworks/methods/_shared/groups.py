"""Groups of batches, as a method needs them, from ordinary loaders."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from gradworks.methods._shared.watched import Wrapped
from gradworks.spec import Batch


def first_tensor(value: Any) -> Tensor | None:
    """The first tensor in nested tuples, lists, mappings and objects with attributes; None without one."""
    if isinstance(value, Tensor):
        return value if value.ndim else None
    if isinstance(value, Mapping):
        parts: Iterable[Any] = value.values()
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        parts = value
    else:
        parts = getattr(value, "__dict__", {}).values()
    return next((t for t in map(first_tensor, parts) if t is not None), None)


def as_batch(value: Any, batch: int, micro: int) -> Batch:
    """A `spec.Batch` as it is; anything else wrapped, its examples counted by its first tensor and named by position.

    Args:
        value: what a loader yielded.
        batch: how many batches came before this one.
        micro: which micro-batch of its batch it is, over all ranks: no two examples of a batch share a name.

    Raises:
        ValueError: a batch without a tensor, whose examples cannot be counted.
    """
    if isinstance(value, Batch):
        return value
    tensor = first_tensor(value)
    if tensor is None:
        raise ValueError(f"batch {batch}: no tensor in {type(value).__name__}; expected one with examples in dim 0")
    n = tensor.shape[0]
    ids = [f"{batch}-{micro}-{i}" for i in range(n)]
    return Wrapped(task="", ids=ids, inputs=value, labels=None, mass=torch.ones(n, device=tensor.device))


def cycled(loader: Iterable[Any], name: str) -> Iterator[Any]:
    """The loader again and again.

    Raises:
        ValueError: it yields nothing, or is an iterator that can be read only once.
    """
    while True:
        empty = True
        for value in loader:
            empty = False
            yield value
        if empty:
            raise ValueError(f"{name}: it ended; expected a loader with batches that can be read again and again")


def chunks(batches: Iterator[Batch], size: int) -> Iterator[list[Batch]]:
    """Lists of `size`; what is left at the end is dropped."""
    chunk: list[Batch] = []
    for batch in batches:
        chunk.append(batch)
        if len(chunk) == size:
            yield chunk
            chunk = []
