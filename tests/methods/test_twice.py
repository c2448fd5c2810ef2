"""Exact forms on weight normalisation, whose fused operation torch differentiates wrong the second time."""

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from gradworks.methods import Method
from tests.methods.toys import error

OLD, NEW = nn.utils.weight_norm, nn.utils.parametrizations.weight_norm
KINDS = pytest.mark.parametrize("norm", [OLD, NEW], ids=["old", "new"])
FORMS = [(norm, dim) for norm in (OLD, NEW) for dim in (0, 1, None)]
EXACT = [
    {"update": {"dotprod": {"form": "exact", "weight": 3.0, "limit": None}}},
    {"update": {"grad_norm_penalty": {"form": "exact", "weight": 3.0}}},
    {"update": {"maml": {"batches": 2, "inner_lr": 0.5}}},
]


class Written(nn.Module):
    """g * v / |v| written out; parameters in the order of the library's."""

    def __init__(self, linear, dim):
        super().__init__()
        self.bias, self.dim = nn.Parameter(linear.bias.detach().clone()), dim
        weight = linear.weight.detach()
        self.g, self.v = nn.Parameter(self.size(weight)), nn.Parameter(weight.clone())

    def size(self, v):
        return v.square().sum().sqrt() if self.dim is None else v.square().sum(1 - self.dim, keepdim=True).sqrt()

    def forward(self, x):
        return F.linear(x, self.g * self.v / self.size(self.v), self.bias)


def layers(seed=0):
    torch.manual_seed(seed)
    return [nn.Linear(4, 6).double(), nn.Linear(6, 3).double()]


def net(norm, dim):
    a, b = (norm(layer, dim=dim) for layer in layers())
    return nn.Sequential(a, nn.Tanh(), b)


def written(dim):
    a, b = (Written(layer, dim) for layer in layers())
    return nn.Sequential(a, nn.Tanh(), b)


def outputs(model, batch):
    return model(batch[0])


def loss(z, batch):
    return F.cross_entropy(z, batch[1], reduction="none")


def data(count=4):
    g = torch.Generator().manual_seed(1)
    return [
        (torch.randn(6, 4, generator=g, dtype=torch.float64), torch.randint(0, 3, (6,), generator=g))
        for _ in range(count)
    ]


def step(model, **slots):
    method = Method(outputs=outputs, loss=loss, **slots)
    batches, clean = next(method.groups(data(), data()))
    report = method.backward(model, batches, clean)
    return [p.grad.reshape(-1) for p in model.parameters()], report


def oracle(dim, slots):
    """Double backward through the written model."""
    model, (first, second, *_) = written(dim), data()
    names, theta = zip(*model.named_parameters(), strict=True)

    def mean(at, batch):
        return loss(functional_call(model, dict(zip(names, at, strict=True)), (batch[0],)), batch).mean()

    def grad(value, at, **more):
        return torch.autograd.grad(value, at, **more)

    ((name, options),) = slots["update"].items()
    g = grad(mean(theta, first), theta, create_graph=True)
    if name == "maml":
        return grad(mean([t - options["inner_lr"] * one for t, one in zip(theta, g, strict=True)], second), theta)
    if name == "grad_norm_penalty":
        h = grad(g, theta, grad_outputs=[t.detach() for t in g])
        return [a.detach() + options["weight"] * b for a, b in zip(g, h, strict=True)]
    other = grad(mean(theta, second), theta, create_graph=True)
    h = grad(other, theta, grad_outputs=[t.detach() for t in g])
    return [(a + b).detach() / 2 - options["weight"] / 2 * c for a, b, c in zip(g, other, h, strict=True)]


@pytest.mark.filterwarnings("ignore:.*weight_norm.*")
@pytest.mark.parametrize(("norm", "dim"), FORMS)
@pytest.mark.parametrize("slots", EXACT, ids=lambda s: next(iter(s["update"])))
def test_exact_forms_agree_with_the_norm_written_out(norm, dim, slots):
    found, _ = step(net(norm, dim), **slots)
    assert error(found, [t.reshape(-1) for t in oracle(dim, slots)]) < 1e-12


@pytest.mark.filterwarnings("ignore:.*weight_norm.*")
@pytest.mark.parametrize(("norm", "dim"), FORMS)
def test_scores_by_double_backward_are_products_of_gradients(norm, dim):
    model, (b, *_) = written(dim), data()
    theta = list(model.parameters())
    clean = torch.autograd.grad(loss(outputs(model, b), b).mean(), theta)
    losses = loss(outputs(model, b), b)
    each = [torch.autograd.grad(one, theta, retain_graph=True) for one in losses]
    expected = torch.stack([sum((x * y).sum() for x, y in zip(clean, g, strict=True)) for g in each])
    _, report = step(net(norm, dim), weighting={"reweight": {"backend": "second_order"}})
    torch.testing.assert_close(report.sums[0][0].score, expected)
