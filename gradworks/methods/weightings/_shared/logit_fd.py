"""Inner products of gradients from a finite difference of the outputs.

With z the outputs, v the clean gradient and c_i = d l_i / d z_i:  u_i = <v, grad l_i> = <c_i, J_i v>, and J_i v is
(z(theta + a v) - z(theta)) / a under the same dropout masks; losses that read the outputs of other examples too are
differentiated whole (`losses.py`). The difference is taken of the outputs, not of the losses:
the loss would add its own curvature to the error. Works for every architecture, since it needs forward passes only.

The step moves the parameters by a distance that changes the outputs by tau (root mean square): small steps drown in
rounding, large ones in curvature, and tau, unlike a step relative to |theta|, transfers between models. The distance is
measured once on the first batch and then follows the change that each step sees; it is carried in the state.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from gradworks.methods._shared.tensors import least_distance, move, norm, precision
from gradworks.methods.weightings._shared.losses import Coupling, along
from gradworks.methods.weightings._shared.padding import Rows, moving, resting
from gradworks.spec import Outputs, Pass, Reduce, Visit

# about the square root of the rounding of each type: there rounding and curvature err alike
TAU = {torch.float64: 1e-7, torch.float32: 1e-3, torch.float16: 1e-2, torch.bfloat16: 5e-2}


class LogitFd:
    """Cost: the clean gradient, one forward pass without a graph per micro-batch; no memory beyond the clean gradient.

    Args:
        tau: root mean square change of the outputs; None = by precision. Taken times their own root mean square where
            that is above 1, because rounding grows with it.
    """

    def __init__(self, tau: float | None = None):
        self._tau = tau
        self._distance: float | None = None  # |a v|, carried from step to step
        self._floor = 0.0
        self._step = 0.0  # a
        self._target = 0.0
        self._point: list[Tensor] | None = None
        self._coupled = Coupling()
        self._padding: Rows = []
        # per batch of the step: sums of squares of change and of outputs, and how many outputs there are
        self._seen: dict[int, Tensor] = {}

    def prepare(self, visit: Visit) -> None:
        """Clean gradient, then the outputs at theta + a v of every micro-batch, before the first graph exists."""
        self._point = direction = visit.clean_gradient()
        length = float(norm(direction))
        self._target = self._tau or TAU[precision(visit.passes[0].parameters[0])]
        theta = [p.detach() for p in visit.passes[0].parameters]
        if not self._floor:
            self._floor = least_distance(theta)
        if self._distance is None and 0 < length < math.inf:
            self._calibrate(visit, theta, direction, length)
        self._step = (self._distance or 1.0) / length if length > 0 else 1.0
        self._padding = moving(visit.passes[0].model, visit.passes[0].parameters, direction)
        move(direction, theta, direction, self._step)  # in place: the clean gradient is not needed again
        if not visit.holds:  # else the first pass must first make what is held
            for here in visit.passes:
                here.held["moved"] = self._moved(here)
            self._point = None

    def scores(self, here: Pass, outputs: Outputs, losses: Tensor) -> Tensor:
        """(n,) u, up to one positive factor for all."""
        cotangents = torch.autograd.grad(losses.sum(), outputs, retain_graph=True, allow_unused=True)
        moved = here.held.pop("moved") if self._point is None else self._moved(here)
        coupled, changes = self._coupled(outputs, losses, cotangents), []
        score = torch.zeros_like(losses)
        seen = torch.zeros(3, dtype=torch.float64, device=losses.device)
        for c, z, m in zip(cotangents, outputs, moved, strict=True):
            if c is None:
                continue
            z = z.detach().to(losses.dtype)
            change = m.to(losses.dtype) - z
            changes.append(change)
            if not coupled:
                score = score + (c * change).flatten(1).sum(1)
            seen += torch.stack([change.square().sum(), z.square().sum(), z.new_tensor(z.numel())])
        self._seen[here.index] = self._seen.get(here.index, 0) + seen
        if coupled:
            read = [z for z, c in zip(outputs, cotangents, strict=True) if c is not None]
            score = along(read, losses, changes)
        return score.detach() / self._step

    def _moved(self, here: Pass) -> Outputs:
        with resting(self._padding):
            return here.moved(self._point)

    def end(self, reduce: Reduce) -> None:
        """Let the distance follow the change seen, over all batches, micro-batches and ranks of the step."""
        self._point, self._padding = None, []
        if not self._seen:
            return
        shared = [torch.stack(list(self._seen.values()))]
        self._seen = {}
        reduce(shared)
        change, size, count = shared[0].sum(0).tolist()
        if count > 0 and self._distance is not None:
            self._follow((change / count) ** 0.5, (size / count) ** 0.5)

    def _follow(self, change: float, size: float) -> float:
        """Correct the distance by at most a factor of ten; returns the factor that would have been right."""
        target = self._target * max(1.0, size)
        if not (0 < change < math.inf and math.isfinite(target)):
            return 1.0
        self._distance *= min(max(target / change, 0.1), 10.0)
        if self._distance < self._floor:
            raise ValueError(
                "reweight: backend logit_fd: found outputs that change however little the parameters move\n"
                "expected random numbers from torch's global generator, and a model whose own state rests: "
                "what numpy, random or a generator of one's own draws is not replayed"
            )
        return target / change

    def _calibrate(self, visit: Visit, theta: list[Tensor], direction: list[Tensor], length: float) -> None:
        """Measure the distance on the first batch. The first guess changes the clean loss by tau, to first order."""
        self._distance = self._target / length
        scratch = [torch.empty_like(t) for t in theta]
        for _ in range(6):
            move(scratch, theta, direction, self._distance / length)
            change, size = visit.change(scratch)
            if change == 0:  # lost in rounding
                self._distance *= 100
            elif 0.5 < self._follow(change, size) < 2:
                break

    def state_dict(self) -> dict[str, Any]:
        state = {} if self._distance is None else {"distance": self._distance}
        return state | ({"coupled": list(self._coupled.found)} if self._coupled.found else {})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._distance, self._coupled.found = state.get("distance"), list(state.get("coupled", []))
