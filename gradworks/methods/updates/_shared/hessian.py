"""The Hessian of one batch times a direction: from two gradients along it, or by double backward."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gradworks.methods._core.bases import due
from gradworks.methods._core.tensors import precision
from gradworks.methods.updates._shared.distance import Distance
from gradworks.methods.updates._shared.fused import difference_norms_, sample
from gradworks.methods.updates._shared.packed import Packed, alike, move, pack, point_in
from gradworks.spec import Passes

FORMS = ("central", "one_sided", "exact")


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

        distance, error = self._alpha, math.nan
        if self._alpha is None:
            distance, error = self._distances[form].choose(probe, precision(passes.theta[0]), due(call))
        else:
            distance = self._alpha * length
        near, other, memory = at(distance)
        alpha = distance / length
        if form == "central":
            return Product(near, other, memory, -1 / (2 * alpha), correction=1 / 2, error=error)
        return Product(near, other, memory, -1 / alpha, error=error)

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
