"""The control for every reweighting: weights that know nothing. Cost: one plain pass."""

from __future__ import annotations

from torch import Tensor

from gradworks.methods._shared.bases import BaseWeighting
from gradworks.spec import Outputs, Pass

__all__ = ["Random"]


class Random(BaseWeighting):
    """Weights max(N(0, 1), 0), the rectified Gaussian of Ren et al. (2018, section 4), keyed by example id and batch.

    About half of the weights are zero, as with `reweight`; the signed draw is the score.
    """

    def weights(self, here: Pass, outputs: Outputs, losses: Tensor) -> tuple[Tensor, Tensor]:
        score = here.masks.noise(losses.detach(), here.batch)
        return score.clamp_min(0) * here.batch.mass.to(losses), score
