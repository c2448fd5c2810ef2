"""What a task offers, what a method is, and nothing else: the types between tasks, data, methods and the loop.

A step is update(weighting(objective(task))). Scale law: every gradient is a mean (sum of w_i * dloss_i over sum of w_i,
then the mean over the batches that a step consumes), so learning rate, clipping and weight decay mean the same for
every method.

Shapes: n examples, L positions, D width. A point or a gradient is one tensor per trainable parameter, in the order of
`model.parameters()`, each shared (tied) parameter once.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from torch import Tensor, nn

Params = Sequence[Tensor]  # one tensor per trainable parameter: a point or a gradient
Outputs = tuple[Tensor, ...]  # dim 0 of every member is the example (multiple choice: reshaped to (n, choices))
Reduce = Callable[[list[Tensor]], None]  # sums a list of tensors over ranks, in place


@dataclass
class Batch:
    """One micro-batch: what one forward pass reads.

    Attributes:
        task: which head and loss.
        ids: (n,) stable example ids; windows of one document share one.
        inputs: what the task's `outputs` reads.
        labels: what the task's `loss` reads.
        mass: (n,) how many labels an example carries: 1, or its labelled tokens (seq2seq, tagging).
        group: (n,) domain, genre or slice, for weightings that balance groups.
    """

    task: str
    ids: Sequence[str]
    inputs: Any
    labels: Any
    mass: Tensor
    group: Tensor | None = None


Drawn = Sequence[Batch]  # one batch = its micro-batches (gradient accumulation)


class Task(Protocol):
    """What a method may know of a model and a kind; `embed`, `divergence`, `smoothed` are optional: see `offers`."""

    def outputs(self, model: nn.Module, batch: Batch, embedded: Tensor | None = None) -> Outputs:
        """Raw outputs of one forward pass; `embedded` (n, L, D) replaces the input embeddings."""

    def loss(self, outputs: Outputs, batch: Batch) -> Tensor:
        """(n,) the mean over the labels of each example, not reduced over examples.

        Reads parameters only through `outputs`.
        """

    def embed(self, model: nn.Module, batch: Batch) -> Tensor:
        """Optional. (n, L, D) input embeddings, for objectives that perturb them."""

    def divergence(self, p: Outputs, q: Outputs) -> Tensor:
        """Optional. (n,) symmetric, 0 iff equal: symmetric KL (Bernoulli for one logit), squared error (regression)."""

    def smoothed(self, outputs: Outputs, batch: Batch, share: float) -> Tensor:
        """Optional. (n,) the loss where `share` of each label is spread evenly over all classes."""


def offers(task: Task, part: str) -> bool:
    """Whether a task defines an optional part (`embed`, `divergence`, `smoothed`), not inherits `Task`'s empty one."""
    found = getattr(task, part, None)
    return callable(found) and getattr(found, "__func__", found) is not getattr(Task, part)


class Masks(Protocol):
    """Random numbers keyed by (seed, batch of the data stream, micro-batch, stream): replayed by key, never stored.

    The key does not depend on the method, so all methods of one seed see the same masks on the same batch.
    """

    def __call__(self, stream: int) -> AbstractContextManager:
        """Inside the context dropout draws this stream; entering it twice gives the same masks."""

    def noise(self, like: Tensor, batch: Batch) -> Tensor:
        """N(0, 1) of the shape of `like` (n * rows of one example, ...), keyed by example id, not by position."""


class Stateful(Protocol):
    """Every entry of every slot, and Method. State: nested dicts and lists of tensors, numbers and strings.

    An entry may have `once`, true where it makes one pass over a micro-batch under the same masks, and `once_alone`,
    true where it does so in a step whose batches are one micro-batch each, in one process: where all three entries say
    so, nothing is kept for a second pass, and that a batch gives the same twice need not be checked. An update may have
    `single`, true in a step that asks for the gradient of each batch once and for nothing else; `plain`, true where its
    gradient is that of its one batch; `sparse`, true where it takes sparse gradients as they come; `moments`, steps and
    second moments (one tensor per parameter) of an inner optimizer, with which evaluation may go on.
    """

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Objective(Stateful, Protocol):
    """What is minimised, in two halves: a weighting can differentiate the loss by the outputs, these by the parameters.

    Attributes:
        holds: something in `held` is treated as constant in the parameters (adversarial delta, teacher outputs).
        requires: optional parts of a task that it calls; a task without them is refused before training.
        due: in this step the log gets the sizes of the gradients of `parts`; optional, as `parts` is.
    """

    holds: bool
    requires: tuple[str, ...]
    due: bool

    def begin(self, model: nn.Module) -> None:
        """Once per optimizer step, before any pass: a momentum teacher moves here, not per pass nor per inner step."""

    def outputs(self, task: Task, model: nn.Module, batch: Batch, masks: Masks, held: dict) -> Outputs:
        """All that depends on the parameters.

        Constants are made while `held` lacks them and read from it afterwards: passes that are differenced must
        differentiate the same function. Figures for the log, () tensors by name, may be put into `held["log"]`, a dict
        that is there from the start; the report gives their mean over the micro-batches of the step.
        """

    def loss(self, task: Task, outputs: Outputs, batch: Batch, held: dict) -> Tensor:
        """(n,) the objective of each example; reads parameters only through `outputs`."""

    def parts(self, task: Task, outputs: Outputs, batch: Batch, held: dict) -> dict[str, Tensor]:
        """Optional. (n,) the summands of `loss` by name, the task's own loss first."""


@dataclass
class Sum:
    """Sums over the examples of one micro-batch, not means: micro-batches and ranks add, the division comes last.

    Attributes:
        gradient: sum of w_i * gradient_i (dropped, [], once it is added up).
        weight: () sum of w_i; 0 = nothing to learn here.
        losses: (n,) detached.
        weights: (n,) >= 0, not normalised, `batch.mass` included.
        score: (n,) the signed score before max(., 0), where the weighting has one.
    """

    gradient: list[Tensor]
    weight: Tensor
    losses: Tensor
    weights: Tensor
    score: Tensor | None = None


class Pass(Protocol):
    """One micro-batch at one point, as a weighting sees it.

    Attributes:
        batch: the micro-batch.
        index: which batch of the step it belongs to.
        model: the module, its parameters at this pass's point.
        parameters: the trainable parameters of `model`, at this pass's point.
        masks: the micro-batch's random numbers.
        held: the weighting's; empty on the first visit of this micro-batch in a step, then carried.
    """

    batch: Batch
    index: int
    model: nn.Module
    parameters: Sequence[nn.Parameter]
    masks: Masks
    held: dict

    def outputs(self, at: Params | None = None) -> Outputs:
        """The objective's outputs with a graph; with `at` differentiable in `at` to any order (for exact oracles)."""

    def moved(self, at: Params) -> Outputs:
        """The objective's outputs at another point, same masks, without a graph."""

    def loss(self, outputs: Outputs) -> Tensor:
        """(n,) the objective's loss."""

    def backward(self, loss: Tensor, retain_graph: bool = False) -> list[Tensor]:
        """The gradient of a () loss of this pass, zeros where it does not reach; the caller owns the tensors.

        What nothing reaches in a step keeps .grad None, as in plain training.
        """

    def weighted(
        self, losses: Tensor, weights: Tensor, score: Tensor | None = None,
        gradient: Callable[[Tensor], Sequence[Tensor | None]] | None = None,
    ) -> Sum:  # fmt: skip
        """What a weighting returns: the weighted sums of this micro-batch.

        Args:
            losses: (n,), with a graph where there is no `gradient`.
            weights: (n,) >= 0, not normalised, constant. score: (n,) where the weighting has one.
            gradient: (n,) factors -> the sum of factor_i * gradient_i by parameter, None where no loss reaches it. By
                default one backward pass of the weighted losses.
        """

    def count(self, thirds: float) -> float:
        """Add work to `StepReport.passes` that is no pass of the model, in thirds of one over this micro-batch.

        Returns what the step has counted so far, in the same unit.
        """


class Visit(Protocol):
    """The first visit of a batch in a step, before any graph exists.

    Attributes:
        passes: one per micro-batch of this rank.
        holds: the objective holds something that its first pass must make.
        single: the batch is one pass, in one process.
        reduce: sums a list of tensors over ranks, in place.
    """

    passes: Sequence[Pass]
    holds: bool
    single: bool
    reduce: Reduce

    def change(self, at: Params) -> tuple[float, float]:
        """Root mean squares of (outputs at `at` - outputs here) and of the outputs here, over the task's raw outputs.

        Over all micro-batches and ranks; two forward passes without a graph, same masks. For calibration.
        """

    def largest(self) -> AbstractContextManager[Pass]:
        """The largest micro-batch of this rank, for work on one of a batch: of all ranks, it counts once."""

    def clean_gradient(self, of: Callable[[Pass], Sum] | None = None) -> list[Tensor]:
        """Over the whole clean batch beside this one: the mean supervised gradient here, or the mean of what `of` sums.

        The caller owns the tensors; every call costs a pass. Raises ValueError where there is no clean batch.
        """


class Weighting(Stateful, Protocol):
    """How much each example counts and the weighted gradient, in one call, because both can share their passes.

    Attributes:
        holds: weights depend on the parameters: made on the first visit, then held.
        clean: needs clean batches; a method `clean_for(tasks) -> list[bool]` may say which batches of the next step do.
        log: figures of the last step by name, () tensors; optional.
    """

    holds: bool
    clean: bool
    log: dict[str, Tensor]

    def prepare(self, visit: Visit) -> None:
        """Once per batch and step, on the first visit, for what must be known before the first graph exists."""

    def gradient(self, here: Pass) -> Sum:
        """Weighted sums of one micro-batch; makes the weights where `here.held` lacks them, else reads them."""

    def end(self, done: Sequence[Sequence[tuple[Batch, Sum]]], reduce: Reduce) -> None:
        """Once per step, with each batch's micro-batches of this rank: state moves here, never in a pass."""


class Passes(Protocol):
    """All that an update gets. Same batch index = same masks, weights and held quantities, wherever it is evaluated.

    Attributes:
        theta: detached views of the parameters, never written.
        tasks: the task of each batch.
        holds: objective.holds or weighting.holds.
        log: figures of this step by name; () tensors are fine.
    """

    theta: list[Tensor]
    tasks: Sequence[str]
    holds: bool
    log: dict[str, float | Tensor]

    def gradient(self, i: int, at: Params | None = None) -> list[Tensor]:
        """Mean weighted gradient of batch i at `at` (default theta), over micro-batches and ranks.

        Its first call in a step fixes weights and held quantities of batch i at that point. The caller owns the result.
        """

    def hold(self, i: int) -> None:
        """Fix them at theta now, at the price of one pass; a third where only buffers move, nothing where none do."""

    def value(self, i: int) -> Tensor:
        """() the mean weighted loss of batch i, where its weights were made; nan where no label has weight. No pass."""

    def loss(self, i: int, at: Params) -> Tensor:
        """() the same mean, differentiable in `at` to any order, held quantities constant. One rank; exact forms."""

    def jumps(self) -> AbstractContextManager[Callable[[], bool]]:
        """Inside, what it gives says whether a pass so far, on any rank, had an operation whose derivative jumps."""

    def branches(self) -> AbstractContextManager[Mapping[Hashable, Tensor]]:
        """What it gives holds, after one `gradient`, on which side of its kinks each operation was; no pass more."""

    def crossed(self, one: Mapping[Hashable, Tensor], other: Mapping[Hashable, Tensor]) -> bool:
        """Whether a kink, on any rank, lies between two passes over one batch, by their `branches`."""


@dataclass
class Needs:
    """What an update asks of the schedule.

    Attributes:
        batches: consumed by every optimizer step, constant in time; "one_per_task" = as many as there are tasks.
        tasks: how the schedule fills the group (Reptile in episodes: "same").
        groups: meta-batch: the step is the mean over this number of groups of `batches` each.
    """

    batches: int | Literal["one_per_task"] = 1
    tasks: Literal["any", "same", "different"] = "any"
    groups: int = 1


class Update(Stateful, Protocol):
    """How the batches of one step make one gradient.

    It may have `exact`, true where it differentiates through the parameters (`Passes.loss`): ranks then share no batch.
    """

    needs: Needs

    def gradient(self, passes: Passes) -> list[Tensor]: ...


@dataclass
class StepReport:
    """What one call of `Method.backward` did.

    Attributes:
        skipped: all weights were zero: every .grad is None, so torch optimizers leave parameters and their state alone.
        passes: what was computed, in plain passes: a forward counts 1/3, a backward through activations 1/3, the weight
            gradients 1/3, each times its examples over the mean number of examples of the step's batches. Plain
            training on k batches counts k.
        sums: per batch, per micro-batch: losses, weights, scores in the order of the batch's ids.
        checked: passes besides, for the check that a batch gives the same twice (see `_shared/replay.py`).
        log: figures by name; always `loss` (mean over this rank's examples), `gradient_norm`, `finite` (1.0 or 0.0).
        norm: () of the gradient, in its type.
    """

    skipped: bool
    passes: float
    sums: list[list[Sum]] = field(default_factory=list)
    log: dict[str, float] = field(default_factory=dict)
    checked: float = 0.0
    norm: Tensor | None = None
