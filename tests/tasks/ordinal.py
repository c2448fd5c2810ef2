"""An exercise: ordinal regression as a kind of one's own, in this one file.

C ordered classes, one score per example; p(label > k) = sigmoid(score - threshold k), thresholds 4 apart, around 0
(all thresholds, Rennie and Srebro 2005).
"""

import torch
from torch.nn import functional as F

from gradworks.base import Section
from gradworks.tasks.kinds import classification


class Options(Section):
    """None."""


class Kind(classification.Kind):
    """Labels (n,) int64 class indices; answers are probabilities of the classes, as classification's."""

    def __init__(self, spec):
        super().__init__(spec)
        self.size = 1

    def _above(self, outputs):
        """(n, C - 1) logits of p(label > k)."""
        steps = torch.arange(len(self.classes) - 1, dtype=outputs[0].dtype, device=outputs[0].device)
        return outputs[0] - 4 * (steps - (len(steps) - 1) / 2)

    def loss(self, outputs, batch):
        above = self._above(outputs)
        true = (batch.labels[:, None] > torch.arange(above.shape[1], device=above.device)).to(above.dtype)
        return F.binary_cross_entropy_with_logits(above, true, reduction="none").sum(1)

    smoothed = None

    def divergence(self, p, q):
        a, b = self._above(p), self._above(q)
        return ((a.sigmoid() - b.sigmoid()) * (a - b)).sum(1)

    def answers(self, outputs):
        above = self._above((outputs[0].double(),)).sigmoid()
        ends = above.new_ones(len(above), 1)
        return (torch.cat([ends, above], 1) - torch.cat([above, 1 - ends], 1)).numpy()
