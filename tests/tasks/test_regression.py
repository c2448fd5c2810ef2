"""Regression through a sigmoid: values, loss and divergence are those of the bounded value."""

import numpy as np
import pytest
import torch

from gradworks.spec import Batch
from gradworks.tasks import TaskSpec, kind


def test_bounded_values_are_between_center_and_center_plus_spread():
    made = kind(TaskSpec("near", "regression", ("a", "b"), None, ("pearson",), options={"bounded": True, "spread": 5}))
    z, other = torch.tensor([[-30.0], [0.0], [2.0]]), torch.tensor([[30.0], [0.0], [1.0]])
    labels = torch.tensor([0.0, 5.0, 1.0])
    batch = Batch("near", ("0", "1", "2"), {}, labels, torch.ones(3))
    share = 1 / (1 + np.exp(-z.double().numpy()[:, 0]))
    assert made.answers((z,)) == pytest.approx(5 * share, abs=1e-6)
    assert made.loss((z,), batch).tolist() == pytest.approx(((share - labels.numpy() / 5) ** 2).tolist(), abs=1e-6)
    moved = 1 / (1 + np.exp(-other.double().numpy()[:, 0]))
    assert made.divergence((z,), (other,)).tolist() == pytest.approx(((share - moved) ** 2).tolist(), abs=1e-6)
