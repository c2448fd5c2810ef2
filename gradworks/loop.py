"""The only training loop: it asks a method what it needs, never what it is.

The loop owns schedule, clipping, optimizer, autocast and checkpoints. The data order is keyed by (seed, epoch), dropout
masks by (seed, batch), so a run that was killed and resumed ends bit-identical.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from gradworks.base.errors import InputError
from gradworks.base.progress import Progress
from gradworks.base.size import Budget, Size
from gradworks.distributed import World
from gradworks.learning_rate import linear
from gradworks.models import parameter_groups
from gradworks.spec import Batch, Drawn, StepReport
from gradworks.trace import Conflicts, Trace

if TYPE_CHECKING:
    from torch import Tensor, nn

    from gradworks.base.checkpoint import Checkpoint
    from gradworks.data.mixture import Mixture
    from gradworks.methods import Method

_MARGIN = 1e-2  # relative and absolute; torch adds 1e-6 to the norm, and rounds in the type of the gradient (bf16)

Backward = Callable[["nn.Module", Sequence[Drawn], Sequence[Drawn]], StepReport]


class Stopped(Exception):
    """The run was asked to stop; its checkpoint is saved."""


@dataclass(frozen=True)
class Settings:
    """How long and how fast to train; every fraction is one of the run's own optimizer steps.

    Args:
        batches: batches of the training stream in all; the same for every method (budget law).
        batch: size of one batch. micro: of one forward pass, None = the whole batch. Where the batch is a budget, each
            batch is cut into as many parts, of equal numbers of examples, as it has budgets of `micro`.
        clean_batch: examples of one clean batch.
        learning_rate: peak; rises linearly for `warmup` and falls linearly to zero.
        clip: largest norm of the gradient, None = no clipping.
        better: 1 where a higher score on the selection split is, -1 where a lower one is.
        every: how often it is looked at.
        optimizer: a class of torch.optim.
        conflicts: steps from one look at the cosines of tasks' gradients to the next, see `Conflicts`.
    """

    batches: int
    batch: Size
    clean_batch: int
    learning_rate: float
    micro: Size | None = None
    weight_decay: float = 0.0
    warmup: float = 0.0
    clip: float | None = None
    better: int = 1
    every: float = 0.1
    optimizer: str = "AdamW"
    bf16: bool = False
    conflicts: int | None = None


def steps(settings: Settings, method: Method) -> int:
    """Optimizer steps: batches of the stream divided by those that one step of the method consumes."""
    return settings.batches // method.batches


@dataclass(frozen=True)
class Made:
    """What one optimizer step did.

    Attributes:
        report: what filled `.grad` said of it.
        loss: plain mean over the step's examples, so that it means the same for every method.
        rate: the learning rate. norm: of the gradient before clipping, 0 when the step was skipped.
        finite: loss, gradient and all that the method computed; where not, the optimizer made no step.
    """

    report: StepReport
    loss: float
    rate: float
    norm: float
    finite: bool


def step(
    model: nn.Module, backward: Backward, optimizer: torch.optim.Optimizer, batches: Sequence[Drawn],
    clean: Sequence[Drawn] = (), *, rate: float, largest: float | None = None, bf16: bool = False,
) -> Made:  # fmt: skip
    """The one optimizer step, of training, measuring and pretraining.

    Args:
        model: whose parameters the optimizer moves.
        backward: fills `.grad` from the batches of one step; `Method.backward`, or what does without a method.
        batches, clean: of this step, each a list of micro-batches.
        rate: the learning rate of this step.
        largest: norm of the gradient, None = no clipping.
        bf16: under autocast.
    """
    for group in optimizer.param_groups:
        group["lr"] = rate
    moved = [p for group in optimizer.param_groups for p in group["params"]]
    with torch.autocast(moved[0].device.type, torch.bfloat16) if bf16 else contextlib.nullcontext():
        report = backward(model, batches, clean)
    reached = model.parameters() if report.norm is None else moved  # a walk takes longer; a norm depends on the order
    norm, loss = 0.0 if report.skipped else clip(reached, largest, report.norm), report.log["loss"]
    finite = math.isfinite(loss) and math.isfinite(norm) and report.log["finite"] == 1
    if finite:
        optimizer.step()
    return Made(report, loss, rate, norm, finite)


def _split(batch: Batch, sizes: Sequence[int]) -> list[Batch]:
    if len(sizes) == 1:
        return [batch]
    ends = itertools.accumulate(sizes)
    parts = [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]
    return [
        Batch(
            batch.task, batch.ids[s], {k: v[s] for k, v in batch.inputs.items()}, batch.labels[s], batch.mass[s],
            None if batch.group is None else batch.group[s],
        )
        for s in parts
    ]  # fmt: skip


def _marks(total: int, every: float) -> set[int]:
    """After which steps the selection split is looked at: always after the last."""
    return {math.ceil(total * min(1.0, k * every)) for k in range(1, math.ceil(1 / every) + 1)} | {total}


def fit(
    model: nn.Module,
    method: Method,
    mixture: Mixture,
    settings: Settings,
    seed: int,
    score: Callable[[nn.Module], Mapping[str, float | None]],
    checkpoint: Checkpoint | None = None,
    stop: Callable[[], bool] = lambda: False,
    name: str = "train",
    watch: Callable[..., None] | None = None,
    world: World | None = None,
) -> Trace:
    """Train `model` in place and leave the best weights in it.

    Args:
        model: outputs of a batch's inputs.
        method: fills `.grad` from the batches of one step.
        mixture: the examples, on the model's device; clean ones, drawn in classes of equal numbers, where the method
            needs them.
        seed: of data order; the method has its own, equal one for masks.
        score: scores on the selection splits by name, None where one is not defined. The model with the best first one
            is kept, the first of equals.
        checkpoint: where to resume from and to save to, at every look at the selection split.
        stop: asked after every step; when true the checkpoint is saved and Stopped raised.
        watch: called after every step, also one that is not finite, with the method's report, and by name the step's
            `examples`, `seconds` (of the wall, without looks at the selection split), `done` (share of all steps),
            `loss`, `learning_rate`, `gradient_norm`. It must change nothing.
        world: this process among several, of which the method knows; all of them end with the same.

    Returns:
        The trace. `diverged` is not empty when a loss or gradient was not finite: the weights are then the best before.

    Raises:
        Stopped: see `stop`, on any rank.
        InputError: the mixture's schedule cannot give the method what it needs, `settings.conflicts` cannot be had, the
            processes cannot share a batch evenly, or the model has buffers that move.
    """
    world = world or World()
    settings = shared(settings, world)
    total = steps(settings, method)
    draws = mixture.draws(method.needs, settings.batch, settings.clean_batch if method.clean else None, seed)
    optimizer = make_optimizer(model, settings)
    trace, best = Trace(), {}
    conflicts = Conflicts(settings.conflicts, list(mixture.parts), method.needs)
    saved = checkpoint.load() if checkpoint else None
    if saved is not None:
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        method.load_state_dict(saved["method"])
        draws.load_state_dict(saved["mixture"])
        trace, best = Trace(**saved["trace"]), saved["best"]
        conflicts.load_state_dict(saved["conflicts"])
        if world.first:
            print(f"{name}: resumed from step {trace.step} of {total}", flush=True)
    world.same(trace.step)

    def save() -> None:
        if checkpoint and world.first:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "method": method.state_dict()}
            state |= {"mixture": draws.state_dict(), "trace": trace.state_dict(), "best": best}
            checkpoint.save({**state, "conflicts": conflicts.state_dict()})

    model.train()
    rows = {key: row for row, key in enumerate(mixture.rows())}
    marks, warned = _marks(total, settings.every), set()
    floor, still = -settings.better * math.inf, Still(model, world)
    with Progress(name, total, "step", start=trace.step) if world.first else contextlib.nullcontext() as bar:
        while trace.step < total and not trace.diverged:
            began = time.perf_counter()
            drawn, clean = (cut(batches, settings) for batches in draws.step(trace.step, method.clean_for))
            made = step(
                model, method.backward, optimizer, drawn, clean,
                rate=settings.learning_rate * linear(trace.step, total, settings.warmup), largest=settings.clip,
                bf16=settings.bf16,
            )  # fmt: skip
            still.check()
            report, loss = made.report, made.loss
            figures = {"loss": loss, "learning_rate": made.rate, "gradient_norm": made.norm}
            if made.finite:
                report.log.update(conflicts.look(trace.step, model, drawn))
                trace.note(report, drawn, rows, **figures)
                for one in set(trace.without_weight(len(rows))) - warned:
                    warned.add(one)
                    if world.first:
                        said = f"{name}: class {one} got no weight in an epoch, see methods/weightings/reweight.py"
                        print(said, flush=True)
            else:
                term = f", a term of {report.log['term']:.3g} times the gradient" if "term" in report.log else ""
                trace.diverged = f"step {trace.step + 1}: loss {loss:.3g}, gradient norm {made.norm:.3g}{term}"
            if watch:
                count = sum(len(part.ids) for batch in drawn for part in batch)
                watch(report, examples=count, seconds=time.perf_counter() - began, done=trace.step / total, **figures)
            if trace.diverged:
                break
            if bar:
                bar.advance(loss=loss)
            if trace.step in marks:
                scores = score(model)
                trace.history[-1] |= {f"selection_{key}": one for key, one in scores.items()}
                value = next(iter(scores.values()))
                if value is not None and settings.better * value > settings.better * trace.best.get("score", floor):
                    trace.best = {"step": trace.step, "score": value}
                    best = {key: tensor.detach().clone() for key, tensor in model.state_dict().items()}
                save()
            if world.any(stop()):
                save()
                raise Stopped(f"{name}: stopped after step {trace.step} of {total}; the next run goes on from there")
    for update, share in trace.inaccurate().items() if world.first else ():
        print(
            f"{name}: {update}'s term was inaccurate (> 10 %) in {share:.1%} of steps, see methods/updates/{update}.py",
            flush=True,
        )
    if best:
        model.load_state_dict(best)
    return trace


def cut(batches: Sequence[Batch | None], settings: Settings) -> list[list[Batch]]:
    """Each batch as its micro-batches: of at most `settings.micro` examples, or its equal parts; none of None.

    The parts of a batch of n examples differ by one example at most; where there are fewer examples than parts, each is
    one.
    """
    found: list[list[Batch]] = []
    for batch in batches:
        if batch is None:
            found.append([])
            continue
        n, micro = len(batch.ids), settings.micro or len(batch.ids)
        if isinstance(micro, Budget):
            parts = min(n, _parts(settings.batch, micro))
            sizes = [n // parts + (k < n % parts) for k in range(parts)]
        else:
            sizes = [min(micro, n - start) for start in range(0, n, micro)]
        found.append(_split(batch, sizes))
    return found


def _parts(batch: Size, micro: Size) -> int:
    """Micro-batches of a whole batch."""
    whole, one = (size.tokens if isinstance(size, Budget) else size for size in (batch, micro))
    return -(-whole // one)


def shared(settings: Settings, world: World) -> Settings:
    """Settings under which the ranks share each whole batch evenly: a micro-batch each where nothing is said.

    Raises:
        InputError: the micro-batches of a batch do not divide evenly.
    """
    if world.size == 1:
        return settings
    budget = isinstance(settings.batch, Budget)
    each = -(-(settings.batch.tokens if budget else settings.batch) // world.size)
    micro = settings.micro or (Budget(tokens=each) if budget else each)
    parts = _parts(settings.batch, micro)
    if parts % world.size:
        raise InputError(
            f"train.micro_batch: found {micro}, which makes {parts} of a batch of {settings.batch}\n"
            f"expected as many for each of {world.size} processes, as {each} would make"
        )
    return dataclasses.replace(settings, micro=micro)


class Still:
    """Several ranks would each move buffers (running statistics) by their own micro-batches: refused."""

    def __init__(self, model: nn.Module, world: World) -> None:
        self._buffers = {name: (t, t._version) for name, t in model.named_buffers()} if world.size > 1 else {}

    def check(self) -> None:
        """Raises InputError that names a buffer that has moved."""
        for name, (buffer, before) in self._buffers.items():
            if buffer._version != before:
                raise InputError(f"model: buffer {name} moves in a forward pass\nexpected one process: gpu.count: 1")


def clip(parameters: Iterable[nn.Parameter], largest: float | None, norm: Tensor | None = None) -> float:
    """Clip the gradient; returns its norm before that, 0 where there is none.

    Args:
        parameters: with and without a gradient.
        largest: None = no clipping.
        norm: () of the gradient where it is known.
    """
    if norm is None:
        parameters = [p for p in parameters if p.grad is not None]
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters], foreach=True)
    size = float(norm)
    # far enough below to be multiplied by 1.0 exactly, which would read and write all of it for nothing
    if largest is not None and not size < (1 - _MARGIN) * largest - _MARGIN:
        torch.nn.utils.clip_grads_with_norm_(parameters, largest, norm)
    return size


def make_optimizer(model: nn.Module, settings: Settings) -> torch.optim.Optimizer:
    """The optimizer of the settings.

    Adam and AdamW fused: on a CPU one after another of their operations over all parameters takes up to a fifth of a
    step of a small BERT, and an eighth of that in one.
    """
    groups = parameter_groups(model, settings.weight_decay)
    fused = {"fused": True} if settings.optimizer in ("Adam", "AdamW") else {}
    return getattr(torch.optim, settings.optimizer)(groups, lr=settings.learning_rate, **fused)
