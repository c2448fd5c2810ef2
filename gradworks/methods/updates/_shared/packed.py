"""Gradients without the rows of embeddings that are zero.

A batch reads few rows of a large embedding, and the gradient of all others is zero, bit for bit. Sums, differences,
norms and moves of the parameters that leave them out give the same at a fraction of the cost, and the memory in which
a gradient came is free once it is packed: the next point is made in it, or the next gradient.
For a single sum of gradients one fused sweep is as cheap (see `fused.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_LEAST = 4096  # rows; a smaller matrix is kept whole without a look
_SHARE = 1 / 2  # a matrix is packed where no more of its rows than that are other than zero


@dataclass
class Packed:
    """A gradient: some of its matrices by their rows that are not zero, all other tensors whole.

    Attributes:
        values: the whole tensors themselves; of a packed matrix a copy of the rows, (r, width).
        rows: which they are, (r,) sorted; None for a whole tensor.
        shapes: of the whole tensors.
    """

    values: list[Tensor]
    rows: list[Tensor | None]
    shapes: list[torch.Size]

    def whole(self) -> list[Tensor]:
        """All tensors whole; those that are packed in new memory."""
        found = zip(self.values, self.rows, self.shapes, strict=True)
        return [v if r is None else v.new_zeros(s).index_copy_(0, r, v) for v, r, s in found]

    def unpacked(self, memory: Sequence[Tensor]) -> list[Tensor]:
        """All tensors whole; those that are packed are written into `memory`, which is zero in all other rows."""
        found = zip(self.values, self.rows, memory, strict=True)
        return [v if r is None else m.index_copy_(0, r, v) for v, r, m in found]


def pack(x: Sequence[Tensor]) -> Packed:
    """`x` is left as it is, and only its whole tensors are kept alive."""
    rows = [_rows(t) for t in x]
    values = [t if r is None else t.index_select(0, r) for t, r in zip(x, rows, strict=True)]
    return Packed(values, rows, [t.shape for t in x])


def _rows(t: Tensor) -> Tensor | None:
    if t.ndim != 2 or len(t) < _LEAST or not t.is_contiguous():
        return None
    # the largest byte of a row: one read of the memory, exact for the smallest numbers, and nan is not zero
    rows = t.view(torch.uint8).amax(1).nonzero().squeeze(1)
    return rows if len(rows) <= _SHARE * len(t) else None


def alike(*gradients: Packed) -> list[Packed]:
    """The same gradients, all with the rows that any of them has; whole where any is whole."""
    columns = zip(*(zip(g.values, g.rows, strict=True) for g in gradients), strict=True)
    aligned = [_aligned(column, shape) for column, shape in zip(columns, gradients[0].shapes, strict=True)]
    rows = [found for _, found in aligned]
    values = zip(*(found for found, _ in aligned), strict=True)
    return [Packed(list(v), list(rows), g.shapes) for v, g in zip(values, gradients, strict=True)]


def _aligned(held: Sequence[tuple[Tensor, Tensor | None]], shape: torch.Size) -> tuple[list[Tensor], Tensor | None]:
    first = held[0][1]
    if all(r is first or (r is not None and first is not None and torch.equal(r, first)) for _, r in held):
        return [value for value, _ in held], first
    whole = any(r is None for _, r in held)
    union = None if whole else torch.cat([r for _, r in held]).unique()
    found = []
    for value, r in held:
        if r is not None:
            where = r if whole else torch.searchsorted(union, r)
            value = value.new_zeros(shape if whole else (len(union), *shape[1:])).index_copy_(0, where, value)
        found.append(value)
    return found, union


def point_in(memory: Sequence[Tensor], theta: Sequence[Tensor], direction: Packed) -> list[Tensor]:
    """Where `move` may write: theta in the memory from which a matrix of `direction` was packed, new memory elsewhere.

    `memory` is what `direction` was packed from.
    """
    found = zip(memory, theta, direction.rows, strict=True)
    return [torch.empty_like(m) if rows is None else m.copy_(t) for m, t, rows in found]


def move(out: Sequence[Tensor], theta: Sequence[Tensor], direction: Packed, scale: float) -> None:
    """out = theta + scale * direction; rows that the direction leaves out hold theta already."""
    for o, t, d, rows in zip(out, theta, direction.values, direction.rows, strict=True):
        if rows is None:
            torch.add(t, d, alpha=scale, out=o)
        else:
            o.index_copy_(0, rows, torch.add(t.index_select(0, rows), d, alpha=scale))
