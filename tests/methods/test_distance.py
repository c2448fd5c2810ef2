"""Distances of finite differences: kinks of small nets, a floor, and terms out of all bounds."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gradworks.methods import Method
from gradworks.methods._shared import replay
from gradworks.methods._shared.graph import jumps
from gradworks.methods.updates._shared.distance import Distance
from tests.methods.toys import flat, gradients

N, STEPS = 6, 32


class Pool(nn.Module):
    """A convolution and a maximum over three places."""

    def __init__(self):
        super().__init__()
        self.convolution, self.out = nn.Conv1d(1, 6, 2), nn.Linear(6, 3)

    def forward(self, x):
        return self.out(F.max_pool1d(self.convolution(x[:, None]), 3).flatten(1))


def mlp(act):
    return nn.Sequential(nn.Linear(4, 8), act(), nn.Linear(8, 8), act(), nn.Linear(8, 3))


NETS = {"relu": lambda: mlp(nn.ReLU), "leaky": lambda: mlp(nn.LeakyReLU), "pool": Pool}


def outputs(model, batch):
    return model(batch[0])


def loss(z, batch):
    return F.cross_entropy(z, batch[1], reduction="none")


def data(count, seed, dtype=torch.float32):
    g = torch.Generator().manual_seed(seed)
    return [(torch.randn(N, 4, generator=g).to(dtype), torch.randint(0, 3, (N,), generator=g)) for _ in range(count)]


def gradient(model, value, **more):
    return torch.autograd.grad(value, list(model.parameters()), **more)


def term(model, pair):
    """H2 G1 by double backward in float64; H1 G1 for one batch."""
    wide = copy.deepcopy(model).double()
    first, second = ((x.double(), y) for x, y in (pair[0], pair[-1]))
    g = gradient(wide, loss(outputs(wide, first), first).mean())
    other = gradient(wide, loss(outputs(wide, second), second).mean(), create_graph=True)
    return flat(gradient(wide, other, grad_outputs=g))


def errors(name, entry, seed):
    """Of the term, at each step of a training; and what was counted in passes."""
    torch.manual_seed(seed)
    model = NETS[name]()
    method = Method(update={entry[0]: {"weight": 1000.0, **entry[1]}}, outputs=outputs, loss=loss)
    plain = Method(update={"erm": {"batches": method.batches}}, outputs=outputs, loss=loss)
    optimizer = torch.optim.Adam(model.parameters(), 3e-2)
    sign = -500.0 if entry[0] == "dotprod" else 1000.0
    found, counted = [], []
    rows = data(STEPS * method.batches, seed)
    for step, (batches, _) in enumerate(method.groups(rows)):
        expected = term(model, rows[method.batches * step :][: method.batches])
        counted.append(method.backward(model, batches).passes)
        ruled = flat(gradients(model))
        plain.backward(model, batches)
        difference = (ruled - flat(gradients(model))) / sign
        found.append(float((difference - expected).norm() / expected.norm()))
        optimizer.step()
    return found, counted


DOTPROD = [("dotprod", {"limit": None, "form": form}) for form in ("central", "one_sided")]
PENALTY = ("grad_norm_penalty", {})
# seeds of each at which steps were 10 to 90 000 % off where one distance served all nets, or no side was chosen
RUNS = [
    ("pool", DOTPROD[0], 0), ("relu", DOTPROD[0], 2), ("leaky", DOTPROD[0], 0), ("pool", DOTPROD[1], 0),
    ("pool", DOTPROD[0], 103), ("pool", DOTPROD[1], 160), ("relu", PENALTY, 1),
]  # fmt: skip


@pytest.mark.parametrize(("name", "entry", "seed"), RUNS)
def test_small_nets_with_kinks_are_right_at_every_step(name, entry, seed):
    found, counted = errors(name, entry, seed)
    assert max(found) < 0.05
    usual = sorted(counted)[STEPS // 2]
    assert usual == pytest.approx(3 if entry[0] == "dotprod" else 2)  # no pass more where nothing is amiss


SMOOTH = {"tanh": nn.Tanh(), "gelu": nn.GELU(), "silu": nn.SiLU(), "softplus": nn.Softplus(), "elu": nn.ELU()}
KINKED = {
    "relu": nn.ReLU(), "in place": nn.ReLU(inplace=True), "leaky": nn.LeakyReLU(), "prelu": nn.PReLU(),
    "relu6": nn.ReLU6(), "hardtanh": nn.Hardtanh(), "abs": torch.abs, "clamp": lambda t: t.clamp(min=0),
    "max_pool1d": lambda t: F.max_pool1d(t, 2), "max": lambda t: t.max(1)[0], "amax": lambda t: t.amax(1),
    "topk": lambda t: t.topk(2, 1)[0], "maximum": lambda t: torch.maximum(t, -t),
    "encoder layer": nn.TransformerEncoderLayer(8, 2, 8),
}  # fmt: skip


@pytest.mark.parametrize("name", [*SMOOTH, *KINKED])
def test_operations_whose_derivative_jumps_are_known(name):
    x = torch.randn(2, 3, 8, requires_grad=True)
    made = (SMOOTH | KINKED)[name](x * 1)
    assert jumps(made.square().sum().log()) == (name in KINKED)
    assert not jumps(x.detach().relu().sum() * x.sum())  # not in the graph


def probe(slope):
    """A difference of this share at distance 1, linear in it."""
    return lambda distance: (torch.ones(3) * distance, slope * distance)


def test_a_distance_settles_and_keeps_to_its_floor():
    theta = [torch.full((100,), 10.0)]  # |theta| = 100
    chosen = Distance("central")
    assert chosen.choose(probe(1.0), torch.float32, theta, False, lambda: False)[0] == pytest.approx(4e-3)
    assert not chosen.lost
    for _ in range(200):
        chosen.follow(torch.float32, 0.5)  # the difference does not shrink
    floor = 2.0**-10 * 2.0**-23 * 100
    assert chosen.state_dict()["value"] == pytest.approx(floor) and chosen.lost
    again = Distance("central")
    again.load_state_dict(chosen.state_dict())
    assert again.lost and again.state_dict() == chosen.state_dict()


class Drawing(nn.Module):
    """Random numbers that no key replays: numpy's, a generator of its own, or a state that moves."""

    def __init__(self, kind):
        super().__init__()
        self.a, self.b, self.kind = nn.Linear(4, 8), nn.Linear(8, 3), kind
        self.generator, self.random = torch.Generator().manual_seed(0), np.random.default_rng(0)

    def forward(self, x):
        h = torch.tanh(self.a(x))
        if self.kind == "numpy":
            h = h * torch.from_numpy(self.random.random(h.shape) < 0.8).to(h)
        elif self.kind == "generator":
            h = h * (torch.rand(h.shape, generator=self.generator) < 0.8).to(h)
        return self.b(h)


NOT_REPLAYED = [
    {"update": "dotprod"}, {"update": {"dotprod": {"form": "one_sided", "limit": None}}},
    {"update": "grad_norm_penalty"}, {"update": {"grad_norm_penalty": {"form": "central"}}},
    {"weighting": {"reweight": {"backend": "logit_fd"}}},
]  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("kind", "slots"),
    [
        (kind, slots)
        for kind in ("numpy", "generator", "loss")
        for slots in NOT_REPLAYED
        if not (kind == "loss" and "weighting" in slots)  # logit_fd differences outputs
    ],
    ids=str,
)
def test_what_is_not_replayed_ends_in_words_and_never_in_a_large_number(kind, slots, dtype, monkeypatch):
    """Where the check of the premise does not see it, which comes now and then."""
    monkeypatch.setattr(replay.Replay, "_differs", lambda *_: "")
    torch.manual_seed(0)
    model, random = Drawing(kind).to(dtype), np.random.default_rng(0)

    def drawn(z, batch):
        return loss(z, batch) * torch.from_numpy(random.random(N)).to(z)

    method = Method(outputs=outputs, loss=drawn if kind == "loss" else loss, **slots)
    rows = data(60, 1, dtype)
    with pytest.raises(ValueError, match="not replayed") as caught:
        for batches, clean in method.groups(rows, rows):
            report = method.backward(model, batches, clean)
            assert report.log["finite"] == 0 or report.log.get("term", 0.0) < 1e4
    assert len(str(caught.value).splitlines()) <= 3


class Rough(torch.autograd.Function):
    """Its derivative is replayed bit for bit and changes by as much however little its input moves."""

    @staticmethod
    def forward(ctx, z):
        ctx.save_for_backward(z)
        return z.clone()

    @staticmethod
    def backward(ctx, g):
        (z,) = ctx.saved_tensors
        return g * (1 + z.contiguous().view(torch.int32).remainder(7) / 7)


@pytest.mark.parametrize("update", ["dotprod", "grad_norm_penalty"])
@pytest.mark.parametrize("form", ["central", "one_sided"])
def test_where_nothing_can_be_differenced_but_passes_are_replayed_the_term_is_left_out(update, form):
    """So it is at the bottom of a loss that is fitted to the last digit."""
    model = nn.Linear(4, 3)
    for p in model.parameters():
        p.data.zero_()
    model.unused = nn.Parameter(torch.full((3,), 1e3))  # outputs change with every bit of the others
    given = {"outputs": lambda m, b: Rough.apply(m(b[0])), "loss": loss}
    method = Method(update={update: {"form": form}}, **given)
    plain = Method(update={"erm": {"batches": method.batches}}, **given)
    for batches, _ in method.groups(data(12, 1)):
        log = method.backward(model, batches).log
        found = flat(gradients(model))
        plain.backward(model, batches)
        torch.testing.assert_close(found, flat(gradients(model)))
        assert log["finite"] == 1 and log["term"] == 0
        assert log["dotprod_error" if update == "dotprod" else "penalty_error"] == 1


@pytest.mark.parametrize("update", ["dotprod", "grad_norm_penalty"])
@pytest.mark.parametrize(("curvature", "finite"), [(1e3, 1.0), (1e7, 0.0)])
def test_a_term_out_of_all_bounds_is_not_finite(update, curvature, finite):
    """loss = curvature / 2 * x^2 at x = 1: the term is weight * curvature / 2 times G1 + G2, or twice that."""
    model = nn.Linear(1, 1, bias=False).double()
    model.weight.data.fill_(1.0)
    method = Method(
        update={update: {"weight": 0.1}}, outputs=lambda m, b: m(b),
        loss=lambda z, b: curvature / 2 * z[:, 0].square(),
    )  # fmt: skip
    log = method.backward(model, next(method.groups([torch.ones(4, 1, dtype=torch.float64)] * 2))[0]).log
    assert log["term"] == pytest.approx(0.1 * curvature / (2 if update == "dotprod" else 1), rel=1e-5)
    assert log["finite"] == finite
