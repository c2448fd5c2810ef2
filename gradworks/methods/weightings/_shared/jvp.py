"""Inner products of gradients from one forward-mode derivative of the outputs.

With z the outputs, v the clean gradient and c_i = d l_i / d z_i:  u_i = <v, grad l_i> = <c_i, J_i v>. J v is the
tangent of the outputs when the parameters carry the tangent v (Pearlmutter, 1994, Neural Computation 6(1), the R
operator): exact, where `logit_fd` takes a finite difference. Same dropout masks; the loss itself needs no forward mode,
and one that reads the outputs of other examples too is differentiated whole (`losses.py`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from gradworks.methods._shared import derivatives
from gradworks.methods.weightings._shared.losses import Coupling, along
from gradworks.methods.weightings._shared.padding import moving, resting
from gradworks.spec import Outputs, Pass, Reduce, Visit


class Jvp:
    """Cost: the clean gradient, and a forward pass with its tangent, three thirds of a pass: (6 + 3r) / 3 in all.

    The tangent of x W is dx W + x dW, twice the products of the pass itself. Its graph is not kept: the first pass of
    the micro-batch stays the one that is differentiated, and memory stays that of a plain step.
    """

    def __init__(self) -> None:
        self._direction: list[Tensor] = []
        self._coupled = Coupling()

    def prepare(self, visit: Visit) -> None:
        self._direction = visit.clean_gradient()

    def scores(self, here: Pass, outputs: Outputs, losses: Tensor) -> Tensor:
        """(n,) u.

        Raises:
            ValueError: an operation of the model has no forward mode.
        """
        cotangents = torch.autograd.grad(losses.sum(), outputs, retain_graph=True, allow_unused=True)
        before = here.count(0)
        padding = moving(here.model, here.parameters, self._direction)
        with torch.no_grad(), forward_ad.dual_level(), resting(padding):
            pairs = zip(here.parameters, self._direction, strict=True)
            try:
                duals = here.outputs([forward_ad.make_dual(p.detach(), d) for p, d in pairs])
            except (NotImplementedError, RuntimeError) as error:
                raise refusal(error, "jvp", "forward-mode derivative", here.model) from None
            tangents = [forward_ad.unpack_dual(z).tangent for z in duals]
        here.count(2 * (here.count(0) - before))  # the tangents of as many forward passes as the objective makes
        if self._coupled(outputs, losses, cotangents):
            return along(outputs, losses, tangents)
        score = torch.zeros_like(losses)
        for c, t in zip(cotangents, tangents, strict=True):
            if c is not None and t is not None:
                score += (c.to(losses.dtype) * t.to(losses.dtype)).flatten(1).sum(1)
        return score

    def end(self, reduce: Reduce) -> None:
        self._direction = []

    def state_dict(self) -> dict[str, Any]:
        return {"coupled": list(self._coupled.found)} if self._coupled.found else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._coupled.found = list(state.get("coupled", []))


def refusal(error: Exception, backend: str, kind: str, model: nn.Module) -> Exception:
    """What to raise for an error: one that names operation, module and what works, if it says that `kind` is absent."""
    expected = "backend: auto or logit_fd, which need none"
    return derivatives.refusal(error, f"reweight: backend {backend}", kind, expected, model)
