"""How far to move the parameters for a finite difference of gradients.

Too near and rounding wins, too far and curvature does; a distance relative to |theta| does not transfer between models
(embeddings of unit variance), the share by which the two gradients differ does. Kinks (ReLU, max-pooling) ask for a
much smaller distance, because every unit that crosses its kink between the two points is an error of full size. So now
and then the derivative is computed at two distances that both suit a smooth model: if they disagree, there are kinks.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gradworks.methods._core.tensors import add_, norm, scale_

# share |G+ - G-| / |G+ + G-| by form and precision: where rounding and curvature err alike on smooth models
_SHARE = {
    "central": {torch.float64: 1e-5, torch.float32: 3e-3},
    "one_sided": {torch.float64: 1e-8, torch.float32: 5e-4},
}
_COARSE = 1e-1  # half precision: below it, the difference is rounding
_NEARER = {"central": 100.0, "one_sided": 10.0}  # the distance is divided by this where there are kinks
_COMPARED = {"central": (1.0, 0.1), "one_sided": (10.0, 1.0)}  # distances compared, over that of a smooth model
_DISAGREE = 0.03  # relative difference of the two derivatives above which there are kinks

Difference = Callable[[float], tuple[Any, list[Tensor], float]]  # distance -> (anything, difference, share)


def due(step: int) -> bool:
    """Whether two distances are compared in this step: often at first, when kinks are many, then every 200 steps."""
    return step in (2, 8, 32) or step % 200 == 0


class Distance:
    """A distance, measured on the first batch, then following the share that each step sees; carried in the state.

    Args:
        form: "central" or "one_sided".
    """

    def __init__(self, form: str):
        self._form = form
        self._value: float | None = None
        self._kinks = False

    def difference(self, at: Difference, precision: torch.dtype, check: bool) -> tuple[Any, list[Tensor], float, float]:
        """The difference at a good distance.

        Args:
            at: evaluates the difference at a distance. Called once; on the first step at most 12 times more, and twice
                more where `check` says so.
            precision: of the passes.
            check: compare two distances.

        Returns:
            What `at` returned first and second, the distance, and the relative disagreement of two distances (nan where
            it was not computed).
        """
        fine = precision in _SHARE[self._form]
        share = _SHARE[self._form].get(precision, _COARSE)
        error = math.nan
        if self._value is None:
            self._value = 1e-4
            self._settle(at, share)
        if check and fine:
            error = self._compare(at, share)
        distance = self._value
        rest, difference, seen = at(distance)
        # pairs of batches differ, so the share of each is followed slowly
        self._value *= min(max(self._factor(share, seen), 0.25), 4.0) ** 0.5
        return rest, difference, distance, error

    def _factor(self, share: float, seen: float) -> float:
        """By what the distance should be multiplied, were the difference linear in it."""
        target = share / _NEARER[self._form] if self._kinks else share
        return target / seen if 0 < seen < math.inf else 1.0

    def _settle(self, at: Difference, share: float) -> None:
        for _ in range(6):
            factor = self._factor(share, at(self._value)[2])
            self._value *= min(max(factor, 1e-2), 1e2)
            if 0.5 < factor < 2:
                break

    def _compare(self, at: Difference, share: float) -> float:
        smooth = self._value * (_NEARER[self._form] if self._kinks else 1)
        far, near = (smooth * factor for factor in _COMPARED[self._form])
        here = at(far)[1]
        scale_(here, 1 / far)
        there = at(near)[1]
        add_(there, here, -near)
        error = float(norm(there) / near / norm(here).clamp_min(1e-30))
        # one pair of batches may miss the kinks, so they are forgotten less readily than found
        if (error > _DISAGREE and not self._kinks) or (error < _DISAGREE / 10 and self._kinks):
            self._kinks = not self._kinks
            self._value = smooth / _NEARER[self._form] if self._kinks else smooth
            self._settle(at, share)
        return error

    def state_dict(self) -> dict[str, Any]:
        return {} if self._value is None else {"value": self._value, "kinks": self._kinks}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._value, self._kinks = state.get("value"), state.get("kinks", False)
