"""nn.GRU with backpropagation through time written out, so that the gradients of all gates are available.

With gi = x W_ih^T + b_ih and gh = h_(t-1) W_hh^T + b_hh (gates r, z, n in nn.GRU's order):

    r = sigmoid(gi_r + gh_r)    z = sigmoid(gi_z + gh_z)    n = tanh(gi_n + r * gh_n)    h_t = n + z * (h_(t-1) - n)

Both products are linear layers, so a call of the module is two uses of the rule for linear layers per layer and
direction. Outputs are those of nn.GRU to rounding. Backward: with D = dh_t, everything that does not depend on D is
made for all positions at once, and one product with W_hh per position is left. That is faster than autograd on the CPU,
so the clean gradient is taken this way too.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge
from torch.nn import functional as F

from gradworks.methods.weightings._shared.layers import RULES, NotCovered, Use


class _Recurrence(torch.autograd.Function):
    """(L, m, 3H) input gates -> (L, m, H) states; the gradient of `slot` is that of the hidden gates."""

    @staticmethod
    def forward(
        ctx: Any, gi: Tensor, h0: Tensor, slot: Tensor, weight: Tensor, bias: Tensor | None, made: list
    ) -> Tensor:
        length, m, _ = gi.shape
        size = weight.shape[1]
        states = gi.new_empty(length + 1, m, size)
        states[0] = h0
        gates, fresh = gi.new_empty(length, m, 3 * size), gi.new_empty(length, m, size)  # r, z, gh_n; n
        across = weight.t()
        steps = zip(gi.unbind(), gates.unbind(), fresh.unbind(), states.unbind(), states[1:].unbind(), strict=False)
        for i, gate, n, before, after in steps:
            torch.mm(before, across, out=gate) if bias is None else torch.addmm(bias, before, across, out=gate)
            gate[:, : 2 * size].add_(i[:, : 2 * size]).sigmoid_()
            torch.addcmul(i[:, 2 * size :], gate[:, :size], gate[:, 2 * size :], out=n).tanh_()
            torch.lerp(n, before, gate[:, size : 2 * size], out=after)
        made.append(states[:-1])
        ctx.save_for_backward(states, gates, fresh, weight)
        return states[1:]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple:
        # in place wherever it can be: the peak of memory of a model that is mostly a GRU is here
        states, gates, n, weight = ctx.saved_tensors
        length, m, size = n.shape
        r, z, hidden = gates.split(size, -1)
        gi = gates.new_empty(length, m, 3, size)
        reset = torch.mul(n, n, out=gi[:, :, 2]).neg_().add_(1)  # d h_t / d (gi_n + r * gh_n)
        reset.addcmul_(reset, z, value=-1)
        gh = torch.empty_like(gi)  # d h_t / d gh
        torch.mul(reset, r, out=gh[:, :, 2])
        by = torch.mul(gh[:, :, 2], hidden, out=gh[:, :, 0])
        by.addcmul_(by, r, value=-1)
        by = torch.sub(states[:-1], n, out=gh[:, :, 1]).mul_(z)
        by.addcmul_(by, z, value=-1)
        above = grad.new_zeros(m, size)
        steps = list(zip(grad.unbind(), gh.unbind(), reset.unbind(), z.unbind(), strict=True))
        for g, b, into, keep in reversed(steps):
            total = above + g
            b.mul_(total[:, None])
            into.mul_(total)
            above = torch.addmm(total.mul_(keep), b.view(m, 3 * size), weight)
        gi[:, :, :2] = gh[:, :, :2]
        gi, gh = gi.view(length, m, 3 * size), gh.view(length, m, 3 * size)
        of_weight = of_bias = None
        if ctx.needs_input_grad[3]:
            of_weight = gh.flatten(0, 1).t() @ states[:-1].flatten(0, 1)
        if ctx.needs_input_grad[4]:
            of_bias = gh.sum((0, 1))
        return gi, above, gh if ctx.needs_input_grad[2] else None, of_weight, of_bias, None


def reason(module: nn.GRU) -> str:
    """Why this GRU is not covered; empty if it is."""
    return "dropout between layers is not covered" if module.dropout and module.num_layers > 1 else ""


Record = Callable[[Use], None]


def forward(module: nn.GRU, name: str, record: Record | None) -> Callable[..., tuple[Tensor, Tensor]]:
    """A replacement for the module's `forward`.

    Args:
        module: covered, see `reason`.
        name: in the model.
        record: called at every use; the weights then get no gradient. None: they get it as from nn.GRU.
    """

    def run(x: Any, hx: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if not isinstance(x, Tensor) or x.ndim != 3:
            if record is None:
                return nn.GRU.forward(module, x, hx)
            raise NotCovered(name, "a GRU over packed sequences or without a batch dimension is not covered")
        if not torch.is_grad_enabled():
            return nn.GRU.forward(module, x, hx)
        x = x.transpose(0, 1) if module.batch_first else x
        last, directions = [], 2 if module.bidirectional else 1
        for layer in range(module.num_layers):
            made = []
            for side in range(directions):
                h0 = x.new_zeros(x.shape[1], module.hidden_size) if hx is None else hx[len(last)]
                states = _direction(module, name, record, x.flip(0) if side else x, h0, f"l{layer}" + "_reverse" * side)
                last.append(states[-1])
                made.append(states.flip(0) if side else states)
            x = made[0] if directions == 1 else torch.cat(made, -1)
        # a copy: whoever writes into the output must not write into what the backward pass reads
        return (x.transpose(0, 1) if module.batch_first else x).clone(), torch.stack(last)

    return run


@contextlib.contextmanager
def standing_in(module: nn.GRU, name: str, record: Record | None) -> Iterator[None]:
    """Inside, calls of the module run `forward`."""
    own = module.__dict__.get("forward")  # None: that of its class
    module.forward = forward(module, name, record)
    try:
        yield
    finally:
        del module.forward
        if own is not None:
            module.forward = own


def _direction(module: nn.GRU, name: str, record: Record | None, x: Tensor, h0: Tensor, suffix: str) -> Tensor:
    """(L, m, D) -> (L, m, H)"""
    of = {part: getattr(module, f"{part}_{suffix}", None) for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
    x = x.contiguous()
    gi = F.linear(x, of["weight_ih"], of["bias_ih"])
    weight, bias = of["weight_hh"], of["bias_hh"]
    slot, before = gi.new_zeros(()).expand(gi.shape), []
    if record:
        slot.requires_grad_()
        weight, bias = weight.detach(), None if bias is None else bias.detach()
    bias = None if bias is None else bias.to(gi.dtype)  # of autocast
    states = _Recurrence.apply(gi, h0.to(gi.dtype), slot, weight.to(gi.dtype), bias, before)
    if record:
        linear, bias = RULES[nn.Linear], of["bias_hh"]
        if gi.requires_grad:
            edge = get_gradient_edge(gi)
            record(Use(name, linear, module, of["weight_ih"], of["bias_ih"], x.detach(), edge, time_major=True))
        record(Use(name, linear, module, of["weight_hh"], bias, before[0], get_gradient_edge(slot), time_major=True))
    return states
