"""R-Drop against an oracle in float64, its limits and its cost, on every kind of head."""

import pytest
import torch

from gradworks.methods import Method
from tests.methods.toys import KINDS, TASKS, Net, batch, build, draw, error, flat, gradients, masks, split

SEED = 3


def make(update="erm", **options):
    return Method({"rdrop": options}, "uniform", update, tasks=TASKS, seed=SEED)


def oracle(kind, model, parts, alpha):
    """Half of the paper's eq. 4 over micro-batches, its divergence being half of the sum of both KL."""
    task, total, mass = TASKS[kind], 0.0, 0.0
    for micro, b in enumerate(parts):
        passes = []
        for stream in (0, 1):
            with masks(SEED, "train", 0, micro, stream):
                passes.append(task.outputs(model, b))
        paper = sum(task.loss(z, b) for z in passes) + alpha * task.divergence(*passes) / 2
        total, mass = total + (b.mass * paper / 2).sum(), mass + b.mass.sum()
    return total / mass


@pytest.mark.parametrize("alpha", [0.0, 1.0, 5.0])
@pytest.mark.parametrize("kind", KINDS)
def test_a_step_agrees_with_the_oracle(kind, alpha):
    model, parts = build(Net), split(batch(kind), 3)
    make(alpha=alpha).backward(model, [parts])
    expected = torch.autograd.grad(oracle(kind, model, parts, alpha), list(model.parameters()), allow_unused=True)
    assert error(gradients(model), expected) < 1e-13


def test_pinned_values():
    """From the oracle, alpha 1 on the toy batch."""
    log = make().backward(build(Net), draw(1)[0]).log
    found = [log[name] for name in ("loss", "consistency", "consistency_share", "gradient_norm")]
    assert found == pytest.approx(PINNED, rel=1e-5)


PINNED = [1.09090216179, 0.01061524764, 0.02005091259, 0.6931925295]


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_without_dropout_it_is_supervised(alpha):
    one, two = build(Net).eval(), build(Net).eval()
    log = make(alpha=alpha).backward(one, draw(1)[0]).log
    Method(tasks=TASKS, seed=SEED).backward(two, draw(1)[0])
    assert error(gradients(one), gradients(two)) < 1e-14
    assert log.get("consistency", 0) == 0 and ("consistency" in log) is (alpha > 0)


def test_it_costs_two_passes():
    model, method = build(Net), make()
    method.backward(model, draw(1)[0])  # the share is measured in the first step
    report = method.backward(model, draw(1, seed=200)[0])
    assert report.passes == pytest.approx(2) and "consistency_share" not in report.log


def test_steps_are_counted_in_the_state():
    method, model = make(), build(Net)
    for _ in range(3):
        log = method.backward(model, draw(1)[0]).log
    assert method.state_dict()["objective"] == {"steps": 3} and "consistency_share" in log
    other = make()
    other.load_state_dict(method.state_dict())
    assert "consistency_share" not in other.backward(model, draw(1)[0]).log


def test_refusals():
    class Bare:
        def outputs(self, model, batch): ...

        def loss(self, outputs, batch): ...

    with pytest.raises(ValueError, match=r"objective rdrop: needs divergence\(...\) of a task, and Bare does not"):
        Method("rdrop", task=Bare())
    with pytest.raises(ValueError, match=r"objective rdrop: alpha: found -1, expected a number of at least 0"):
        make(alpha=-1)


def test_dotprod_differences_one_function():
    found = []
    for form in ("central", "exact"):
        model = build(Net)
        Method("rdrop", "uniform", {"dotprod": {"form": form}}, tasks=TASKS, seed=SEED).backward(model, draw(2)[0])
        found.append(gradients(model))
    assert error(*found) < 1e-6 and float(flat(found[0]).norm()) > 0
