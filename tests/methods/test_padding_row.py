"""Every back-end where an output layer shares its weights with an embedding that has a row for padding."""

import pytest
import torch

from tests.methods.test_backends import BACKENDS, distance, loop_oracle, method, scores
from tests.methods.toys import Tied, build, draw


@pytest.mark.parametrize("backend", ["ghost", "logit_fd", *BACKENDS])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_tied_weights_with_a_row_for_padding(backend, dtype):
    """No gradient through the lookup, some through the output layer."""
    model = build(Tied)
    model.emb.padding_idx = 3
    (train,), (clean,) = draw(1, "seq", n=8)
    train[0].inputs[:, 2] = clean[0].inputs[:, 1] = 3
    expected = loop_oracle(model, train, clean)
    assert 0 < (expected > 0).sum() < len(expected)
    found = scores(method(backend).backward(model.to(dtype), [train], [clean]))
    bound = {"ghost": 1e-10, "logit_fd": 1e-6}.get(backend, 1e-10) if dtype == torch.float64 else 1e-3
    assert distance(found, expected) < bound
    assert not model.emb._forward_hooks
