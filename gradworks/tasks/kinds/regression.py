"""Regression: one number per example, squared error."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gradworks.base import Section
from gradworks.tasks.kinds._shared.parts import Values

if TYPE_CHECKING:
    from torch import Tensor

    from gradworks.spec import Batch, Outputs


class Options(Section):
    """None."""


class Kind(Values):
    """Squared error of one value; labels (n,) floating point."""

    def loss(self, outputs: Outputs, batch: Batch) -> Tensor:
        """(n,) (value - label)^2, in squared units of the label."""
        value = outputs[0][:, 0]
        return (value - batch.labels.to(value.dtype)) ** 2

    def divergence(self, p: Outputs, q: Outputs) -> Tensor:
        """(n,) squared difference (SMART, section 2.1, for regression)."""
        return ((p[0] - q[0]) ** 2)[:, 0]
