"""Arithmetic of updates in as few sweeps over memory as can be.

The gradients of one step do not fit into a cache, so each pass over them costs about as much as it moves bytes. Here
all that is done to an entry is done while its block is in the cache; other devices take whole lists at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from gradworks.methods._shared.tensors import move

_BLOCK = 1 << 16  # entries; some blocks of float32 fit into a second-level cache of 1 MiB
_SAMPLE = 1 << 18


def blocks(*lists: Sequence[Tensor]) -> Iterator[tuple[list[Tensor], ...]]:
    """Views of the lists, cut alike: about `_BLOCK` entries at a time on the CPU, everything at once elsewhere."""
    if lists[0][0].device.type != "cpu":
        yield tuple(list(x) for x in lists)
        return
    held: list[tuple[Tensor, ...]] = []
    count = 0
    for row in zip(*lists, strict=True):
        cut = all(t.is_contiguous() for t in row) and row[0].numel() > _BLOCK
        for part in zip(*(t.view(-1).split(_BLOCK) for t in row), strict=True) if cut else [row]:
            held.append(part)
            count += part[0].numel()
            if count >= _BLOCK:
                yield tuple(map(list, zip(*held, strict=True)))
                held, count = [], 0
    if held:
        yield tuple(map(list, zip(*held, strict=True)))


def _size(norms: list[Tensor]) -> Tensor:
    return torch.linalg.vector_norm(torch.stack(norms))


def mean_(mean: Sequence[Tensor], one: Sequence[Tensor], share: float) -> tuple[Tensor, Tensor, Tensor]:
    """mean += share * (one - mean): a running mean.

    Returns:
        The norms of the mean before, of `one`, and of the mean after.
    """
    norms: tuple[list[Tensor], ...] = ([], [], [])
    for x, y in blocks(mean, one):
        norms[0].extend(torch._foreach_norm(x))
        norms[1].extend(torch._foreach_norm(y))
        torch._foreach_lerp_(x, y, share)
        norms[2].extend(torch._foreach_norm(x))
    before, size, after = map(_size, norms)
    return before, size, after


def descend_(
    out: Sequence[Tensor], total: Sequence[Tensor], one: Sequence[Tensor], theta: Sequence[Tensor], rate: float
) -> None:
    """total += one, then out = theta - rate * total."""
    for o, x, y, t in blocks(out, total, one, theta):
        torch._foreach_add_(x, y)
        move(o, t, x, -rate)


def add_and_scale_(total: Sequence[Tensor], one: Sequence[Tensor], factor: float) -> None:
    """total = factor * (total + one)."""
    for x, y in blocks(total, one):
        torch._foreach_add_(x, y)
        torch._foreach_mul_(x, factor)


def combine_(
    first: Sequence[Tensor], near: Sequence[Tensor], other: Sequence[Tensor], formed: bool, correction: float,
    factor: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """first = (first + second) / 2 + factor * d, where d = other - near and second = near + correction * d.

    All three are overwritten. The difference is formed before anything is added to it: its two sides nearly cancel.

    Args:
        formed: `other` is d already.

    Returns:
        The norms of d, of second, and of (first + second) / 2.
    """
    norms: tuple[list[Tensor], ...] = ([], [], [])
    for x, y, d in blocks(first, near, other):
        if not formed:
            torch._foreach_sub_(d, y)
        norms[0].extend(torch._foreach_norm(d))
        if correction:
            torch._foreach_add_(y, d, alpha=correction)
        norms[1].extend(torch._foreach_norm(y))
        torch._foreach_lerp_(x, y, 1 / 2)
        norms[2].extend(torch._foreach_norm(x))
        torch._foreach_add_(x, d, alpha=factor)
    difference, second, mean = map(_size, norms)
    return difference, second, mean


def difference_norms_(other: Sequence[Tensor], near: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """other -= near; the norms of the difference and of `near`."""
    norms: tuple[list[Tensor], ...] = ([], [])
    for y, d in blocks(near, other):
        torch._foreach_sub_(d, y)
        norms[0].extend(torch._foreach_norm(d))
        norms[1].extend(torch._foreach_norm(y))
    difference, size = map(_size, norms)
    return difference, size


def sample(x: Sequence[Tensor]) -> Tensor:
    """Evenly spread entries of all tensors, about `_SAMPLE` of them or all that there are, as a new vector."""
    # odd: a stride that shares a factor with the width of a matrix would see some of its columns only
    stride = -(-sum(t.numel() for t in x) // _SAMPLE) | 1
    return torch.cat([t.reshape(-1)[::stride] for t in x])
