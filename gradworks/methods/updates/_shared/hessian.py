"""The Hessian of one batch times a direction: from two gradients along it, or by double backward."""

from __future__ import annotations

import math
from collections.abc import Callable
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


@dataclass
class Product:
    """H v of a batch with gradient G, not yet formed, so that each list of tensors is read as seldom as can be.

    With d = other - near (or `other` itself where it is `formed`): G = near + correction * d and H v = scale * d.

    Attributes:
        memory: what `other` was packed from.
        error: relative disagreement of d at two distances; nan where they were not compared.
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
        sides = (1, -1)
        if form == "central":
            passes.hold(i)
        else:
            near = pack(passes.gradient(i)) if near is None else near
            sides = (-1,)
        point = point_in(memory, passes.theta, v)

        def at(distance: float) -> tuple[Packed, Packed, list[Tensor]]:
            found, memory = [near] if form == "one_sided" else [], None
            for side in sides:
                memory = None  # free for the next pass
                move(point, passes.theta, v, side * distance / length)
                memory = passes.gradient(i, point)
                found.append(pack(memory))
            return *found, memory

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
        near, other, memory = at(distance)
        alpha = distance / length
        found = Product(near, other, memory, -1 / alpha, error=error)
        if form == "central":
            found = Product(near, other, memory, -1 / (2 * alpha), correction=1 / 2, error=error)

        def third() -> Packed:
            if form == "central":
                return pack(passes.gradient(i))
            move(point, passes.theta, v, alpha)
            return pack(passes.gradient(i, point))

        if self._alpha is None and self._distances[form].kinks:
            self._clear(found, form, alpha, precision(passes.theta[0]), third)
        return found

    def _clear(
        self, found: Product, form: str, alpha: float, kind: torch.dtype, gradient: Callable[[], Packed]
    ) -> None:
        """A kink between the points makes the difference many times too large: take the side that has none.

        Args:
            gradient: where that is so, one pass more: at theta (central) or on the other side (one-sided).
        """
        found.near, found.other = alike(found.near, found.other)
        difference, size = difference_norms_(found.other.values, found.near.values)  # other - near
        found.formed = True
        most = _SUSPECT * self._distances[form].target(kind)
        if not difference > 2 * most * size:
            return
        third = gradient()
        found.near, found.other, third = alike(found.near, found.other, third)
        if form == "central":  # near = G+, other = G- - G+, third = G
            add_(found.near.values, third.values, -1)
            add_(found.other.values, found.near.values)
            sides, found.near = (found.near, found.other), third
        else:  # near = G, other = G- - G, third = G+
            add_(third.values, found.near.values, -1)
            sides = (third, found.other)
        plus, minus = (norm(side.values) for side in sides)
        found.other, found.scale = (sides[0], 1 / alpha) if plus < minus else (sides[1], -1 / alpha)
        found.correction = 0.0
        least = torch.minimum(plus, minus)
        if least > (1 if form == "central" else 2) * most * size:  # on both sides
            found.error = float(difference / least)

    def _measured(self, form: str, passes: Passes, probe: Probe, check: bool) -> tuple[float, float]:
        chosen, kind = self._distances[form], precision(passes.theta[0])
        if not check:
            return chosen.choose(probe, kind, passes.theta, False, lambda: False)
        with passes.jumps() as jumps:
            return chosen.choose(probe, kind, passes.theta, True, jumps)

    def _nothing(self, form: str, passes: Passes, i: int) -> Product:
        """Where no distance is small enough: an error, unless the gradient is the same when it is made again.

        Then it is rounding itself, as at the bottom of a loss that is fitted to the last digit, and so would H v be: it
        is left out, and the distance measured anew at the next step.
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


def _exact(passes: Passes, i: int, v: list[Tensor]) -> Product:
    """By double backward."""
    at = [t.clone().requires_grad_() for t in passes.theta]
    g = torch.autograd.grad(passes.loss(i, at), at, create_graph=True, materialize_grads=True)
    hv = torch.autograd.grad(g, at, grad_outputs=v, materialize_grads=True)
    near, other = [t.detach() for t in g], [t.detach() for t in hv]
    return Product(pack(near), pack(other), other, formed=True)
