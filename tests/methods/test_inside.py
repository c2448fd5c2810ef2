"""A model that computes in a lower precision than its parameters': differences are as wide as that one asks."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gradworks.methods import Method
from gradworks.methods._shared import inside

DATA = torch.Generator().manual_seed(0)
BATCHES = [(torch.randn(6, 4, generator=DATA), torch.randint(0, 3, (6,), generator=DATA)) for _ in range(12)]


class Net(nn.Module):
    """Two layers and a norm; what is computed in another precision comes back in the parameters' own."""

    def __init__(self, how: str = "plain"):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c, self.how = nn.Linear(4, 32), nn.Linear(32, 32), nn.Linear(32, 3), how

    def forward(self, x):
        if self.how == "autocast inside":
            with torch.autocast("cpu", torch.bfloat16):
                return self.run(x).to(x.dtype)
        return self.run(x)

    def run(self, x):
        h = torch.tanh(self.a(x))
        inner = h.float() if self.how == "norm in float32" else h  # as Llama's, whatever the parameters are
        h = (inner * torch.rsqrt(inner.square().mean(-1, keepdim=True) + 1e-6)).to(h.dtype)
        return self.c(torch.tanh(self.b(h)))


def loss_of(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1], reduction="none")


def batches(dtype):
    return [(x.to(dtype), y) for x, y in BATCHES]


def step(model, dtype, steps=1, **slots):
    method = Method(outputs=lambda m, b: m(b[0]), loss=lambda z, b: F.cross_entropy(z, b[1], reduction="none"), **slots)
    data = batches(dtype)
    for (group, clean), _ in zip(method.groups(data, data), range(steps), strict=False):
        report = method.backward(model, group, clean)
    return torch.cat([p.grad.flatten() for p in model.parameters()]).double(), report, method


def gradient(model, batch, graph=False):
    return torch.autograd.grad(loss_of(model, batch).mean(), list(model.parameters()), create_graph=graph)


def flat(tensors):
    return torch.cat([t.detach().flatten() for t in tensors])


def dotprod(weight):
    """Oracle: (G1 + G2 - w H2 G1) / 2 by double backward in float64."""
    model, (one, two) = Net().double(), batches(torch.float64)[:2]
    g1, g2 = gradient(model, one), gradient(model, two, graph=True)
    hg = torch.autograd.grad(g2, list(model.parameters()), grad_outputs=g1)
    return (flat(g1) + flat(g2) - weight * flat(hg)) / 2


def scores():
    """Oracle: <clean gradient, gradient of example i>, one by one in float64."""
    model, batch = Net().double(), batches(torch.float64)[0]
    clean = flat(gradient(model, batch))  # the first clean batch is the same
    losses = loss_of(model, batch)
    each = [flat(torch.autograd.grad(l, list(model.parameters()), retain_graph=True)) for l in losses]
    return torch.stack([clean @ g for g in each])


KINDS = [("autocast inside", torch.float32, 0.03), ("norm in float32", torch.float64, 1e-3)]


@pytest.mark.parametrize("form", ["central", "one_sided"])
@pytest.mark.parametrize(("how", "dtype", "most"), KINDS)
def test_the_term_of_dotprod(how, dtype, most, form):
    expected, plain = dotprod(0.5), dotprod(0.0)
    assert (expected - plain).norm() > 0.2 * plain.norm()
    update = {"dotprod": {"weight": 0.5, "limit": None, "form": form}}
    found, report, _ = step(Net(how).to(dtype), dtype, update=update)
    most *= 4 if form == "one_sided" else 1  # to first order in the distance
    assert (found - expected).norm() < most * expected.norm() and report.log["finite"] == 1


@pytest.mark.parametrize("backend", ["logit_fd", "ghost"])
@pytest.mark.parametrize(("how", "dtype", "most"), KINDS)
def test_scores_of_reweight(how, dtype, most, backend):
    expected = scores().clamp_min(0)
    assert (expected > 0).sum() > 0 and expected.max() < 0.9 * expected.sum()
    _, report, _ = step(Net(how).to(dtype), dtype, weighting={"reweight": {"backend": backend}})
    weights = report.sums[0][0].weights.double()
    weights, expected = weights / weights.sum(), expected / expected.sum()
    assert (weights - expected).norm() < most * expected.norm()


def test_what_was_seen_is_part_of_the_state_and_of_one_step_only():
    _, _, method = step(Net("autocast inside"), torch.float32, update="dotprod")
    assert method._replay.lowest is torch.bfloat16 and inside.lowest() is None
    other = Method(update="dotprod", outputs=lambda m, b: m(b[0]), loss=lambda z, b: z.sum(1))
    other.load_state_dict(method.state_dict())
    assert other._replay.lowest is torch.bfloat16
    assert step(Net(), torch.float32, update="dotprod")[2]._replay.lowest is torch.float32


def test_ranks_take_the_coarsest_of_all():
    def total(tensors):  # another rank saw bf16
        tensors[0][inside._KINDS.index(torch.bfloat16)] += 1

    assert inside.shared(torch.float32, total, torch.zeros(())) is torch.bfloat16
    assert inside.shared(None, lambda _: None, torch.zeros(())) is None
