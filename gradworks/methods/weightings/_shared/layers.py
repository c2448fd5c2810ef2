"""Inner products with per-example gradients, and weighted sums of them, one rule per type of layer.

With x the input of a layer, g the gradient of the sum of the losses by its output and V the direction in its weights,
<V, gradient of example i> is the sum over example i's rows of <linearised layer(x; V), g>, and the gradient of a
weighted sum of losses is the layer's own weight gradient with g (or x) scaled row by row. No per-example gradient is
formed. (Goodfellow 2015, arXiv:1510.01799, for norms; Lee and Kifer 2021, arXiv:2009.03106, for the other layers.)

x and g come as (A, n, K, ...): n examples with A * K rows each; `...` is what the layer works on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class NotCovered(ValueError):
    """Something whose per-example gradients the rules cannot give.

    Attributes:
        module: its name in the model; empty: the model.
        reason: why.
    """

    def __init__(self, module: str, reason: str):
        where = f"module {module}" if module else "the model"
        super().__init__(f"ghost cannot serve {where}: {reason}\nuse backend: logit_fd, which serves any model")
        self.module, self.reason = module, reason


@dataclass
class Use:
    """One call of a module.

    Attributes:
        name: of the module.
        rule: of its type.
        module, weight, bias: the module and the parameters of this call.
        x: its input.
        edge: where the gradient of its output passes.
        time_major: dim 0 is a position and dim 1 the row.
        small: gradients of each example by small parameters, which are formed: (parameter, (n, size)).
        large: whether the weight is a trained parameter that is not among them.
    """

    name: str
    rule: Rule
    module: nn.Module
    weight: Tensor | None
    bias: Tensor | None
    x: Tensor
    edge: Any
    time_major: bool = False
    small: list[tuple[Tensor, Tensor]] | None = None
    large: bool = False


@dataclass
class Few:
    """A (V, D) direction with few rows that are not zero: a batch reads few rows of a table.

    Attributes:
        values: those rows, after a row of zeros.
        place: (V,) the index of each row in `values`.
    """

    values: Tensor
    place: Tensor

    @staticmethod
    def of(full: Tensor) -> Few | None:
        """None where it would save little."""
        rows = torch.linalg.vector_norm(full, dim=1).nonzero()[:, 0]  # the norms are the fastest way to ask
        if len(rows) > len(full) // 2:
            return None
        place = torch.zeros(len(full), dtype=torch.long, device=full.device)
        place[rows] = torch.arange(1, len(rows) + 1, device=full.device)
        return Few(torch.cat([full.new_zeros(1, full.shape[1]), full[rows]]), place)

    def full(self) -> Tensor:
        """(V, D)"""
        return self.values[self.place]


class Gradients:
    """Sums over uses, one tensor per trainable parameter, in memory that is given, or new where it is None."""

    def __init__(self, parameters: Sequence[nn.Parameter], memory: Sequence[Tensor | None]):
        self._place = {id(p): j for j, p in enumerate(parameters)}
        self._parameters, self._sums, self._fresh = parameters, list(memory), [True] * len(memory)

    def _sum(self, j: int) -> Tensor:
        if self._sums[j] is None:
            self._sums[j] = torch.empty_like(self._parameters[j])
        return self._sums[j]

    def memory(self, parameter: Tensor) -> tuple[Tensor, bool]:
        """The sum so far and whether nothing was written into it yet; the caller writes into it."""
        j = self._place[id(parameter)]
        fresh, self._fresh[j] = self._fresh[j], False
        return self._sum(j), fresh

    def add(self, parameter: Tensor | None, value: Tensor) -> None:
        out, fresh = self.memory(parameter)
        (out.copy_ if fresh else out.add_)(value.view_as(out))

    def add_product(self, parameter: Tensor, a: Tensor, b: Tensor) -> None:
        """a^T b for (rows, k) and (rows, l)."""
        out, fresh = self.memory(parameter)
        if a.dtype != out.dtype:
            (out.copy_ if fresh else out.add_)(a.t() @ b)
        elif fresh:
            torch.mm(a.t(), b, out=out)
        else:
            out.addmm_(a.t(), b)

    def done(self) -> list[Tensor]:
        return [self._sum(j).zero_() if fresh else self._sums[j] for j, fresh in enumerate(self._fresh)]


class Rows:
    """The examples that count, and their weights: the others' rows are left out of every weight gradient."""

    def __init__(self, weights: Tensor):
        self._index = weights.nonzero()[:, 0]
        self._all = len(self._index) == len(weights)
        self._weights = weights if self._all else weights[self._index]
        self.count = len(self._index)
        self._made: dict[tuple, tuple[Tensor, Tensor]] = {}

    def take(self, t: Tensor, scaled: bool = False, dtype: torch.dtype | None = None) -> Tensor:
        """(A, n, K, ...) -> (A, count, K, ...), each example times its weight where `scaled`."""
        key = (t.data_ptr(), t.shape, t.stride(), t.dtype, scaled, dtype)
        if key not in self._made:
            out = t if self._all else t.index_select(1, self._index)
            if scaled:
                shape = (1, -1) + (1,) * (t.ndim - 2)
                out = (out.mul if out is t else out.mul_)(self._weights.to(t.dtype).view(shape))
            if len(self._made) > 3:  # neighbours share inputs (query, key, value) and gradients (sums of embeddings)
                self._made.pop(next(iter(self._made)))
            # t is kept, else its memory could come again
            self._made[key] = t, out if dtype is None else out.to(dtype)
        return self._made[key][1]


def inner(a: Tensor, b: Tensor) -> Tensor:
    """(A, n, ...) x 2 -> (n,)"""
    if a.dtype in (torch.float16, torch.bfloat16):
        a, b = a.float(), b.float()
    return torch.linalg.vecdot(a.flatten(2), b.flatten(2)).sum(0)


def per_example(g: Tensor) -> Tensor:
    """(A, n, K, ...) -> (n, ...) sums over the rows of each example, flat."""
    wide = torch.promote_types(g.dtype, torch.float32)
    rows = g[0] if len(g) == 1 else g.sum(0, dtype=wide)  # both dimensions at once take up to 25 times as long
    return rows.sum(1, dtype=wide).flatten(1)


def flat(t: Tensor, kept: int = 1) -> Tensor:
    """(A, n, K, ...) -> (rows, ...)"""
    return t.flatten(0, t.ndim - kept - 1)


class Rule:
    """What is known of one type of layer."""

    def reason(self, module: nn.Module) -> str:
        """Why this module is not covered; empty if it is."""
        return ""

    def tail(self, use: Use) -> tuple[int, int]:
        """How many dimensions the layer works on, of its input and of its output."""
        return 1, 1

    def small(self, use: Use, x: Tensor, g: Tensor) -> dict[Tensor, Callable[[], Tensor]]:
        """What makes the (n, size) gradients of the examples by each small parameter."""
        return {use.bias: lambda: per_example(g)}

    def inner(self, use: Use, x: Tensor, g: Tensor, weight: Tensor) -> Tensor:
        """(n,) <V, gradient of example i>, V in the direction `weight` of the large parameter."""
        raise NotImplementedError

    def add(self, use: Use, x: Tensor, g: Tensor, rows: Rows, to: Gradients) -> None:
        """Add the weighted sum of the gradients of all examples by the large parameter."""
        raise NotImplementedError


class Linear(Rule):
    """y = x W^T + b."""

    def inner(self, use: Use, x: Tensor, g: Tensor, weight: Tensor) -> Tensor:
        weight = weight.to(g.dtype)
        if x.shape[-1] <= g.shape[-1]:  # the product of the smaller size
            return inner((flat(g) @ weight).view(x.shape), x.to(g.dtype))
        return inner((flat(x).to(g.dtype) @ weight.t()).view(g.shape), g)

    def add(self, use: Use, x: Tensor, g: Tensor, rows: Rows, to: Gradients) -> None:
        scale_x = x.shape[-1] <= g.shape[-1]
        g = rows.take(g, scaled=not scale_x)
        to.add_product(use.weight, flat(g), flat(rows.take(x, scaled=scale_x, dtype=g.dtype)))


class Embedding(Rule):
    """y = W[x]; one row of indices for all examples (positions) stays one row."""

    def reason(self, module: nn.Module) -> str:
        for option in ("max_norm", "scale_grad_by_freq", "sparse"):
            if getattr(module, option):
                return f"{option} is not covered"
        return ""

    def tail(self, use: Use) -> tuple[int, int]:
        return 0, 1

    def small(self, use: Use, x: Tensor, g: Tensor) -> dict[Tensor, Callable[[], Tensor]]:
        return {}

    def inner(self, use: Use, x: Tensor, g: Tensor, weight: Tensor | Few) -> Tensor:
        few, pad = isinstance(weight, Few), use.module.padding_idx
        t = F.embedding(weight.place[x], weight.values) if few else F.embedding(x, weight)
        if not few and pad is not None and bool(weight[pad].any()):  # where another module has the weights too
            t = t.masked_fill((x == pad)[..., None], 0)
        if x.shape[:3] != g.shape[:3]:
            return flat(g, 2).flatten(1) @ t.to(g.dtype).flatten()
        return inner(t.to(g.dtype), g)

    def add(self, use: Use, x: Tensor, g: Tensor, rows: Rows, to: Gradients) -> None:
        out, fresh = to.memory(use.weight)
        if fresh:
            out.zero_()
        pad = use.module.padding_idx
        before = None if pad is None else out[pad].clone()
        if x.shape[:3] != g.shape[:3]:
            index, source = x.flatten(), rows.take(g, scaled=True).sum((0, 1))
        else:
            index, source = rows.take(x).flatten(), flat(rows.take(g, scaled=True))
        out.index_add_(0, index, source.to(out.dtype))
        if pad is not None:
            out[pad] = before


class LayerNorm(Rule):
    """y = x^ * W + b, x^ normalised over the last dimensions."""

    def tail(self, use: Use) -> tuple[int, int]:
        return (len(use.module.normalized_shape),) * 2

    def normalised(self, module: nn.Module, x: Tensor) -> Tensor:
        return F.layer_norm(x, module.normalized_shape, None, None, module.eps)

    def small(self, use: Use, x: Tensor, g: Tensor) -> dict[Tensor, Callable[[], Tensor]]:
        x = x.to(use.weight.dtype)  # of autocast's inputs
        return super().small(use, x, g) | {use.weight: lambda: per_example(self.normalised(use.module, x).mul_(g))}


class RMSNorm(LayerNorm):
    """y = x^ * W."""

    def normalised(self, module: nn.Module, x: Tensor) -> Tensor:
        return F.rms_norm(x, module.normalized_shape, None, module.eps)


class Conv(Rule):
    """Convolutions of one to three dimensions, with groups, dilation and every padding."""

    def tail(self, use: Use) -> tuple[int, int]:
        return use.x.ndim - 1, use.x.ndim - 1

    def _padded(self, use: Use, x: Tensor) -> tuple[Tensor, list]:
        """(rows, C, ...) and what is left to say to the convolution: stride, padding, dilation."""
        m, padding = use.module, use.module.padding
        if m.padding_mode != "zeros" or isinstance(padding, str):
            mode = "constant" if m.padding_mode == "zeros" else m.padding_mode
            x = F.pad(x, m._reversed_padding_repeated_twice, mode)
            padding = [0] * len(m.stride)
        return x, [m.stride, padding, m.dilation, False, [0] * len(m.stride), m.groups]

    def small(self, use: Use, x: Tensor, g: Tensor) -> dict[Tensor, Callable[[], Tensor]]:
        return {use.bias: lambda: per_example(g.flatten(4).sum(4))}

    def inner(self, use: Use, x: Tensor, g: Tensor, weight: Tensor) -> Tensor:
        padded, how = self._padded(use, flat(x, x.ndim - 3).to(g.dtype))
        made = torch.convolution(padded, weight.to(g.dtype), None, *how)
        return inner(made.view(g.shape), g)

    def add(self, use: Use, x: Tensor, g: Tensor, rows: Rows, to: Gradients) -> None:
        padded, how = self._padded(use, flat(rows.take(x, dtype=g.dtype), x.ndim - 3))
        g = flat(rows.take(g, scaled=True), g.ndim - 3)
        made = torch.ops.aten.convolution_backward(g, padded, use.weight.to(g.dtype), None, *how, [False, True, False])
        to.add(use.weight, made[1])


class Scale(LayerNorm):
    """y = a(x) + b(x) * W, one weight for each entry: the norms of transformers, b by two calls of the module."""

    def reason(self, module: nn.Module) -> str:
        own = dict(module.named_parameters())
        return "" if list(own) == ["weight"] and own["weight"].ndim == 1 else "it has other parameters than one weight"

    def tail(self, use: Use) -> tuple[int, int]:
        return 1, 1

    def normalised(self, module: nn.Module, x: Tensor) -> Tensor:
        one, zero = (
            torch.func.functional_call(module, {"weight": torch.full_like(module.weight, value)}, (x,))
            for value in (1.0, 0.0)
        )
        return one - zero

    def small(self, use: Use, x: Tensor, g: Tensor) -> dict[Tensor, Callable[[], Tensor]]:
        return {use.weight: lambda: per_example(self.normalised(use.module, x).mul(g))}


class Transposed(Linear):
    """y = x W + b, as GPT-2 has it."""

    def inner(self, use: Use, x: Tensor, g: Tensor, weight: Tensor) -> Tensor:
        return super().inner(use, x, g, weight.t())

    def add(self, use: Use, x: Tensor, g: Tensor, rows: Rows, to: Gradients) -> None:
        g = rows.take(g, scaled=True)
        to.add_product(use.weight, flat(rows.take(x, dtype=g.dtype)), flat(g))


# by exact type: a subclass may compute something else
RULES: dict[type[nn.Module], Rule] = {
    nn.Linear: Linear(),
    nn.Embedding: Embedding(),
    nn.LayerNorm: LayerNorm(),
    nn.RMSNorm: RMSNorm(),
    nn.Conv1d: Conv(),
    nn.Conv2d: Conv(),
    nn.Conv3d: Conv(),
}
# of transformers, which is not imported here; that they compute what their rule says is checked by `agreement.py`
_NAMED: dict[str, Rule] = {"Conv1D": Transposed(), "T5LayerNorm": Scale()}


def rule_of(module: nn.Module) -> Rule | None:
    """The rule of a module's type; None where there is none."""
    kind = type(module)
    if kind in RULES or not kind.__module__.startswith("transformers."):
        return RULES.get(kind)
    return _NAMED.get(kind.__name__) or (_NAMED["T5LayerNorm"] if kind.__name__.endswith("RMSNorm") else None)
