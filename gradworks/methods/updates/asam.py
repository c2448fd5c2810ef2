"""ASAM, adaptive sharpness-aware minimisation: SAM in a ball that scales with the parameters.

Kwon, Kim, Park and Choi, "ASAM: Adaptive Sharpness-Aware Minimization for Scale-Invariant Learning of Deep Neural
Networks" (2021), algorithm 1 with p = 2 and the element-wise operator T = diag(|theta| + eta):

    e = rho * T^2 g / |T g|,   gradient = g(theta + e)

The operator is taken for every parameter, as in the text; the authors' code leaves parameters without "weight" in their
name (biases) unscaled, which an update cannot see. Both passes see the same batch, masks and held weights.

Cost: 2 plain passes. Memory of one more gradient during the second.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gradworks.methods._shared.bases import Stateless
from gradworks.methods._shared.options import number
from gradworks.methods._shared.tensors import norm
from gradworks.methods.updates._shared.fused import blocks
from gradworks.spec import Needs, Passes

__all__ = ["Asam"]


class Asam(Stateless):
    """g(theta + rho * T^2 g / |T g|), T = |theta| + eta.

    Logs `plain_norm`, the norm of g(theta).

    Args:
        rho: radius of the ball in units of T; 0.5 is the paper's choice for its smaller data sets.
        eta: keeps parameters near zero movable; 0.01 is the paper's choice.
    """

    needs = Needs(1)

    def __init__(self, rho: float = 0.5, eta: float = 0.01):
        self._rho, self._eta = number("rho", rho, low=0), number("eta", eta, low=0)

    def gradient(self, passes: Passes) -> list[Tensor]:
        g = passes.gradient(0)
        if self._rho == 0:
            return g
        plain: list[Tensor] = []
        scaled: list[Tensor] = []
        for x, t in blocks(g, passes.theta):
            plain.extend(torch._foreach_norm(x))
            torch._foreach_mul_(x, self._operator(t))
            scaled.extend(torch._foreach_norm(x))
        passes.log["plain_norm"] = norm(plain)
        size = float(norm(scaled))
        if not 0 < size < math.inf:  # no direction, and g is overwritten
            return passes.gradient(0)
        for x, t in blocks(g, passes.theta):
            torch._foreach_mul_(x, self._operator(t))
            torch._foreach_mul_(x, self._rho / size)
            torch._foreach_add_(x, t)
        return passes.gradient(0, g)

    def _operator(self, theta: list[Tensor]) -> list[Tensor]:
        made = list(torch._foreach_abs(theta))
        torch._foreach_add_(made, self._eta)
        return made
