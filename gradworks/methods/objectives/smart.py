"""SMART: adversarial smoothness and a Bregman proximal term (Jiang et al. 2020, eq. 1 to 4 and algorithm 1).

    loss(theta) + smoothness * R_s + proximal * D,
    R_s = divergence(f(e + delta), f(e)),  D = divergence(f(e), f_teacher(e)),
    teacher <- momentum * teacher + (1 - momentum) * theta, once per optimizer step,

with the task's divergence: symmetric KL for classes (both ends of a span), Bernoulli for one logit, squared error for
values. delta approximates the largest R_s on a ball of the maximum norm around the embeddings e of each example.

Differences from the paper. All passes of a batch draw the same dropout masks, those in `embed` included, so R_s tends
to zero with epsilon and D is zero where the teacher starts (the paper does not speak of dropout; under own masks R_s
measures dropout, and the attack is lost in it). epsilon is a share of the root mean square of the embeddings it
perturbs, delta always has that size, and its direction is the gradient of <H r, f> by e through the graph of the clean
pass (`vjp`), r random and H the Hessian of the divergence by the outputs: no pass of its own, and immune to rounding,
where the gradient at e + noise of the paper (`noise`) is zero for most examples in bf16 at the paper's 1e-5. delta is
normalised for each example, its random numbers are keyed by example. The paper's projection and its absolute figures
are options; one ascent step, S = T_x = 1, as in the paper.

epsilon = 0.3: while it trains the default benchmark's models, the gradient of R_s has 6.6 +- 1 % (gru) and 4.3 +- 0.7 %
(transformer) of the size of the loss's, n = 2 seeds; 0.1 gives 2.2 % and 0.7 % (benchmarks/SMART_EPSILON.md, which has
R_s against epsilon too). Less than 0.1 % the report labels inactive.

Cost in plain passes: 8/3 (7/3 without the proximal term, 4/3 with it alone); `noise` and `mtdnn` 1/3 more. Memory: the
graphs of two forward passes, and one copy of the trained parameters for the teacher.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gradworks.methods._shared.options import integer, number, one_of
from gradworks.methods.objectives._shared.embedded import Embedded
from gradworks.methods.objectives._shared.options import below_one, flag
from gradworks.methods.objectives._shared.perturb import example_scale, over_largest, random_cotangent, token_scale
from gradworks.methods.objectives._shared.regularised import Regularised
from gradworks.methods.objectives._shared.teacher import Teacher
from gradworks.spec import Batch, Masks, Outputs, Task

__all__ = ["Smart"]


class Smart(Regularised):
    """The loss, smooth around the embeddings and slow to leave the models of the steps before.

    Logs `delta`, the largest entry of delta; `smoothness` and `proximal`, the means of R_s and D; and now and then
    `smoothness_share` and `proximal_share`, the sizes of the gradients of these terms, with their factors, over that of
    the loss (at up to five passes more).

    Args:
        smoothness: factor of R_s, lambda_s of the paper; 0 = no adversarial passes.
        proximal: factor of D, mu of the paper; 0 = no teacher.
        epsilon: the size of delta in the maximum norm, per example.
        relative: epsilon, step and noise are shares of the root mean square of the embeddings; false = absolute.
        ascent: vjp | noise (the paper's) | mtdnn, as the authors' code has it (namisan/mt-dnn): the gradient at
            e + noise is added to the noise undivided, times `step`, and the sum divided by its largest entry, token by
            token: in effect noise of the size epsilon.
        projection: delta = noise + step * gradient / its largest entry, cut off at epsilon, as in the paper (no noise
            with vjp); false = epsilon * gradient / its largest entry.
        step: eta of the paper, with a projection or with mtdnn.
        noise: sigma of the paper, with noise or mtdnn.
        momentum: beta of the paper; two numbers: the second holds from step `switch` on (the paper has 0.99, and 0.999
            after a tenth of the run; an objective does not know how long a run is).
        switch: counted in optimizer steps.
        masks: shared | own: dropout masks of the clean, the ascent's, the adversarial and the teacher's pass.
    """

    def __init__(
        self,
        smoothness: float = 1.0,
        proximal: float = 1.0,
        epsilon: float = 0.3,
        relative: bool = True,
        ascent: str = "vjp",
        projection: bool = False,
        step: float = 1e-3,
        noise: float = 1e-2,
        momentum: float | Sequence[float] = 0.99,
        switch: int | None = None,
        masks: str = "shared",
    ):
        factors = {
            "smoothness": number("smoothness", smoothness, low=0),
            "proximal": number("proximal", proximal, low=0),
        }
        super().__init__(factors)
        self._epsilon = number("epsilon", epsilon, low=0)
        self._relative = flag("relative", relative)
        self._ascent = one_of("ascent", ascent, ["vjp", "noise", "mtdnn"])
        self._projection = flag("projection", projection)
        if projection and ascent == "mtdnn":
            raise ValueError(
                "projection: found true, expected false with ascent mtdnn, which divides and never cuts off"
            )
        self._step, self._noise = number("step", step, above=0), number("noise", noise, above=0)
        self._momentum, self._switch = _schedule(momentum, switch)
        self._shared = one_of("masks", masks, ["shared", "own"]) == "shared"
        self._adversarial, self._teacher = "smoothness" in self._factors, Teacher() if proximal else None
        self.holds = bool(self._factors)
        self.requires = ("embed",) * self._adversarial + ("divergence",) * self.holds

    def begin(self, model: nn.Module) -> None:
        if self._teacher is not None:
            self._teacher.follow(model, 1 - self._momentum[self._steps >= self._switch])
        super().begin(model)

    def outputs(self, task: Task, model: nn.Module, batch: Batch, masks: Masks, held: dict) -> Outputs:
        if self._teacher is not None and "teacher" not in held:
            module = self._teacher.model
            with torch.no_grad(), masks(self._stream(3)):
                given = (task.embed(module, batch),) if self._adversarial else ()
                held["teacher"] = task.outputs(module, batch, *given)
        if not self._adversarial:
            with masks(0):
                return task.outputs(model, batch)
        with masks(0):
            first = Embedded(task, model, batch)
            if "delta" not in held and not first.e.requires_grad:  # embeddings that are not trained
                first.e = first.e.detach().requires_grad_()
            z = task.outputs(model, batch, first.e)
        if "delta" not in held:
            held["delta"] = self._delta(task, batch, masks, first, z)
            held["log"]["delta"] = held["delta"].abs().amax()
        return z + first.again(masks, first.e + held["delta"], self._stream(1))

    def terms(self, task: Task, outputs: Outputs, batch: Batch, held: dict) -> dict[str, Tensor]:
        half = len(outputs) // 2 if self._adversarial else len(outputs)
        z, moved = outputs[:half], outputs[half:]
        terms = {"loss": task.loss(z, batch)}
        if self._adversarial:
            terms["smoothness"] = task.divergence(moved, z)
        if self._teacher is not None:
            terms["proximal"] = task.divergence(z, held["teacher"])
        return terms

    def _stream(self, own: int) -> int:
        return 0 if self._shared else own

    def _delta(self, task: Task, batch: Batch, masks: Masks, first: Embedded, z: Outputs) -> Tensor:
        """Of the shape of the embeddings, constant."""
        here, n = first.e.detach(), len(batch.ids)
        unit = token_scale(here) if self._relative else 1.0
        noise: Tensor | float = 0.0
        if self._ascent == "vjp":
            (g,) = torch.autograd.grad(z, first.e, random_cotangent(task, z, masks, batch), retain_graph=True)
        else:
            noise = self._noise * masks.noise(here, batch)
            start = (unit * noise).requires_grad_()
            moved = first.again(masks, here + start, self._stream(2))
            (g,) = torch.autograd.grad(task.divergence(moved, tuple(t.detach() for t in z)).sum(), start)
        if self._ascent == "mtdnn":
            # in units of each token's size, which is 1 after the layer norm where their code perturbs
            total = noise + self._step * unit * g
            largest = total.abs().amax(-1, keepdim=True)
            return self._epsilon * unit * total / torch.where(largest == 0, 1, largest)
        size = example_scale(here, g.ne(0).any(-1, keepdim=True), n) if self._relative else here.new_ones(())
        direction, bound = over_largest(g, n), self._epsilon * size
        if not self._projection:
            return bound * direction
        return (unit * noise + self._step * size * direction).clamp(-bound, bound)

    def state_dict(self) -> dict[str, Any]:
        teacher = {} if self._teacher is None else {"teacher": self._teacher.state_dict()}
        return {**super().state_dict(), **teacher}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        if self._teacher is not None:
            self._teacher.load_state_dict(state["teacher"])


def _schedule(momentum: object, switch: object) -> tuple[tuple[float, float], int]:
    """Momentum before and from a step on."""
    if not isinstance(momentum, Sequence) or isinstance(momentum, str):
        if switch is not None:
            raise ValueError(f"switch: found {switch!r}, expected two numbers as momentum beside it")
        return (below_one("momentum", momentum),) * 2, 0
    if len(momentum) != 2 or switch is None:
        raise ValueError(f"momentum: found {momentum!r}, expected a number, or two and the step `switch` between them")
    return tuple(below_one("momentum", beta) for beta in momentum), integer("switch", switch, low=1)
