"""The Hessian of one batch times a direction: from two gradients along it, or by double backward."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gradworks.methods._shared.bases import due
from gradworks.methods._shared.tensors import add_, norm, precision
from gradworks.methods.updates._shared.distance import Distance, Probe
from gradworks.methods.updates._shared.fused import difference_norms_, sample
from gradworks.methods.updates._shared.packed import Packed, alike, move, pack, point_in
from gradworks.spec import Passes

# |weight * H v| over the larger gradient beyond which a step is not finite: a Hessian of size 10^5 at weight 0.1, where
# no step of any length goes downhill
LARGEST = 1e4
FORMS = ("central", "one_sided", "exact")
_SUSPECT = 4.0  # the share over that of the distance, which follows it, beyond which a kink lies between the points
_ROUNDED = 1 / 4  # ... and below which the difference may be rounding
_RIGHT = 0.03  # relative error of H v that is left as it is
_FARTHER, _NEARER = 32.0, 1 / 8  # times the distance: at most, where rounding errs by more; where both sides have kinks
Branches = Mapping[Hashable, Tensor]


@dataclass
class Product:
    """H v of a batch with gradient G, not yet formed, so that each list of tensors is read as seldom as can be.

    With d = other - near (or `other` itself where it is `formed`): G = near + correction * d and H v = scale * d.

    Attributes:
        memory: what `other` was packed from.
        error: of H v, relative, by comparing it with that at another distance or on one side; nan where it was not.
    """

    near: Packed
    other: Packed
    memory: list[Tensor]
    scale: float = 1.0
    correction: float = 0.0
    formed: bool = False
    error: float = math.nan


class Hessian:
    """Finite differences along directions of any length; the distances are state.

    Args:
        alpha: a fixed step, in units of the direction; None = measured (see `distance.py`).
    """

    def __init__(self, alpha: float | None = None):
        self._alpha = alpha
        self._distances = {form: Distance(form) for form in FORMS[:2]}
        self._here: Branches = {}  # of the last pass at theta, between two methods of one step

    def product(
        self, form: str, passes: Passes, i: int, v: Packed, memory: list[Tensor], length: float, near: Packed | None,
        call: int,
    ) -> Product:  # fmt: skip
        """H v of batch i at theta; its masks, weights and other constants are held.

        Cost in plain passes: 2 (central), 1 (one-sided), each 1 more where its constants are not made yet (central) or
        `near` is not given (one-sided); with more where distances are measured or compared.

        Args:
            v: left as it is.
            memory: what v was packed from; overwritten where it is packed.
            length: |v|, positive and finite.
            near: G where it is known; the central form ignores it.
            call: how many products there were before; says whether two distances are compared.
        """
        if form == "exact":
            return _exact(passes, i, memory)
        sides, here = (1, -1), self._here
        if form == "central":
            passes.hold(i)
        else:
            if near is None:
                near = pack(self.gradient(passes, form, i))
                here = self._here
            sides = (-1,)
        self._here = {}
        point = point_in(memory, passes.theta, v)

        def at(distance: float) -> tuple[Packed, Packed, list[Tensor], list[Branches]]:
            found, memory = [near] if form == "one_sided" else [], None
            taken: list[Branches] = [here] if form == "one_sided" else []
            for side in sides:
                memory = None  # free for the next pass
                move(point, passes.theta, v, side * distance / length)
                memory, branches = self._gradient(passes, form, i, point)
                taken.append(branches)
                found.append(pack(memory))
            return *found, memory, taken

        def probe(distance: float) -> tuple[Tensor, float]:
            near, other = alike(*at(distance)[:2])
            difference, size = difference_norms_(other.values, near.values)
            return sample(other.whole()), float(difference / size) / 2

        if self._alpha is not None:
            distance, error = self._alpha * length, math.nan
        else:
            distance, error = self._measured(form, passes, probe, due(call))
            if self._distances[form].lost:
                return self._nothing(form, passes, i)
        kinks = self._alpha is None and self._distances[form].kinks
        near, other, memory, taken = at(distance)
        alpha = distance / length
        # distances are compared as those of a smooth model, which says nothing of one with kinks
        found = Product(near, other, memory, -1 / alpha, error=math.nan if kinks else error)
        if form == "central":
            found.scale, found.correction = -1 / (2 * alpha), 1 / 2

        def third() -> tuple[Packed, Branches]:
            if form == "central":
                g, branches = self._gradient(passes, form, i)
            else:
                move(point, passes.theta, v, alpha)
                g, branches = self._gradient(passes, form, i, point)
            return pack(g), branches

        if kinks:
            target = self._distances[form].target(precision(passes.theta[0]))
            sides_of = _Sides(form, alpha, target, passes.crossed, third, lambda factor: at(distance * factor))
            sides_of.choose(found, taken, due(call))
        return found

    def gradient(self, passes: Passes, form: str, i: int) -> list[Tensor]:
        """`passes.gradient(i)`, which may then be given to `product` as `near`."""
        made, self._here = self._gradient(passes, form, i)
        return made

    def _gradient(
        self, passes: Passes, form: str, i: int, at: list[Tensor] | None = None
    ) -> tuple[list[Tensor], Branches]:
        if self._alpha is not None or form == "exact" or not self._distances[form].kinks:
            return passes.gradient(i, at), {}
        with passes.branches() as taken:
            made = passes.gradient(i, at)
        return made, taken

    def _measured(self, form: str, passes: Passes, probe: Probe, check: bool) -> tuple[float, float]:
        chosen, kind = self._distances[form], precision(passes.theta[0])
        if not check:
            return chosen.choose(probe, kind, passes.theta, False, lambda: False)
        with passes.jumps() as jumps:
            return chosen.choose(probe, kind, passes.theta, True, jumps)

    def _nothing(self, form: str, passes: Passes, i: int) -> Product:
        """Where no distance is small enough: an error, unless the gradient is the same when it is made again.

        Then the gradient is rounding error, as at the bottom of a loss that is fitted to the last digit, and so would
        H v be: the product is left out, and the distance is measured again at the next step.
        """
        self._distances[form].restart()
        near = passes.gradient(i)
        nothing = passes.gradient(i)
        add_(nothing, near, -1)
        moved, size = float(norm(nothing)), float(norm(near))
        if moved > torch.finfo(precision(passes.theta[0])).eps ** 0.5 * size:
            raise ValueError(
                f"finite difference: found gradients of one batch at one point that differ by {moved / size:.0%}, "
                "so no distance between two points is small enough\n"
                "expected random numbers from torch's global generator, and a model and loss whose own state rests: "
                "what numpy, random or a generator of one's own draws is not replayed"
            )
        for t in nothing:
            t.zero_()
        return Product(pack(near), pack(nothing), nothing, formed=True, error=1.0)

    def follow(self, form: str, passes: Passes, share: float) -> None:
        """Let the distance follow the share |d| / (2 |G|) that the product had."""
        if self._alpha is None and form != "exact":
            self._distances[form].follow(precision(passes.theta[0]), share)

    def state_dict(self) -> dict[str, Any]:
        return {form: distance.state_dict() for form, distance in self._distances.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for form, distance in self._distances.items():
            distance.load_state_dict(state[form])


@dataclass
class _Sides:
    """H v from one side, or from farther away, where the difference between the two points is not to be trusted.

    Attributes:
        target: the share that the distance is to have.
        crossed: whether a kink lies between two passes.
        third: one pass more: at theta (central) or on the other side (one-sided).
        at: the points by their multiple of the distance.
    """

    form: str
    alpha: float
    target: float
    crossed: Callable[[Branches, Branches], bool]
    third: Callable[[], tuple[Packed, Branches]]
    at: Callable[[float], tuple[Packed, Packed, list[Tensor], list[Branches]]]

    def choose(self, found: Product, taken: list[Branches], check: bool) -> None:
        """Form the difference; look at both sides where a kink, or rounding, may have spoilt it, or `check` says so."""
        found.near, found.other = alike(found.near, found.other)
        difference, size = difference_norms_(found.other.values, found.near.values)  # other - near
        found.formed = True
        kinked = self.crossed(*taken)
        far = bool(difference > 2 * _SUSPECT * self.target * size)
        rounded = bool(difference < 2 * _ROUNDED * self.target * size)
        if not (kinked or far or rounded or check):
            return
        third, branches = self.third()
        found.near, found.other, third = alike(found.near, found.other, third)
        if self.form == "central":  # near = G+, other = G- - G+, third = G
            theta, up, down = third, taken[0], taken[1]
            dirty = [self.crossed(branches, up), self.crossed(branches, down)]
            plus = [a - b for a, b in zip(found.near.values, third.values, strict=True)]
            minus = [a + b for a, b in zip(found.other.values, plus, strict=True)]
        else:  # near = G, other = G- - G, third = G+
            theta = found.near
            dirty = [self.crossed(taken[0], branches), kinked]
            plus = [a - b for a, b in zip(third.values, theta.values, strict=True)]
            minus = [t.clone() for t in found.other.values]
        sizes = [float(norm(side)) for side in (plus, minus)]
        gap = float(norm([a + b for a, b in zip(plus, minus, strict=True)]))
        least = max(min(sizes), 1e-30)
        found.error = gap / least / (2 if self.form == "central" else 1)
        if not far and found.error <= _RIGHT:
            return
        if not (kinked or far or any(dirty)):
            factor = min(max(2.0, 100 * found.error), _FARTHER)
            if self._again(found, theta, factor):
                found.error /= factor
            return
        nearer = (_NEARER,) if self.form == "central" else (_NEARER, -_NEARER)
        if all(dirty) and any(self._again(found, theta, factor) for factor in nearer):
            found.error = math.nan
            return
        clean = dirty.index(False) if sum(dirty) == 1 else int(sizes[0] >= sizes[1])
        found.near, found.other.values = theta, (plus, minus)[clean]
        found.scale, found.correction = (1, -1)[clean] / self.alpha, 0.0
        most = (1 if self.form == "central" else 2) * _SUSPECT * self.target * float(size)
        # where the graph shows no branches, a side that is as small as is usual has no kink
        doubtful = all(dirty) or (not any(dirty) and sizes[clean] > most)
        found.error = gap / least if doubtful else math.nan

    def _again(self, found: Product, theta: Packed, factor: float) -> bool:
        """From points at multiples of the distance, below 0 on the other side, unless a kink lies between them."""
        near, other, memory, taken = self.at(factor)
        if self.crossed(*taken):
            return False
        near, other, theta = alike(near, other, theta)
        difference_norms_(other.values, near.values)
        torch._foreach_div_(other.values, factor)  # as it would be at the distance, which follows it
        found.near, found.other, found.memory, found.correction = theta, other, memory, 0.0
        return True


def _exact(passes: Passes, i: int, v: list[Tensor]) -> Product:
    """By double backward."""
    at = [t.clone().requires_grad_() for t in passes.theta]
    g = torch.autograd.grad(passes.loss(i, at), at, create_graph=True, materialize_grads=True)
    hv = torch.autograd.grad(g, at, grad_outputs=v, materialize_grads=True)
    near, other = [t.detach() for t in g], [t.detach() for t in hv]
    return Product(pack(near), pack(other), other, formed=True)
