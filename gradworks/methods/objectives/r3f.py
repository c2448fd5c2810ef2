"""R3F: outputs that do not change when noise is added to the embeddings (Aghajanyan et al. 2021, eq. 5).

    loss + smoothness * divergence(f(e + epsilon * noise), f(e))

What `smart` is without its ascent step and its teacher. Differences from the paper: both passes draw the same dropout
masks, those in `embed` included, so only the noise tells them apart; epsilon is a share of the root mean square of each
token's embedding (the paper's 1e-5 is absolute: `relative: false`); noise is keyed by example.

Cost in plain passes: 2.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gradworks.methods._shared.options import number, one_of
from gradworks.methods.objectives._shared.embedded import Embedded
from gradworks.methods.objectives._shared.options import flag
from gradworks.methods.objectives._shared.perturb import token_scale
from gradworks.methods.objectives._shared.regularised import Regularised
from gradworks.spec import Batch, Masks, Outputs, Task

__all__ = ["R3F"]


class R3F(Regularised):
    """The loss, smooth under noise on the embeddings.

    Logs `smoothness`, the mean divergence, and now and then `smoothness_share`, the size of the gradient of
    smoothness * divergence over that of the loss.

    Args:
        smoothness: factor of the divergence, lambda of the paper; 0 = plain training.
        epsilon: sigma of the paper: the largest entry of uniform noise, the standard deviation of normal noise.
        relative: epsilon is a share of the root mean square of a token's embedding; false = absolute.
        distribution: uniform | normal.
    """

    def __init__(
        self, smoothness: float = 1.0, epsilon: float = 0.3, relative: bool = True, distribution: str = "uniform"
    ):
        super().__init__({"smoothness": number("smoothness", smoothness, low=0)})
        self._epsilon = number("epsilon", epsilon, low=0)
        self._relative = flag("relative", relative)
        self._uniform = one_of("distribution", distribution, ["uniform", "normal"]) == "uniform"
        self.holds = bool(self._factors)
        self.requires = ("embed", "divergence") if self._factors else ()

    def outputs(self, task: Task, model: nn.Module, batch: Batch, masks: Masks, held: dict) -> Outputs:
        if not self._factors:
            return super().outputs(task, model, batch, masks, held)
        with masks(0):
            given = Embedded(task, model, batch)
            z = task.outputs(model, batch, given.e)
        if "delta" not in held:
            here = given.e.detach()
            noise = masks.noise(here, batch)
            if self._uniform:
                noise = torch.erf(noise / 2**0.5)
            held["delta"] = self._epsilon * (token_scale(here) if self._relative else 1.0) * noise
        return z + given.again(masks, given.e + held["delta"])

    def terms(self, task: Task, outputs: Outputs, batch: Batch, held: dict) -> dict[str, Tensor]:
        if not self._factors:
            return {"loss": task.loss(outputs, batch)}
        half = len(outputs) // 2
        z, moved = outputs[:half], outputs[half:]
        return {"loss": task.loss(z, batch), "smoothness": task.divergence(moved, z)}
