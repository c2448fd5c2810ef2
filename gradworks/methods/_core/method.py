"""Method: objective x weighting x update, and the one call that replaces `loss.backward()`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gradworks.methods._core.entries import load
from gradworks.methods._core.groups import as_batch, chunks, cycled
from gradworks.methods._core.masks import Masks
from gradworks.methods._core.passes import Step, StepPasses, mean_by_name
from gradworks.methods._core.point import cuda_devices
from gradworks.methods._core.tensors import add_, norm, precision, scale_
from gradworks.methods._core.watched import FLOAT16, FunctionTask, Meter
from gradworks.spec import Batch, Drawn, Needs, Objective, Reduce, StepReport, Sum, Task, offers

_SLOTS = ("objective", "weighting", "update")


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
            _check_task(self.objective, one, name)
        self._seed, self._reduce, self._rank = seed, reduce, rank
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
        cleaned = (as_batch(b, i, self._rank) for i, b in clean)
        # named as one process with all ranks' micro-batches would name them
        drawn = (as_batch(b, i // accumulate, self._rank * accumulate + i % accumulate) for i, b in enumerate(loader))
        for group in chunks(chunks(drawn, accumulate), self.batches):
            yield group, [[next(cleaned)] for _ in group] if self.clean else []

    def backward(self, model: nn.Module, batches: Sequence[Drawn], clean: Sequence[Drawn] = ()) -> StepReport:
        """Fill `.grad` of the trainable parameters.

        Parameters and the global random state are left untouched, and buffers as a plain pass over each batch would.

        Args:
            model: the module, in the mode (train or eval) that you want.
            batches: what `needs` asks for, each a list of micro-batches.
            clean: one clean batch beside each, each a list of micro-batches, where `clean` says so.

        Raises:
            ValueError: a wrong number of batches, an unknown task, losses that are not one per example, float16, or a
                model wrapped in DistributedDataParallel or without trainable parameters.
        """
        self._check(batches, clean)
        parameters = [p for p in model.parameters() if p.requires_grad]
        _check_model(model, parameters)
        for p in parameters:
            p.grad = None  # else the peak holds one more gradient
        self.objective.begin(model)
        devices = cuda_devices(parameters)
        # what torch.compile made traces the calls that `Noise` would see
        draws = devices or _compiled(model) or all(getattr(getattr(self, slot), "once", False) for slot in _SLOTS)
        kept: dict[Any, Any] | None = None if draws else {}

        def masks(split: str, index: int, micro: int, of: int) -> Masks:
            return Masks(self._seed, split, self._drawn + index, self._rank * of + micro, devices, kept)

        step = Step(
            model, parameters, self.objective, self.weighting, self._task_of, masks, self._reduce, Meter(),
            [False] * len(parameters),
        )  # fmt: skip
        size = len(batches) // self.needs.groups
        gradient, groups = None, []
        for start in range(0, len(batches), size):
            some = slice(start, start + size)
            passes = StepPasses(step, batches[some], clean[some], start)
            one = self.update.gradient(passes)
            if gradient is None:
                gradient = one
            else:
                add_(gradient, one)
            groups.append(passes)
        if len(groups) > 1:
            scale_(gradient, 1 / len(groups))
        sums = [s for passes in groups for s in passes.sums]
        self.weighting.end([list(zip(b, s, strict=bool(s))) for b, s in zip(batches, sums, strict=True)], step.total)
        skipped = bool(sum(passes.weight for passes in groups) == 0)
        reached = self._reached(step)
        for p, g, r in zip(parameters, gradient, reached, strict=True):
            p.grad = g if r and not skipped else None
        self._steps += 1
        self._drawn += len(batches)
        examples = sum(len(b.mass) for drawn in batches for b in drawn) / len(batches)
        return StepReport(skipped, step.meter.thirds / (3 * examples), sums, _log(groups, sums, gradient))

    def state_dict(self) -> dict[str, Any]:
        """Nested dicts and lists of tensors, numbers and strings: all that a resumed run needs to end bit-identical."""
        counts = {"seed": self._seed, "steps": self._steps, "drawn": self._drawn}
        return counts | {slot: getattr(self, slot).state_dict() for slot in _SLOTS}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave.

        Raises:
            ValueError: the state is of another seed.
        """
        if state["seed"] != self._seed:
            raise ValueError(f"state of a method: found seed {state['seed']}, expected {self._seed}")
        self._steps, self._drawn = state["steps"], state["drawn"]
        for slot in _SLOTS:
            getattr(self, slot).load_state_dict(state[slot])

    def _task_of(self, batch: Batch) -> Task:
        if self._task is not None:
            return self._task
        if batch.task not in self._tasks:
            raise ValueError(f"batch of task {batch.task!r}: expected one of {', '.join(map(repr, self._tasks))}")
        return self._tasks[batch.task]

    def _check(self, batches: Sequence[Drawn], clean: Sequence[Drawn]) -> None:
        for name, given, expected in (
            ("batches", batches, self.batches),
            ("clean", clean, self.batches if self.clean else len(clean)),
        ):
            if len(given) != expected:
                raise ValueError(f"{name}: found {len(given)}, expected {expected}, each a list of micro-batches")
            for drawn in given:
                if not isinstance(drawn, Sequence) or not drawn or not all(isinstance(b, Batch) for b in drawn):
                    raise ValueError(f"{name}: found {type(drawn).__name__}, expected a list of micro-batches (Batch)")
                for batch in drawn:
                    self._task_of(batch)

    def _reached(self, step: Step) -> list[bool]:
        if self._reduce is None:
            return step.reached
        flags = torch.tensor(step.reached, dtype=torch.float32, device=step.parameters[0].device)
        self._reduce([flags])
        return [f > 0 for f in flags.tolist()]


def _compiled(model: nn.Module) -> bool:
    return any(m._compiled_call_impl is not None or hasattr(m, "_orig_mod") for m in model.modules())


def _check_task(objective: Objective, task: Task, name: str) -> None:
    lacks = [part for part in objective.requires if not offers(task, part)]
    if not lacks:
        return
    needs = f"objective {type(objective).__module__.rpartition('.')[2]}: needs {lacks[0]}(...)"
    if not isinstance(task, FunctionTask):
        which = f"task {name!r}" if name else type(task).__name__
        raise ValueError(f"{needs} of a task, and {which} does not offer it")
    if set(lacks) <= set(FunctionTask.PARTS):
        raise ValueError(f"{needs}; give Method(..., {', '.join(f'{part}=...' for part in lacks)})")
    raise ValueError(f"{needs}; give Method(..., task=...): no function serves it")


def _check_model(model: nn.Module, parameters: Sequence[nn.Parameter]) -> None:
    if isinstance(model, nn.parallel.DistributedDataParallel):
        raise ValueError(
            "model: found DistributedDataParallel, expected the module in it, model.module; "
            "the sums over ranks are those of Method(..., reduce=..., rank=...)"
        )
    if not parameters:
        raise ValueError("model: no parameter requires a gradient")
    if torch.float16 in {precision(p) for p in parameters}:
        raise ValueError(f"model: {FLOAT16}")


def _log(groups: Sequence[StepPasses], sums: Sequence[Sequence[Sum]], gradient: Sequence[Tensor]) -> dict[str, float]:
    """The figures of a step, read from the device at once."""
    every = [one for some in sums for one in some]
    weights = torch.cat([one.weights for one in every]).float()
    figures: dict[str, Any] = {
        "loss": torch.cat([one.losses for one in every]).float().mean(),
        "gradient_norm": norm(gradient).float(),
        # (sum of w)^2 / (n * sum of w^2), 1 for equal weights; 0 when all are zero
        "effective_share": weights.sum().square() / (weights.square().sum() * len(weights)).clamp_min(1e-30),
    }
    figures |= mean_by_name([passes.figures() for passes in groups])
    tensors = [torch.as_tensor(v, dtype=torch.float32, device=weights.device) for v in figures.values()]
    log = dict(zip(figures, torch.stack(tensors).tolist(), strict=True))
    # an update that found a term out of all bounds has said 0
    log["finite"] = float(math.isfinite(log["gradient_norm"]) and log.get("finite", 1.0) == 1)
    return log
