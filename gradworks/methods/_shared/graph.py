"""What the graph of a loss is made of, by the names of its nodes; what torch.compile made is one opaque node."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

# the derivative jumps where an input crosses a point or another input; `where` and `masked_fill` mostly hide padding
_JUMPS = {
    "Relu", "LeakyRelu", "PreluKernel", "RreluWithNoise", "Threshold", "Hardtanh", "Hardswish", "Hardsigmoid",
    "Hardshrink", "Softshrink", "Abs", "Sgn", "Clamp", "ClampMin", "ClampMax", "Max", "Min", "Amax", "Amin",
    "Aminmax", "Maximum", "Minimum", "Fmax", "Fmin", "Median", "Nanmedian", "Sort", "Topk", "Kthvalue", "Cummax",
    "Cummin", "MaxPool2DWithIndices", "MaxPool3DWithIndices", "AdaptiveMaxPool2D", "AdaptiveMaxPool3D",
    "FractionalMaxPool2D", "FractionalMaxPool3D", "MkldnnMaxPool2D", "MkldnnMaxPool3D", "MultiMarginLoss",
    "MultilabelMarginLoss",
}  # fmt: skip


def names(tensor: Tensor) -> Iterator[str]:
    """Names of the nodes without their number: Relu for ReluBackward0, MaxPool2DWithIndices for ..Backward0."""
    left, seen = [tensor.grad_fn], set()
    while left:
        node = left.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        yield node.name().partition("Backward")[0]
        left.extend(before for before, _ in node.next_functions)


def jumps(loss: Tensor) -> bool:
    """Whether an operation is in it whose derivative jumps: ReLU, maxima, absolute values and their kin."""
    return any(name in _JUMPS for name in names(loss))
