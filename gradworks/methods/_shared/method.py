"""Method: objective x weighting x update, and the one call that replaces `loss.backward()`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gradworks.methods._shared import plain
from gradworks.methods._shared.buffers import Buffers
from gradworks.methods._shared.checks import check_model, check_task
from gradworks.methods._shared.derivatives import refusal
from gradworks.methods._shared.entries import load
from gradworks.methods._shared.groups import as_batch, chunks, cycled
from gradworks.methods._shared.inside import computing_in, is_compiled
from gradworks.methods._shared.masks import Masks
from gradworks.methods._shared.options import integer
from gradworks.methods._shared.passes import Step, StepPasses
from gradworks.methods._shared.point import cuda_devices, one_path
from gradworks.methods._shared.ranks import Ranks
from gradworks.methods._shared.recompute import recomputed_in_place, refuse
from gradworks.methods._shared.replay import EVERY, Evaluation, Replay
from gradworks.methods._shared.report import plain_report, report
from gradworks.methods._shared.tensors import add_, of_rows, owned, scale_
from gradworks.methods._shared.watched import FunctionTask, Meter
from gradworks.spec import Batch, Drawn, Needs, Reduce, StepReport, Task

_SLOTS = ("objective", "weighting", "update")
_LISTS = (list, Sequence)  # a list is seen sooner as one


class Method:
    """A gradient method as a point in objective x weighting x update.

        method = Method(weighting="reweight", update="dotprod", outputs=outputs, loss=loss)
        for batches, clean in method.groups(loader, clean_loader):
            method.backward(model, batches, clean)
            optimizer.step()

    The loop owns schedule, clipping, optimizer and autocast; the method owns everything between the batches and
    `.grad`, including the sums over micro-batches and ranks (DDP's hooks are not used: give it the bare module, and
    `reduce`). `.grad` is overwritten, not added to, and is the true gradient, for clipping and for any optimizer (one
    that asks for a closure: LBFGS with max_iter=1 and a closure that returns the loss of the report). Under autocast
    use bf16: float16 needs a GradScaler, whose scale would enter norms and finite differences, and is refused. A
    gradient that is not finite is not treated: `log["finite"]` says so, the loop decides.

    Args:
        objective, weighting, update: an entry's name, `{name: {option: value}}`, or an entry of your own.
        task: what all batches are; or
        tasks: tasks by `Batch.task`; or
        outputs, loss: two functions of your own, `outputs(model, batch)` -> a tensor or tuple of tensors with the
            example in dim 0 (one forward pass) and `loss(outputs, batch)` -> (n,) losses, not reduced. A batch is what
            your loader yields.
        embed, divergence: two more, for the entries that ask for them: `embed(model, batch)` -> (n, L, D) embeddings,
            and then `outputs(model, batch, embedded)` runs from such embeddings on; `divergence(outputs, outputs)` ->
            (n,), symmetric, 0 where equal: symmetric KL for classes, squared error for regression.
        seed: keys dropout masks and all other random numbers of the method; the global generators are left alone.
        reduce: sums a list of tensors over ranks, in place (`dist.all_reduce` on each); None = one process.
        rank: of this process. All ranks draw equally many micro-batches; m ranks = m micro-batches, bit for bit.
        ranks: how many there are, where each is given the whole batches; it takes the micro-batches
            `[rank::ranks]` of them, and the report is of all. Steps that do not divide evenly, and exact forms, each
            rank computes in full. With several micro-batches a rank sums agree up to rounding. None: each rank is given
            its own micro-batches, and the report is of these.
        check_every: how many steps pass between two checks that a batch gives the same twice (see `_shared/replay.py`);
            only methods that evaluate a batch more than once check.

    Raises:
        ValueError: an unknown entry or option, a value that an entry refuses, or a task that lacks what an entry needs.
    """

    def __init__(
        self,
        objective: Any = "supervised",
        weighting: Any = "uniform",
        update: Any = "erm",
        *,
        task: Task | None = None,
        tasks: Mapping[str, Task] | None = None,
        outputs: Callable[[nn.Module, Any], Any] | None = None,
        loss: Callable[[Any, Any], Tensor] | None = None,
        embed: Callable[[nn.Module, Any], Tensor] | None = None,
        divergence: Callable[[Any, Any], Tensor] | None = None,
        seed: int = 0,
        reduce: Reduce | None = None,
        rank: int = 0,
        ranks: int | None = None,
        check_every: int = EVERY,
    ):
        self.objective, self.weighting, self.update = (
            load(slot, chosen) for slot, chosen in zip(_SLOTS, (objective, weighting, update), strict=True)
        )
        if sum(given is not None for given in (task, tasks, outputs)) != 1 or (outputs is None) != (loss is None):
            raise ValueError("Method: expected one of task, tasks, or the two functions outputs and loss")
        if outputs is None and (embed is not None or divergence is not None):
            raise ValueError("Method: embed and divergence go with the functions outputs and loss; a task has its own")
        self._task = FunctionTask(outputs, loss, embed, divergence) if outputs is not None else task
        self._tasks = dict(tasks or {})
        for name, one in self._tasks.items() if self._task is None else [("", self._task)]:
            check_task(self.objective, one, name)
        self._seed, self._ranks = seed, Ranks(reduce, rank, ranks)
        self._replay = Replay(integer("check_every", check_every, low=1))
        self._plain = plain.is_plain(self.objective, self.weighting)
        self._one = self._plain and plain.takes_one_gradient(self.update) and self._ranks.alone
        self._steps = 0
        self._drawn = 0  # batches of the data stream so far: what masks are keyed by

    @property
    def needs(self) -> Needs:
        """What a step consumes."""
        return self.update.needs

    @property
    def clean(self) -> bool:
        """Whether each batch needs a clean batch beside it."""
        return self.weighting.clean

    def clean_for(self, tasks: Sequence[str]) -> list[bool]:
        """Which batches of the next step, of these tasks, need a clean batch; asked just before the step."""
        own = getattr(self.weighting, "clean_for", None)
        return own(tasks) if own else [self.clean] * len(tasks)

    @property
    def batches(self) -> int:
        """How many batches one step consumes."""
        one = len(self._tasks) or 1 if self.needs.batches == "one_per_task" else self.needs.batches
        return one * self.needs.groups

    def groups(
        self, loader: Iterable[Any], clean_loader: Iterable[Any] | None = None, accumulate: int = 1
    ) -> Iterator[tuple[list[list[Batch]], list[list[Batch]]]]:
        """Groups of (batches, clean batches), one per optimizer step; a last incomplete group is dropped.

        Args:
            loader: yields `spec.Batch` or anything that `outputs` and `loss` understand.
            clean_loader: as `loader`, read again and again; only read where the weighting needs it.
            accumulate: how many batches of the loader make one batch (gradient accumulation).

        Raises:
            ValueError: the weighting needs clean batches and there is no loader for them, or it is empty.
        """
        if self.clean and clean_loader is None:
            entry = type(self.weighting).__module__.rpartition(".")[2]
            raise ValueError(f"weighting {entry}: needs clean batches; give groups(loader, clean_loader)")
        clean = enumerate(cycled(clean_loader, "clean_loader")) if self.clean else ()
        rank = self._ranks.rank
        cleaned = (as_batch(b, i, rank) for i, b in clean)
        # named as one process with all ranks' micro-batches would name them
        drawn = (as_batch(b, i // accumulate, rank * accumulate + i % accumulate) for i, b in enumerate(loader))
        for group in chunks(chunks(drawn, accumulate), self.batches):
            wanted = self.clean_for([drawn[0].task for drawn in group]) if self.clean else []
            yield group, [[next(cleaned)] if one else [] for one in wanted]

    def backward(self, model: nn.Module, batches: Sequence[Drawn], clean: Sequence[Drawn] = ()) -> StepReport:
        """Fill `.grad` of the trainable parameters.

        Parameters and the global random state are left untouched, and buffers as a plain pass over each batch would.

        Args:
            model: the module, in the mode (train or eval) that you want.
            batches: what `needs` asks for, each a list of micro-batches.
            clean: one clean batch beside each, each a list of micro-batches, where `clean` says so; [] beside a batch
                that needs none by `clean_for`.

        Raises:
            ValueError: a wrong number of batches, an unknown task, losses that are not one per example, float16, a
                model wrapped in DistributedDataParallel or without trainable parameters, or one that gives something
                else the second time, where a batch is evaluated more than once.
        """
        self._check(batches, clean)
        parameters = self._replay.tree.parameters(model)
        check_model(model, parameters)
        for p in parameters:
            p.grad = None  # else the peak holds one more gradient
        if self._one and not self._replay.moving:
            with recomputed_in_place():
                return self._plainly(model, parameters, batches[0])
        ranks, clean_ranks, batches, clean = self._shared(batches, clean)
        once = self._once(batches, ranks)
        with recomputed_in_place(), contextlib.nullcontext() if once and not self.clean else one_path():
            return self._step(model, parameters, batches, clean, once, ranks, clean_ranks)

    def _shared(
        self, batches: Sequence[Drawn], clean: Sequence[Drawn]
    ) -> tuple[Ranks, Ranks, Sequence[Drawn], Sequence[Drawn]]:
        """Who shares the batches and the clean batches of a step, and what of them is this rank's."""
        ranks = clean_ranks = self._ranks
        if not ranks.together:
            return ranks, clean_ranks, batches, clean
        if getattr(self.update, "exact", False) or not ranks.divide(batches):
            return Ranks(), Ranks(), batches, clean
        if ranks.divide(clean):
            clean = [ranks.mine(drawn) for drawn in clean]
        else:
            clean_ranks = Ranks()
        return ranks, clean_ranks, [ranks.mine(drawn) for drawn in batches], clean

    def _once(self, batches: Sequence[Drawn], ranks: Ranks) -> bool:
        """Whether each micro-batch is evaluated once in this step."""
        alone = ranks.alone and all(len(drawn) == 1 for drawn in batches)
        entries = [getattr(self, slot) for slot in _SLOTS]
        return all(getattr(e, "once", False) or (alone and getattr(e, "once_alone", False)) for e in entries)

    def _keeps_sparse(self, ranks: Ranks) -> bool:
        return ranks.alone and not self.clean and getattr(self.update, "sparse", False)

    def _step(
        self, model: nn.Module, parameters: list[nn.Parameter], batches: Sequence[Drawn], clean: Sequence[Drawn],
        once: bool, ranks: Ranks, clean_ranks: Ranks,
    ) -> StepReport:  # fmt: skip
        devices = cuda_devices(parameters)
        # a weighting that scores examples looks twice at what is new to it
        checked = self._examine(model, parameters, batches, devices, once, ranks) if self.clean or not once else 0
        once = once and not checked
        self.objective.begin(model)
        # what torch.compile made traces the calls that `Noise` would see
        draws = devices or once or is_compiled(model)
        kept: dict[Any, Any] | None = None if draws else {}

        def masks(split: str, index: int, micro: int, of: int) -> Masks:
            number = (clean_ranks if split == "clean" else ranks).number(micro, of)
            return Masks(self._seed, split, self._drawn + index, number, devices, kept)

        buffers = Buffers(model, self._replay.moving, once and not self._replay.moving, self._replay.tree)
        start = buffers.copies() if clean and buffers.held else None
        step = Step(
            model, parameters, self.objective, self.weighting, self._task_of, masks, ranks, clean_ranks, Meter(),
            [False] * len(parameters), buffers, start, self._keeps_sparse(ranks),
            plain=once and self._plain and getattr(self.update, "single", False),
        )  # fmt: skip
        size = len(batches) // self.needs.groups
        gradient, groups = None, []
        for start in range(0, len(batches), size):
            some = slice(start, start + size)
            passes = StepPasses(step, batches[some], clean[some], start)
            one = self._gradient(passes, model)
            if gradient is None:
                gradient = one
            else:
                add_(gradient, one)
            groups.append(passes)
        if len(groups) > 1:
            scale_(gradient, 1 / len(groups))
        sums = [s for passes in groups for s in passes.sums]
        self.weighting.end([list(zip(b, s, strict=bool(s))) for b, s in zip(batches, sums, strict=True)], ranks)
        skipped = not any(bool(weight) for passes in groups for weight in passes.weights)
        gradient = owned(gradient, parameters, sparse=True)  # clipping writes it in place
        rows = step.rows if ranks.alone else dict.fromkeys(step.rows, ())
        self._fill(parameters, gradient, _reached(step), rows, skipped, len(batches))
        return report(step, groups, batches, sums, gradient, skipped, checked)

    def _plainly(self, model: nn.Module, parameters: list[nn.Parameter], drawn: Drawn) -> StepReport:
        """The step of plain training, see `plain.py`."""
        devices, buffers = cuda_devices(parameters), Buffers(model, tree=self._replay.tree)
        reached, rows = [False] * len(parameters), {}

        def masks(micro: int) -> Masks:
            return Masks(self._seed, "train", self._drawn, self._ranks.number(micro, len(drawn)), devices)

        gradient, weight, sums = plain.gradient(
            model, parameters, drawn, self._task_of, masks, buffers, reached, rows
        )  # fmt: skip
        report = plain_report(sums, gradient, weight)
        self._fill(parameters, gradient, reached, rows, report.skipped, 1)
        return report

    def _fill(
        self, parameters: Sequence[nn.Parameter], gradient: Sequence[Tensor], reached: Sequence[bool],
        rows: Mapping[int, Sequence[Tensor]], skipped: bool, drawn: int,
    ) -> None:  # fmt: skip
        """Put the gradient in its place, and count the step."""
        for j, (p, g, r) in enumerate(zip(parameters, gradient, reached, strict=True)):
            p.grad = (of_rows(g, rows[j]) if j in rows else g) if r and not skipped else None
        self._steps += 1
        self._drawn += drawn

    def _examine(
        self, model: nn.Module, parameters: Sequence[nn.Parameter], batches: Sequence[Drawn], devices: Sequence[int],
        once: bool, ranks: Ranks,
    ) -> int:  # fmt: skip
        """Check that a batch gives the same twice, where that is due; returns how many examples it was tried on."""

        def twice(i: int, k: int) -> Evaluation:
            batch, micro = batches[i][k], ranks.number(k, len(batches[i]))
            masks = Masks(self._seed, "train", self._drawn + i, micro, devices)
            return Evaluation(model, self._task_of(batch), batch, lambda: masks(0), "embed" in self.objective.requires)

        return self._replay.check(model, parameters, batches, None if ranks.alone else ranks, twice, once)

    def state_dict(self) -> dict[str, Any]:
        """Nested dicts and lists of tensors, numbers and strings: all that a resumed run needs to end bit-identical."""
        counts = {"seed": self._seed, "steps": self._steps, "drawn": self._drawn, "replay": self._replay.state_dict()}
        return counts | {slot: getattr(self, slot).state_dict() for slot in _SLOTS}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave.

        Raises:
            ValueError: the state is of another seed.
        """
        if state["seed"] != self._seed:
            raise ValueError(f"state of a method: found seed {state['seed']}, expected {self._seed}")
        self._steps, self._drawn = state["steps"], state["drawn"]
        self._replay.load_state_dict(state["replay"])
        for slot in _SLOTS:
            getattr(self, slot).load_state_dict(state[slot])

    def _gradient(self, passes: StepPasses, model: nn.Module) -> list[Tensor]:
        try:
            with computing_in(self._replay.lowest):
                return self.update.gradient(passes)
        except (NotImplementedError, RuntimeError) as error:
            refuse(error)
            if not passes.exact:
                raise
            entry = type(self.update).__module__.rpartition(".")[2]
            expected = "a form without one: fomaml for maml, form: central or one_sided for others"
            raise refusal(error, entry, "double backward", expected, model) from error

    def _task_of(self, batch: Batch) -> Task:
        if self._task is not None:
            return self._task
        if batch.task not in self._tasks:
            raise ValueError(f"batch of task {batch.task!r}: expected one of {', '.join(map(repr, self._tasks))}")
        return self._tasks[batch.task]

    def _check(self, batches: Sequence[Drawn], clean: Sequence[Drawn]) -> None:
        self._check_each("batches", batches, self.batches)
        if self.clean or clean:
            self._check_each("clean", clean, self.batches if self.clean else len(clean))

    def _check_each(self, name: str, given: Sequence[Drawn], expected: int) -> None:
        if len(given) != expected:
            raise ValueError(f"{name}: found {len(given)}, expected {expected}, each a list of micro-batches")
        for drawn in given:
            if name == "clean" and isinstance(drawn, _LISTS) and not drawn:
                continue  # refused where it is needed
            if not isinstance(drawn, _LISTS) or not drawn or not all(isinstance(b, Batch) for b in drawn):
                raise ValueError(f"{name}: found {type(drawn).__name__}, expected a list of micro-batches (Batch)")
            for batch in drawn:
                self._task_of(batch)


def _reached(step: Step) -> list[bool]:
    if step.ranks.alone:
        return step.reached
    step.ranks([flags := torch.tensor(step.reached, dtype=torch.float32, device=step.parameters[0].device)])
    return [f > 0 for f in flags.tolist()]
