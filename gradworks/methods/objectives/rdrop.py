"""R-Drop: two dropout masks on one batch, whose outputs should agree (Liang et al. 2021, eq. 2 to 4).

    (loss(z1) + loss(z2)) / 2 + alpha / 4 * divergence(z1, z2)

The paper adds the two losses, and its divergence is half the sum of both KL; ours is the mean over passes (scale law)
and their whole sum, so this is half of its eq. 4 at the same alpha. A head whose divergence is another (squared error
for values) takes that instead.

Cost in plain passes: 2.
"""

from __future__ import annotations

from torch import Tensor, nn

from gradworks.methods._shared.options import number
from gradworks.methods.objectives._shared.regularised import Regularised, wide
from gradworks.spec import Batch, Masks, Outputs, Task

__all__ = ["RDrop"]


class RDrop(Regularised):
    """The mean loss of two passes that differ in their dropout masks, and how far their outputs are apart.

    Logs `consistency`, the mean divergence, and now and then `consistency_share`, the size of the gradient of
    alpha / 4 * divergence over that of the mean loss.

    Args:
        alpha: of the paper (1 for its language understanding tasks, 5 for translation); 0 = the mean loss alone.
    """

    requires = ("divergence",)

    def __init__(self, alpha: float = 1.0):
        super().__init__({"consistency": number("alpha", alpha, low=0) / 4})

    def outputs(self, task: Task, model: nn.Module, batch: Batch, masks: Masks, held: dict) -> Outputs:
        with masks(0):
            z = task.outputs(model, batch)
        with masks(1):
            return z + task.outputs(model, batch)

    def terms(self, task: Task, outputs: Outputs, batch: Batch, held: dict) -> dict[str, Tensor]:
        half = len(outputs) // 2
        z, other = outputs[:half], outputs[half:]
        loss = (wide(task.loss(z, batch)) + wide(task.loss(other, batch))) / 2
        return {"loss": loss, "consistency": task.divergence(other, z)} if self._factors else {"loss": loss}
