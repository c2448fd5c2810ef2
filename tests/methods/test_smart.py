"""SMART against its oracle, its limits, its shares and its cost, on every kind of head."""

import copy

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from gradworks.methods import Method
from gradworks.methods._shared.bases import due
from gradworks.methods.objectives._shared import regularised
from gradworks.spec import Batch
from tests.kinds import classes
from tests.methods.smart_models import Masked, make
from tests.methods.smart_oracle import DEFAULTS, SEED, oracle_losses
from tests.methods.toys import (
    KINDS,
    TASKS,
    Kind,
    Net,
    batch,
    build,
    draw,
    error,
    flat,
    gradients,
    masks,
    same,
    split,
)

CASES = {
    "vjp": {},
    "noise": {"ascent": "noise"},
    "mtdnn": {"ascent": "mtdnn"},
    "paper": {"ascent": "noise", "projection": True, "relative": False, "epsilon": 0.1},
    "projected": {"projection": True, "epsilon": 0.1},
}


@pytest.mark.parametrize(
    ("kind", "case"), [*((kind, "vjp") for kind in KINDS), *((kind, c) for kind in ("three", "choice") for c in CASES)]
)
def test_steps_agree_with_the_oracle(kind, case):
    """Two steps, so that the teacher differs from the model, each of two micro-batches."""
    o = DEFAULTS | CASES[case]
    model, method = build(Net), make(**o)
    teacher = copy.deepcopy(model)
    for number in range(2):
        parts = split(batch(kind, seed=100 + number), 3)
        for t, p in zip(teacher.parameters(), model.parameters(), strict=True):
            t.data = o["momentum"] * t.data + (1 - o["momentum"]) * p.data
        log = method.backward(model, [parts]).log
        total, count = 0.0, 0.0
        for micro, b in enumerate(parts):
            terms = oracle_losses(
                kind, model, teacher, b, number, o, lambda _, m=micro, k=number: masks(SEED, "train", k, m)
            )
            total, count = total + (b.mass * sum(terms)).sum(), count + b.mass.sum()
        expected = torch.autograd.grad(total / count, list(model.parameters()), allow_unused=True)
        assert error(gradients(model), expected) < 1e-9
        assert [g is None for g in gradients(model)] == [g is None for g in expected]
        with torch.no_grad():
            for p in model.parameters():
                if p.grad is not None:
                    p -= 0.3 * p.grad
    assert log["proximal"] > 1e-6


def test_pinned_values():
    """From the oracle above, of the first step on the toy batch."""
    model, method = build(Net), make(**DEFAULTS)
    log = method.backward(model, draw(1)[0]).log
    assert {name: log[name] for name in PINNED} == pytest.approx(PINNED, rel=1e-5)


PINNED = {
    "loss": 1.0900170078,
    "smoothness": 0.00453157057,
    "delta": 0.43890577178,
    "smoothness_share": 0.02187914962,
    "gradient_norm": 0.6776000856,
}


# limits


def test_without_both_terms_it_is_supervised_bit_for_bit_and_asks_a_task_for_nothing():
    class Bare:
        outputs, loss, name, _rows = Kind.outputs, Kind.loss, "three", Kind._rows

    found, plain = build(Net), build(Net)
    method = Method({"smart": {"smoothness": 0.0, "proximal": 0}}, task=Bare(), seed=SEED)
    report = method.backward(found, draw(1)[0])
    Method(tasks=TASKS, seed=SEED).backward(plain, draw(1)[0])
    assert same(gradients(found), gradients(plain))
    assert report.passes == 1 and method.objective.holds is False and method.state_dict()["objective"] == {"steps": 1}


@pytest.mark.parametrize("kind", KINDS)
def test_the_teacher_starts_where_the_model_is_with_the_same_masks(kind):
    """D(theta, theta) = 0 exactly, dropout on, and so is its gradient."""
    one, two = build(Net), build(Net)
    log = make(smoothness=0.0, proximal=5.0).backward(one, draw(1, kind)[0]).log
    assert log["proximal"] == 0 and log["proximal_share"] == 0
    Method(tasks=TASKS, seed=SEED).backward(two, draw(1, kind)[0])
    assert error(gradients(one), gradients(two)) < 1e-14


@pytest.mark.parametrize("kind", KINDS)
def test_smoothness_tends_to_zero_with_epsilon_dropout_on(kind):
    """As its square; the report of dropout masks of their own does not tend to zero."""

    def smoothness(**options):
        return make(proximal=0.0, **options).backward(build(Net), draw(1, kind)[0]).log["smoothness"]

    near, far = smoothness(epsilon=1e-4), smoothness(epsilon=1e-3)
    assert 0 < near < 1e-7 and far / near == pytest.approx(100, rel=0.02)
    assert smoothness(epsilon=0.0) == 0
    assert smoothness(epsilon=1e-4, masks="own") > 1e3 * near


@pytest.mark.parametrize("kind", KINDS)
def test_at_the_defaults_the_adversarial_share_is_between_one_and_a_hundred_percent(kind):
    """While it trains, which makes the model smooth."""
    model, method, shares = build(Net, dtype=torch.float32), make(), {}
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    for step in range(33):
        log = method.backward(model, draw(1, kind, n=16)[0]).log
        if "smoothness_share" in log:
            shares[step] = log["smoothness_share"]
        optimizer.step()
    assert list(shares) == [0, 2, 8, 32] and all(0.01 <= share <= 1 for share in shares.values()), shares


# cost, shares, precision


def flops(run):
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


@pytest.mark.parametrize(
    ("options", "floor"),
    [
        ({}, 8 / 3), ({"proximal": 0.0}, 7 / 3), ({"smoothness": 0.0}, 4 / 3), ({"ascent": "noise"}, 3.0),
        ({"ascent": "mtdnn", "proximal": 0.0}, 8 / 3), ({"projection": True}, 8 / 3),
    ],
)  # fmt: skip
def test_counted_passes_are_the_floor_and_what_the_matrix_products_say(options, floor):
    """Every matrix product of the toy is in every pass, so that floating point operations are passes."""
    model, method, plain = build(Net), make(**options), Method(tasks=TASKS, seed=SEED)
    method.backward(model, draw(1)[0])  # shares are measured in the first step
    reports = []
    found = flops(lambda: reports.append(method.backward(model, draw(1, seed=200)[0])))
    one = flops(lambda: plain.backward(model, draw(1, seed=200)[0]))
    assert reports[0].passes == pytest.approx(floor)
    assert found / one == pytest.approx(floor, rel=1e-12)


def test_measuring_shares_changes_neither_gradient_nor_randomness_nor_statistics(monkeypatch):
    def run():
        model, method = build(Net, norm=True), make("dotprod", weighting="reweight")
        torch.manual_seed(5)
        report = method.backward(model, *draw(2, micro=3))
        return gradients(model), list(model.buffers()), torch.rand(3), report.log

    *measured, log = run()
    monkeypatch.setattr(regularised, "due", lambda step: False)
    *plain, without = run()
    for a, b in zip(measured[:2], plain[:2], strict=True):
        assert same(a, b)
    assert torch.equal(measured[2], plain[2])
    assert log.keys() - without.keys() == {"smoothness_share", "proximal_share"}
    assert {k: v for k, v in log.items() if k in without} == without


def test_shares_are_ratios_of_gradients_with_their_factors_on_the_first_micro_batch():
    o = DEFAULTS | {"smoothness": 2.5}
    model, method, kind = build(Net), make(**o), "seq"
    teacher = copy.deepcopy(model)
    logs = []
    for number in range(3):
        parts = split(batch(kind, seed=100 + number), 3)
        for t, p in zip(teacher.parameters(), model.parameters(), strict=True):
            t.data = o["momentum"] * t.data + (1 - o["momentum"]) * p.data
        logs.append(method.backward(model, [parts]).log)
        if number == 2:
            terms = oracle_losses(kind, model, teacher, parts[0], 2, o, lambda _: masks(SEED, "train", 2))
        else:
            model.a.weight.data += 0.1
    every = list(model.parameters())
    sums = [(parts[0].mass * term).sum() for term in terms]
    sizes = [flat(torch.autograd.grad(t, every, retain_graph=True, allow_unused=True)).norm() for t in sums]
    assert logs[2]["smoothness_share"] == pytest.approx(float(sizes[1] / sizes[0]), rel=1e-5)
    assert logs[2]["proximal_share"] == pytest.approx(float(sizes[2] / sizes[0]), rel=1e-5)
    assert ["smoothness_share" in log for log in logs] == [True, False, True]


def test_shares_are_due_often_at_first_then_every_200_steps():
    assert [step for step in range(500) if due(step)] == [0, 2, 8, 32, 200, 400]


def test_figures_are_those_of_the_first_visit():
    """SAM visits its batch twice, the second time uphill."""
    logs = [
        Method("smart", "uniform", u, tasks=TASKS, seed=SEED).backward(build(Net), draw(1)[0]).log
        for u in ("erm", "sam")
    ]
    names = ("delta", "smoothness", "proximal", "smoothness_share", "proximal_share")
    assert [logs[0][name] for name in names] == [logs[1][name] for name in names]


@pytest.mark.parametrize("ascent", ["vjp", "noise", "mtdnn"])
def test_dotprod_differences_one_function(ascent):
    """delta and the teacher's outputs are held at the parameters of the first visit."""
    found = []
    for form in (None, "exact"):
        model, method = build(Net), make({"dotprod": {"form": form}}, ascent=ascent)
        for seed in (100, 300):  # in the second step the teacher is elsewhere
            method.backward(model, draw(2, seed=seed)[0])
            model.a.weight.data += 0.1
        found.append(gradients(model))
    assert error(*found) < 1e-6


def test_a_plain_model_of_the_package_trains():
    """Heads of gradworks.tasks, whose divergence is differentiated twice."""
    torch.manual_seed(0)
    model, one = Masked(), Batch("t", list("ab"), torch.tensor([[1, 2], [3, 4]]), torch.tensor([0, 2]), torch.ones(2))
    assert Method("smart", task=classes(3)).backward(model, [[one]]).log["smoothness"] > 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"ascent": "sign"}, "ascent: found 'sign', expected one of vjp, noise, mtdnn"),
        ({"ascent": "mtdnn", "projection": True}, "projection: found true, expected false with ascent mtdnn"),
        ({"projection": "no"}, "projection: found 'no', expected true or false"),
        ({"masks": "fresh"}, "masks: found 'fresh', expected one of shared, own"),
        ({"smoothness": -1}, "smoothness: found -1, expected a number of at least 0"),
        ({"proximal": None}, "proximal: found None"),
        ({"epsilon": -0.1}, "epsilon: found -0.1"),
        ({"step": 0}, "step: found 0, expected a number greater than 0"),
        ({"noise": 0}, "noise: found 0"),
        ({"momentum": 1}, "momentum: found 1, expected a number of at least 0 and less than 1"),
        ({"momentum": [0.9, 0.99]}, "momentum: found [0.9, 0.99], expected a number, or two and the step `switch`"),
        ({"momentum": [0.9], "switch": 3}, "momentum: found [0.9]"),
        ({"switch": 3}, "switch: found 3, expected two numbers as momentum"),
        ({"momentum": [0.9, 0.99], "switch": 0}, "switch: found 0, expected a whole number of at least 1"),
    ],
)
def test_refusals(options, words):
    with pytest.raises(ValueError, match=r"^objective smart: ") as caught:
        make(**options)
    assert words in str(caught.value)
