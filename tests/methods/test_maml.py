"""`maml` against central differences of the last batch's loss behind explicit inner steps."""

import pytest
import torch

from gradworks.methods import Method
from tests.methods.test_dotprod import SEED, mean_loss
from tests.methods.test_reptile import RATE, K, gradient_at, group, path, start, step
from tests.methods.toys import TASKS, Net, build, error, flat, same


def update(**options):
    return {"maml": {"batches": K, "inner_lr": RATE, **options}}


def outer_loss(model, theta, batches):
    at = theta
    for number, b in enumerate(batches[:-1]):
        g = gradient_at(model, at, b, number)
        at = {n: t - RATE * x for (n, t), x in zip(at.items(), g, strict=True)}
    with torch.no_grad():
        return float(mean_loss(model, at, batches[-1], len(batches) - 1))


@pytest.mark.parametrize("kind", ["three", "seq"])
def test_directional_derivatives_of_the_outer_loss(kind):
    model, batches = build(Net), group(kind)
    found = step(update(), model, batches)[1]
    theta = start(model)
    generator = torch.Generator().manual_seed(1)
    for _ in range(4):
        u = [torch.randn(t.shape, generator=generator, dtype=t.dtype) for t in theta.values()]
        there = [
            outer_loss(model, {n: t + sign * 1e-5 * d for (n, t), d in zip(theta.items(), u, strict=True)}, batches)
            for sign in (1, -1)
        ]
        slope = (there[0] - there[1]) / 2e-5
        assert float(flat(found) @ flat(u)) == pytest.approx(slope, rel=1e-6, abs=1e-8)


def test_it_differs_from_first_order():
    model, batches = build(Net), group()
    assert error(step(update(), model, batches)[1], path(model, batches)[0][-1]) > 1e-2


def test_limits():
    model, batches = build(Net), group()
    expected = gradient_at(model, start(model), batches[-1], K - 1)
    assert error(step(update(inner_lr=0.0), model, batches)[1], expected) < 1e-13
    assert error(step(update(batches=1), build(Net), group(k=1))[1], step("erm", build(Net), group(k=1))[1]) < 1e-13


def test_it_runs_in_one_process_only():
    method = Method(update=update(), tasks=TASKS, seed=SEED, reduce=lambda tensors: None)
    with pytest.raises(ValueError, match="one process"):
        method.backward(build(Net), [[b] for b in group()])


def test_it_is_repeatable_and_has_no_state():
    assert same(step(update(), build(Net), group())[1], step(update(), build(Net), group())[1])
    assert Method(update=update(), tasks=TASKS).update.state_dict() == {}


def test_pinned():
    """Norm and sum, from the double backward of explicit inner steps."""
    model, batches = build(Net), group()
    theta = {n: t.requires_grad_() for n, t in start(model).items()}
    at = theta
    for number, b in enumerate(batches[:-1]):
        g = torch.autograd.grad(
            mean_loss(model, at, b, number), list(at.values()), create_graph=True, materialize_grads=True
        )
        at = {n: t - RATE * x for (n, t), x in zip(at.items(), g, strict=True)}
    loss = mean_loss(model, at, batches[-1], K - 1)
    expected = torch.autograd.grad(loss, list(theta.values()), materialize_grads=True)
    found = step(update(), model, batches)[1]
    assert error(found, expected) < 1e-12
    for made in (expected, found):
        assert [float(flat(made).norm()), float(flat(made).sum())] == pytest.approx(PINNED, rel=1e-6)


PINNED = [0.2844182629, 0.0109228974]
