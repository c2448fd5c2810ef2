"""The passes of one step: which micro-batch is evaluated where, under which random numbers, with what held constant.

Plain passes run the model itself; a pass at another point lends the parameters other memory (`at_point`); only the
exact forms, which differentiate through the point, use `functional_call`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from gradworks.methods._shared.bases import BaseObjective, BaseWeighting
from gradworks.methods._shared.buffers import Buffers, Rest
from gradworks.methods._shared.graph import Branches, crossed, jumps, watch
from gradworks.methods._shared.masks import Masks
from gradworks.methods._shared.point import at_point, differentiable
from gradworks.methods._shared.ranks import Ranks, required
from gradworks.methods._shared.tensors import added, divide_, mean_by_name, norm, note_reached, owned, per_example
from gradworks.methods._shared.watched import Meter, Watched
from gradworks.spec import Batch, Drawn, Objective, Outputs, Params, Pass, Sum, Task, Weighting


@dataclass
class Step:
    """What all passes of one optimizer step share."""

    model: nn.Module
    parameters: list[nn.Parameter]
    objective: Objective
    weighting: Weighting
    task_of: Callable[[Batch], Task]
    masks: Callable[[str, int, int, int], Masks]  # (split, batch of the step, micro-batch, micro-batches of this rank)
    ranks: Ranks
    clean_ranks: Ranks  # that share the clean batches; one process where each rank has all of them
    meter: Meter
    reached: list[bool]
    buffers: Buffers
    start: list[Tensor | None] | None = None  # buffers at the start of the step, for clean batches
    sparse: bool = False  # gradients of sparse embeddings stay sparse
    rows: dict[int, list[Tensor]] = field(default_factory=dict)  # of these parameters; which the batches read
    plain: bool = False  # each micro-batch: one forward pass, and one backward pass to the parameters


class MicroBatch:
    """See `gradworks.spec.Pass`."""

    def __init__(
        self, step: Step, index: int, batch: Batch, masks: Masks, objective: Objective, alone: bool, first: bool
    ):
        self.batch, self.index, self.masks = batch, index, masks
        self.alone = alone  # it is the whole batch
        self.divided = False  # the last gradient is divided by its weight
        self.model, self.parameters, self._reached = step.model, step.parameters, step.reached
        self.held: dict = {}
        self.log: dict[str, Tensor] = {}
        self._constants: dict = {"log": self.log}  # the objective's
        self._objective, self._meter = objective, step.meter
        self._held = step.buffers.held
        self._rows, self._first, self._sparse = step.rows, first, step.sparse
        self._raw = step.task_of(batch)
        self._task = Watched(
            self._raw, step.meter, lambda: Rest(step.buffers, moves=first, start=None if first else step.start),
            step.plain,
        )  # fmt: skip

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
        found = per_example(loss, self.batch)
        if self._meter.watch is not None and loss.requires_grad:
            self._meter.watch(loss, id(self))
        return found

    def backward(self, loss: Tensor, retain_graph: bool = False) -> list[Tensor]:
        if self._meter.look is not None:
            self._meter.look(loss)
        self._meter.weights = True
        try:
            gradient = torch.autograd.grad(loss, self.parameters, retain_graph=retain_graph, allow_unused=True)
        finally:
            self._meter.weights = False
        note_reached(gradient, self._reached, self._rows, self._first)
        return owned(gradient, self.parameters, self._sparse)

    def weighted(
        self, losses: Tensor, weights: Tensor, score: Tensor | None = None,
        gradient: Callable[[Tensor], Sequence[Tensor | None]] | None = None,
    ) -> Sum:  # fmt: skip
        weight = weights.sum()
        self.divided = self.alone  # nothing else will be added: dividing here is cheaper than dividing the gradient
        by = torch.where(weight == 0, 1, weight) if self.alone else None
        if gradient is None:
            total = (weights * losses).sum()
            made = self.backward(total if by is None else total / by)
        else:
            found = gradient(weights if by is None else weights / by)
            for j, g in enumerate(found):
                self._reached[j] |= g is not None
            made = owned(found, self.parameters)
        return Sum(made, weight, losses.detach(), weights, score)

    def count(self, thirds: float) -> float:
        self._meter.thirds += thirds * len(self.batch.mass)
        return self._meter.thirds / len(self.batch.mass)

    @contextlib.contextmanager
    def untouched(self) -> Iterator[None]:
        """Afterwards all that is held and logged is as before: the next visit is the first again."""
        kept = [dict(one) for one in (self.held, self.log, self._constants)]
        yield
        for one, before in zip((self.held, self.log, self._constants), kept, strict=True):
            one.clear()
            one.update(before)

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
        self.passes, self.holds, self.reduce = passes, step.objective.holds, step.ranks
        self.single = passes[0].alone
        self._step, self._clean = step, clean

    def change(self, at: Params) -> tuple[float, float]:
        sums = torch.zeros(3, dtype=torch.float64)
        for here in self.passes:
            own = torch.zeros_like(sums)  # summed by micro-batch, as ranks do
            for z, moved in zip(here.raw_outputs(), here.raw_outputs(at), strict=True):
                z, moved = z.double(), moved.double()
                own += torch.stack([(moved - z).square().sum(), z.square().sum(), z.new_tensor(z.numel())]).cpu()
            sums += own
        self.reduce(shared := [sums.to(here.parameters[0].device)])
        change, size, count = shared[0].tolist()
        return (change / count) ** 0.5, (size / count) ** 0.5

    @contextlib.contextmanager
    def largest(self) -> Iterator[MicroBatch]:
        here = max(self.passes, key=lambda one: len(one.batch.mass))
        ranks, meter = self._step.ranks, self._step.meter
        sizes = ranks.gather_values([len(one.batch.mass) for one in self.passes], here.batch.mass.device)
        number = ranks.number(self.passes.index(here), len(self.passes))
        if not ranks.together or number == sizes.index(max(sizes)):
            yield here
            return
        before = meter.thirds
        with here.untouched():  # one process would not have worked on it
            yield here
        meter.thirds = before

    def clean_gradient(self, of: Callable[[Pass], Sum] | None = None) -> list[Tensor]:
        step, index = self._step, self.passes[0].index
        alone = step.clean_ranks.alone and len(self._clean) == 1
        before, repeats = step.meter.thirds, step.clean_ranks.alone and step.ranks.together and step.ranks.rank > 0
        total, mass = [], None
        for k, batch in enumerate(required(self._clean, index)):
            masks = step.masks("clean", index, k, len(self._clean))
            here = MicroBatch(step, index, batch, masks, BaseObjective(), alone, first=False)
            one = (of or BaseWeighting().gradient)(here)
            total, mass = added(total, mass, one, here.divided)
        if not here.divided:
            step.clean_ranks([*total, mass])
            divide_(total, mass)
        if repeats:  # another rank's work, which counts once
            step.meter.thirds = before
        return total if of else [t.to(p.dtype) for t, p in zip(total, step.parameters, strict=True)]


class StepPasses:
    """See `gradworks.spec.Passes`."""

    def __init__(self, step: Step, batches: Sequence[Drawn], clean: Sequence[Drawn], first: int = 0):
        self._step, self._batches, self._clean, self._first = step, batches, clean, first
        self._passes: list[list[MicroBatch]] = [[] for _ in batches]
        self.sums: list[list[Sum]] = [[] for _ in batches]
        self.weights: list[Tensor] = []  # sums of the batches, global
        self.tasks = [drawn[0].task for drawn in batches]
        self.holds = step.objective.holds or step.weighting.holds
        self.log: dict[str, float | Tensor] = {}
        self.exact = False  # an exact form was asked for

    def gradient(self, i: int, at: Params | None = None) -> list[Tensor]:
        step, weighting = self._step, self._step.weighting
        self._visit(i)
        with contextlib.nullcontext() if at is None else at_point(step.parameters, at):
            first = not self.sums[i]
            if first:
                if i == 0 and step.ranks.rank == 0 and getattr(step.objective, "due", False):
                    self._passes[0][0].log_shares()
                weighting.prepare(FirstVisit(step, self._passes[i], self._clean[i] if weighting.clean else ()))
            sums, total, weight = [], [], None
            for here in self._passes[i]:
                here.divided = False
                one = weighting.gradient(here)
                total, weight = added(total, weight, one, here.divided)
                one.gradient = []
                sums.append(one)
        if not here.divided:
            step.ranks([*total, weight])
            divide_(total, weight)  # one division, last
        if first:
            self.sums[i] = sums
            self.weights.append(weight)
        return [t.to(p.dtype) for t, p in zip(total, step.parameters, strict=True)]

    def value(self, i: int) -> Tensor:
        return self._step.ranks.mean_loss(self.sums[i])

    @cached_property
    def theta(self) -> list[Tensor]:
        return [p.detach() for p in self._step.parameters]

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
        if not self._step.ranks.alone:
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
            self._step.ranks(flags := [self.theta[0].new_tensor(float(found[0]))])
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
        self._step.ranks(flags := [self.theta[0].new_tensor(float(crossed(one, other)))])
        return bool(flags[0] > 0)

    def figures(self) -> dict[str, float | Tensor]:
        """Of update and weighting, and the objective's: each the mean over the micro-batches that have it."""
        own = self.log | getattr(self._step.weighting, "log", {})
        return own | mean_by_name([log for batch in self._passes for log in self._logs(batch)])

    def _logs(self, batch: Sequence[MicroBatch]) -> list[dict[str, float | Tensor]]:
        """Of all micro-batches of a batch, on all ranks."""
        if not self._step.ranks.together:
            return [here.log for here in batch]
        device = self.theta[0].device
        rows = [{name: float(value) for name, value in here.log.items()} for here in batch]
        found = self._step.ranks.gather_values(rows, device)
        return [{name: torch.tensor(value, device=device) for name, value in row.items()} for row in found]

    def _micro_batch(self, i: int, k: int, batch: Batch) -> MicroBatch:
        index = self._first + i
        masks = self._step.masks("train", index, k, len(self._batches[i]))
        alone = self._step.ranks.alone and len(self._batches[i]) == 1
        return MicroBatch(self._step, index, batch, masks, self._step.objective, alone, first=True)
