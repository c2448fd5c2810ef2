"""What a method may know of a task: its outputs, the loss of every example, how far two outputs are apart.

A head satisfies `gradworks.spec.Task`. Losses and divergences are (n,), one value per example, never reduced.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

if TYPE_CHECKING:
    from torch import Tensor, nn

    from gradworks.spec import Batch, Outputs
    from gradworks.tasks import Row


class _Head:
    """A model with one output tensor whose `embed` gives the input embeddings."""

    def __init__(self, name: str, size: int) -> None:
        self.name, self.size = name, size  # size: how many outputs the model has

    def outputs(self, model: nn.Module, batch: Batch, embedded: Tensor | None = None) -> Outputs:
        """One forward pass; `embedded` (n, L, D) stands in for the input embeddings. Returns one tensor (n, size)."""
        return (model(batch.inputs) if embedded is None else model(batch.inputs, embedded),)

    def embed(self, model: nn.Module, batch: Batch) -> Tensor:
        """(n, L, D) input embeddings, differentiable in the model's parameters."""
        return model.embed(batch.inputs)


class Classification(_Head):
    """Cross entropy over C logits; labels (n,) int64."""

    def loss(self, outputs: Outputs, batch: Batch) -> Tensor:
        """(n,) -log p of the true class, in nats."""
        return F.cross_entropy(outputs[0], batch.labels, reduction="none")

    def smoothed(self, outputs: Outputs, batch: Batch, share: float) -> Tensor:
        """(n,) cross entropy, in nats, with `share` of each label spread evenly over all classes."""
        return F.cross_entropy(outputs[0], batch.labels, reduction="none", label_smoothing=share)

    def divergence(self, p: Outputs, q: Outputs) -> Tensor:
        """(n,) symmetric KL, KL(p||q) + KL(q||p), in nats (SMART, Jiang et al. 2020, eq. 3)."""
        log_p, log_q = p[0].log_softmax(-1), q[0].log_softmax(-1)
        return ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(-1)


class Logit(_Head):
    """One logit z: p(second class) = sigmoid(z); labels (n,) in {0, 1}."""

    def loss(self, outputs: Outputs, batch: Batch) -> Tensor:
        """(n,) Bernoulli cross entropy, in nats."""
        z = outputs[0][:, 0]
        return F.binary_cross_entropy_with_logits(z, batch.labels.to(z.dtype), reduction="none")

    def smoothed(self, outputs: Outputs, batch: Batch, share: float) -> Tensor:
        """(n,) the same with `share` of each label spread evenly over both classes."""
        z = outputs[0][:, 0]
        return F.binary_cross_entropy_with_logits(
            z, batch.labels.to(z.dtype).lerp(z.new_tensor(0.5), share), reduction="none"
        )

    def divergence(self, p: Outputs, q: Outputs) -> Tensor:
        """(n,) symmetric KL of the two Bernoulli distributions; log p/(1-p) is the logit itself."""
        a, b = p[0][:, 0], q[0][:, 0]
        return (torch.sigmoid(a) - torch.sigmoid(b)) * (a - b)


class Regression(_Head):
    """Squared error of one value; labels (n,) floating point."""

    def loss(self, outputs: Outputs, batch: Batch) -> Tensor:
        """(n,) (value - label)^2, in squared units of the label."""
        value = outputs[0][:, 0]
        return (value - batch.labels.to(value.dtype)) ** 2

    def divergence(self, p: Outputs, q: Outputs) -> Tensor:
        """(n,) squared difference (SMART, section 2.1, for regression)."""
        return ((p[0] - q[0]) ** 2)[:, 0]


def head(row: Row, one_logit: bool = False) -> Classification | Logit | Regression:
    """The head of a task; its `size` is the number of outputs that the model needs.

    Args:
        row: the task.
        one_logit: one logit instead of two for a task of two classes.

    Raises:
        ValueError: one logit was asked for and there are not two classes.
    """
    if one_logit:
        if row.classes is None or len(row.classes) != 2:
            raise ValueError(f"{row.name}: one logit needs two classes, found {row.classes}")
        return Logit(row.name, 1)
    return Regression(row.name, 1) if row.classes is None else Classification(row.name, len(row.classes))
