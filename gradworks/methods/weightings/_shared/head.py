"""Inner products of the gradients of the head alone: the linear layer that is called last.

With x the input of that layer, g the gradient of the sum of the losses by its output, and V, b the clean gradient of
its weights and bias, u_i = sum over example i's rows of <V x + b, g>. g needs a backward pass through the loss alone;
V and b need the forward pass of the clean batch, without a graph up to this layer, and the same. So a clean batch of
share r costs r/3 of a plain pass, and the scores nothing: (3 + r) / 3 in all, whatever the encoder.

It is an approximation: u without the summands of all other layers. What it does to scores and to accuracy is measured
in benchmarks/PRICE.md. (Last-layer gradients as a proxy: Katharopoulos and Fleuret 2018, arXiv:1803.00942, section 3.2,
for norms.)
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gradworks.methods._shared.tensors import at_least_float32, widened
from gradworks.methods.weightings._shared.ghost import CONTIGUOUS, by_example, recording
from gradworks.methods.weightings._shared.layers import Use, flat
from gradworks.methods.weightings._shared.losses import uneven
from gradworks.spec import Outputs, Pass, Reduce, Sum, Visit

# relative; rounding is 1e-6 in float32 and 1e-2 in bf16, rows of other examples 0.2 and more
_EXACT, _EXACT_HALF = 1e-3, 0.15


class Head:
    """Cost: a forward pass of the clean batch; no memory beyond its graph.

    The scores of each micro-batch are checked: that the rows of the layer are examples, and that no loss reads another
    example's outputs.
    """

    def __init__(self) -> None:
        self._names: dict[str, str] = {}  # of the layer, by task
        self._direction: list[Tensor] = []
        self._uses: list[Use] = []
        self._trained: list[nn.Module | nn.Parameter] = []  # the model and parameters that the names are of

    def prepare(self, visit: Visit) -> None:
        self._direction = visit.clean_gradient(self._clean)

    def _clean(self, here: Pass) -> Sum:
        """Of a clean micro-batch."""
        trained = [here.model, *here.parameters]
        if self._trained and list(map(id, trained)) != list(map(id, self._trained)):
            self._names.clear()  # another layer may be the last one that is trained
        self._trained = trained
        name = self._names.get(here.batch.task) or self._find(here)
        module = here.model.get_submodule(name)
        with recording([(name, module)], len(here.batch.mass)) as uses, _graph_from(module):
            losses = here.loss(here.outputs())
        weights = here.batch.mass.to(losses)
        found: list[Tensor] = []
        for use, g in zip(uses, _by_output((weights * losses).sum(), uses, retain=False), strict=True):
            if g is not None:
                found = _added(found, _gradient(use, g))
        if not found:
            raise _none(here)
        return Sum(found, weights.sum(), losses.detach(), weights)

    def _find(self, here: Pass) -> str:
        """The layer, by a pass of its own, which is not counted: each rank looks, and one process once."""
        before = here.count(0)
        modules = [
            (name, module)
            for name, module in here.model.named_modules()
            if type(module) is nn.Linear and any(p.requires_grad for p in module.parameters(recurse=False))
        ]
        with recording(modules, 1) as uses:  # names alone are wanted: a row that all examples share stays one
            losses = here.loss(here.outputs())
        made = _by_output(losses.sum(), uses, retain=False)
        here.count(before - here.count(0))
        reached = [use.name for use, g in zip(uses, made, strict=True) if g is not None]
        if not reached:
            raise _none(here)
        self._names[here.batch.task] = reached[-1]
        return reached[-1]

    @contextlib.contextmanager
    def recorded(self, here: Pass) -> Iterator[None]:
        """Inside, the calls of the layer are noted, of the next pass that is scored."""
        name = self._names[here.batch.task]
        with recording([(name, here.model.get_submodule(name))], len(here.batch.mass)) as self._uses:
            yield
        self._uses = []

    def scores(self, here: Pass, outputs: Outputs, losses: Tensor) -> Tensor:
        """(n,) u, of the head.

        Raises:
            ValueError: its rows are not examples, or losses read the outputs of other examples.
        """
        before, n, r = here.count(0), len(losses), uneven(losses)
        uses = list(self._uses)
        one, other = (_by_output(total, uses) for total in (losses.sum(), (r * losses).sum()))
        here.count(before - here.count(0))
        score = torch.zeros_like(losses)
        with torch.no_grad(), torch.autocast(losses.device.type, enabled=False):
            for use, g, uneven_g in zip(uses, one, other, strict=True):
                if g is None:
                    continue
                g, uneven_g, x = widened([_rows(t, n, use) for t in (g, uneven_g, use.x)])
                bound = _EXACT if use.x.dtype in (torch.float32, torch.float64) else _EXACT_HALF
                if bool((uneven_g - r.to(g).view(1, n, 1, 1) * g).norm() > bound * uneven_g.norm()):
                    raise _mixed(use)
                v, *b = self._direction
                made = flat(x) @ v.to(g).t() + (b[0].to(g) if b else 0)
                score += (made.view(g.shape) * g).sum((0, 2, 3)).to(score)
        return score

    def end(self, reduce: Reduce) -> None:
        self._direction = []

    def state_dict(self) -> dict[str, Any]:
        return {"names": dict(self._names)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._names = dict(state["names"])


@contextlib.contextmanager
def _graph_from(module: nn.Module) -> Iterator[None]:
    """Inside, a graph is made from the first call of the module on."""

    def begin(*_: Any) -> None:
        torch.set_grad_enabled(True)

    handle, before = module.register_forward_pre_hook(begin), torch.is_grad_enabled()
    torch.set_grad_enabled(False)
    try:
        yield
    finally:
        torch.set_grad_enabled(before)
        handle.remove()


def _by_output(total: Tensor, uses: Sequence[Use], retain: bool = True) -> Sequence[Tensor | None]:
    """The gradients of a () sum by what the calls gave."""
    if not uses or not total.requires_grad:
        return [None] * len(uses)
    with torch.enable_grad():
        return torch.autograd.grad(total, [u.edge for u in uses], retain_graph=retain, allow_unused=True)


def _gradient(use: Use, g: Tensor) -> list[Tensor]:
    """Of the sum of the losses, by weight and bias of one call."""
    kind = at_least_float32(g.dtype)
    g, x = (t.flatten(0, -2).to(kind) for t in (g, use.x))
    with torch.autocast(g.device.type, enabled=False):
        return [g.t() @ x, *([] if use.bias is None else [g.sum(0)])]


def _added(x: list[Tensor], y: list[Tensor]) -> list[Tensor]:
    return [a + b for a, b in zip(x, y, strict=True)] if x else y


def _rows(t: Tensor, n: int, use: Use) -> Tensor:
    try:
        return by_example(t, 1, n, False, CONTIGUOUS)
    except ValueError:
        raise _mixed(use) from None


def _none(here: Pass) -> ValueError:
    return ValueError(
        f"reweight: backend head: found no trained nn.Linear that the losses of task {here.batch.task!r} depend on\n"
        "expected backend: auto or logit_fd, which serve any model"
    )


def _mixed(use: Use) -> ValueError:
    return ValueError(
        f"reweight: backend head: the rows of module {use.name} are not examples, or a loss reads another example\n"
        "expected backend: auto or logit_fd, which serve any model"
    )
