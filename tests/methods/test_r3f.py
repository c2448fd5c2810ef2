"""R3F against an oracle in float64, its limits and its cost, on every kind of head."""

import hashlib
import math

import pytest
import torch

from gradworks.methods import Method
from gradworks.methods._shared.masks import Masks
from tests.methods.toys import KINDS, TASKS, Kind, Net, batch, build, draw, error, gradients, masks, same, split

SEED = 3


def make(update="erm", **options):
    return Method({"r3f": options}, "uniform", update, tasks=TASKS, seed=SEED)


def noise(e, ids):
    """N(0, 1) of one example's shape for each id, as the documented key says."""
    shape = (e.shape[0] // len(ids), *e.shape[1:])
    keys = [hashlib.blake2b(f"{SEED}/noise/0/{i}".encode(), digest_size=8).digest() for i in ids]
    seeds = [int.from_bytes(k, "big") >> 1 for k in keys]
    return torch.cat([torch.randn(shape, generator=torch.Generator().manual_seed(s)) for s in seeds]).double()


def oracle(kind, model, parts, smoothness, epsilon, relative, distribution):
    task, total, mass = TASKS[kind], 0.0, 0.0
    for micro, b in enumerate(parts):
        e = task.embed(model, b)
        u = noise(e, b.ids)
        if distribution == "uniform":
            u = u.apply_(lambda x: math.erf(x / math.sqrt(2)))
        size = e.detach().square().mean(-1, keepdim=True).sqrt() if relative else 1.0
        with masks(SEED, "train", 0, micro):
            z = task.outputs(model, b)
        with masks(SEED, "train", 0, micro):
            moved = task.outputs(model, b, e + epsilon * size * u)
        losses = task.loss(z, b) + smoothness * task.divergence(z, moved)
        total, mass = total + (b.mass * losses).sum(), mass + b.mass.sum()
    return total / mass


CASES = [(kind, True, "uniform") for kind in KINDS] + [("three", False, "normal"), ("choice", True, "normal")]


@pytest.mark.parametrize(("kind", "relative", "distribution"), CASES)
def test_a_step_agrees_with_the_oracle(kind, relative, distribution):
    model, parts = build(Net), split(batch(kind), 3)
    options = {"smoothness": 1.7, "epsilon": 0.5, "relative": relative, "distribution": distribution}
    make(**options).backward(model, [parts])
    expected = torch.autograd.grad(oracle(kind, model, parts, **options), list(model.parameters()), allow_unused=True)
    assert error(gradients(model), expected) < 1e-7  # noise is drawn in single precision


def test_pinned_values():
    """From the oracle, the defaults on the toy batch."""
    log = make().backward(build(Net), draw(1)[0]).log
    found = [log[name] for name in ("loss", "smoothness", "smoothness_share", "gradient_norm")]
    assert found == pytest.approx(PINNED, rel=1e-5)


PINNED = [1.08696445514, 0.000119546727544, 0.00120694473, 0.68178397077]


def test_without_the_term_it_is_supervised_bit_for_bit_and_asks_a_task_for_nothing():
    class Bare:
        outputs, loss, name, _rows = Kind.outputs, Kind.loss, "three", Kind._rows

    one, two = build(Net), build(Net)
    method = Method({"r3f": {"smoothness": 0}}, task=Bare(), seed=SEED)
    assert method.backward(one, draw(1)[0]).passes == 1 and not method.objective.holds
    Method(tasks=TASKS, seed=SEED).backward(two, draw(1)[0])
    assert same(gradients(one), gradients(two))


@pytest.mark.parametrize("kind", KINDS)
def test_smoothness_tends_to_zero_with_epsilon_dropout_on(kind):
    found = [make(epsilon=x).backward(build(Net), draw(1, kind)[0]).log["smoothness"] for x in (1e-4, 1e-3)]
    assert 0 < found[0] < 1e-7 and found[1] / found[0] == pytest.approx(100, rel=0.02)


@pytest.mark.parametrize("distribution", ["uniform", "normal"])
def test_noise_has_the_scale_of_its_distribution_and_follows_the_example(distribution):
    objective = make(epsilon=0.1, distribution=distribution).objective
    model, task, b = build(Net), TASKS["three"], batch(n=64)

    def delta(one):
        held = {"log": {}}
        objective.outputs(task, model, one, Masks(SEED, "train", 0, 0), held)
        return held["delta"]

    found = delta(b)
    unit = found / task.embed(model, b).detach().square().mean(-1, keepdim=True).sqrt()
    assert float(unit.std()) == pytest.approx(0.1 / (3**0.5 if distribution == "uniform" else 1), rel=0.05)
    assert (float(unit.abs().max()) <= 0.1) is (distribution == "uniform")
    assert torch.equal(torch.cat([delta(part) for part in split(b, 16)]), found)
    assert not found.requires_grad


def test_it_costs_two_passes_and_holds_its_noise():
    model, method = build(Net), make()
    assert method.objective.holds
    method.backward(model, draw(1)[0])  # the share is measured in the first step
    assert method.backward(model, draw(1, seed=200)[0]).passes == pytest.approx(2)
    found = []
    for form in (None, "exact"):
        model = build(Net)
        update = {"dotprod": {"form": form, "weight": 5.0}}  # so much that noise made anew would be seen
        make(update, smoothness=100.0).backward(model, draw(2)[0])
        found.append(gradients(model))
    assert error(*found) < 1e-6


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"distribution": "laplace"}, "distribution: found 'laplace', expected one of uniform, normal"),
        ({"epsilon": -1}, "epsilon: found -1"),
        ({"smoothness": "1"}, "smoothness: found '1'"),
        ({"relative": 1}, "relative: found 1, expected true or false"),
    ],
)
def test_refusals(options, words):
    with pytest.raises(ValueError, match=r"^objective r3f: ") as caught:
        make(**options)
    assert words in str(caught.value)
