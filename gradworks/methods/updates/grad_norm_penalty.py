"""Gradient norm penalty: the gradient of loss + weight / 2 * |gradient|^2, that is g + weight * H g.

Barrett and Dherin, "Implicit Gradient Regularization" (2021), whose explicit regularisation adds mu * |gradient|^2 (up
to a constant): weight = 2 mu. Zhao, Zhang and Hu, "Penalizing Gradient Norm for Efficiently Improving Generalization in
Deep Learning" (2022), algorithm 1, penalise lambda * |gradient|: weight = lambda / |g|. What differs from theirs here,
and why:

* H g is a finite difference at a measured distance (see `_shared/distance.py`), not at a radius r that is a further
  option and adds the curvature along r to the penalty.
* The difference is between passes over the same batch under the same masks and held weights.

The sign is the opposite of `dotprod` with `pair: same`, whose (G1 + G2 - weight * H2 G2) / 2 rewards large gradients.

Cost in plain passes: 2 (one_sided), 3 (central); the first step measures the distance with more, and now and then two
distances are compared with 2 (4) more, and a kink between two points (ReLU) costs 1.
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from gradworks.methods._shared.bases import Stateless
from gradworks.methods._shared.options import number, one_of
from gradworks.methods._shared.tensors import add_, norm
from gradworks.methods.updates._shared.fused import difference_norms_
from gradworks.methods.updates._shared.hessian import FORMS, LARGEST, Hessian
from gradworks.methods.updates._shared.packed import alike, pack
from gradworks.spec import Needs, Passes

__all__ = ["GradNormPenalty"]


class GradNormPenalty(Stateless):
    """g + weight * H g.

    Logs `term`, the size of weight * H g over that of g, and `penalty_error`, the relative disagreement of the term at
    two distances, where they were compared. A step whose term is more than 10^4 times its gradient counts as not
    finite.

    Raises (while training):
        ValueError: a batch that is evaluated again at the same point gives another gradient.

    Args:
        weight: of half the squared norm of the gradient.
        form: one_sided | central | exact (double backward, for comparison, one process).
    """

    needs = Needs(1)

    def __init__(self, weight: float = 0.1, form: str = "one_sided"):
        self._weight = number("weight", weight)
        self._form = one_of("form", form, FORMS)
        self.exact = self._form == "exact"
        self._steps = 0
        self._hessian = Hessian()

    def gradient(self, passes: Passes) -> list[Tensor]:
        memory = passes.gradient(0)
        self._steps += 1
        if self._weight == 0:
            return memory
        g = pack(memory)
        length = float(norm(g.values))
        if not 0 < length < math.inf:  # no direction
            return memory
        found = self._hessian.product(self._form, passes, 0, g, memory, length, g, self._steps - 1)
        g, near, other = alike(g, found.near, found.other)
        size = norm(other.values) if found.formed else difference_norms_(other.values, near.values)[0]
        self._hessian.follow(self._form, passes, float(size) / length / 2)
        passes.log["term"] = term = float(abs(self._weight * found.scale) * size / length)
        if not term <= LARGEST:
            passes.log["finite"] = 0.0
        if not math.isnan(found.error):
            passes.log["penalty_error"] = found.error
        add_(g.values, other.values, self._weight * found.scale)
        return g.unpacked(found.memory)

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self._steps, "distances": self._hessian.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._steps = state["steps"]
        self._hessian.load_state_dict(state["distances"])
