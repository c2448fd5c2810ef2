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

Cost with a clean batch of share r of the batch: (4 + 3r) / 3 plain passes with `ghost` and `logit_fd`, which is the
published method. Cheaper settings change what is computed; benchmarks/PRICE.md has their cost and their accuracy:
(4 + 3r / k) / 3 with `clean_every: k`, (3 + r) / 3 with `backend: head`, (3k + 1 + 3r) / 3k with `every: k`.

It wants a smaller learning rate than plain training does: where a step goes too far, a class whose examples have no
positive u_i gets no weight, is forgotten, and stays without weight. On a post-norm BERT accuracy was .61 at 3e-3 and
.905 at 3e-4, where plain training had .88. The log of a step has the share of each class in its weights,
`class_share_TASK_CLASS`; the loop warns of a class that got none for a whole epoch.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from gradworks.methods._shared.bases import BaseWeighting
from gradworks.methods._shared.options import integer, number, one_of
from gradworks.methods.weightings._shared.agreement import Changed, admitted, again, confirm, examine
from gradworks.methods.weightings._shared.clean import Kept
from gradworks.methods.weightings._shared.ghost import Ghost
from gradworks.methods.weightings._shared.layers import NotCovered
from gradworks.methods.weightings._shared.logit_fd import LogitFd
from gradworks.methods.weightings._shared.per_example import PerExample
from gradworks.spec import Batch, Outputs, Pass, Reduce, Sum, Visit

__all__ = ["Reweight"]

_BACKENDS = {
    "ghost": "Ghost",
    "logit_fd": "LogitFd",
    "head": "Head",
    "jvp": "Jvp",
    "per_example": "PerExample",
    "second_order": "SecondOrder",
}
_CLASSES = 20  # whose shares are logged
_KINDS = 64  # examined before `auto` takes the form that needs no examination
_logger = logging.getLogger("gradworks")


class Reweight(BaseWeighting):
    """Weights max(<clean gradient, example's gradient>, 0), made at the point of the first visit and then held.

    Attributes:
        taken: the back-end in use, "" before the first batch.
        why: one line for people.
        log: the share of each class in the weights of the last step, `class_share_TASK_CLASS`; where labels are class
            indices, up to 20 of them.

    Args:
        backend: how u is computed. `ghost`: exact, layer by layer; where every trained parameter belongs to a layer
            with a rule (`_shared/layers.py`, and nn.GRU) and rows are examples, which holds for every batch: one of
            another kind is examined before its scores count (`_shared/agreement.py` says what that sees, and what
            only a look now and then does). `logit_fd`: finite difference of the outputs, any architecture and any
            loss, one that reads other examples (in-batch negatives) too. `auto`: ghost where it can serve the model,
            else logit_fd; says which and why (logger "gradworks"). A batch that ghost cannot serve though it served
            others is scored by example, and the next one by logit_fd. `head`: the gradients of the linear layer that is
            called last alone, an approximation (`_shared/head.py`). `jvp`, `per_example`, `second_order`: exact and
            slower, for comparison.
        tau: of logit_fd, the rms change of the outputs; None = by precision (1e-3 in float32).
        every: score every k-th step; every label counts the same on the steps between, which need no clean batch.
        clean_every: make a clean gradient for every k-th batch of a task that is scored; the others are scored with the
            last one, and need no clean batch. It costs memory for one gradient for each task.
        clean_momentum: score with the mean of the clean gradients that were made, each counting this many times as much
            as the next; in [0, 1). The same memory.
    """

    holds = True
    clean = True

    def __init__(
        self,
        backend: str = "auto",
        tau: float | None = None,
        every: int = 1,
        clean_every: int = 1,
        clean_momentum: float = 0.0,
    ):
        self._asked = one_of("backend", backend, ["auto", *_BACKENDS])
        self._tau = None if tau is None else number("tau", tau, above=0)
        if tau is not None and backend not in ("auto", "logit_fd"):
            raise ValueError(f"tau: found with backend {backend}, expected with logit_fd or auto")
        self._every = integer("every", every, low=1)
        if number("clean_momentum", clean_momentum, low=0) >= 1:
            raise ValueError(f"clean_momentum: found {clean_momentum!r}, expected a number below 1")
        self._kept = Kept(integer("clean_every", clean_every, low=1), float(clean_momentum))
        self._steps = 0
        self._checked: list[str] = []  # tasks, and what was trained, whose first batch ghost was checked on
        self._again: Pass | None = None  # to be examined again in this step
        self._instead: PerExample | None = None  # serves a pass that ghost cannot
        self._failed: NotCovered | None = None
        self.taken, self.why = "", ""
        self.log: dict[str, Tensor] = {}
        if backend == "auto":
            self._backend: Any = None
        else:
            self._take(backend, "as asked")

    def clean_for(self, tasks: Sequence[str]) -> list[bool]:
        return [False] * len(tasks) if self._resting else self._kept.due(tasks)

    def prepare(self, visit: Visit) -> None:
        if self._resting:
            return
        if not self._kept.off:
            visit = self._kept.visit(visit)
        if self._backend is None:
            self._take("ghost", "")
        if self.taken == "ghost":
            self._examine(visit)
        self._backend.prepare(visit)

    def weights(self, here: Pass, outputs: Outputs, losses: Tensor) -> tuple[Tensor, Tensor | None]:
        if self._resting:
            return super().weights(here, outputs, losses)
        score = (self._instead or self._backend).scores(here, outputs, losses)
        return self.rectified(score) * here.batch.mass.to(score), score

    def rectified(self, score: Tensor) -> Tensor:
        """Eq. 5."""
        return score.clamp_min(0)

    def gradient(self, here: Pass) -> Sum:
        if self._resting or "weights" in here.held or self.taken not in ("ghost", "head"):
            return super().gradient(here)
        if self.taken == "head":
            with self._backend.recorded(here):
                return super().gradient(here)
        try:
            recorded = admitted(self._backend, here, here is self._again)
        except NotCovered as error:
            return self._other(here, error)
        score = self._backend.scores(recorded)
        weights = self.rectified(score) * here.batch.mass.to(score)
        here.held["weights"], here.held["score"] = weights, score
        return here.weighted(recorded.losses, weights, score, lambda shares: self._backend.gradient(recorded, shares))

    def _other(self, here: Pass, error: NotCovered) -> Sum:
        """A pass that ghost cannot serve though it served others: right all the same, at a backward pass an example."""
        self._failed = self._failed or error
        self._instead = PerExample(self._backend.direction())
        try:
            return super().gradient(here)
        finally:
            self._instead = None

    def end(self, done: Sequence[Sequence[tuple[Batch, Sum]]], reduce: Reduce) -> None:
        if not self._resting:
            self._backend.end(reduce)
            if self.taken == "ghost":
                self._leave(reduce)
        self.log = class_shares(done, getattr(reduce, "gather", list))
        self._again = None
        self._steps += 1

    def _leave(self, reduce: Reduce) -> None:
        """On all ranks alike, after a step in which ghost could not serve a pass of some rank."""
        if self._asked == "auto" and len(self._backend.layouts) > _KINDS:
            self._failed = NotCovered("", f"its batches are of more than {_KINDS} kinds, and each is examined")
        found, self._failed = self._failed, None
        counts = torch.tensor([float(found is not None), float(isinstance(found, Changed))], device=self._device)
        reduce([counts])
        failed, changed = counts.tolist()
        if not failed:
            return
        found = found or NotCovered("", "it cannot on another rank")
        if changed:
            raise ValueError(
                f"reweight: step {self._steps + 1}, looked at again: {str(found).splitlines()[0]}\n"
                "batches of this kind were right before, so scores since the last look may be wrong\n"
                "use backend: logit_fd, which serves any model"
            )
        if self._asked == "ghost":
            raise ValueError(f"reweight: {found}")
        self._take("logit_fd", str(found).splitlines()[0])
        self._say()

    @property
    def once(self) -> bool:
        return self.taken in ("ghost", "head")

    @property
    def _resting(self) -> bool:
        return self._steps % self._every > 0

    def _examine(self, visit: Visit) -> None:
        """May batches of this task, with these parameters trained, be scored by ghost?"""
        self._device = visit.passes[0].parameters[0].device
        try:
            kind = f"{visit.passes[0].batch.task} {self._backend.trained(visit.passes[0])}"
            if kind in self._checked:
                if again(self._steps) and self._again is None:
                    self._again = visit.passes[self._steps % len(visit.passes)]
                return
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
        # one example says nothing about rows; ranks decide together, as a later look is one of all
        several = torch.tensor(float(any(len(here.batch.mass) > 1 for here in visit.passes)), device=self._device)
        visit.reduce([several])
        if several > 0:
            self._checked.append(kind)
        confirm(self._backend, visit)

    def _take(self, name: str, why: str) -> None:
        self.taken, self.why = name, why
        if name == "logit_fd":
            self._backend = LogitFd(self._tau)
        elif name == "ghost":
            self._backend = Ghost()
        else:
            module = importlib.import_module(f"gradworks.methods.weightings._shared.{name}")
            self._backend = getattr(module, _BACKENDS[name])()

    def _say(self) -> None:
        _logger.info("reweight: backend %s: %s", self.taken, self.why)

    def state_dict(self) -> dict[str, Any]:
        state = {"steps": self._steps, "taken": self.taken, "why": self.why}
        state |= {"checked": list(self._checked), "backend": self._backend.state_dict() if self._backend else {}}
        return state | {"clean": self._kept.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._steps, self._checked = state["steps"], list(state["checked"])
        self._kept.load_state_dict(state["clean"])
        if state["taken"]:
            self._take(state["taken"], state["why"])
            self._backend.load_state_dict(state["backend"])


def class_shares(
    done: Sequence[Sequence[tuple[Batch, Sum]]], gather: Callable[[list[Tensor]], list[Tensor]] = list
) -> dict[str, Tensor]:
    """() the share of each class in the weights of a step, over the batches and micro-batches of all ranks.

    Of the classes that the step met, by task; nothing of tasks whose labels are no class indices.
    """
    parts: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for pairs in done:
        if pairs and all(_are_classes(batch.labels, one.weights) for batch, one in pairs):
            columns = gather([batch.labels for batch, _ in pairs]), gather([one.weights for _, one in pairs])
            parts.setdefault(pairs[0][0].task, []).extend(zip(*columns, strict=True))
    found = {}
    for task, pairs in parts.items():
        labels, weights = (torch.cat(column) for column in zip(*pairs, strict=True))
        low, high = torch.stack(labels.long().aminmax()).tolist()
        if low < 0 or high >= _CLASSES:
            continue
        of = labels.to(weights.device)[:, None] == torch.arange(high + 1, device=weights.device)
        sums = (of * weights.float()[:, None]).sum(0)  # bincount with weights is not deterministic on CUDA
        shares = (sums / sums.sum().clamp_min(torch.finfo(sums.dtype).tiny)).unbind()
        found |= {f"class_share_{task}_{c}": shares[c] for c, met in enumerate(of.any(0).tolist()) if met}
    return found


def _are_classes(labels: Any, weights: Tensor) -> bool:
    return isinstance(labels, Tensor) and labels.shape == weights.shape and not labels.is_floating_point()
