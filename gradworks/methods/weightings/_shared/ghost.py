"""Inner products of gradients layer by layer, exact, and the weighted gradient from the same backward pass.

With v the clean gradient: u_i = <v, grad l_i> = sum over layers of <v's part, part of grad l_i>, and both this and the
weighted gradient follow from the input of each layer and the gradient of the sum of the losses by its output (see
`layers.py`). So one forward pass and one backward pass through the activations serve scores and gradient; the second
backward pass of every other back-end is not made, and rows of examples with weight zero never enter a product.

Cost with a clean batch of share r: r for v, then 1/3 forward, 1/3 activations, 1/3 inner products and at most 1/3
weight gradients: (4 + 3r) / 3 plain passes. Memory: v, whose memory becomes the gradient, and the layers' inputs and
output gradients until the weights are known. Of the rows of v of an embedding only those that the clean batch reads
are kept.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge

from gradworks.methods.weightings._shared import gru
from gradworks.methods.weightings._shared.kinds import Kinds
from gradworks.methods.weightings._shared.layers import Few, Gradients, NotCovered, Rows, Use, rule_of
from gradworks.methods.weightings._shared.structure import Uneven, digest
from gradworks.spec import Outputs, Pass, Reduce, Visit

CONTIGUOUS, STACKED, SECOND = "contiguous", "stacked", "second"
LAYOUTS = (CONTIGUOUS, STACKED, SECOND)


@dataclass
class Recorded:
    """One forward pass: what was called, and what came out."""

    here: Pass
    outputs: Outputs
    losses: Tensor
    uses: list[Use]
    kind: str = ""  # see `kinds.py`
    row_wise: bool = True  # the losses consist of operations that do not mix rows
    layouts: Mapping[str, str] = field(default_factory=dict)  # of modules whose rows are not contiguous
    gradients: Sequence[Tensor | None] = ()  # of the sum of the losses, by the output of each use


def covered(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """The modules that own the trained parameters.

    Raises:
        NotCovered: one of them has no rule.
    """
    found = []
    for name, module in model.named_modules():
        trained = [n for n, p in module.named_parameters(recurse=False) if p.requires_grad]
        if not trained:
            continue
        if type(module) is nn.GRU:
            reason = gru.reason(module)
        elif rule := rule_of(module):
            reason = rule.reason(module)
        else:
            reason = f"its parameter {trained[0]} belongs to no layer with a rule (found {type(module).__name__})"
        if reason:
            raise NotCovered(name, reason)
        found.append((name, module))
    return found


@contextlib.contextmanager
def recording(modules: Sequence[tuple[str, nn.Module]], n: int) -> Iterator[list[Use]]:
    """Inside, calls of the modules with a graph are added to the list; n examples."""
    uses: list[Use] = []
    over = False

    def add(use: Use) -> None:
        if any(p is not None and p.requires_grad for p in (use.weight, use.bias)):
            uses.append(use)

    def hook(name: str) -> Callable[..., Tensor | None]:
        def after(module: nn.Module, args: tuple, kwargs: dict[str, Any], output: Tensor) -> Tensor | None:
            if over or not output.requires_grad or not torch.is_grad_enabled():
                return None  # over: a copy of the module that was made inside keeps the hook
            x = args[0] if args else kwargs["input"]
            if output.shape[0] == 1 and n > 1:  # one row for all examples (positions): the sum over them is split
                output = output.expand(n, *output.shape[1:])
                x = x if type(module) is nn.Embedding else x.expand(n, *x.shape[1:])
            elif output._is_view():  # what is written in place into a view would lead the gradient past the edge
                output = torch.ops.aten._unsafe_view(output, output.shape)
            edge = get_gradient_edge(output)
            add(Use(name, rule_of(module), module, module.weight, getattr(module, "bias", None), x.detach(), edge))
            return output

        return after

    with contextlib.ExitStack() as stack:
        for name, module in modules:
            if type(module) is nn.GRU:
                stack.enter_context(gru.standing_in(module, name, add))
            else:
                handle = module.register_forward_hook(hook(name), prepend=True, with_kwargs=True)
                stack.callback(handle.remove)
        try:
            yield uses
        finally:
            over = True


def _as_recorded(like: Tensor) -> torch.autocast:
    """Products in the types of what was recorded: autocast would round sums over examples once more."""
    return torch.autocast(like.device.type, enabled=False)


def by_example(t: Tensor, tail: int, n: int, time_major: bool, layout: str) -> Tensor:
    """(A, n, K, ...): which rows are example i's.

    Args:
        t: its last `tail` dimensions are what a layer works on.
        n: examples.
        time_major: dim 1 is the row, not dim 0.
        layout: rows i*k to i*k + k - 1 (contiguous), rows i, i + n, i + 2n, ... (stacked), or dim 1 (second).
    """
    lead = list(t.shape[: t.ndim - tail])
    if not time_major and layout != SECOND:
        lead.insert(0, 1)
    if len(lead) < 2 or lead[1] % n:
        raise ValueError(f"found {lead[1] if len(lead) > 1 else 'no'} rows for {n} examples")
    before, k, inside = lead[0], lead[1] // n, 1
    for size in lead[2:]:
        inside *= size
    shape = (before * k, n, inside) if layout == STACKED else (before, n, k * inside)
    return t.reshape(*shape, *t.shape[t.ndim - tail :])


class Ghost:
    """See `Reweight`, which asks for `record`, `scores` and `gradient` in this order."""

    def __init__(self) -> None:
        self.layouts: dict[str, dict[str, str]] = {}  # of each kind of pass that was examined
        self._kinds = Kinds()
        self.clean: list[Tensor | Few] | None = None  # the clean gradient, until its memory is given away
        self._last: Pass | None = None
        self._modules: list[tuple[str, nn.Module]] = []
        self._of: list[nn.Module | nn.Parameter] = []
        self._trained = ""
        self._tables: list[int] = []

    def prepare(self, visit: Visit) -> None:
        with contextlib.ExitStack() as stack:
            for name, module in self.modules(visit.passes[0]):
                if type(module) is nn.GRU and module.weight_ih_l0.device.type == "cpu":  # there it is faster
                    stack.enter_context(gru.standing_in(module, name, None))
            clean, self._last = visit.clean_gradient(), visit.passes[-1]
        for j in self._tables:  # one after another, so that not all are there twice
            clean[j] = Few.of(clean[j]) or clean[j]
        self.clean = clean

    def _only_embeddings(self, parameters: Sequence[nn.Parameter]) -> list[int]:
        """Which parameters only embeddings read."""
        of = {id(p): j for j, p in enumerate(parameters)}
        own = [(type(m) is nn.Embedding, id(p)) for _, m in self._modules for p in m.parameters(recurse=False)]
        others = {p for table, p in own if not table}
        return sorted({of[p] for table, p in own if table and p in of and p not in others})

    def modules(self, here: Pass) -> list[tuple[str, nn.Module]]:
        """Raises NotCovered."""
        of = [here.model, *here.parameters]
        if list(map(id, self._of)) != list(map(id, of)):
            self._modules, self._of = covered(here.model), of
            self._tables = self._only_embeddings(here.parameters)
            self._trained = digest([name for name, p in here.model.named_parameters() if p.requires_grad])
        return self._modules

    def trained(self, here: Pass) -> str:
        """Names the set of trained parameters. Raises NotCovered."""
        self.modules(here)
        return self._trained

    def record(self, here: Pass) -> Recorded:
        """The forward pass."""
        with recording(self.modules(here), len(here.batch.mass)) as uses:
            outputs = here.outputs()
            recorded = Recorded(here, outputs, here.loss(outputs), uses)
        more = (here.batch.task, here.model.training, self._trained)
        try:
            recorded.kind, recorded.row_wise = self._kinds(outputs, recorded.losses, uses, here.parameters, *more)
        except Uneven as error:
            raise NotCovered("", str(error)) from None
        recorded.layouts = self.layouts.get(recorded.kind, {})
        return recorded

    def backward(self, recorded: Recorded) -> None:
        """The backward pass through the activations, which ends at the outputs of the layers."""
        if recorded.gradients:
            return
        here, edges = recorded.here, [use.edge for use in recorded.uses]
        with torch.enable_grad():
            total, before = recorded.losses.sum(), here.count(0)
        if edges and total.requires_grad:
            made = torch.autograd.grad(total, edges, allow_unused=True)
            # attention gives transposed ones, which are read several times
            recorded.gradients = [None if g is None else g.contiguous() for g in made]
        else:
            recorded.gradients = [None] * len(edges)
        here.count(2 * (here.count(0) - before))  # of each pass that was met: inner products and weight gradients

    @torch.no_grad()
    def scores(self, recorded: Recorded) -> Tensor:
        """(n,) u."""
        self.backward(recorded)
        total = torch.zeros_like(recorded.losses)
        with _as_recorded(total):
            for _, score in self.parts(recorded, self.clean):
                total += score
        return total

    def parts(self, recorded: Recorded, direction: Sequence[Tensor | Few]) -> Iterator[tuple[str, Tensor]]:
        """The name of each use's module and its (n,) part of <direction, gradient of example i>."""
        v = {id(p): t for p, t in zip(recorded.here.parameters, direction, strict=True)}
        for use, x, g in self.rows(recorded):
            for parameter, gradients in use.small:
                yield use.name, gradients @ v[id(parameter)].flatten().to(gradients.dtype)
            if use.large:
                yield use.name, use.rule.inner(use, x, g, v[id(use.weight)])

    @torch.no_grad()
    def gradient(self, recorded: Recorded, weights: Tensor) -> list[Tensor | None]:
        """The sum of weights (n,) times gradients, by trainable parameter; None where no loss reaches it.

        What was recorded is used up, the last layer first: an embedding gets memory when the others' is free.
        """
        here, clean = recorded.here, [None] * len(recorded.here.parameters)
        if here is self._last:
            clean, self.clean = self.clean, None
        memory = [t if isinstance(t, Tensor) else None for t in clean]
        return self._weighted(recorded, weights, memory, self.rows(recorded, use_up=True))

    def weighted(self, recorded: Recorded, weights: Tensor) -> list[Tensor | None]:
        """`gradient` in new memory, and what was recorded stays."""
        return self._weighted(recorded, weights, [None] * len(recorded.here.parameters), self.rows(recorded))

    def _weighted(
        self, recorded: Recorded, weights: Tensor, memory: list[Tensor | None], each: Iterator[tuple]
    ) -> list[Tensor | None]:
        here = recorded.here
        rows, sums = Rows(weights), Gradients(here.parameters, memory)
        reached = set()
        with _as_recorded(weights):
            for use, x, g in each:
                reached |= {id(use.weight), id(use.bias)}
                for parameter, gradients in use.small:
                    sums.add(parameter, weights.to(gradients.dtype) @ gradients)
                if use.large and rows.count:
                    use.rule.add(use, x, g, rows, sums)
        return [t if id(p) in reached else None for t, p in zip(sums.done(), here.parameters, strict=True)]

    def rows(self, recorded: Recorded, use_up: bool = False) -> Iterator[tuple[Use, Tensor, Tensor]]:
        """Each use that the losses depend on, its input and its output gradient by example; the last use first.

        `use_up`: each is forgotten when the next is asked for.
        """
        n, mine = len(recorded.losses), {id(p) for p in recorded.here.parameters}
        for i in reversed(range(len(recorded.uses))):
            use, g = recorded.uses[i], recorded.gradients[i]
            if use_up:
                recorded.uses[i] = recorded.gradients[i] = None
            if g is None:
                continue
            layout, tails = recorded.layouts.get(use.name, CONTIGUOUS), use.rule.tail(use)
            both = []
            for t, tail in zip((use.x, g), tails, strict=True):
                rows = 1 if t is use.x and t.shape[0] == 1 and not use.time_major else n
                try:
                    both.append(by_example(t, tail, rows, use.time_major, layout))
                except ValueError as error:
                    raise NotCovered(use.name, f"its rows are not examples, {error}") from None
            if use.small is None:
                made = use.rule.small(use, *both)
                use.small = [(p, make()) for p, make in made.items() if id(p) in mine]
                use.large = id(use.weight) in mine and use.weight not in made
            yield use, *both

    def direction(self) -> list[Tensor]:
        """The clean gradient, all of it."""
        return [t.full() if isinstance(t, Few) else t for t in self.clean]

    def end(self, reduce: Reduce) -> None:
        self.clean = self._last = None

    def state_dict(self) -> dict[str, Any]:
        return {"layouts": {kind: dict(layouts) for kind, layouts in self.layouts.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.layouts = {kind: dict(layouts) for kind, layouts in state["layouts"].items()}
