"""Sums over many micro-batches of half precision, and gradients that share memory with themselves."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gradworks.methods import Method
from gradworks.methods._shared.bases import BaseWeighting, Stateless
from gradworks.spec import Batch, Needs
from tests.methods.own_models import gradient, made, off


class Rows:
    def outputs(self, model, batch):
        return (model(batch.inputs),)

    def loss(self, out, batch):
        return F.cross_entropy(out[0], batch.labels, reduction="none")


def rows(n, dtype):
    g = torch.Generator().manual_seed(0)
    return torch.randn(n, 4, generator=g).to(dtype), torch.randint(0, 3, (n,), generator=g)


def cut(x, y, size):
    mass = torch.ones(size)
    return [
        Batch("r", [str(k) for k in range(i, i + size)], x[i : i + size], y[i : i + size], mass)
        for i in range(0, len(x), size)
    ]


@pytest.mark.parametrize("slots", [{}, {"update": "sam"}, {"weighting": "reweight"}], ids=str)
def test_512_micro_batches_of_one_in_bf16(slots):
    """256 + 1 is 256 in bf16: a sum of weights would stop there, and of gradients."""
    x, y = rows(512, torch.bfloat16)
    model = made(lambda: nn.Linear(4, 3), dtype=torch.bfloat16)
    method = Method(task=Rows(), **slots)
    clean = [cut(x[:64], y[:64], 64)] if method.clean else ()
    method.backward(model, [cut(x, y, 1)], clean)
    found = gradient(model).float()
    method = Method(task=Rows(), **slots)
    method.backward(model, [cut(x, y, 512)], clean)
    assert off(found, gradient(model).float()) < 0.01
    if not slots:
        exact = made(lambda: nn.Linear(4, 3))
        exact.load_state_dict(model.state_dict())
        F.cross_entropy(exact(x.double()), y).backward()
        assert off(found.double(), gradient(exact)) < 0.01


class Total(nn.Module):
    """The gradient of `scale` is one number, expanded."""

    def __init__(self):
        super().__init__()
        self.scale, self.layer = nn.Parameter(torch.randn(5)), nn.Linear(4, 3)

    def forward(self, x):
        return self.layer(x) + self.scale.sum() ** 2 * torch.eye(3)[0].to(x)


class Level(Stateless):
    """An entry of one's own whose gradient is expanded."""

    needs = Needs(1)

    def gradient(self, passes):
        return [g.mean().expand_as(g) for g in passes.gradient(0)]


@pytest.mark.parametrize(
    "update",
    [pytest.param(Level(), id="own"), "erm", "maml", "sam", "dotprod", {"dotprod": {"form": "exact"}},
     "grad_norm_penalty", {"grad_norm_penalty": {"form": "exact"}}, "reptile", "fomaml"],
    ids=str,
)  # fmt: skip
def test_every_gradient_can_be_clipped_in_place(update):
    x, y = rows(32, torch.float64)
    model, method = made(Total), Method(update=update, task=Rows())
    method.backward(model, [[b] for b in cut(x, y, 8)[: method.batches]])
    before = gradient(model)
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
    assert off(gradient(model), before / before.norm() * 1e-3) < 1e-6


class Given(BaseWeighting):
    """Weights that are asked for."""

    def __init__(self, weights):
        self._weights = torch.tensor(weights)

    def weights(self, here, outputs, losses):
        return self._weights[[int(i) for i in here.batch.ids]], None


@pytest.mark.parametrize("size", [8, 4])
@pytest.mark.parametrize(
    ("weights", "share"),
    [([1.0] * 8, 1), ([0.25] * 8, 1), ([1.0, 3, 0, 0, 2, 0, 0, 2], 64 / (8 * 18)), ([0.0] * 8, 0)],
    ids=["alike", "alike, small", "some", "none"],
)
def test_the_log_has_the_share_of_examples_that_count(weights, share, size):
    """(sum of w)^2 / (n * sum of w^2), over all micro-batches."""
    model, method = nn.Linear(4, 3), Method(task=Rows(), weighting=Given(weights))
    report = method.backward(model, [cut(*rows(8, torch.float32), size)])
    assert report.log["effective_share"] == pytest.approx(share, rel=1e-6)
    assert Method(task=Rows()).backward(model, [cut(*rows(8, torch.float32), size)]).log["effective_share"] == 1
