"""Label smoothing (Szegedy et al. 2016, section 7): a share of each label is spread evenly over all classes.

    (1 - share) * loss of the label + share * mean over classes of their loss

For tasks that choose among classes and offer `smoothed`; one logit is two classes. The paper's k is then the number of
classes and its prior the uniform one; nothing differs. Cost: one plain pass.
"""

from __future__ import annotations

from torch import Tensor

from gradworks.methods._shared.bases import BaseObjective
from gradworks.methods.objectives._shared.options import below_one
from gradworks.spec import Batch, Outputs, Task

__all__ = ["LabelSmoothing"]


class LabelSmoothing(BaseObjective):
    """Cross entropy with softened labels.

    Args:
        share: of each label that is spread over all classes, its own included; 0 = plain training.
    """

    requires = ("smoothed",)

    def __init__(self, share: float = 0.1):
        self._share = below_one("share", share)

    def loss(self, task: Task, outputs: Outputs, batch: Batch, held: dict) -> Tensor:
        return task.smoothed(outputs, batch, self._share)
