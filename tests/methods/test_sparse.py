"""nn.Embedding(sparse=True) and nn.EmbeddingBag(sparse=True): the gradient of loss.backward(), or a refusal."""

import pytest
import torch
from torch import nn

from gradworks.methods import Method
from tests.methods.own_models import BATCHES, Classes, gradient, group, made, off
from tests.methods.shipped import STAR

TASK = Classes()


class Words(nn.Module):
    def __init__(self, sparse=True, bag=False):
        super().__init__()
        self.e = (nn.EmbeddingBag if bag else nn.Embedding)(50, 8, sparse=sparse)
        self.h = nn.Linear(8, 3)

    def forward(self, ids, embedded=None):
        x = self.e(ids) if embedded is None else embedded
        return self.h(torch.tanh(x if x.ndim == 2 else x.mean(1)))


@pytest.mark.parametrize("micro", [1, 2])
@pytest.mark.parametrize("bag", [False, True])
def test_plain_training_gives_the_sparse_gradient_of_the_plain_loop(bag, micro):
    model, plain = made(lambda: Words(bag=bag)), made(lambda: Words(bag=bag))
    parts = BATCHES[:micro]
    Method(task=TASK).backward(model, [parts])
    for b in parts:
        (TASK.loss(TASK.outputs(plain, b), b).mean() / micro).backward()
    assert off(gradient(model), gradient(plain)) < 1e-12
    found, expected = (m.e.weight.grad.coalesce() for m in (model, plain))
    assert torch.equal(found.indices(), expected.indices())


@pytest.mark.parametrize("triple", STAR, ids="-".join)
@pytest.mark.parametrize("bag", [False, True])
def test_every_entry_gives_the_dense_gradient_in_sparse_form(triple, bag):
    def run(sparse):
        model, method = made(lambda: Words(sparse, bag)), Method(*triple, task=TASK)
        optimizer = torch.optim.SparseAdam([model.e.weight]) if sparse else torch.optim.Adam([model.e.weight])
        method.backward(model, *group(method))
        optimizer.step()  # takes nothing else
        method.backward(model, *group(method))
        return model, gradient(model)

    if bag and (triple[0] in ("smart", "r3f") or triple[2] == "maml"):
        return  # a bag has no embedding per token, and no second derivative
    model, found = run(True)
    assert model.e.weight.grad.is_sparse
    sparse = model.e.weight.grad.coalesce()
    assert len(sparse.indices()[0]) < 50 or triple[2] in ("fomaml", "reptile", "maml")
    plain = made(lambda: Words(False, bag))
    method = Method(*triple, task=TASK)
    method.backward(plain, *group(method))
    # SparseAdam and Adam differ where no gradient is: the second step is taken where the sparse one stands
    plain.load_state_dict(model.state_dict())
    method.backward(plain, *group(method))
    assert off(found, gradient(plain)) < 1e-7


@pytest.mark.parametrize(
    "slots",
    [{"update": {"dotprod": {"form": "exact"}}}, {"weighting": {"reweight": {"backend": "second_order"}}},
     {"weighting": {"reweight": {"backend": "jvp"}}}, {"update": {"grad_norm_penalty": {"form": "exact"}}}],
    ids=str,
)  # fmt: skip
def test_exact_forms_are_right_or_refuse_and_name_what_works(slots):
    def run(sparse):
        model, method = made(lambda: Words(sparse)), Method(task=TASK, **slots)
        method.backward(model, *group(method))
        return gradient(model)

    try:
        found = run(True)
    except ValueError as error:
        assert "sparse" in str(error)
        assert "expected nn.Embedding(sparse=False), or" in str(error)
    else:
        assert off(found, run(False)) < 1e-10
