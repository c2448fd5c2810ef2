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
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from gradworks.methods._core.bases import BaseWeighting
from gradworks.methods._core.options import number, one_of
from gradworks.methods.weightings._backends.logit_fd import LogitFd
from gradworks.spec import Batch, Outputs, Pass, Reduce, Sum, Visit

__all__ = ["Reweight"]

_BACKENDS = {"logit_fd": LogitFd}


class Reweight(BaseWeighting):
    """Weights max(<clean gradient, example's gradient>, 0), made at the point of the first visit and then held.

    Args:
        backend: how u is computed. `logit_fd`: finite difference of the outputs, any architecture; cost with a clean
            batch of share r: (4 + 3r) / 3 plain passes.
        tau: of logit_fd, the rms change of the outputs; None = by precision (1e-3 in float32).
    """

    holds = True
    clean = True

    def __init__(self, backend: str = "logit_fd", tau: float | None = None):
        one_of("backend", backend, list(_BACKENDS))
        self._backend = _BACKENDS[backend](None if tau is None else number("tau", tau, above=0))

    def prepare(self, visit: Visit) -> None:
        self._backend.prepare(visit)

    def weights(self, here: Pass, outputs: Outputs, losses: Tensor) -> tuple[Tensor, Tensor]:
        score = self._backend.scores(here, outputs, losses)
        return self.rectified(score) * here.batch.mass.to(score), score

    def rectified(self, score: Tensor) -> Tensor:
        """Eq. 5."""
        return score.clamp_min(0)

    def end(self, done: Sequence[Sequence[tuple[Batch, Sum]]], reduce: Reduce) -> None:
        self._backend.end(reduce)

    def state_dict(self) -> dict[str, Any]:
        return self._backend.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._backend.load_state_dict(state)
