"""Regression: one number per example, squared error."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from gradworks.base import Section
from gradworks.tasks.kinds._shared.parts import Values

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from gradworks.spec import Batch, Outputs
    from gradworks.tasks import TaskSpec


class Options(Section):
    """center, spread: about the mean and the standard deviation of the labels. The model learns (label - center) /
    spread; labels, predictions and scores keep their unit.
    bounded: the head's output goes through a sigmoid, so that values are between center and center + spread.
    """

    bounded: bool = False
    center: float = Field(0.0, allow_inf_nan=False)
    spread: float = Field(1.0, gt=0, allow_inf_nan=False)


class Kind(Values):
    """((value - label) / spread)^2 of value = center + spread * head; labels (n,) floating point.

    With `bounded` the sigmoid of the head is in its place.
    """

    def __init__(self, spec: TaskSpec) -> None:
        super().__init__(spec)
        self.center = float(spec.options.get("center", Options().center))
        self.spread = float(spec.options.get("spread", Options().spread))
        self.bounded = bool(spec.options.get("bounded", Options().bounded))

    def _values(self, outputs: Outputs) -> Tensor:
        """(n, 1) in units of the spread."""
        return outputs[0].sigmoid() if self.bounded else outputs[0]

    def loss(self, outputs: Outputs, batch: Batch) -> Tensor:
        """(n,) squared error in units of spread^2."""
        value = self._values(outputs)[:, 0]
        return (value - (batch.labels.to(value.dtype) - self.center) / self.spread) ** 2

    def divergence(self, p: Outputs, q: Outputs) -> Tensor:
        """(n,) squared difference in units of spread^2 (SMART, section 2.1, for regression)."""
        return ((self._values(p) - self._values(q)) ** 2)[:, 0]

    def answers(self, outputs: Outputs) -> np.ndarray:
        """(n,) center + spread * head."""
        return super().answers((self._values(outputs),)) * self.spread + self.center
