"""Weightings with sparse gradients of embeddings: the gradient of the same model with dense ones, or a refusal."""

import pytest
import torch
from torch import nn

from gradworks.methods import Method
from tests.methods.toys import TASKS, build, draw, error

WEIGHTINGS = ["class_ratio", "hard_mining", "random"] + [
    {"reweight": {"backend": b}} for b in ("auto", "logit_fd", "jvp", "per_example", "second_order")
]


class Words(nn.Module):
    def __init__(self, sparse=False, bag=False, padding=None):
        super().__init__()
        self.bag = bag
        kind = nn.EmbeddingBag if bag else nn.Embedding
        self.table, self.out = kind(30, 8, sparse=sparse, padding_idx=padding), nn.Linear(8, 3)
        self.drop = nn.Dropout(0.2)

    def forward(self, ids, kind="three"):
        h = self.table(ids)
        return self.out(self.drop(torch.tanh(h if self.bag else h.mean(1))))


def gradient(weighting, update, micro, **options):
    model = build(Words, **options)
    method = Method(weighting=weighting, update=update, tasks=TASKS, seed=7)
    for k in range(2):
        count = method.batches
        method.backward(model, *draw(count, n=8, micro=micro, seed=100 + k))
    return [p.grad.to_dense() for p in model.parameters()]


@pytest.mark.parametrize("weighting", WEIGHTINGS, ids=str)
@pytest.mark.parametrize("bag", [False, True])
@pytest.mark.parametrize(("update", "micro"), [("erm", None), ("erm", 3), ("dotprod", None), ("sam", None)])
def test_the_gradient_is_that_of_dense_ones(weighting, bag, update, micro):
    refused = bag and str(weighting) in (
        "{'reweight': {'backend': 'jvp'}}",
        "{'reweight': {'backend': 'second_order'}}",
    )
    try:
        found = gradient(weighting, update, micro, sparse=True, bag=bag, padding=3)
    except ValueError as caught:
        assert refused and "expected backend: auto or logit_fd" in str(caught)
        return
    assert not refused
    expected = gradient(weighting, update, micro, bag=bag, padding=3)
    assert error(found, expected) < 1e-6  # auto takes ghost where gradients are dense


@pytest.mark.parametrize("bag", [False, True])
def test_ghost_refuses_and_what_it_advises_works(bag):
    with pytest.raises(ValueError, match="use backend: logit_fd"):
        gradient({"reweight": {"backend": "ghost"}}, "erm", None, sparse=True, bag=bag)
    gradient({"reweight": {"backend": "logit_fd"}}, "erm", None, sparse=True, bag=bag)
