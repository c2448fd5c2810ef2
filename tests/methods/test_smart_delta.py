"""The perturbation of SMART: its size, its independence of the batch, its published variants."""

import pytest
import torch
from torch import nn

from gradworks.methods._shared.masks import Masks
from gradworks.methods.objectives._shared.perturb import example_scale
from gradworks.spec import Batch
from tests.kinds import classes
from tests.methods.smart_models import Masked, make
from tests.methods.smart_oracle import SEED, noise
from tests.methods.toys import TASKS, Net, batch, build, draw, error, flat, gradients, masks, split


def held_delta(b, model, task, **options):
    """delta and its log, by the objective itself."""
    objective = make(proximal=0.0, **options).objective
    held = {"log": {}}
    objective.outputs(task, model, b, Masks(SEED, "train", 0, 0), held)
    return held["delta"], held["log"]


@pytest.mark.parametrize("ascent", ["vjp", "noise"])
@pytest.mark.parametrize("kind", ["three", "choice"])
def test_delta_has_the_same_relative_size_in_every_example_whatever_stands_beside_it(kind, ascent):
    model, task, b = build(Net).eval(), TASKS[kind], batch(kind)
    delta, log = held_delta(b, model, task, epsilon=0.2, ascent=ascent)
    e = task.embed(model, b).reshape(len(b.ids), -1)
    largest = delta.reshape(len(b.ids), -1).abs().amax(1)
    torch.testing.assert_close(largest, 0.2 * e.square().mean(1).sqrt().detach())
    assert log["delta"] == largest.max()
    alone = [held_delta(part, model, task, epsilon=0.2, ascent=ascent)[0] for part in split(b, 2)]
    torch.testing.assert_close(torch.cat(alone), delta, rtol=1e-9, atol=1e-12)
    assert not torch.allclose(delta[0], delta[1], atol=1e-3)


def test_embeddings_that_the_outputs_do_not_use_do_not_change_epsilon():
    """Padding: masked positions have no gradient, and batches are padded differently."""
    e, used = torch.randn(2, 5, 4, dtype=torch.float64), torch.ones(2, 5, 1, dtype=torch.bool)
    used[0, 3:] = False
    far = torch.cat([e, 9 * torch.ones(2, 2, 4, dtype=torch.float64)], 1)
    found = example_scale(far, torch.cat([used, torch.zeros(2, 2, 1, dtype=torch.bool)], 1), 2)
    expected = torch.stack([e[0, :3].square().mean().sqrt(), e[1].square().mean().sqrt()])
    torch.testing.assert_close(found[:, 0, 0], expected)
    assert (example_scale(e, torch.zeros(2, 5, 1, dtype=torch.bool), 2) == 0).all()


def test_padding_does_not_change_the_size_of_delta():
    model, found = build(Masked), []
    for padding in (0, 5):
        ids = nn.functional.pad(torch.tensor([[1, 2, 3], [4, 5, 0]]), (0, padding))
        one = Batch("t", list("ab"), ids, torch.tensor([0, 2]), torch.ones(2))
        found.append(held_delta(one, model, classes(3))[0])
    assert torch.equal(found[1][:, :3], found[0]) and (found[1][:, 3:] == 0).all() and (found[0][1, 2] == 0).all()


def test_an_example_without_gradient_is_left_where_it_is():
    """Its embeddings do not matter: delta is zero, not a number divided by zero."""
    model = build(Net).eval()
    for p in model.a.parameters():
        p.data.zero_()
    for ascent in ("vjp", "noise"):
        delta, _ = held_delta(batch(), model, TASKS["three"], ascent=ascent)
        assert (delta == 0).all()


def test_the_papers_figures_and_the_code_of_its_authors_are_orders_apart():
    paper = {"epsilon": 1e-5, "relative": False, "projection": True, "ascent": "noise", "noise": 1e-5, "step": 1e-3}
    code = {"epsilon": 1.0, "ascent": "mtdnn", "noise": 1e-5, "step": 1e-5, "masks": "own"}
    model, task, b = build(Net), TASKS["three"], batch()
    delta, log = held_delta(b, model, task, **paper)
    assert log["delta"] == pytest.approx(1e-5) and (delta.abs() == 1e-5).double().mean() > 0.8  # the projection binds
    delta, _ = held_delta(b, model, task, **code)
    e = task.embed(model, b)
    torch.testing.assert_close(delta.abs().amax(-1), e.square().mean(-1).sqrt().detach())  # every token, all its size
    xi = noise((1, *e.shape[1:]), b.ids, 0)
    cosine = torch.cosine_similarity(
        delta.flatten(1), (xi * e.square().mean(-1, keepdim=True).sqrt()).flatten(1).detach()
    )
    assert (cosine > 0.8).all()  # it is the noise, scaled up


def test_rows_of_zeros_as_of_padding_stay_finite_with_every_ascent():
    model = build(Net)
    model.emb.weight.data[batch().inputs[:, -1]] = 0
    for ascent in ("vjp", "noise", "mtdnn"):
        make(ascent=ascent).backward(model, draw(1)[0])
        assert torch.isfinite(flat(gradients(model))).all()


def test_embeddings_that_are_not_trained_are_attacked_all_the_same():
    frozen, free = build(Net), build(Net)
    frozen.emb.weight.requires_grad_(False)
    logs = [make().backward(model, draw(1)[0]).log for model in (frozen, free)]
    assert logs[0]["smoothness"] == logs[1]["smoothness"] > 0
    assert frozen.emb.weight.grad is None and error(gradients(frozen), gradients(free)[1:]) < 1e-14


def test_in_bf16_every_example_is_attacked():
    """The gradient at e + 1e-5 noise is zero for most examples there; the clean graph's is not."""
    model, task, b = build(Net, width=32, dtype=torch.float32), TASKS["three"], batch(n=32)
    with torch.autocast("cpu", torch.bfloat16):
        delta, _ = held_delta(b, model, task)
        assert (delta.flatten(1).abs().amax(1) > 0).all()
        log = make().backward(model, [[b]]).log
    assert log["finite"] == 1 and log["smoothness"] > 0


@pytest.mark.parametrize("place", [0, 1])
def test_a_divergence_may_read_some_of_the_outputs(place):
    """What it does not read has no part in delta, but for the random numbers, which are drawn for all outputs."""

    class More:
        embed = TASKS["three"].embed

        def outputs(self, model, b, embedded=None):
            (z,) = TASKS["three"].outputs(model, b, embedded)
            return (z, z.tanh()) if place == 0 else (z.tanh(), z)

        def divergence(self, p, q):
            return TASKS["three"].divergence((p[place],), (q[place],))

    model, b = build(Net), batch()
    found, _ = held_delta(b, model, More())
    here = TASKS["three"].embed(model, b).detach().requires_grad_()
    with masks(SEED, "train", 0):
        (z,) = TASKS["three"].outputs(model, b, here)
    p = z.detach().softmax(-1)
    r = noise((1, 6), b.ids, 0).split(3, 1)[place]
    (g,) = torch.autograd.grad(z, here, p * (r - (p * r).sum(1, keepdim=True)))  # the Fisher matrix times r
    unit = here.square().mean((1, 2), keepdim=True).sqrt() * 0.3
    torch.testing.assert_close(found, (unit * g / g.abs().amax((1, 2), keepdim=True)).detach())
