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

# share |G+ - G-| / |G+ + G-| by form and precision: where rounding and curvature err alike on smooth models
# (what is left of an error: python -m benchmarks.step_rule)
_SHARE = {
    "central": {torch.float64: 1e-5, torch.float32: 4e-3},
    "one_sided": {torch.float64: 1e-8, torch.float32: 5e-4},
}
_COARSE = 1e-1  # half precision: below it, the difference is rounding
_NEARER = {"central": 130.0, "one_sided": 10.0}  # the distance is divided by this where there are kinks
_COMPARED = {"central": (1.0, 0.1), "one_sided": (10.0, 1.0)}  # distances compared, over that of a smooth model
_DISAGREE = 0.03  # relative difference of the two derivatives above which there are kinks

Probe = Callable[[float], tuple[Tensor, float]]  # distance -> (sample of the difference, share)


def _share(form: str, precision: torch.dtype) -> float:
    return _SHARE[form].get(precision, _COARSE)


class Distance:
    """A distance, measured on the first batch, then following the share that each step sees; carried in the state.

    Args:
        form: "central" or "one_sided".
    """

    def __init__(self, form: str):
        self._form = form
        self._value: float | None = None
        self._kinks = False

    def choose(self, probe: Probe, precision: torch.dtype, check: bool) -> tuple[float, float]:
        """A good distance.

        Args:
            probe: evaluates the difference at a distance: on the first call at most 12 times, and twice where `check`
                says so.
            precision: of the passes.
            check: compare two distances.

        Returns:
            The distance and the relative disagreement of two distances (nan where they were not compared).
        """
        share = _share(self._form, precision)
        if self._value is None:
            self._value = 1e-4
            self._settle(probe, share)
        error = self._compare(probe, share) if check and precision in _SHARE[self._form] else math.nan
        return self._value, error

    def follow(self, precision: torch.dtype, seen: float) -> None:
        """Move towards the distance that would have had the right share; slowly, because pairs of batches differ."""
        self._value *= min(max(self._factor(_share(self._form, precision), seen), 0.25), 4.0) ** 0.5

    def _factor(self, share: float, seen: float) -> float:
        """By what the distance should be multiplied, were the difference linear in it."""
        target = share / _NEARER[self._form] if self._kinks else share
        return target / seen if 0 < seen < math.inf else 1.0

    def _settle(self, probe: Probe, share: float) -> None:
        for _ in range(6):
            factor = self._factor(share, probe(self._value)[1])
            self._value *= min(max(factor, 1e-2), 1e2)
            if 0.5 < factor < 2:
                break

    def _compare(self, probe: Probe, share: float) -> float:
        smooth = self._value * (_NEARER[self._form] if self._kinks else 1)
        far, near = (smooth * factor for factor in _COMPARED[self._form])
        here = probe(far)[0] / far
        error = float((probe(near)[0] / near - here).norm() / here.norm().clamp_min(1e-30))
        # one pair of batches may miss the kinks, so they are forgotten less readily than found
        if (error > _DISAGREE and not self._kinks) or (error < _DISAGREE / 10 and self._kinks):
            self._kinks = not self._kinks
            self._value = smooth / _NEARER[self._form] if self._kinks else smooth
            self._settle(probe, share)
        return error

    def state_dict(self) -> dict[str, Any]:
        return {} if self._value is None else {"value": self._value, "kinks": self._kinks}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._value, self._kinks = state.get("value"), state.get("kinks", False)
