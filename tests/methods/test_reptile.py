"""`reptile` against k explicit steps of gradient descent: (theta_0 - theta_k) / (inner_lr * k)."""

import pytest
import torch

from gradworks.methods import Method
from tests.methods.test_dotprod import SEED, ByLoss, check_no_direction, filled, mean_loss
from tests.methods.toys import TASKS, Net, batch, build, error, flat, gradients, masks, same

RATE, K = 0.3, 4


def gradient_at(model, theta, b, number, weights=None):
    theta = {n: t.detach().requires_grad_() for n, t in theta.items()}
    loss = mean_loss(model, theta, b, number, weights)
    return torch.autograd.grad(loss, list(theta.values()), materialize_grads=True)


def start(model):
    return {n: p.detach().clone() for n, p in model.named_parameters()}


def weights_at(model, theta, b, number):
    """The losses there, as ByLoss weighs."""
    with torch.no_grad(), masks(SEED, "train", number):
        out = torch.func.functional_call(model, theta, (b.inputs, b.task))
        return TASKS[b.task].loss((out,), b)


def path(model, batches, rate=RATE, by_loss=False):
    """The gradients along the inner steps, and the points at which they were taken, the end included."""
    at, seen, points = start(model), [], []
    for number, b in enumerate(batches):
        points.append(at)
        seen.append(gradient_at(model, at, b, number, weights_at(model, at, b, number) if by_loss else None))
        at = {n: t - rate * g for (n, t), g in zip(at.items(), seen[-1], strict=True)}
    return seen, [*points, at]


def step(update, model, batches, weighting="uniform"):
    method = Method(weighting=weighting, update=update, tasks=TASKS, seed=SEED)
    return method.backward(model, [[b] for b in batches]), filled(model)


def group(kind="three", k=K):
    return [batch(kind, seed=100 + i) for i in range(k)]


def update(**options):
    return {"reptile": {"batches": K, "inner_lr": RATE, **options}}


@pytest.mark.parametrize("kind", ["three", "span", "seq"])
def test_it_is_the_displacement_over_k_inner_steps(kind):
    model, batches = build(Net), group(kind)
    _, points = path(model, batches)
    expected = [(a - b) / (RATE * K) for a, b in zip(points[0].values(), points[-1].values(), strict=True)]
    assert error(step(update(), model, batches)[1], expected) < 1e-12


@pytest.mark.parametrize("rate", [0.0, 1e-9])
def test_without_inner_rate_it_is_erm_on_the_same_batches(rate):
    expected = step({"erm": {"batches": K}}, build(Net), group())[1]
    assert error(step(update(inner_lr=rate), build(Net), group())[1], expected) < 1e-8


def test_one_batch_is_erm():
    assert same(step(update(batches=1), build(Net), group(k=1))[1], step("erm", build(Net), group(k=1))[1])


def test_inner_steps_weigh_at_the_moved_parameters():
    model, batches = build(Net), group()
    seen, _ = path(model, batches, by_loss=True)
    expected = [sum(g) / K for g in zip(*seen, strict=True)]
    assert error(step(update(), model, batches, ByLoss())[1], expected) < 1e-12


def test_to_first_order_the_inner_part_is_the_published_one():
    """mean_i g_i - alpha / k * sum over i of H_i * sum over j < i of g_j (Nichol et al. 2018, section 5.1)."""
    model, batches, rate = build(Net), group(), 1e-4
    theta = {n: t.requires_grad_() for n, t in start(model).items()}
    every, before, inner = list(theta.values()), None, None
    plain = []
    for number, b in enumerate(batches):
        g = torch.autograd.grad(mean_loss(model, theta, b, number), every, create_graph=True, materialize_grads=True)
        if before is not None:
            hg = torch.autograd.grad(g, every, grad_outputs=before, materialize_grads=True)
            inner = list(hg) if inner is None else [x + y for x, y in zip(inner, hg, strict=True)]
        g = [t.detach() for t in g]
        before = g if before is None else [x + y for x, y in zip(before, g, strict=True)]
        plain.append(g)
    found = step(update(inner_lr=rate), model, batches)[1]
    made = [(f - sum(g) / K) / rate for f, *g in zip(found, *plain, strict=True)]
    assert error(made, [-h / K for h in inner]) < 1e-3


def test_log_has_the_size_of_the_inner_part_now_and_then():
    model, batches = build(Net), group()
    seen, _ = path(model, batches)
    plain = flat([sum(g) / K for g in zip(*(gradient_at(model, start(model), b, i) for i, b in enumerate(batches)),
                                          strict=True)])  # fmt: skip
    expected = (flat([sum(g) / K for g in zip(*seen, strict=True)]) - plain).norm() / plain.norm()
    method = Method(update=update(), tasks=TASKS, seed=SEED)
    first = method.backward(model, [[b] for b in batches])
    second = method.backward(model, [[b] for b in batches])
    assert first.log["inner"] == pytest.approx(float(expected), rel=1e-5)
    assert "inner" not in second.log
    assert (first.passes, second.passes) == (pytest.approx(2 * K), pytest.approx(K))


def test_measuring_the_inner_part_changes_no_gradient():
    method, model = Method(update=update(), tasks=TASKS, seed=SEED), build(Net)
    method.backward(model, [[b] for b in group()])
    with_measure = gradients(model)
    again = Method(update=update(), tasks=TASKS, seed=SEED)
    again.update.load_state_dict({"steps": 1})
    assert "inner" not in again.backward(model, [[b] for b in group()]).log
    assert same(with_measure, gradients(model))


def test_float32_keeps_its_digits_where_parameters_would_not():
    """The difference of two parameters of size 1 that moved by 1e-6 has one digit in float32."""
    wide = step(update(inner_lr=1e-6), build(Net).eval(), group())[1]
    narrow = step(update(inner_lr=1e-6), build(Net, dtype=torch.float32).eval(), group())[1]
    assert error(narrow, wide) < 1e-5


def test_no_direction():
    check_no_direction(update())


def test_options():
    method = Method(update=update(tasks="same"), tasks=TASKS)
    assert (method.batches, method.needs.tasks) == (K, "same")
    for options, words in (
        ({"inner_lr": -1}, "inner_lr: found -1, expected a number of at least 0"),
        ({"tasks": "all"}, "tasks: found 'all', expected one of any, same, different"),
        ({"batches": 0}, "batches: found 0"),
    ):
        with pytest.raises(ValueError, match=words):
            Method(update=update(**options), tasks=TASKS)


def test_pinned():
    """Norm and product with the mean gradient at theta, from the oracle."""
    model, batches = build(Net), group()
    seen, _ = path(model, batches)
    plain = [gradient_at(model, start(model), b, i) for i, b in enumerate(batches)]
    mean = flat([sum(g) / K for g in zip(*plain, strict=True)])
    for made in ([sum(g) / K for g in zip(*seen, strict=True)], step(update(), model, batches)[1]):
        assert [float(flat(made).norm()), float(flat(made) @ mean)] == pytest.approx(PINNED, rel=1e-6)


PINNED = [0.2129342564, 0.0617108025]
