"""How far to move the parameters for a finite difference of gradients.

Too near and rounding wins, too far and curvature does; a distance relative to |theta| does not transfer between models
(embeddings of unit variance), the share by which the two gradients differ does. Kinks (ReLU, max-pooling) ask for a
much smaller distance, because every unit that crosses its kink between the two points is an error of full size. There
are kinks where the graph of a pass has an operation whose derivative jumps, and also where the derivatives at two
distances that both suit a smooth model, compared now and then, disagree. A small net needs the
graph: its units cross seldom, so most comparisons see nothing, and one that crosses errs by 10 to 4000 %. So where
there are kinks, each pass notes on which side of them its operations are, and `hessian.py` looks at both sides of a
step between whose points one lies.

The distance follows what it sees, so where the difference does not shrink with it (masks that are not replayed) it
would shrink without end: it has a floor, far below every distance that was of use.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from gradworks.methods._shared.tensors import least_distance

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

    Attributes:
        kinks: there are some: the distance is the one for them.
    """

    def __init__(self, form: str):
        self._form = form
        self._value: float | None = None
        self._floor = 0.0
        self.kinks = False
        self._jumps = False  # the graph has operations with kinks

    @property
    def lost(self) -> bool:
        """Whether the floor is reached: no distance is small enough."""
        return self._value is not None and self._value <= self._floor

    def choose(
        self, probe: Probe, precision: torch.dtype, theta: Sequence[Tensor], check: bool, jumps: Callable[[], bool]
    ) -> tuple[float, float]:
        """A good distance.

        Args:
            probe: evaluates the difference at a distance: on the first call and where kinks are found at most 12 times,
                and twice where `check` says so.
            precision: of the passes.
            theta: the point; its size sets the floor.
            check: compare two distances.
            jumps: whether an operation with kinks was in the graphs of the probes.

        Returns:
            The distance and the relative disagreement of two distances (nan where they were not compared).
        """
        share, compares = _share(self._form, precision), precision in _SHARE[self._form]
        if self._value is None or check:
            self._floor = least_distance(theta)
        if self._value is None:
            self._value = 1e-4
            self._settle(probe, share)
        error = self._compare(probe, share) if check and compares else math.nan
        self._jumps = self._jumps or (compares and jumps())
        if self._jumps and not self.kinks:
            self._turn(probe, share)
        return self._value, error

    def target(self, precision: torch.dtype) -> float:
        """The share that the distance is to have."""
        return self._nearer(_share(self._form, precision))

    def restart(self) -> None:
        """Measure again at the next step."""
        self._value, self.kinks = None, False

    def follow(self, precision: torch.dtype, seen: float) -> None:
        """Move towards the distance that would have had the right share; slowly, because pairs of batches differ."""
        if self._value is not None:
            self._scale(self._factor(_share(self._form, precision), seen), 0.25, 0.5)

    def _factor(self, share: float, seen: float) -> float:
        """By what the distance should be multiplied, were the difference linear in it."""
        return self._nearer(share) / seen if 0 < seen < math.inf else 1.0

    def _nearer(self, share: float) -> float:
        return share / _NEARER[self._form] if self.kinks else share

    def _scale(self, factor: float, least: float, power: float = 1.0) -> None:
        self._value = max(self._value * min(max(factor, least), 1 / least) ** power, self._floor)

    def _settle(self, probe: Probe, share: float) -> None:
        for _ in range(6):
            factor = self._factor(share, probe(self._value)[1])
            self._scale(factor, 1e-2)
            if 0.5 < factor < 2 or self.lost:
                break

    def _compare(self, probe: Probe, share: float) -> float:
        smooth = self._value * (_NEARER[self._form] if self.kinks else 1)
        far, near = (smooth * factor for factor in _COMPARED[self._form])
        here = probe(far)[0] / far
        error = float((probe(near)[0] / near - here).norm() / here.norm().clamp_min(1e-30))
        # one pair of batches may miss the kinks, so they are forgotten less readily than found
        found, gone = error > _DISAGREE, error < _DISAGREE / 10 and not self._jumps
        if (found and not self.kinks) or (gone and self.kinks):
            self._turn(probe, share)
        return error

    def _turn(self, probe: Probe, share: float) -> None:
        """To the distance for kinks, or back."""
        self.kinks = not self.kinks
        nearer = _NEARER[self._form]
        self._value *= 1 / nearer if self.kinks else nearer
        self._settle(probe, share)

    def state_dict(self) -> dict[str, Any]:
        if self._value is None:
            return {"jumps": True} if self._jumps else {}
        return {"value": self._value, "floor": self._floor, "kinks": self.kinks, "jumps": self._jumps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._value, self._floor = state.get("value"), state.get("floor", 0.0)
        self.kinks, self._jumps = state.get("kinks", False), state.get("jumps", False)
