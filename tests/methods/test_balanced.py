"""`uncertainty` and `famo` against their papers written out over several steps; `joint` against `erm`."""

import copy
import math

import pytest
import torch

from gradworks.methods import Method
from tests.methods.test_conflicts import K, mixed
from tests.methods.test_dotprod import SEED, filled, mean_loss
from tests.methods.test_reptile import start, step
from tests.methods.toys import TASKS, Net, batch, build, draw, error

MIXED = ("three", "reg", "seq")
STEPS = 4


def path(change, rate=0.3):
    """(model, batches of each step, expected gradient of each step) along plain descent by what `change` makes.

    `change`: list of () losses with a graph, for every step in turn -> () whose gradient the step is.
    """
    model, expected, every = build(Net, seed=5), [], []
    theta = start(model)
    for number in range(STEPS):
        batches = [batch(kind, seed=50 * number + i) for i, kind in enumerate(MIXED)]
        here = {name: t.detach().requires_grad_() for name, t in theta.items()}
        losses = [mean_loss(model, here, b, K * number + i, None) for i, b in enumerate(batches)]
        made = torch.autograd.grad(change(losses), list(here.values()), materialize_grads=True)
        theta = {n: (t - rate * g).detach() for (n, t), g in zip(here.items(), made, strict=True)}
        expected.append(made)
        every.append(batches)
    return model, every, expected


def uncertainty(rate):
    """Both the parameters' and s's gradients by autograd, of the paper's objective over k."""
    s = torch.zeros(K, dtype=torch.float64, requires_grad=True)

    def change(losses):
        total = sum((-x).exp() * loss for x, loss in zip(s, losses, strict=True))
        (slope,) = torch.autograd.grad((total + s.sum() / 2), s, retain_graph=True)
        held = total.detach() * 0 + sum((-x).exp().item() * loss for x, loss in zip(s, losses, strict=True)) / K
        with torch.no_grad():
            s.sub_(rate * slope)
        return held

    return change


def famo(rate, decay):
    """Algorithm 1, its Jacobian by autograd."""
    xi, before = torch.zeros(K, dtype=torch.float64), []

    def change(losses):
        nonlocal xi
        logs = torch.stack([(loss.detach() + 1e-8).log() for loss in losses])
        if before:
            at = xi.clone().requires_grad_()
            (slope,) = torch.autograd.grad(torch.softmax(at, 0), at, before[-1] - logs)
            xi = xi - rate * (slope + decay * xi)
        before.append(logs)
        c = 1 / (torch.softmax(xi, 0) / logs.exp()).sum()
        return c * sum(z / (loss.detach() + 1e-8) * loss for z, loss in zip(torch.softmax(xi, 0), losses, strict=True))

    return change


CASES = [
    ({"uncertainty": {"rate": 0.2}}, uncertainty(0.2)),
    ({"famo": {"rate": 5.0, "decay": 0.1}}, famo(5.0, 0.1)),
]


@pytest.mark.parametrize(("update", "change"), CASES, ids=["uncertainty", "famo"])
def test_it_is_the_paper_over_several_steps_and_goes_on_after_a_resume(update, change):
    ((name, options),) = update.items()
    model, every, expected = path(change)
    method = Method(update={name: options | {"batches": K}}, tasks=TASKS, seed=SEED)
    shares = []
    for number, (batches, one) in enumerate(zip(every, expected, strict=True)):
        if number == 2:
            saved = copy.deepcopy(method.state_dict())
            method = Method(update={name: options | {"batches": K}}, tasks=TASKS, seed=SEED)
            method.load_state_dict(saved)
        report = method.backward(model, [[b] for b in batches])
        assert error(filled(model), one) < 1e-9
        assert report.passes == pytest.approx(K)
        shares.append([report.log[f"share_{kind}_{i}"] for i, kind in enumerate(MIXED)])
        with torch.no_grad():
            for p, g in zip(model.parameters(), one, strict=True):
                p.sub_(0.3 * g)
    assert len({tuple(round(s, 4) for s in one) for one in shares}) == STEPS  # weights move
    if name == "famo":
        assert [sum(one) for one in shares] == pytest.approx([1.0] * STEPS)


@pytest.mark.parametrize("update", [{"uncertainty": {"rate": 0, "batches": K}}, {"joint": {"batches": K}}], ids=str)
def test_weights_that_stay_equal_are_erm(update):
    batches, _ = mixed(build(Net, seed=5))
    expected = step({"erm": {"batches": K}}, build(Net, seed=5), batches)[1]
    assert error(step(update, build(Net, seed=5), batches)[1], expected) < 1e-12


def test_a_variance_settles_where_each_task_has_the_same_share():
    update = Method(update={"uncertainty": {"rate": 0.1, "batches": 2}}, tasks=TASKS).update
    for _ in range(400):
        shares = update.shares({"a": 4.0, "b": 0.25})
    assert [2 * shares["a"] * 4.0, 2 * shares["b"] * 0.25] == pytest.approx([0.5, 0.5], rel=1e-3)


def test_a_task_whose_loss_falls_less_gets_more_weight():
    update = Method(update={"famo": {"rate": 1.0, "batches": 2}}, tasks=TASKS).update
    first = update.shares({"a": 1.0, "b": 1.0})
    assert first == {"a": 0.5, "b": 0.5}
    second = update.shares({"a": 0.5, "b": 1.0})
    z = {name: second[name] * loss for name, loss in (("a", 0.5), ("b", 1.0))}
    assert z["b"] > z["a"]


@pytest.mark.parametrize("name", ["uncertainty", "famo"])
def test_a_task_without_a_loss_teaches_nothing_and_a_negative_one_is_refused(name):
    update = Method(update={name: {"batches": 2}}, tasks=TASKS).update
    for losses in ({"a": 1.0, "b": 2.0}, {"a": math.nan, "b": 1.5}, {"a": 0.8, "b": 0.0}):
        assert all(map(math.isfinite, update.shares(losses).values()))
    if name == "famo":
        with pytest.raises(ValueError, match=r"found a loss of -0\.5 in task 'b'\nexpected 0 or more"):
            update.shares({"a": 1.0, "b": -0.5})


@pytest.mark.parametrize("name", ["uncertainty", "famo", "joint"])
def test_micro_batches_are_the_batch_and_one_task_alone_is_plain(name):
    model, found = build(Net).eval(), []
    for micro in (None, 3):
        method = Method(update={name: {"batches": 4}}, tasks=TASKS)
        for _ in range(2):
            method.backward(model, *draw(4, micro=micro))
        found.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    assert error(*found) < 1e-12
    one = [batch(seed=3)]
    plain = step("erm", build(Net), one)[1]
    assert error(step({name: {"batches": 1}}, build(Net), one)[1], plain) == 0
