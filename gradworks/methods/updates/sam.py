"""SAM, sharpness-aware minimisation: the gradient at the worst point of a small ball, to first order.

Foret, Kleiner, Mobahi and Neyshabur, "Sharpness-Aware Minimization for Efficiently Improving Generalization" (2021),
equation 2 with p = 2 and equation 3:

    e = rho * g / |g|,   gradient = g(theta + e), without the term d e / d theta

Both passes see the same batch under the same dropout masks and with the weights of the first: the ball is around one
function. The published code for m-SAM draws a ball per accelerator; here there is one, around the global gradient.

Cost: 2 plain passes. Memory of one more gradient during the second.
"""

from __future__ import annotations

import math

from torch import Tensor

from gradworks.methods._shared.bases import Stateless
from gradworks.methods._shared.options import number
from gradworks.methods._shared.tensors import move, norm
from gradworks.spec import Needs, Passes

__all__ = ["Sam"]


class Sam(Stateless):
    """g(theta + rho * g / |g|).

    Logs `plain_norm`, the norm of g(theta).

    Args:
        rho: radius of the ball; 0.05 is the paper's choice for most of its experiments.
    """

    needs = Needs(1)

    def __init__(self, rho: float = 0.05):
        self._rho = number("rho", rho, low=0)

    def gradient(self, passes: Passes) -> list[Tensor]:
        g = passes.gradient(0)
        size = float(norm(g))
        passes.log["plain_norm"] = size
        if self._rho == 0 or not 0 < size < math.inf:  # no direction
            return g
        move(g, passes.theta, g, self._rho / size)
        return passes.gradient(0, g)
