"""`dotprod` against double backward: (G1 + G2 - w * H2 G1) / 2, weights and masks held."""

import copy

import pytest
import torch
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from gradworks.methods import Method
from gradworks.methods._shared.bases import BaseWeighting
from tests.methods.toys import KINDS, MODELS, TASKS, Net, Tied, batch, build, draw, error, flat, gradients, masks

SEED = 7


def mean_loss(model, theta, b, number, weights=None):
    task = TASKS[b.task]

    class At(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self):
            return task.loss(task.outputs(self.model, b), b)

    w = b.mass if weights is None else weights
    with masks(SEED, "train", number):
        losses = functional_call(At(), {f"model.{n}": p for n, p in theta.items()})
    return (w.to(losses) * losses).sum() / w.to(losses).sum()


def oracle(model, pair, weight, weights=(None, None), numbers=(0, 1)):
    """G1, G2 and the gradient of the scale law, by double backward."""
    theta = {n: p.detach().clone().requires_grad_() for n, p in model.named_parameters() if p.requires_grad}
    every = list(theta.values())
    with sdpa_kernel(SDPBackend.MATH):
        g1 = torch.autograd.grad(
            mean_loss(model, theta, pair[0], numbers[0], weights[0]), every, materialize_grads=True
        )
        loss = mean_loss(model, theta, pair[1], numbers[1], weights[1])
        g2 = torch.autograd.grad(loss, every, create_graph=True, materialize_grads=True)
        hg = torch.autograd.grad(g2, every, grad_outputs=g1, materialize_grads=True)
    g2 = [t.detach() for t in g2]
    return (
        hg,
        [(a + b - weight * h) / 2 for a, b, h in zip(g1, g2, hg, strict=True)],
        [(a + b) / 2 for a, b in zip(g1, g2, strict=True)],
    )


def filled(model):
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in model.parameters()]


def term(model, pair, clean=(), weighting="uniform", update=None):
    """H2 G1 as the method makes it: what G changes by between weight 0 and a weight at which the term rules."""
    made, large = [], 1000.0
    for weight in (0.0, large):
        options = {"dotprod": {"weight": weight, "limit": None, **(update or {})}}
        method = Method(weighting=weighting, update=options, tasks=TASKS, seed=SEED)
        method.backward(model, [[b] for b in pair], clean)
        made.append(filled(model))
    return [-2 / large * (b.double() - a.double()) for a, b in zip(*made, strict=True)]


class Zero:
    """A task whose gradient is zero, though its examples count."""

    outputs = TASKS["three"].outputs

    @staticmethod
    def loss(out, b):
        return TASKS["three"].loss(out, b) * 0


def check_no_direction(chosen):
    """A zero gradient stays zero and one that is not finite is reported: no division makes one of the other."""
    method, model = Method(update=chosen, task=Zero()), build(Net)
    report = method.backward(model, draw(method.batches)[0])
    assert report.log["finite"] == 1
    assert not report.skipped
    assert all(g is None or not g.any() for g in gradients(model))
    assert all(v == v for v in report.log.values())
    method, model = Method(update=chosen, tasks=TASKS), build(Net)
    model.a.bias.data[0] = float("nan")
    report = method.backward(model, draw(method.batches)[0])
    assert report.log["finite"] == 0
    assert not torch.isfinite(flat(gradients(model))).all()


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("form", ["central", "one_sided"])
@pytest.mark.parametrize("trained", [0, 20])
def test_float32_agrees_with_double_backward_with_dropout_on(name, form, trained):
    model = build(MODELS[name])
    plain, optimizer = Method(tasks=TASKS), torch.optim.Adam(model.parameters(), 3e-3)
    for s in range(trained):
        plain.backward(model, draw(1, n=16, seed=1000 + s)[0])
        optimizer.step()
    pair = [batch(n=16, seed=100), batch(n=16, seed=101)]
    expected, _, _ = oracle(model, pair, 1.0)
    scale = float(flat(expected).norm())
    found = term(copy.deepcopy(model).float(), pair, update={"form": form})
    assert scale > 0
    assert error(found, expected) < (1e-3 if form == "one_sided" else 3e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", [None, "one_sided", "exact"])
def test_every_kind_of_head_in_float64(kind, form):
    model = build(Net)
    pair = [batch(kind, seed=100), batch(kind, seed=101)]
    _, expected, _ = oracle(model, pair, 0.7)
    options = {"weight": 0.7, "form": form, "limit": None}
    Method(update={"dotprod": options}, tasks=TASKS, seed=SEED).backward(model, [[b] for b in pair])
    assert error(filled(model), expected) < (1e-12 if form == "exact" else 1e-7)


def test_two_tasks_and_tied_weights():
    model = build(Net)
    pair = [batch("span", seed=100), batch("reg", seed=101)]
    for form in ("central", "exact"):
        Method(update={"dotprod": {"form": form}}, tasks=TASKS, seed=SEED).backward(model, [[b] for b in pair])
        assert error(filled(model), oracle(model, pair, 0.1)[1]) < 1e-8
    tied = build(Tied)
    pair = [batch("seq", seed=100), batch("seq", seed=101)]
    Method(update="dotprod", tasks=TASKS, seed=SEED).backward(tied, [[b] for b in pair])
    assert error(filled(tied), oracle(tied, pair, 0.1)[1]) < 1e-8
    assert tied.out.weight is tied.emb.weight


class ByLoss(BaseWeighting):
    """Weights that depend on the parameters; `recompute` breaks the hold law."""

    holds = True

    def __init__(self, recompute=False):
        self.recompute = recompute

    def weights(self, here, outputs, losses):
        return losses.detach() * here.batch.mass, None

    def gradient(self, here):
        if self.recompute:
            here.held.clear()
        return super().gradient(here)


@pytest.mark.parametrize("form", ["central", "one_sided"])
def test_hold_law_weights_are_held_while_gradients_are_differenced(form):
    model = build(Net)
    pair = [batch(n=8, seed=100), batch(n=8, seed=101)]
    with torch.no_grad():
        weights = []
        for number, b in enumerate(pair):
            with masks(SEED, "train", number):
                weights.append(TASKS["three"].loss(TASKS["three"].outputs(model, b), b))
    expected, _, _ = oracle(model, pair, 1.0, weights)
    found = term(model, pair, weighting=ByLoss(), update={"form": form})
    broken = term(model, pair, weighting=ByLoss(recompute=True), update={"form": form})
    assert error(found, expected) < 1e-6
    assert error(broken, expected) > 0.1


def test_hold_law_with_reweight():
    model = build(Net)
    batches, clean = draw(2, n=8, seed=104)
    pair = [b for (b,) in batches]
    method = Method(weighting="reweight", update="dotprod", tasks=TASKS, seed=SEED)
    report = method.backward(model, batches, clean)
    weights = [parts[0].weights for parts in report.sums]
    assert all(0 < (w > 0).sum() < len(w) for w in weights)
    assert error(filled(model), oracle(model, pair, 0.1, weights)[1]) < 1e-7
    assert report.passes < 30
    assert method.state_dict()["update"]["distances"]["one_sided"]  # chosen because weights are held
    assert not method.state_dict()["update"]["distances"]["central"]


def test_scale_law_and_sign_half_of_the_papers_sum():
    model = build(Net)
    pair = [batch(seed=100), batch(seed=101)]
    _, expected, plain = oracle(model, pair, 0.5)
    Method(update={"dotprod": {"weight": 0.5}}, tasks=TASKS, seed=SEED).backward(model, [[b] for b in pair])
    assert error(filled(model), expected) < 1e-7
    assert error(filled(model), plain) > 1e-3  # the term is there


def test_a_step_along_the_term_raises_the_dot_product_of_the_gradients():
    """What the method is for: with b1 = b2 the dot product is the squared norm of the gradient."""
    model = build(Net).eval()
    b = batch(n=8, seed=100)

    def squared_norm():
        theta = dict(model.named_parameters())
        g = torch.autograd.grad(mean_loss(model, theta, b, 0), list(theta.values()), materialize_grads=True)
        return float(flat(g).square().sum())

    before = squared_norm()
    hg = term(model, [b, b])
    with torch.no_grad():
        for p, t in zip(model.parameters(), hg, strict=True):
            p += 1e-3 * t  # descent along -H G is ascent along H G
    assert squared_norm() > before


def test_masks_are_replayed_else_the_term_is_noise(monkeypatch):
    from gradworks.methods._shared import masks, replay

    model = build(Net)
    pair = [batch(seed=100), batch(seed=101)]
    expected, _, _ = oracle(model, pair, 1.0)
    count = iter(range(10**9))
    key = masks.key
    monkeypatch.setattr(masks, "key", lambda *parts: key(*parts, next(count)))
    with pytest.raises(ValueError, match=r"^replay: .* gave other outputs"):
        term(model, pair)
    monkeypatch.setattr(replay.Replay, "_differs", lambda *_: "")
    broken = term(model, pair, update={"alpha": 1e-3})
    assert error(broken, expected) > 10
    with pytest.raises(ValueError, match="gradients of one batch at one point that differ by"):
        term(model, pair)


def test_pinned_term():
    """Norm and dot product of H2 G1 with G1 + G2, from the double backward of the oracle."""
    model = build(Net)
    pair = [batch(seed=100), batch(seed=101)]
    hg, _, plain = oracle(model, pair, 1.0)
    found = term(model, pair)
    for made in (hg, found):
        values = [float(flat(made).norm()), float(flat(made) @ flat(plain))]
        assert values == pytest.approx(PINNED, rel=1e-5)


PINNED = [0.54107125, 0.23442387]
