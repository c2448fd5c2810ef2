"""`grad_norm_penalty` against double backward: g + weight * H g; and its sign against that of `dotprod`."""

import pytest
import torch

from gradworks.methods import Method
from tests.methods.test_dotprod import SEED, ByLoss, check_no_direction, mean_loss
from tests.methods.test_reptile import group, start, step, weights_at
from tests.methods.toys import MODELS, TASKS, Net, batch, build, draw, error, flat, same

FORMS = ("one_sided", "central", "exact")


def oracle(model, b, weight, by_loss=False):
    """The gradient of loss + weight / 2 * |gradient|^2, and the two parts."""
    theta = {n: t.requires_grad_() for n, t in start(model).items()}
    held = weights_at(model, start(model), b, 0) if by_loss else None
    every, loss = list(theta.values()), mean_loss(model, theta, b, 0, held)
    g = torch.autograd.grad(loss, every, create_graph=True, materialize_grads=True)
    penalty = sum(x.square().sum() for x in g) / 2
    hg = torch.autograd.grad(penalty, every, materialize_grads=True)
    g = [x.detach() for x in g]
    return [x + weight * y for x, y in zip(g, hg, strict=True)], g, hg


def update(**options):
    return {"grad_norm_penalty": options}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["three", "reg", "seq"])
def test_it_is_the_gradient_of_the_penalised_loss(form, kind):
    model, (b,) = build(Net), group(kind, 1)
    expected, plain, hg = oracle(model, b, 0.7)
    report, found = step(update(weight=0.7, form=form), model, [b])
    assert error(found, expected) < (1e-12 if form == "exact" else 1e-7)
    assert error(plain, expected) > 1e-2
    assert report.log["term"] == pytest.approx(float(0.7 * flat(hg).norm() / flat(plain).norm()), rel=1e-4)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("form", "bound"), [("one_sided", 1e-3), ("central", 3e-4)])
def test_float32_agrees_with_double_backward_with_dropout_on(name, form, bound):
    model, b = build(MODELS[name]), batch(n=16)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        _, plain, hg = oracle(model, b, 0.0)
    found = step(update(weight=1e3, form=form), build(MODELS[name], dtype=torch.float32), [b])[1]
    made = [(f.double() - g) / 1e3 for f, g in zip(found, plain, strict=True)]
    assert error(made, hg) < bound


def test_a_step_against_it_lowers_the_norm_and_dotprod_on_the_same_batch_raises_it():
    """Both signs: here + H g, in `dotprod` with `pair: same` - H2 G2, at two batches that are one."""
    model, (b,) = build(Net).eval(), group(k=1)
    _, plain, hg = oracle(model, b, 0.0)
    weight = 1e3
    penalty = step(update(weight=weight), model, [b])[1]
    reward = step({"dotprod": {"weight": weight, "pair": "same", "limit": None}}, model, [b, b])[1]
    assert error([(f - g) / weight for f, g in zip(penalty, plain, strict=True)], hg) < 1e-6
    assert error([2 * (g - f) / weight for f, g in zip(reward, plain, strict=True)], hg) < 1e-6

    def squared_norm(along):
        moved = build(Net).eval()
        with torch.no_grad():
            for p, t in zip(moved.parameters(), along, strict=True):
                p -= 1e-3 * t
        return float(flat(oracle(moved, b, 0.0)[1]).square().sum())

    here = squared_norm([torch.zeros_like(t) for t in hg])
    assert squared_norm([(f - g) / weight for f, g in zip(penalty, plain, strict=True)]) < here
    assert squared_norm([(f - g) / weight for f, g in zip(reward, plain, strict=True)]) > here


@pytest.mark.parametrize("form", FORMS)
def test_weights_are_held_while_gradients_are_differenced(form):
    model, (b,) = build(Net), group(k=1)
    expected = oracle(model, b, 0.7, by_loss=True)[0]
    assert error(step(update(weight=0.7, form=form), model, [b], ByLoss())[1], expected) < 1e-7
    if form != "exact":
        assert error(step(update(weight=0.7, form=form), model, [b], ByLoss(recompute=True))[1], expected) > 1e-3


def test_without_weight_it_is_erm():
    report, found = step(update(weight=0), build(Net), group(k=1))
    assert same(found, step("erm", build(Net), group(k=1))[1])
    assert report.passes == pytest.approx(1)


@pytest.mark.parametrize(("form", "passes"), [("one_sided", 2), ("central", 3)])
def test_passes_are_the_floor_after_the_first_step(form, passes):
    model, method = build(Net), Method(update=update(form=form), tasks=TASKS, seed=SEED)
    first = method.backward(model, draw(1)[0])
    second = method.backward(model, draw(1, seed=200)[0])
    assert first.passes > passes
    assert second.passes == pytest.approx(passes)
    assert "penalty_error" in first.log
    assert "penalty_error" not in second.log


def test_no_direction():
    check_no_direction("grad_norm_penalty")


def test_options():
    for options, words in (
        ({"form": None}, "form: found None, expected one of central, one_sided, exact"),
        ({"weight": "1"}, "weight: found '1', expected a number"),
    ):
        with pytest.raises(ValueError, match=words):
            Method(update=update(**options), tasks=TASKS)


def test_pinned():
    """Norm of g + 0.7 * H g and its product with g, from the oracle."""
    model, (b,) = build(Net), group(k=1)
    expected, plain, _ = oracle(model, b, 0.7)
    for made in (expected, step(update(weight=0.7), model, [b])[1]):
        assert [float(flat(made).norm()), float(flat(made) @ flat(plain))] == pytest.approx(PINNED, rel=1e-6)


PINNED = [1.0114740892, 0.6682199970]
