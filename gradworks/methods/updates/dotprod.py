"""Meta DotProd: the mean gradient of two batches plus a term that aligns their gradients.

Algorithm 1 of "Meta DotProd" (batches b1, b2; G1, G2 their mean gradients at theta; H2 the Hessian of b2's loss):

    theta' = theta - alpha * G1,   G21 = gradient of b2 at theta',   G = G1 + G2 + w * (G21 - G2) / alpha

with (G21 - G2) / alpha = -H2 G1 + O(alpha). In expectation over the order of the batches, -H2 G1 is minus one half of
the gradient of the dot product G1 . G2 (section 3 of the paper). What differs here, and why:

* Scale: the mean over the two batches, (G1 + G2 - w * H2 G1) / 2, half of the paper's sum: learning rates compare.
* Masks: all passes over b2 see the same dropout masks; under different masks the term is noise of many times its size.
* Form: a central difference where nothing is held, as cheap as the paper's one-sided one (G2 is the mean of its two
  halves) and exact to second order. Where weights or other constants are held it would need one pass more to make them
  at theta, so there the difference is one-sided.
* Step: alpha = 1e-7 is below the rounding of float32 for most parameters. By default the distance |alpha * G1| is
  measured (see `_distance.py`); `alpha` gives a fixed one.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gradworks.methods._core.bases import Stateless
from gradworks.methods._core.options import integer, number, one_of
from gradworks.methods._core.tensors import add_, dot, lerp_, move, norm, precision
from gradworks.methods.updates._distance import Distance, due
from gradworks.spec import Needs, Passes

__all__ = ["DotProd"]


@dataclass
class _Second:
    """The second batch: G2 = near + correction * difference, H2 G1 = scale * difference.

    Kept apart, so that each list of tensors is read and written as seldom as can be.
    """

    near: list[Tensor]
    difference: list[Tensor] | None = None
    correction: float = 0.0
    scale: float = 1.0


class DotProd(Stateless):
    """(G1 + G2 - weight * H2 G1) / 2.

    Cost in plain passes: 3 against the 2 of `erm` on two batches, every `every`-th step, else 2. Central with held
    weights: 4. The first step measures the distance with more, and now and then two distances are compared with 4 more.
    Logs `dot` and `cosine` of G1 and G2; `term`, the size of weight * H2 G1 over that of G1 + G2; `dotprod_error`, the
    relative disagreement of the term at two distances, where they were compared.

    Args:
        weight: LR_G1G2 of the paper.
        form: central | one_sided | exact (double backward, for comparison, one process); None = central where nothing
            is held, else one_sided.
        alpha: a fixed alpha (the paper's is 1e-7); None = measured.
        every: how often the term is computed, in steps; the steps between are plain means of two batches.
    """

    needs = Needs(2)

    def __init__(self, weight: float = 0.1, form: str | None = None, alpha: float | None = None, every: int = 1):
        self._weight = number("weight", weight)
        self._form = one_of("form", form, [None, "central", "one_sided", "exact"])
        self._alpha = None if alpha is None else number("alpha", alpha, above=0)
        self._every = integer("every", every, low=1)
        if self._alpha is not None and self._alpha < 1e-5:
            warnings.warn(
                f"dotprod: alpha {alpha:g} moves most float32 parameters by less than their rounding: errors of tens "
                "of percent in float32, noise in bf16; without alpha the step is chosen by measurement",
                stacklevel=2,
            )
        self._steps = 0
        self._distances = {form: Distance(form) for form in ("central", "one_sided")}

    def gradient(self, passes: Passes) -> list[Tensor]:
        with_term = self._weight != 0 and self._steps % self._every == 0
        g1 = passes.gradient(0)
        length = float(norm(g1))
        if not with_term or length == 0 or not math.isfinite(length):
            second = _Second(passes.gradient(1))
        else:
            form = self._form or ("one_sided" if passes.holds else "central")
            second = getattr(self, f"_{form}")(passes, g1, length)
        self._steps += 1
        self._note(passes, g1, length, second)
        lerp_(g1, second.near, 1 / 2)
        if second.difference is not None:
            add_(g1, second.difference, (second.correction - self._weight * second.scale) / 2)
        return g1

    def _note(self, passes: Passes, g1: list[Tensor], length: float, second: _Second) -> None:
        product, size = dot(g1, second.near), norm(second.near)
        if second.difference is not None:
            if second.correction:
                product = product + second.correction * dot(g1, second.difference)
            both = (length**2 + size.square() + 2 * product).clamp_min(1e-30).sqrt()
            passes.log["term"] = abs(self._weight * second.scale) * norm(second.difference) / both
        passes.log["dot"] = product
        passes.log["cosine"] = product / (length * size).clamp_min(1e-30)

    def _central(self, passes: Passes, g1: list[Tensor], length: float) -> _Second:
        """From the gradients of b2 at theta + alpha G1 and theta - alpha G1."""
        passes.hold(1)
        scratch = [torch.empty_like(t) for t in g1]

        def at(distance: float) -> tuple[list[Tensor], list[Tensor], float]:
            move(scratch, passes.theta, g1, distance / length)
            plus = passes.gradient(1, scratch)
            move(scratch, passes.theta, g1, -distance / length)
            difference = passes.gradient(1, scratch)
            move(difference, plus, difference, -1)  # before anything is added to it: they nearly cancel
            return plus, difference, float(norm(difference) / norm(plus)) / 2

        plus, difference, alpha = self._difference("central", at, passes, length)
        return _Second(plus, difference, correction=-1 / 2, scale=1 / (2 * alpha))

    def _one_sided(self, passes: Passes, g1: list[Tensor], length: float) -> _Second:
        """From G2 and G21: Algorithm 1."""
        g2 = passes.gradient(1)
        scratch = [torch.empty_like(t) for t in g1]

        def at(distance: float) -> tuple[None, list[Tensor], float]:
            move(scratch, passes.theta, g1, -distance / length)
            difference = passes.gradient(1, scratch)
            add_(difference, g2, -1)
            return None, difference, float(norm(difference) / norm(g2)) / 2

        _, difference, alpha = self._difference("one_sided", at, passes, length)
        return _Second(g2, difference, scale=-1 / alpha)

    def _difference(self, form: str, at: Any, passes: Passes, length: float) -> tuple[Any, list[Tensor], float]:
        """What `at` returns at the chosen distance, and alpha."""
        if self._alpha is not None:
            return (*at(self._alpha * length)[:2], self._alpha)
        check = due(self._steps // self._every)
        rest, difference, distance, error = self._distances[form].difference(at, precision(passes.theta[0]), check)
        if not math.isnan(error):
            passes.log["dotprod_error"] = error
        return rest, difference, distance / length

    def _exact(self, passes: Passes, g1: list[Tensor], length: float) -> _Second:
        """By double backward."""
        at = [t.clone().requires_grad_() for t in passes.theta]
        loss = passes.loss(1, at)
        g2 = torch.autograd.grad(loss, at, create_graph=True, materialize_grads=True)
        hg = torch.autograd.grad(g2, at, grad_outputs=g1, materialize_grads=True)
        return _Second([t.detach() for t in g2], [t.detach() for t in hg])

    def state_dict(self) -> dict[str, Any]:
        distances = {form: distance.state_dict() for form, distance in self._distances.items()}
        return {"steps": self._steps, "distances": distances}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._steps = state["steps"]
        for form, distance in self._distances.items():
            distance.load_state_dict(state["distances"][form])
