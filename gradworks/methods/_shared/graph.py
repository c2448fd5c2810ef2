"""What the graph of a loss is made of, by the names of its nodes; what torch.compile made is one opaque node."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Any

import torch
from torch import Tensor

Branches = dict[Hashable, Tensor]  # of each operation that has kinks, its derivative: it says which side of each is met

# the derivative jumps where an input crosses a point or another input; `where` and `masked_fill` mostly hide padding
_JUMPS = {
    "Relu", "LeakyRelu", "PreluKernel", "RreluWithNoise", "Threshold", "Hardtanh", "Hardswish", "Hardsigmoid",
    "Hardshrink", "Softshrink", "Abs", "Sgn", "Clamp", "ClampMin", "ClampMax", "Max", "Min", "Amax", "Amin",
    "Aminmax", "Maximum", "Minimum", "Fmax", "Fmin", "Median", "Nanmedian", "Sort", "Topk", "Kthvalue", "Cummax",
    "Cummin", "MaxPool2DWithIndices", "MaxPool3DWithIndices", "AdaptiveMaxPool2D", "AdaptiveMaxPool3D",
    "FractionalMaxPool2D", "FractionalMaxPool3D", "MkldnnMaxPool2D", "MkldnnMaxPool3D", "MultiMarginLoss",
    "MultilabelMarginLoss",
}  # fmt: skip


_APART = 1 / 20  # two derivatives by ones that differ by more are of two branches; curvature moves them by far less


def _nodes(tensor: Tensor) -> Iterator[Any]:
    left, seen = [tensor.grad_fn], set()
    while left:
        node = left.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        yield node
        left.extend(before for before, _ in node.next_functions)


def _name(node: Any) -> str:
    return node.name().partition("Backward")[0]


def names(tensor: Tensor) -> Iterator[str]:
    """Names of the nodes without their number: Relu for ReluBackward0, MaxPool2DWithIndices for ..Backward0."""
    return map(_name, _nodes(tensor))


def jumps(loss: Tensor) -> bool:
    """Whether an operation is in it whose derivative jumps: ReLU, maxima, absolute values and their kin."""
    return any(name in _JUMPS for name in names(loss))


def watch(losses: Tensor, taken: Branches, key: Hashable) -> list[Any]:
    """Write the branches into `taken` when `losses` are differentiated, not before: checkpoints are recomputed once.

    Returns:
        Handles, to be removed after the backward pass: until then they keep the graph alive.
    """
    handles = []
    for place, node in enumerate(node for node in _nodes(losses) if _name(node) in _JUMPS):

        def note(_: Any, node: Any = node, place: int = place) -> None:
            first, *more = node._input_metadata
            one = torch.ones((), dtype=first.dtype, device=first.device).expand(first.shape)
            found = node(one, *(None for _ in more))
            found = found[0] if isinstance(found, tuple) else found
            if found is not None:
                taken[key, place] = found.detach().to(torch.bfloat16)

        handles.append(node.register_prehook(note))
    return handles


def crossed(one: Branches, other: Branches) -> bool:
    """Whether any operation that both have is on another branch."""
    pairs = [(one[key], other[key]) for key in one.keys() & other.keys() if one[key].shape == other[key].shape]
    found = [((a - b).abs() > _APART).any() for a, b in pairs]
    return bool(torch.stack(found).any()) if found else False
