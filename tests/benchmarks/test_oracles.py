"""The benchmark's own oracles against brute force: one backward per example, differences of float64 gradients."""

from __future__ import annotations

import pytest
import torch

from benchmarks import models, oracles
from benchmarks.errors import errors
from benchmarks.plain import Case
from benchmarks.rows import ROWS

TASK = models.Classification()
KINDS = ("bert-2x128", "gru", "bow")


@pytest.fixture(params=KINDS)
def toy(request):
    sizes = models.MODELS[request.param].small
    model = sizes.build(attention="eager").double()
    return model, [models.batch(sizes, n, seed, length=6) for n, seed in ((5, 1), (4, 2))]


def gradient(model, losses):
    return torch.autograd.grad(losses, list(model.parameters()), retain_graph=True)


def inner(a, b):
    return float(sum((x * y).sum() for x, y in zip(a, b, strict=True)))


def test_scores_are_inner_products(toy):
    model, (train, clean) = toy
    with oracles.masks(3, "clean", 7):
        direction = gradient(model, TASK.loss(TASK.outputs(model, clean), clean).mean())
    with oracles.masks(3, "train", 7):
        losses = TASK.loss(TASK.outputs(model, train), train)
    expected = torch.tensor([inner(direction, gradient(model, one)) for one in losses], dtype=torch.float64)
    found = oracles.scores(model, TASK, train, clean, 7, seed=3)
    assert torch.allclose(found, expected, rtol=1e-10, atol=1e-14)


def mean_gradient(model, batch, index):
    with oracles.masks(0, "train", index):
        return gradient(model, TASK.loss(TASK.outputs(model, batch), batch).mean())


def test_the_second_term_is_a_derivative_of_the_gradient(toy):
    model, (first, second) = toy
    both, product = oracles.second_term(model, TASK, first, second, 4)
    g1, g2 = mean_gradient(model, first, 4), mean_gradient(model, second, 5)
    assert oracles.relative(both, [a + b for a, b in zip(g1, g2, strict=True)]) < 1e-14
    step, ends = 1e-5, []
    for sign in (1, -1):
        with torch.no_grad():
            for p, g in zip(model.parameters(), g1, strict=True):
                p.add_(g, alpha=sign * step)
        ends.append(mean_gradient(model, second, 5))
        with torch.no_grad():
            for p, g in zip(model.parameters(), g1, strict=True):
                p.sub_(g, alpha=sign * step)
    difference = [(a - b) / (2 * step) for a, b in zip(*ends, strict=True)]
    assert oracles.relative(difference, product) < 1e-6


def test_the_smooth_gradient_is_that_of_its_three_parts(toy):
    model, (train, _) = toy
    delta = 0.1 * torch.randn_like(model.embed(train.inputs))
    taught = (torch.randn(5, 3, dtype=torch.float64),)
    found = oracles.smooth_gradient(model, TASK, train, delta.detach(), taught, 2)
    g = gradient_by_differences(model, train, delta.detach(), taught, found)
    assert g == pytest.approx(inner(found, found), rel=1e-5)


def gradient_by_differences(model, train, delta, taught, direction, step=1e-6):
    """Directional derivative of the objective along `direction`."""
    values = []
    for sign in (1, -2):  # to the one side, then to the other
        with torch.no_grad():
            for p, d in zip(model.parameters(), direction, strict=True):
                p.add_(d, alpha=sign * step)
            with oracles.masks(0, "train", 2):
                z = TASK.outputs(model, train)
            with oracles.masks(0, "train", 2):
                moved = TASK.outputs(model, train, model.embed(train.inputs) + delta)
            total = TASK.loss(z, train) + TASK.divergence(moved, z) + TASK.divergence(z, taught)
            values.append(float(total.mean()))
    return (values[0] - values[1]) / (2 * step)


def test_masks_do_not_depend_on_precision_or_attention():
    sizes = models.MODELS["bert-2x128"].small
    single, double = sizes.build(), sizes.build(attention="eager").double()
    double.load_state_dict(single.state_dict())
    one = models.batch(sizes, 4, 1, length=6)
    found = []
    for model, index in ((single, 1), (double, 1), (double, 2)):
        with oracles.masks(0, "train", index):
            found.append(TASK.outputs(model, one)[0].detach().double())
    assert (found[0] - found[1]).abs().max() < 1e-6
    assert (found[2] - found[1]).abs().max() > 1e-3


def test_relative_errors():
    a, b = torch.tensor([3.0, 4.0]), torch.tensor([3.0, 4.5])
    assert oracles.relative([b], [a]) == pytest.approx(0.1)
    assert oracles.up_to_scale(7 * a, a) == pytest.approx(0, abs=1e-12)
    assert oracles.up_to_scale(-a, a) == 1.0  # a factor must be positive
    assert oracles.up_to_scale(torch.zeros(2), a) == 1.0
    assert oracles.signs_agree(torch.tensor([1.0, -1.0, 2.0, 0.0]), torch.tensor([2.0, 1.0, 1.0, -1.0])) == 0.75


@pytest.mark.parametrize(
    ("method", "backend", "fraction", "most"),
    [
        ("reweight", "logit_fd", 0.25, 1e-2),
        ("dotprod", "central", None, 1e-2),
        ("dotprod", "exact", None, 1e-4),
        ("smart", "vjp", None, 1e-4),
        ("smart", "noise", None, 1e-4),
    ],
)
def test_methods_against_the_oracles_on_a_small_model(monkeypatch, method, backend, fraction, most):
    for name in KINDS:
        monkeypatch.setitem(models.MODELS, name, models.MODELS[name].small)
    row = next(r for r in ROWS if (r.method, r.backend) == (method, backend))
    found = errors(Case(row, "bow", fraction), 0)
    assert 0 < found["error"] < most
    assert found["judged"] >= 1
