"""The row of padding of an embedding in a pass at another point: autograd gives it no gradient through the lookup.

Where a layer shares the table (output weights), the row has a gradient through that layer alone, so a derivative along
a direction must move it there and leave it where it is in the lookup. `torch.nn.functional.embedding` called with
`padding_idx` past a module is not seen.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

Rows = list[tuple[nn.Embedding, Tensor]]


def moving(model: nn.Module, parameters: Sequence[nn.Parameter], direction: Sequence[Tensor]) -> Rows:
    """Embeddings whose row of padding moves along a direction, and copies of these rows as they are."""
    of = {id(p): d for p, d in zip(parameters, direction, strict=True)}
    tables = [m for m in model.modules() if isinstance(m, nn.Embedding) and m.padding_idx is not None]
    return [
        (m, m.weight.detach()[m.padding_idx].clone())
        for m in tables
        if id(m.weight) in of and bool(of[id(m.weight)][m.padding_idx].any())
    ]


@contextlib.contextmanager
def resting(rows: Rows) -> Iterator[None]:
    """Inside, lookups give these rows for padding, wherever the parameters are."""

    def hook(row: Tensor) -> Callable[..., Tensor]:
        def after(module: nn.Module, args: tuple, kwargs: dict[str, Any], output: Tensor) -> Tensor:
            x = args[0] if args else kwargs["input"]
            return torch.where((x == module.padding_idx)[..., None], row.to(output.dtype), output)

        return after

    with contextlib.ExitStack() as stack:
        for module, row in rows:
            handle = module.register_forward_hook(hook(row), prepend=True, with_kwargs=True)
            stack.callback(handle.remove)
        yield
