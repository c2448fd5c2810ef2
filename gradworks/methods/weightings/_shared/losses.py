"""Losses that read the outputs of other examples: negatives within the batch, a loss relative to the batch's mean.

u_i = <v, grad l_i> = sum over j of <d l_i / d z_j, (J v)_j>, z the outputs. Where l_i reads z_i alone this is
<c_i, (J v)_i> with c the gradient of the sum of the losses; where it does not, the derivative of the losses along J v
is taken whole, by differentiating the linear map w -> grad(sum w_i l_i) by w.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gradworks.methods.weightings._shared.structure import Walk, digest, dim_of, fingerprint, made

COUPLED = "its losses read the outputs of other examples"

# operations that work on each element or row by itself
_ROW_WISE = {
    f"{name}Backward{k}"
    for k in range(3)
    for name in (
        "Abs", "Add", "Alias", "BinaryCrossEntropy", "BinaryCrossEntropyWithLogits", "Clamp", "ClampMin", "Clone",
        "Div", "Exp", "HuberLoss", "KlDiv", "Log", "Log1P", "LogSigmoid", "MaskedFill", "MseLoss", "Mul", "Neg",
        "NllLoss", "NllLoss2D", "Pow", "ReshapeAlias", "Rsub", "Sigmoid", "SmoothL1Loss", "Softplus", "Sqrt", "Squeeze",
        "Sub", "ToCopy", "UnsafeView", "View", "Where",
    )
}  # fmt: skip
# and where they do not work along the first dimension
_ALONG = {
    f"{name}Backward{k}"
    for k in range(3)
    for name in ("LogSoftmax", "Logsumexp", "Mean", "Select", "Slice", "Softmax", "Sum", "Transpose", "Unsqueeze")
}


def row_wise(walk: Walk) -> bool:
    """Whether what was walked consists of operations that do not mix rows, but for broadcasting."""
    return all(map(_by_row, walk.nodes))


def _by_row(node: Any) -> bool:
    name = node.name()
    if name not in _ALONG:
        return name in _ROW_WISE
    sizes = getattr(node, "_saved_self_sym_sizes", None) or made(node)
    dims = [getattr(node, key) for key in ("_saved_dim", "_saved_dim0", "_saved_dim1") if hasattr(node, key)]
    dims = [d for dim in dims for d in (dim if isinstance(dim, tuple) else (dim,))]
    return bool(dims) and all(dim_of(d, sizes) != 0 for d in dims)


class Coupling:
    """Whether losses read the outputs of other examples, for one micro-batch after another.

    Losses made of operations that do not mix rows are checked when such a sequence of operations is first met, all
    others each time. A check is a backward pass through the losses alone.
    """

    def __init__(self) -> None:
        self.found: list[str] = []  # sequences that mixed rows
        self._kinds: dict[tuple, str] = {}  # of losses made of operations that do not mix rows
        self._free: set[str] = set()

    def __call__(self, outputs: Sequence[Tensor], losses: Tensor, plain: Sequence[Tensor | None]) -> bool:
        """`plain`: the gradient of the sum of the losses by the outputs."""
        if len(losses) == 1:
            return False
        where = [losses.grad_fn], len(losses), [z.grad_fn for z in outputs]
        key = tuple(fingerprint(*where, look=False))
        if key not in self._kinds:
            if len(self._kinds) > 1000:
                self._kinds.clear()
            walk = Walk(where[0], {}, *where[1:], look=False)
            self._kinds[key] = digest(walk.pairs) if row_wise(walk) else ""
        kind = self._kinds[key]
        if kind in self._free or kind in self.found:
            return kind in self.found
        r = uneven(losses)
        mixed = differs(plain, _by_outputs((r * losses).sum(), outputs), r)
        if kind and mixed:
            self.found.append(kind)
        elif kind:
            self._free.add(kind)
        return mixed


def uneven(losses: Tensor) -> Tensor:
    """(n,) weights in (0, 1.01], no two alike."""
    return (torch.arange(1, len(losses) + 1, device=losses.device) * 0.6180339887).frac().to(losses) + 0.01


def coupled(outputs: Sequence[Tensor], losses: Tensor) -> bool:
    """Whether a loss reads the outputs of another example. Two backward passes through the losses alone."""
    if len(losses) == 1 or not losses.requires_grad:
        return False
    r = uneven(losses)
    plain = _by_outputs(losses.sum(), outputs)
    return differs(plain, _by_outputs((r * losses).sum(), outputs), r)


def differs(plain: Sequence[Tensor | None], scaled: Sequence[Tensor | None], r: Tensor) -> bool:
    """Whether the gradient of sum r_i l_i is not r_i times that of sum l_i, row by row."""
    off, size = [], []
    for c, s in zip(plain, scaled, strict=True):
        if c is None or s is None:
            continue
        expected = c * r.to(c.dtype).view(-1, *[1] * (c.ndim - 1))
        off.append((s - expected).float().norm())
        size.append(torch.maximum(expected.float().norm(), s.float().norm()))
    if not off:
        return False
    half = any(c is not None and c.dtype in (torch.float16, torch.bfloat16) for c in plain)
    return bool(torch.stack(off).norm() > (0.05 if half else 1e-4) * torch.stack(size).norm())


def _by_outputs(total: Tensor, outputs: Sequence[Tensor]) -> Sequence[Tensor | None]:
    with torch.enable_grad():
        return torch.autograd.grad(total, outputs, retain_graph=True, allow_unused=True)


def along(outputs: Sequence[Tensor], losses: Tensor, changes: Sequence[Tensor | None]) -> Tensor:
    """(n,) the derivative of the losses when the outputs change by `changes`; a loss may read any of them.

    Raises:
        ValueError: an operation of the loss can be differentiated only once.
    """
    with torch.enable_grad():
        w = torch.ones_like(losses, requires_grad=True)
        try:
            made = torch.autograd.grad((w * losses).sum(), outputs, create_graph=True, allow_unused=True)
            pairs = [(g, c) for g, c in zip(made, changes, strict=True) if g is not None and c is not None]
            (score,) = torch.autograd.grad(
                [g for g, _ in pairs], w, [c.to(g.dtype) for g, c in pairs], retain_graph=True, materialize_grads=True
            )
        except (NotImplementedError, RuntimeError) as error:
            raise ValueError(f"{_ONCE}: {str(error).splitlines()[0]}\n{_EXPECTED}") from None
    total = sum((g.detach() * c.to(g.dtype)).sum() for g, c in pairs)
    size = sum((g.detach() * c.to(g.dtype)).abs().sum() for g, c in pairs)
    if bool((score.sum() - total).abs() > 1e-2 * size):  # some operations cut the graph without a word
        raise ValueError(f"{_ONCE}\n{_EXPECTED}")
    return score


_ONCE = "reweight: the losses read the outputs of other examples and cannot be differentiated twice"
_EXPECTED = "expected backend: per_example, which needs no second derivative"
