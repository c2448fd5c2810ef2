"""The passes of one step: which micro-batch is evaluated where, under which random numbers, with what held constant.

Plain passes run the model itself; a pass at another point lends the parameters other memory (`at_point`); only the
exact forms, which differentiate through the point, use `functional_call`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from gradworks.methods._shared.bases import BaseObjective, BaseWeighting
from gradworks.methods._shared.buffers import Buffers, Rest
from gradworks.methods._shared.graph import Branches, crossed, jumps, watch
from gradworks.methods._shared.masks import Masks
from gradworks.methods._shared.point import at_point, differentiable
from gradworks.methods._shared.tensors import add_, at_least_float32, divide_, norm, owned, widened
from gradworks.methods._shared.watched import Meter, Watched
from gradworks.spec import Batch, Drawn, Objective, Outputs, Params, Reduce, Sum, Task, Weighting


@dataclass
class Step:
    """What all passes of one optimizer step share."""

    model: nn.Module
    parameters: list[nn.Parameter]
    objective: Objective
    weighting: Weighting
    task_of: Callable[[Batch], Task]
    masks: Callable[[str, int, int, int], Masks]  # (split, batch of the step, micro-batch, micro-batches of this rank)
    reduce: Reduce | None
    meter: Meter
    reached: list[bool]
    buffers: Buffers
    start: list[Tensor | None] | None = None  # buffers at the start of the step, for clean batches
    sparse: bool = False  # gradients of sparse embeddings stay sparse
    rows: dict[int, list[Tensor]] = field(default_factory=dict)  # of these parameters; which the batches read

    def total(self, tensors: list[Tensor]) -> None:
        """Sum over ranks, in place."""
        if self.reduce is not None:
            self.reduce(tensors)


def mean_by_name(rows: Sequence[Mapping[str, float | Tensor]]) -> dict[str, Tensor]:
    """() the mean of each figure over the rows that have it."""
    found: dict[str, list[Tensor]] = {}
    for row in rows:
        for name, value in row.items():
            found.setdefault(name, []).append(torch.as_tensor(value).detach().float())
    return {name: torch.stack(values).mean() for name, values in found.items()}


class MicroBatch:
    """See `gradworks.spec.Pass`."""

    def __init__(
        self, step: Step, index: int, batch: Batch, masks: Masks, objective: Objective, alone: bool, first: bool
    ):
        self.batch, self.index, self.masks = batch, index, masks
        self.alone = alone and step.reduce is None
        self.model, self.parameters, self.reached = step.model, step.parameters, step.reached
        self.held: dict = {}
        self.log: dict[str, Tensor] = {}
        self._constants: dict = {"log": self.log}  # the objective's
        self._objective, self._meter = objective, step.meter
        self._held = step.buffers.held
        self._rows, self._first, self._sparse = step.rows, first, step.sparse
        self._raw = step.task_of(batch)
        self._task = Watched(
            self._raw, step.meter, lambda: Rest(step.buffers, moves=first, start=None if first else step.start)
        )

    def outputs(self, at: Params | None = None) -> Outputs:
        if self._held and forward_ad._current_level >= 0:
            raise ValueError(
                f"reweight: backend jvp: found buffers that the model moves and reads in one forward pass: "
                f"{', '.join(sorted(self._held)[:3])}\nexpected backend: auto or logit_fd"
            )

        def run() -> Outputs:
            return self._objective.outputs(self._task, self.model, self.batch, self.masks, self._constants)

        return run() if at is None else differentiable(self.model, at, run)

    @torch.no_grad()
    def moved(self, at: Params) -> Outputs:
        if self._objective.holds and len(self._constants) == 1:  # nothing but the log
            raise RuntimeError("a batch was evaluated at another point before its first pass, which makes what is held")
        self._settle_held()
        with at_point(self.parameters, at):
            return self.outputs()

    def settle(self) -> None:
        """Move the buffers here, by a forward pass of its own."""
        with self.masks(0):
            self._task.settle(self.model, self.batch)

    @torch.no_grad()
    def raw_outputs(self, at: Params | None = None) -> Outputs:
        """The task's own outputs at `at`, without a graph and whatever the objective, under the masks of stream 0."""
        self._settle_held()
        with at_point(self.parameters, at), self.masks(0):
            return self._task.outputs(self.model, self.batch)

    def _settle_held(self) -> None:
        """A pass beside this point reads what a plain pass at it has written."""
        if self._held and self._first:
            self.settle()

    def loss(self, outputs: Outputs) -> Tensor:
        loss = self._objective.loss(self._raw, outputs, self.batch, self._constants)
        n = len(self.batch.mass)
        if loss.shape != (n,):
            found = f"found shape {tuple(loss.shape)}, expected ({n},)"
            raise ValueError(f"loss: {found}: one loss per example of the batch, not reduced over examples")
        if self._meter.watch is not None and loss.requires_grad:
            self._meter.watch(loss, id(self))
        return loss.to(at_least_float32(loss.dtype))

    def backward(self, loss: Tensor, retain_graph: bool = False) -> list[Tensor]:
        if self._meter.look is not None:
            self._meter.look(loss)
        self._meter.weights = True
        try:
            gradient = torch.autograd.grad(loss, self.parameters, retain_graph=retain_graph, allow_unused=True)
        finally:
            self._meter.weights = False
        for j, g in enumerate(gradient):
            self.reached[j] |= g is not None
            if g is not None and g.is_sparse:
                self._rows.setdefault(j, []).extend([g._indices()[0]] if self._first else [])
        return owned(gradient, self.parameters, self._sparse)

    def count(self, thirds: float) -> float:
        self._meter.thirds += thirds * len(self.batch.mass)
        return self._meter.thirds / len(self.batch.mass)

    def log_shares(self) -> None:
        """`NAME_share`: the size of the gradient of each part of the objective over that of the first, the task's.

        Before the step's own passes, with passes of its own, one after another: so the peak of memory stays theirs.
        """
        sizes: dict[str, Tensor] = {}
        left = [""]
        while left:
            parts = self._objective.parts(self._raw, self.outputs(), self.batch, self._constants)
            name, *left = [name for name in parts if name not in sizes]
            part = (self.batch.mass * parts[name]).sum()
            del parts  # else the graphs of the others stay
            sizes[name] = norm(self.backward(part))
        (_, first), *further = sizes.items()
        for name, size in further:
            self.log[f"{name}_share"] = size / first.clamp_min(1e-30)


class FirstVisit:
    """See `gradworks.spec.Visit`."""

    def __init__(self, step: Step, passes: Sequence[MicroBatch], clean: Drawn):
        self.passes, self.holds, self.reduce = passes, step.objective.holds, step.total
        self._step, self._clean = step, clean

    def change(self, at: Params) -> tuple[float, float]:
        sums = torch.zeros(3, dtype=torch.float64)
        for here in self.passes:
            for z, moved in zip(here.raw_outputs(), here.raw_outputs(at), strict=True):
                z, moved = z.double(), moved.double()
                sums += torch.stack([(moved - z).square().sum(), z.square().sum(), z.new_tensor(z.numel())]).cpu()
        self.reduce(shared := [sums.to(here.parameters[0].device)])
        change, size, count = shared[0].tolist()
        return (change / count) ** 0.5, (size / count) ** 0.5

    def clean_gradient(self) -> list[Tensor]:
        step, total, mass = self._step, None, None
        for k, batch in enumerate(self._clean):
            masks = step.masks("clean", self.passes[0].index, k, len(self._clean))
            alone = len(self._clean) == 1
            here = MicroBatch(step, self.passes[0].index, batch, masks, BaseObjective(), alone, first=False)
            one = BaseWeighting().gradient(here)
            if total is None:
                total, mass = one.gradient if one.divided else widened(one.gradient), one.weight
            else:
                add_(total, widened(one.gradient))
                mass = mass + one.weight
        if not one.divided:
            self.reduce([*total, mass])
            divide_(total, mass)
        return [t.to(p.dtype) for t, p in zip(total, step.parameters, strict=True)]


class StepPasses:
    """See `gradworks.spec.Passes`."""

    def __init__(self, step: Step, batches: Sequence[Drawn], clean: Sequence[Drawn], first: int = 0):
        self._step, self._batches, self._clean, self._first = step, batches, clean, first
        self._passes: list[list[MicroBatch]] = [[] for _ in batches]
        self.sums: list[list[Sum]] = [[] for _ in batches]
        self.weight: Tensor | float = 0.0  # sum of all weights of the step, global
        self.theta = [p.detach() for p in step.parameters]
        self.tasks = [drawn[0].task for drawn in batches]
        self.holds = step.objective.holds or step.weighting.holds
        self.log: dict[str, float | Tensor] = {}
        self.exact = False  # an exact form was asked for

    def gradient(self, i: int, at: Params | None = None) -> list[Tensor]:
        step, weighting = self._step, self._step.weighting
        self._visit(i)
        with at_point(step.parameters, at):
            first = not self.sums[i]
            if first:
                clean = self._clean[i] if weighting.clean else ()
                if i == 0 and getattr(step.objective, "due", False):
                    self._passes[0][0].log_shares()
                weighting.prepare(FirstVisit(step, self._passes[i], clean))
            sums, total, weight = [], None, None
            for here in self._passes[i]:
                one = weighting.gradient(here)
                if total is None:
                    total, weight = one.gradient if one.divided else widened(one.gradient), one.weight.clone()
                else:
                    add_(total, widened(one.gradient))
                    weight += one.weight
                one.gradient = []
                sums.append(one)
        if not one.divided:
            step.total([*total, weight])
            divide_(total, weight)  # one division, last
        if first:
            self.sums[i] = sums
            self.weight = self.weight + weight
        return [t.to(p.dtype) for t, p in zip(total, step.parameters, strict=True)]

    def hold(self, i: int) -> None:
        if self.sums[i]:
            return
        if self.holds:
            self.gradient(i)
        elif self._step.buffers.moving:
            self._visit(i)
            for here in self._passes[i]:
                here.settle()

    def _visit(self, i: int) -> None:
        if not self._passes[i]:
            self._passes[i] = [self._micro_batch(i, k, batch) for k, batch in enumerate(self._batches[i])]

    def loss(self, i: int, at: Params) -> Tensor:
        if self._step.reduce is not None:
            raise ValueError("exact forms differentiate through the parameters and run in one process only")
        self.exact = True
        if not self.sums[i]:
            self.gradient(i, [t.detach() for t in at])
        total, weight = 0.0, 0.0
        self._step.meter.weights = True  # whoever differentiates the result forms weight gradients
        for here, one in zip(self._passes[i], self.sums[i], strict=True):
            total = total + (one.weights * here.loss(here.outputs(at))).sum()
            weight = weight + one.weight
        return total / weight if weight > 0 else total

    @contextlib.contextmanager
    def jumps(self) -> Iterator[Callable[[], bool]]:
        found = [False]

        def look(loss: Tensor) -> None:
            found[0] = found[0] or jumps(loss)

        def any_rank() -> bool:
            self._step.total(flags := [self.theta[0].new_tensor(float(found[0]))])
            return bool(flags[0] > 0)

        self._step.meter.look = look
        try:
            yield any_rank
        finally:
            self._step.meter.look = None

    @contextlib.contextmanager
    def branches(self) -> Iterator[Branches]:
        taken: Branches = {}
        handles: list[Any] = []
        self._step.meter.watch = lambda losses, key: handles.extend(watch(losses, taken, key))
        try:
            yield taken
        finally:
            self._step.meter.watch = None
            for handle in handles:
                handle.remove()

    def crossed(self, one: Branches, other: Branches) -> bool:
        self._step.total(flags := [self.theta[0].new_tensor(float(crossed(one, other)))])
        return bool(flags[0] > 0)

    def figures(self) -> dict[str, float | Tensor]:
        """Of update and weighting, and the objective's: each the mean over the micro-batches that have it."""
        own = self.log | getattr(self._step.weighting, "log", {})
        return own | mean_by_name([here.log for batch in self._passes for here in batch])

    def _micro_batch(self, i: int, k: int, batch: Batch) -> MicroBatch:
        index = self._first + i
        masks = self._step.masks("train", index, k, len(self._batches[i]))
        alone = len(self._batches[i]) == 1
        return MicroBatch(self._step, index, batch, masks, self._step.objective, alone, first=True)
