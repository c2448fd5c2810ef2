"""What a training run leaves behind: history, statistics of the gradient, example weights."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from gradworks.base import artifacts
from gradworks.base.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from gradworks.spec import Batch, Needs, StepReport


_SHARE = "class_share_"  # see gradworks/methods/weightings/reweight.py
_ERRORS = {
    "dotprod_error": "dotprod",
    "penalty_error": "grad_norm_penalty",
}  # what is logged of a term's error, by whom
INACCURATE = 0.1  # relative error of a term


class Conflicts:
    """Cosines between gradients of tasks whose batches come one after the other, as an update made them.

    A look begins every so many steps. From then on the gradient of each step is kept, the newest of each task, until
    all tasks have one or the next look begins; then `cosine` is the mean cosine of two tasks' gradients on the
    parameters that both reach, and `conflict` the share of pairs whose dot product is negative: the names that `joint`
    and pcgrad log, who compare gradients at one point. Here a gradient is that of its own step: of another point, less
    than `every` steps of the optimizer away, and another batch. It is the update's, of the whole objective and weights.

    Nothing of the run changes. Cost: no pass; a copy of the gradient of each task while a look lasts, and their dot
    products, once in a look.

    Args:
        every: steps from one look to the next; None = no look.
        tasks: of the mixture. needs: of the update.

    Raises:
        InputError: a step of the update is of several batches.
    """

    def __init__(self, every: int | None, tasks: Sequence[str], needs: Needs):
        if every and (needs.batches != 1 or needs.groups != 1):
            raise InputError(
                "conflicts: found an update whose steps are of several batches\n"
                "expected one with a batch a step; `joint` and the methods against conflicts log cosines themselves"
            )
        self._every, self._tasks = every, tuple(tasks)
        self._open = False
        self._held: dict[str, dict[str, Tensor]] = {}

    def look(self, step: int, model: nn.Module, drawn: Sequence[Sequence[Batch]]) -> dict[str, float]:
        """What to log of a step.

        Args:
            step: the number of steps before it.
            model: with the gradient of the step; clipped or not is the same to a cosine.
            drawn: its batches.
        """
        if self._every is None:
            return {}
        found = {}
        if step % self._every == 0:
            found, self._open = self._compared(), True
        own = {part.task for batch in drawn for part in batch}
        grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        if self._open and len(own) == 1 and grads:  # none where the step was skipped
            self._held[own.pop()] = {name: g.detach().to_dense().clone() for name, g in grads.items()}
            if len(self._held) == len(self._tasks):
                found, self._open = self._compared(), False
        return found

    def _compared(self) -> dict[str, float]:
        cosines = []
        for a, b in itertools.combinations(sorted(self._held), 2):
            one, other = self._held[a], self._held[b]
            both = [name for name in one if name in other]
            dots = [
                sum(float(torch.dot(x[n].flatten().float(), y[n].flatten().float())) for n in both)
                for x, y in ((one, other), (one, one), (other, other))
            ]
            if dots[1] > 0 and dots[2] > 0:
                cosines.append(dots[0] / math.sqrt(dots[1] * dots[2]))
        self._held = {}
        if not cosines:
            return {}
        n = len(cosines)
        return {"cosine": math.fsum(cosines) / n, "conflict": sum(one < 0 for one in cosines) / n}

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to log the same."""
        return {"open": self._open, "held": {task: dict(grads) for task, grads in self._held.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._open, self._held = state["open"], {task: dict(grads) for task, grads in state["held"].items()}


@dataclass
class Trace:
    """Counters and rows of one run; the whole of it travels in the checkpoint.

    `history`: one row an optimizer step. `statistics`: [step, name, value]. `weights`: for each step the step, the rows
    of the training split, the weights relative to their batch (1 = as in plain training) and the signed scores.
    """

    step: int = 0
    batches: int = 0
    examples: int = 0
    skipped: int = 0
    passes: float = 0.0
    best: dict[str, Any] = field(default_factory=dict)
    diverged: str = ""
    history: list[dict[str, Any]] = field(default_factory=list)
    statistics: list[list[Any]] = field(default_factory=list)
    weights: list[list[Tensor]] = field(default_factory=list)

    def state_dict(self) -> dict[str, Any]:
        """Weights of all steps as four long tensors: a checkpoint of few tensors is fast."""
        joined = [torch.cat(column) for column in zip(*self.weights, strict=True)]
        return {**vars(self), "weights": [joined] if joined else []}

    def note(
        self, report: StepReport, drawn: Sequence[Sequence[Batch]], rows: dict[tuple[str, str], int], **values: float
    ) -> None:
        """Count one optimizer step.

        Args:
            report: what the method said of it.
            drawn: its batches, each a sequence of micro-batches.
            rows: task and id of an example -> row of the training splits, one after the other.
            values: further columns of the history.
        """
        self.step += 1
        self.batches += len(drawn)
        self.examples += sum(len(part.ids) for batch in drawn for part in batch)
        self.skipped += report.skipped
        self.passes += report.passes
        self.history.append({"step": self.step, "examples": self.examples, **values})
        self.statistics.extend([self.step, key, float(value)] for key, value in report.log.items())
        for batch, sums in zip(drawn, report.sums, strict=True):
            if all(
                part.score is None and (part.weights is b.mass or torch.equal(part.weights, b.mass))
                for b, part in zip(batch, sums, strict=True)
            ):
                continue  # every example counts the same: nothing to tell
            weights = torch.cat([part.weights for part in sums]).float().cpu()
            scores = [part.weights * torch.nan if part.score is None else part.score for part in sums]
            index = torch.tensor([rows[part.task, key] for part in batch for key in part.ids])
            mass = torch.cat([b.mass for b in batch]).float().cpu()  # plain training weighs by it too
            share = weights / mass / weights.sum() * mass.sum() if weights.sum() > 0 else weights
            self.weights.append([torch.full_like(index, self.step), index, share, torch.cat(scores).float().cpu()])

    def without_weight(self, size: int) -> list[str]:
        """The classes, as `TASK_CLASS`, that got no weight in the epoch over `size` examples that the last step ended.

        Empty where it ended none, or where the method does not log the shares of classes.
        """
        ends = [row["examples"] // size for row in self.history[-2:]]
        if ends[-1] == (ends[0] if len(ends) > 1 else 0):
            return []
        later = itertools.takewhile(lambda row: row["examples"] > (ends[-1] - 1) * size, reversed(self.history))
        first = min((row["step"] for row in later), default=self.step)
        shares: dict[str, float] = {}
        for step, key, value in reversed(self.statistics):
            if step < first:
                break
            if key.startswith(_SHARE):
                shares[key.removeprefix(_SHARE)] = shares.get(key.removeprefix(_SHARE), 0.0) + value
        return sorted(key for key, share in shares.items() if share == 0)

    def inaccurate(self) -> dict[str, float]:
        """Update -> share of the steps with its term in which the term erred by more than `INACCURATE`, where any did.

        An update says so of each step that it has reason to look at; of smooth models that is now and then.
        """
        terms = sum(key == "term" for _, key, _ in self.statistics)
        found: dict[str, int] = {}
        for _, key, value in self.statistics:
            if key in _ERRORS and not value <= INACCURATE:
                found[_ERRORS[key]] = found.get(_ERRORS[key], 0) + 1
        return {update: count / max(terms, 1) for update, count in found.items()}

    def figures(self) -> dict[str, float]:
        """The share of steps that were skipped, where there are any the share of those with an inaccurate term, and the
        mean of every figure of the log over the steps that have it.

        Figures that are not finite are left out; what is computed now and then is averaged over those steps.
        """
        found: dict[str, list[float]] = {}
        for _, key, value in self.statistics:
            if math.isfinite(value):
                found.setdefault(key, []).append(value)
        means = {key: math.fsum(values) / len(values) for key, values in sorted(found.items())}
        wrong = {f"{update}_inaccurate_share": share for update, share in self.inaccurate().items()}
        return {"skipped_share": self.skipped / max(self.step, 1), **means, **wrong}

    def write(self, folder: Path, rows: Sequence[tuple[str, str]]) -> None:
        """history.parquet, statistics.parquet and weights.parquet; `rows`: task and id of each row, as `note` had them.

        Where there are several tasks weights.parquet has the column `task`.
        """
        import pyarrow as pa

        columns = dict.fromkeys(key for row in self.history for key in row) or {"step": None, "examples": None}
        history = {key: [row.get(key) for row in self.history] for key in columns}
        artifacts.write_parquet(folder / "history.parquet", pa.table(history))
        names = [("step", pa.int64()), ("name", pa.string()), ("value", pa.float64())]
        statistics = [{key: value for (key, _), value in zip(names, row, strict=True)} for row in self.statistics]
        artifacts.write_parquet(folder / "statistics.parquet", pa.Table.from_pylist(statistics, pa.schema(names)))
        step, index, weight, score = (
            torch.cat(column)
            for column in (zip(*self.weights, strict=True) if self.weights else [[torch.empty(0)]] * 4)
        )
        named = [rows[row] for row in index.long()]
        several = len({task for task, _ in rows}) > 1
        table = {
            "step": pa.array(step.numpy(), pa.int64()),
            **({"task": pa.array([task for task, _ in named], pa.string())} if several else {}),
            "id": pa.array([key for _, key in named], pa.string()),
            "weight": pa.array(weight.numpy(), pa.float32()),
            "score": pa.array(score.numpy(), pa.float32(), mask=score.isnan().numpy()),
        }
        artifacts.write_parquet(folder / "weights.parquet", pa.table(table))
