"""The direction of an inner step: the gradient itself, or the gradient over the root of its second moment.

The latter is Adam (Kingma and Ba 2015, algorithm 1) with beta_1 = 0 and beta_2 = 0.999, the inner optimizer of
supervised-reptile: v = beta_2 v + (1 - beta_2) g^2 and, after t steps, g / (sqrt(v / (1 - beta_2^t)) + eps). As in
torch.optim.Adam eps is added to the corrected root; TensorFlow adds it before the correction, which differs where
gradients are near 1e-8.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor

from gradworks.methods._shared.tensors import at_least_float32, widened

_BETA, _EPS = 0.999, 1e-8


class Descent:
    """Plain gradient descent: no state."""

    moments: tuple[int, list[Tensor]] | None = None

    def __call__(self, gradient: list[Tensor]) -> list[Tensor]:
        """The direction, in the memory of the gradient."""
        return gradient

    def copy(self) -> Descent:
        """Goes on from the same state, apart from this one."""
        return copy.deepcopy(self)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to restore."""


class Adam(Descent):
    """Cost: two more tensors of the parameters' size, one of them kept; no pass."""

    def __init__(self) -> None:
        self._count = 0
        self._second: list[Tensor] = []  # in at least float32: in bf16 the mean would not move

    def __call__(self, gradient: list[Tensor]) -> list[Tensor]:
        if not any(bool(g.any()) for g in gradient):
            return gradient  # a batch without weight moves no state
        wide = widened(gradient)
        if not self._second:
            self._second = [torch.zeros_like(g) for g in wide]
        self._second = [v.to(g.device) for v, g in zip(self._second, gradient, strict=True)]
        self._count += 1
        torch._foreach_mul_(self._second, _BETA)
        torch._foreach_addcmul_(self._second, wide, wide, value=1 - _BETA)
        root = torch._foreach_sqrt(self._second)
        torch._foreach_div_(root, math.sqrt(1 - _BETA**self._count))
        torch._foreach_add_(root, _EPS)
        torch._foreach_div_(wide, root)
        for g, w in zip(gradient, wide, strict=True):
            if g.dtype != at_least_float32(g.dtype):
                g.copy_(w)
        return gradient

    @property
    def moments(self) -> tuple[int, list[Tensor]]:
        return self._count, self._second

    def state_dict(self) -> dict[str, Any]:
        return {"count": self._count, "second": [v.clone() for v in self._second]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._count, self._second = state.get("count", 0), [v.clone() for v in state.get("second", [])]
