"""`sam` against its two passes written out: the gradient at theta + rho * g / |g|, weights and masks held."""

import pytest

from gradworks.methods import Method
from tests.methods.test_dotprod import SEED, ByLoss, check_no_direction
from tests.methods.test_reptile import gradient_at, group, start, step, weights_at
from tests.methods.toys import TASKS, Net, batch, build, error, flat, same, split

RHO = 0.4


def oracle(model, b, by_loss=False, rho=RHO):
    theta = start(model)
    weights = weights_at(model, theta, b, 0) if by_loss else None
    g = gradient_at(model, theta, b, 0, weights)
    size = flat(g).norm()
    there = {n: t + rho / size * x for (n, t), x in zip(theta.items(), g, strict=True)}
    return g, gradient_at(model, there, b, 0, weights)


@pytest.mark.parametrize("kind", ["three", "reg", "seq"])
def test_it_is_the_gradient_uphill(kind):
    model, (b,) = build(Net), group(kind, 1)
    plain, expected = oracle(model, b)
    report, found = step({"sam": {"rho": RHO}}, model, [b])
    assert error(found, expected) < 1e-12
    assert error(plain, expected) > 1e-2
    assert report.passes == pytest.approx(2)
    assert report.log["plain_norm"] == pytest.approx(float(flat(plain).norm()))


def test_without_radius_it_is_erm():
    report, found = step({"sam": {"rho": 0}}, build(Net), group(k=1))
    assert same(found, step("erm", build(Net), group(k=1))[1])
    assert report.passes == pytest.approx(1)
    assert error(step({"sam": {"rho": 1e-9}}, build(Net), group(k=1))[1], found) < 1e-7


def test_the_second_pass_holds_weights_and_masks():
    model, (b,) = build(Net), group(k=1)
    expected = oracle(model, b, by_loss=True)[1]
    assert error(step({"sam": {"rho": RHO}}, model, [b], ByLoss())[1], expected) < 1e-12
    assert error(step({"sam": {"rho": RHO}}, model, [b], ByLoss(recompute=True))[1], expected) > 1e-3


def test_the_ball_is_around_the_gradient_of_all_micro_batches():
    model = build(Net).eval()
    found = []
    for parts in ([batch(n=8)], split(batch(n=8), 2)):
        Method(update={"sam": {"rho": RHO}}, tasks=TASKS, seed=SEED).backward(model, [parts])
        found.append([p.grad for p in model.parameters()])
    assert error(*found) < 1e-12


def test_no_direction():
    check_no_direction("sam")


def test_options():
    with pytest.raises(ValueError, match="rho: found -1, expected a number of at least 0"):
        Method(update={"sam": {"rho": -1}}, tasks=TASKS)


def test_pinned():
    """Norm, and product with the plain gradient, from the oracle."""
    model, (b,) = build(Net), group(k=1)
    plain, expected = oracle(model, b)
    for made in (expected, step({"sam": {"rho": RHO}}, model, [b])[1]):
        assert [float(flat(made).norm()), float(flat(made) @ flat(plain))] == pytest.approx(PINNED, rel=1e-6)


PINNED = [0.9570776770, 0.6245947993]
