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
  measured (see `_shared/distance.py`); `alpha` gives a fixed one.
* Size: the term rewards large gradients as well as aligned ones. Along an eigenvector of curvature h it turns the step
  uphill once w * h > 2, and from there the gradients grow without bound: at w = 0.1 the loss of a BERT that was just
  initialised rises from the first steps on. So the term is shortened where it is longer than `limit` times G1 + G2, by
  default 0.5; below 1 a step along one direction goes downhill. `limit: null` is the paper's form.
* `pair: same` takes H2 G2, the control that isolates what is between the batches: as many examples, the same batches
  in the mean, the same 3 passes (one-sided, since G2 at theta is the direction and must be there first). Its term is
  minus one half of the gradient of |G2|^2: it rewards large gradients, the opposite of `grad_norm_penalty`.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

from torch import Tensor

from gradworks.methods._shared.bases import Stateless
from gradworks.methods._shared.options import integer, number, one_of
from gradworks.methods._shared.tensors import add_, lerp_, norm
from gradworks.methods.updates._shared.fused import combine_, mean_
from gradworks.methods.updates._shared.hessian import FORMS, LARGEST, Hessian
from gradworks.methods.updates._shared.packed import alike, pack
from gradworks.spec import Needs, Passes

__all__ = ["DotProd"]


class DotProd(Stateless):
    """(G1 + G2 - weight * H2 G1) / 2.

    Cost in plain passes: 3 against the 2 of `erm` on two batches, every `every`-th step, else 2. Central with held
    weights or `pair: same`: 4. The first step measures the distance with more, and now and then two distances are
    compared with 4 more; where a model has kinks (ReLU, maxima) 1 more then, and 1 to 3 where one lies between two
    points or rounding may err. Logs, every `every`-th step, `dot` and `cosine` of G1 and G2; `conflict`, 1
    where they point against each other; `term`, the size of the term over that of G1 + G2, before `limit`;
    `dotprod_error`, an estimate of the relative error of the term, from two distances or two sides, where they were
    compared; the loop and the report say in how many steps it is above 10 %. A step whose term
    is more than 10^4 times its gradients counts as not finite.

    Raises (while training):
        ValueError: a batch that is evaluated again at the same point gives another gradient.

    Args:
        weight: LR_G1G2 of the paper.
        form: central | one_sided | exact (double backward, for comparison, one process); None = central where nothing
            is held and the pair is `other`, else one_sided.
        alpha: a fixed alpha (the paper's is 1e-7); None = measured.
        every: how often the term is computed, in steps; the steps between are plain means of two batches.
        pair: other = the term is H2 G1; same = H2 G2, the control that isolates the part between batches.
        limit: the largest size of the term over that of G1 + G2; None = no limit, as in the paper.
        tasks: any | same | different; of which tasks the two batches are.
        groups: of two batches each, whose gradients are averaged: the meta-batch.
    """

    def __init__(
        self, weight: float = 0.1, form: str | None = None, alpha: float | None = None, every: int = 1,
        pair: str = "other", limit: float | None = 0.5, tasks: str = "any", groups: int = 1,
    ):  # fmt: skip
        which = one_of("tasks", tasks, ["any", "same", "different"])
        self.needs = Needs(2, which, integer("groups", groups, low=1))
        self._weight = number("weight", weight)
        self._form = one_of("form", form, [None, *FORMS])
        self._alpha = None if alpha is None else number("alpha", alpha, above=0)
        self._every = integer("every", every, low=1)
        self._same = one_of("pair", pair, ["other", "same"]) == "same"
        self._limit = math.inf if limit is None else number("limit", limit, above=0)
        if self._alpha is not None and self._alpha < 1e-5:
            warnings.warn(
                f"dotprod: alpha {alpha:g} moves most float32 parameters by less than their rounding: errors of tens "
                "of percent in float32, noise in bf16; without alpha the step is chosen by measurement",
                stacklevel=2,
            )
        self.exact = self._form == "exact"
        self._calls = 0  # groups so far
        self._hessian = Hessian(self._alpha)

    @property
    def _between(self) -> bool:
        """Whether the step is one without a term."""
        return self._calls // self.needs.groups % self._every > 0

    @property
    def once(self) -> bool:
        return self._weight == 0 or self._between

    @property
    def single(self) -> bool:
        return self.once

    def gradient(self, passes: Passes) -> list[Tensor]:
        if not self.once:
            found = self._with_term(passes)
        elif self._between:
            found = passes.gradient(0)
            lerp_(found, passes.gradient(1), 1 / 2)
        else:
            found = _plain(passes, passes.gradient(0), passes.gradient(1))
        self._calls += 1
        return found

    def _with_term(self, passes: Passes) -> list[Tensor]:
        first = memory = passes.gradient(0)
        form = self._form or ("one_sided" if passes.holds or self._same else "central")
        if self._same:
            memory = self._hessian.gradient(passes, form, 1)
        v = pack(memory)
        length = float(norm(v.values))
        if not 0 < length < math.inf:  # no direction
            return _plain(passes, first, memory if self._same else passes.gradient(1))
        g1, g2 = (pack(first), v) if self._same else (v, None)
        size = norm(g1.values) if self._same else length
        del first  # what is packed lives in `g1`
        step, group = divmod(self._calls, self.needs.groups)
        call = step // self._every * self.needs.groups + group
        found = self._hessian.product(form, passes, 1, v, memory, length, g2, call)
        g1, near, other = alike(g1, found.near, found.other)
        factor = -self._weight * found.scale / 2
        difference, second, mean = combine_(
            g1.values, near.values, other.values, found.formed, found.correction, factor
        )
        self._hessian.follow(form, passes, float(difference / second) / 2)
        _note(passes, size, second, mean)
        passes.log["term"] = share = float(abs(factor) * difference / mean.clamp_min(1e-30))
        if not float(abs(factor) * difference) <= LARGEST / 2 * max(float(size), float(second)):
            passes.log["finite"] = 0.0
        if share > self._limit:
            add_(g1.values, other.values, factor * (self._limit / share - 1))  # it holds the difference now
        if not math.isnan(found.error):
            passes.log["dotprod_error"] = found.error
        return g1.unpacked(found.memory)

    def state_dict(self) -> dict[str, Any]:
        return {"calls": self._calls, "distances": self._hessian.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._calls = state["calls"]
        self._hessian.load_state_dict(state["distances"])


def _plain(passes: Passes, g1: list[Tensor], g2: list[Tensor]) -> list[Tensor]:
    _note(passes, *mean_(g1, g2, 1 / 2))
    return g1


def _note(passes: Passes, first: Tensor | float, second: Tensor, mean: Tensor) -> None:
    """Dot product and cosine from the norms of G1, of G2 and of their mean."""
    dot = 2 * mean.square() - (first**2 + second.square()) / 2
    passes.log["dot"] = dot
    passes.log["cosine"] = dot / (first * second).clamp_min(1e-30)
    passes.log["conflict"] = (dot < 0).float()
