"""What most entries share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from gradworks.spec import Batch, Masks, Outputs, Pass, Reduce, Sum, Task, Visit


def due(step: int) -> bool:
    """Whether what costs more passes is measured in a step: often at first, when most changes, then every 200 steps."""
    return step in (2, 8, 32) or step % 200 == 0


class Stateless:
    """An entry without state."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


class BaseObjective(Stateless):
    """The task's own loss; an objective that adds to it overrides `outputs` and `loss`."""

    holds = False
    due = False
    once = True
    requires: tuple[str, ...] = ()

    def begin(self, model: nn.Module) -> None:
        """Nothing moves."""

    def outputs(self, task: Task, model: nn.Module, batch: Batch, masks: Masks, held: dict) -> Outputs:
        with masks(0):
            return task.outputs(model, batch)

    def loss(self, task: Task, outputs: Outputs, batch: Batch, held: dict) -> Tensor:
        return task.loss(outputs, batch)


class BaseWeighting(Stateless):
    """Every label counts the same; most weightings override `weights` alone.

    One forward and one backward pass over the weighted sum of losses.
    """

    holds = False
    clean = False
    once = True

    def clean_for(self, tasks: Sequence[str]) -> list[bool]:
        return [self.clean] * len(tasks)

    def prepare(self, visit: Visit) -> None:
        """Nothing to prepare."""

    def weights(self, here: Pass, outputs: Outputs, losses: Tensor) -> tuple[Tensor, Tensor | None]:
        """(n,) weights, not normalised, `batch.mass` included, and (n,) signed scores or None; both without a graph."""
        return here.batch.mass.to(losses), None

    def gradient(self, here: Pass) -> Sum:
        """Weights are made on the first visit and held for every later one (hold law)."""
        outputs = here.outputs()
        losses = here.loss(outputs)
        if "weights" not in here.held:
            here.held["weights"], here.held["score"] = self.weights(here, outputs, losses)
        return here.weighted(losses, here.held["weights"], here.held["score"])

    def end(self, done: Sequence[Sequence[tuple[Batch, Sum]]], reduce: Reduce) -> None:
        """No state to move."""
