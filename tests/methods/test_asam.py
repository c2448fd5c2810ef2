"""`asam` against its two passes written out: theta + rho * T^2 g / |T g| with T = |theta| + eta."""

import pytest
import torch

from gradworks.methods import Method
from tests.methods.test_dotprod import ByLoss, check_no_direction
from tests.methods.test_reptile import gradient_at, group, start, step, weights_at
from tests.methods.toys import TASKS, Net, build, error, flat, same

RHO, ETA = 0.7, 0.05
UPDATE = {"asam": {"rho": RHO, "eta": ETA}}


def oracle(model, b, by_loss=False):
    theta = start(model)
    weights = weights_at(model, theta, b, 0) if by_loss else None
    g = gradient_at(model, theta, b, 0, weights)
    scale = [t.abs() + ETA for t in theta.values()]
    size = flat([s * x for s, x in zip(scale, g, strict=True)]).norm()
    there = {
        n: t + RHO * s.square() * x / size for (n, t), s, x in zip(theta.items(), scale, g, strict=True)
    }  # fmt: skip
    return g, gradient_at(model, there, b, 0, weights)


@pytest.mark.parametrize("kind", ["three", "reg", "seq"])
def test_it_is_the_gradient_uphill_in_the_scaled_ball(kind):
    model, (b,) = build(Net), group(kind, 1)
    plain, expected = oracle(model, b)
    report, found = step(UPDATE, model, [b])
    assert error(found, expected) < 1e-12
    assert error(plain, expected) > 1e-2
    assert report.passes == pytest.approx(2)
    assert report.log["plain_norm"] == pytest.approx(float(flat(plain).norm()))


def test_without_radius_it_is_erm():
    assert same(step({"asam": {"rho": 0}}, build(Net), group(k=1))[1], step("erm", build(Net), group(k=1))[1])


def test_the_point_does_not_depend_on_the_scale_of_two_layers_that_follow_each_other():
    """What it is named for: (c * W, V / c) is the same function, and is moved to the same function."""

    class Linear(torch.nn.Module):
        def __init__(self, c):
            super().__init__()
            torch.manual_seed(0)
            self.first = torch.nn.Parameter(c * torch.randn(30, 8, dtype=torch.float64))
            self.second = torch.nn.Parameter(torch.randn(8, 3, dtype=torch.float64) / c)

        def forward(self, ids, kind):
            return self.first[ids].mean(1) @ self.second

    (b,) = group(k=1)
    found = []
    for c in (1.0, 5.0):
        first, second = step({"asam": {"rho": 0.5, "eta": 0.0}}, Linear(c), [b])[1]
        found.append([c * first, second / c])
    assert error(*found) < 1e-12


def test_the_second_pass_holds_weights_and_masks():
    model, (b,) = build(Net), group(k=1)
    assert error(step(UPDATE, model, [b], ByLoss())[1], oracle(model, b, by_loss=True)[1]) < 1e-12


def test_no_direction():
    check_no_direction("asam")


def test_a_zero_operator_leaves_the_plain_gradient():
    model = build(Net)
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    found = step({"asam": {"rho": RHO, "eta": 0.0}}, model, group(k=1))[1]
    assert same(found, step("erm", model, group(k=1))[1])
    assert flat(found).norm() > 0


def test_options():
    for name in ("rho", "eta"):
        with pytest.raises(ValueError, match=f"{name}: found -1, expected a number of at least 0"):
            Method(update={"asam": {name: -1}}, tasks=TASKS)


def test_pinned():
    """Norm, and product with the plain gradient, from the oracle."""
    model, (b,) = build(Net), group(k=1)
    plain, expected = oracle(model, b)
    for made in (expected, step(UPDATE, model, [b])[1]):
        assert [float(flat(made).norm()), float(flat(made) @ flat(plain))] == pytest.approx(PINNED, rel=1e-6)


PINNED = [0.8023021762, 0.5348299995]
