"""Why a micro-batch that is evaluated twice gives different results, as far as that can be determined."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gradworks.methods._shared.difference import difference
from gradworks.methods._shared.outside import Outside, named, own_generators, state_of

if TYPE_CHECKING:
    from gradworks.methods._shared.replay import Evaluation

Evaluated = Callable[[], Sequence[Tensor]]
_EXPECTED = "expected random numbers from torch's global generator alone, and state that moves in buffers"
_EXPECTED_OF_LOSS = "expected random numbers of the loss to come with the batch: those of outputs alone are keyed"


def cause(one: Evaluation, graph: Evaluated | None, plain: Evaluated, off: float, bound: float) -> str:
    """Three lines: what differs, what it comes from, what is expected.

    Args:
        graph: evaluates the outputs again, with a graph; None = the losses differ, and the outputs agree.
        plain: evaluates what differs again, without a graph.
        off: by how much it differs, over its size.
        bound: below it, that is rounding.
    """
    what = "losses of the same outputs" if graph is None else "outputs"
    said = f"replay: the same batch at the same parameters under the same dropout masks gave other {what} ({off:.1g})"
    generators = own_generators(one.model, one.task, one.task.loss, one.task.outputs)
    states = {name: state_of(g) for name, g in generators.items()}
    outside, before = Outside(one.model), torch.get_rng_state()
    first, calls = _traced(one.model, plain)
    second, again = _traced(one.model, plain)
    drawn = outside.generators()
    drawn += [f"a generator of its own ({name})" for name, g in generators.items() if state_of(g) != states[name]]
    if graph is None and not torch.equal(before, torch.get_rng_state()):
        drawn.append("torch's global generator")
    moved, expected = outside.attributes(), _EXPECTED if graph is not None else _EXPECTED_OF_LOSS
    place = _place(calls, again)
    if graph is not None and not drawn and difference(first, second) <= bound:
        place = _place(again, _traced(one.model, graph)[1])
        why, expected = "other outputs with a graph than without one", "expected the same under torch.no_grad()"
    elif drawn:
        why = f"{', '.join(drawn)} moved"
    elif moved:
        inside = [key for name, key in moved if name == place]
        place = place if inside else moved[0][0]
        inside = inside or [key for name, key in moved if name == place]
        why = f"attribute {', '.join(inside[:3])} moved, which is no buffer"
    else:
        why = "a generator that is not torch's global one, or state that is in no buffer"
    if place is not None:
        where = f", in {named(place, dict(one.model.named_modules())[place])}"
    else:
        where = " in the loss" if graph is None else ", outside of the modules"
    return f"{said}\nfound {why}{where}\n{expected}"


def _traced(model: nn.Module, run: Evaluated) -> tuple[Sequence[Tensor], list[tuple[str, Any, Any]]]:
    """What `run` gives, and (module, its inputs, its outputs) in the order in which calls of modules end."""
    calls: list[tuple[str, Any, Any]] = []
    handles = [
        module.register_forward_hook(
            lambda _, args, kwargs, made, name=name: calls.append((name, _mark((args, kwargs)), _mark(made))),
            with_kwargs=True,
        )
        for name, module in model.named_modules()
        if not isinstance(module, torch.jit.ScriptModule)
    ]
    try:
        return run(), calls
    finally:
        for handle in handles:
            handle.remove()


def _mark(value: Any, depth: int = 4) -> Any:
    """Numbers that tell two nests of tensors apart."""
    if isinstance(value, Tensor):
        t = (value.detach().to_dense() if value.is_sparse else value.detach()).double().flatten()
        return tuple(value.shape), float(t.sum()), float(t @ torch.linspace(1, 2, t.numel()).to(t))
    if depth and isinstance(value, dict):
        return tuple(_mark(one, depth - 1) for one in value.values())
    if depth and isinstance(value, list | tuple):
        return tuple(_mark(one, depth - 1) for one in value)
    return None


def _place(first: list[tuple[str, Any, Any]], second: list[tuple[str, Any, Any]]) -> str | None:
    """The first module to end whose outputs differ where its inputs do not; None without one."""
    for (name, before, made), (other, again, made_again) in zip(first, second, strict=False):
        if name != other:
            return None
        if before == again and made != made_again:
            return name
    return None
