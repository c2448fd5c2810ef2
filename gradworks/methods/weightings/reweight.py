"""Learning to reweight examples: an example counts by how much its gradient helps on clean examples.

Ren, Zeng, Yang, Urtasun (ICML 2018), equations 2-7, in the form without an inner step: with example weights eps in an
inner step theta'(eps) = theta - eta * grad(sum of eps_i * L_i) and the clean loss at theta'(eps), the derivative at
eps = 0 is

    u_i = -d L_clean(theta'(eps)) / d eps_i = eta * <grad L_clean, grad L_i>        (eq. 2-4)
    w_i = max(u_i, 0) / sum_j max(u_j, 0)                                           (eq. 5-6)

so one inner product per example replaces the second-order pass, eta cancels in eq. 6, and no inner learning rate is
offered. Where no u_i is positive all weights are zero and the step is skipped (eq. 6's indicator). With gradient
accumulation the weights are normalised over the whole batch, all micro-batches and ranks, not per micro-batch: the
normaliser is a scalar, so the division comes last. Token-level losses: w_i is times the number of labels of example i.

Cost with a clean batch of share r of the batch: (4 + 3r) / 3 plain passes with `ghost` and `logit_fd`.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gradworks.methods._core.bases import BaseWeighting
from gradworks.methods._core.options import integer, number, one_of
from gradworks.methods.weightings._backends.agreement import confirm, examine
from gradworks.methods.weightings._backends.ghost import Ghost
from gradworks.methods.weightings._backends.layers import NotCovered
from gradworks.methods.weightings._backends.logit_fd import LogitFd
from gradworks.spec import Batch, Outputs, Pass, Reduce, Sum, Visit

__all__ = ["Reweight"]

_BACKENDS = {
    "ghost": "Ghost",
    "logit_fd": "LogitFd",
    "jvp": "Jvp",
    "per_example": "PerExample",
    "second_order": "SecondOrder",
}
_logger = logging.getLogger("gradworks")


class Reweight(BaseWeighting):
    """Weights max(<clean gradient, example's gradient>, 0), made at the point of the first visit and then held.

    Attributes:
        taken: the back-end in use, "" before the first batch.
        why: one line for people.

    Args:
        backend: how u is computed. `ghost`: exact, layer by layer; where every trained parameter belongs to a layer
            with a rule (`_backends/layers.py`, and nn.GRU). `logit_fd`: finite difference of the outputs, any
            architecture. `auto`: ghost where it can serve the model, else logit_fd; says which and why (logger
            "gradworks"). `jvp`, `per_example`, `second_order`: exact and slower, for comparison.
        tau: of logit_fd, the rms change of the outputs; None = by precision (1e-3 in float32).
        every: score every k-th step; every label counts the same on the steps between, which need no clean pass.
    """

    holds = True
    clean = True

    def __init__(self, backend: str = "auto", tau: float | None = None, every: int = 1):
        self._asked = one_of("backend", backend, ["auto", *_BACKENDS])
        self._tau = None if tau is None else number("tau", tau, above=0)
        if tau is not None and backend not in ("auto", "logit_fd"):
            raise ValueError(f"tau: found with backend {backend}, expected with logit_fd or auto")
        self._every = integer("every", every, low=1)
        self._steps = 0
        self._checked: list[str] = []  # tasks whose first batch ghost was checked on, with so many trained parameters
        self._trained = 0
        self.taken, self.why = "", ""
        if backend == "auto":
            self._backend: Any = None
        else:
            self._take(backend, "as asked")

    def prepare(self, visit: Visit) -> None:
        if self._resting:
            return
        task, trained = visit.passes[0].batch.task, len(visit.passes[0].parameters)
        if self._trained != trained:
            self._trained, self._checked = trained, []
        if self._backend is None:
            self._take("ghost", "")
        if self.taken == "ghost" and task not in self._checked:
            self._examine(visit, task)
        self._backend.prepare(visit)

    def weights(self, here: Pass, outputs: Outputs, losses: Tensor) -> tuple[Tensor, Tensor | None]:
        if self._resting:
            return super().weights(here, outputs, losses)
        score = self._backend.scores(here, outputs, losses)
        return self.rectified(score) * here.batch.mass.to(score), score

    def rectified(self, score: Tensor) -> Tensor:
        """Eq. 5."""
        return score.clamp_min(0)

    def gradient(self, here: Pass) -> Sum:
        if self.taken != "ghost" or self._resting or "weights" in here.held:
            return super().gradient(here)
        recorded = self._backend.record(here)
        score = self._backend.scores(recorded)
        weights = self.rectified(score) * here.batch.mass.to(score)
        here.held["weights"], here.held["score"] = weights, score
        weight = weights.sum()
        shares = weights / torch.where(weight == 0, 1, weight) if here.alone else weights
        gradient = self._backend.gradient(recorded, shares)
        return Sum(gradient, weight, recorded.losses.detach(), weights, score, divided=here.alone)

    def end(self, done: Sequence[Sequence[tuple[Batch, Sum]]], reduce: Reduce) -> None:
        if not self._resting:
            self._backend.end(reduce)
        self._steps += 1

    @property
    def once(self) -> bool:
        return self.taken == "ghost"

    @property
    def _resting(self) -> bool:
        return self._steps % self._every > 0

    def _examine(self, visit: Visit, task: str) -> None:
        """May this model's batches of this task be scored by ghost?"""
        try:
            examine(self._backend, visit)
        except NotCovered as error:
            if self._asked == "ghost":
                raise ValueError(f"reweight: {error}") from None
            self._take("logit_fd", str(error).splitlines()[0])
            self._say()
            return
        if not self._checked:
            self.why = "every trained parameter belongs to a layer with a rule"
            self._say()
        if any(len(here.batch.mass) > 1 for here in visit.passes):  # one example says nothing about rows
            self._checked.append(task)
        confirm(self._backend, visit)

    def _take(self, name: str, why: str) -> None:
        self.taken, self.why = name, why
        if name == "logit_fd":
            self._backend = LogitFd(self._tau)
        elif name == "ghost":
            self._backend = Ghost()
        else:
            module = importlib.import_module(f"gradworks.methods.weightings._backends.{name}")
            self._backend = getattr(module, _BACKENDS[name])()

    def _say(self) -> None:
        _logger.info("reweight: backend %s: %s", self.taken, self.why)

    def state_dict(self) -> dict[str, Any]:
        state = {"steps": self._steps, "taken": self.taken, "why": self.why}
        state |= {"checked": list(self._checked), "trained": self._trained}
        return state | {"backend": self._backend.state_dict() if self._backend else {}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._steps, self._checked, self._trained = state["steps"], list(state["checked"]), state["trained"]
        if state["taken"]:
            self._take(state["taken"], state["why"])
            self._backend.load_state_dict(state["backend"])
