"""Example weights as Ren et al. (2018) publish them: the clean loss differentiated through an inner step.

Algorithm 1, lines 4-10: theta'(eps) = theta - eta * g(eps), g(eps) = grad(sum of eps_i * l_i), the graph of g kept;
u_i = -d L_clean(theta'(eps)) / d eps_i at eps = 0 = eta * d <v, g(eps)> / d eps_i with v = grad L_clean(theta'(0)), and
theta'(0) = theta. eta cancels in the weights and is left out. g is linear in eps, so its derivative is the same
everywhere and <v, g(1)> is the sum of all u_i: taken at eps = 1 the pass can be checked at no cost.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gradworks.methods._shared.bases import Stateless
from gradworks.methods._shared.tensors import dot, norm
from gradworks.methods.weightings._shared.jvp import refusal
from gradworks.spec import Outputs, Pass, Reduce, Visit


class SecondOrder(Stateless):
    """Cost: the clean gradient, a backward pass with graph, and its derivative by eps: (7 + 3r) / 3 passes in all.

    Memory: the graph of that backward pass and one gradient.
    """

    def __init__(self) -> None:
        self._direction: list[Tensor] = []
        self._checked = False

    def prepare(self, visit: Visit) -> None:
        self._direction = visit.clean_gradient()

    def scores(self, here: Pass, outputs: Outputs, losses: Tensor) -> Tensor:
        """(n,) u.

        Raises:
            ValueError: an operation of the model has no second derivative.
        """
        eps = torch.ones_like(losses, requires_grad=True)
        before = here.count(0)
        try:
            inner = torch.autograd.grad((eps * losses).sum(), here.parameters, create_graph=True, allow_unused=True)
            # counted so far: the activations' third of every forward pass; besides it the weight gradients, and the
            # derivative by eps, which takes twice the products of a forward pass (see jvp)
            here.count(3 * (here.count(0) - before))
            pairs = [(g, v) for g, v in zip(inner, self._direction, strict=True) if g is not None]
            linked = [(g, v) for g, v in pairs if g.requires_grad]
            (score,) = torch.autograd.grad(
                [g for g, _ in linked], eps, [v for _, v in linked], retain_graph=True, materialize_grads=True
            )
        except (NotImplementedError, RuntimeError) as error:
            raise refusal(error, "second_order", "double backward", here.model) from None
        if not self._checked:
            self._check([g.detach() for g, _ in pairs], [v for _, v in pairs], score)
        return score

    def _check(self, gradient: list[Tensor], direction: list[Tensor], score: Tensor) -> None:
        """Some operations that can be differentiated only once cut the graph without a word."""
        error = (dot(gradient, direction) - score.sum()).abs()
        if error > 10 * torch.finfo(score.dtype).eps ** 0.5 * norm(gradient) * norm(direction):
            raise ValueError(
                "reweight: backend second_order: an operation of the model can be differentiated only once\n"
                "expected backend: auto or logit_fd, which need no double backward"
            )
        self._checked = True

    def end(self, reduce: Reduce) -> None:
        self._direction = []
