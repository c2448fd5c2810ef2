"""`reweight` with `clean_every` and `clean_momentum`, against the formula written out with autograd in float64."""

import pytest
import torch
from torch.func import functional_call

from gradworks.methods import Method
from gradworks.methods.weightings._shared.clean import Kept
from tests.methods.toys import KINDS, MODELS, TASKS, Net, batch, build, draw, error, gradients, masks, same

SEED = 7
KEPT = [(1, 0.9), (3, 0.0), (2, 0.5), (4, 0.5)]  # clean_every, clean_momentum
OPTIONS = {"clean_every": 2, "clean_momentum": 0.5}
BACKENDS = ("ghost", "logit_fd", "jvp", "per_example", "second_order")


def make(*triple, **options):
    objective, update = triple or ("supervised", "erm")
    return Method(objective, {"reweight": options}, update, tasks=TASKS, seed=SEED)


def by_hand(model, theta, b, name, number, task=None):
    """(n,) losses at `theta` under the masks of this batch of the stream."""
    task = task or TASKS[b.task]

    class At(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self):
            return task.loss(task.outputs(self.model, b), b)

    with masks(SEED, name, number):
        return functional_call(At(), {f"model.{n}": p for n, p in theta.items()})


def rows(model, theta, b, name, number):
    """The gradient of each example, flat: (n, P)."""
    losses = by_hand(model, theta, b, name, number)
    every = list(theta.values())
    made = [torch.autograd.grad(one, every, retain_graph=True, materialize_grads=True) for one in losses]
    return torch.stack([torch.cat([g.flatten() for g in row]) for row in made])


def clean_by_hand(model, theta, b, number):
    return (b.mass[:, None] * rows(model, theta, b, "clean", number)).sum(0) / b.mass.sum()


def oracle(model, steps, every, momentum, rate=0.3):
    """Scores and gradients of a run of plain descent; of the clean batches only those that are due are read."""
    theta = {n: p.detach().clone().requires_grad_() for n, p in model.named_parameters()}
    made, found = [], []
    for number, (train, clean) in enumerate(steps):
        if number % every == 0:
            made.append(clean_by_hand(model, theta, clean, number))
        shares = torch.tensor([momentum ** (len(made) - 1 - j) for j in range(len(made))], dtype=torch.float64)
        v = torch.stack(made).T @ shares / shares.sum()
        own = rows(model, theta, train, "train", number)
        u = own @ v
        w = u.clamp_min(0) * train.mass
        gradient = w @ own / w.sum() if w.sum() > 0 else torch.zeros_like(v)
        found.append((u, gradient))
        parts = gradient.split([p.numel() for p in theta.values()])
        theta = {
            n: (p.detach() - rate * g.view_as(p)).requires_grad_()
            for (n, p), g in zip(theta.items(), parts, strict=True)
        }
    return found


def drawn(count, kind="three"):
    return [(batch(kind, 6, 100 + s), batch(kind, 4, 600 + s)) for s in range(count)]


@pytest.mark.parametrize(("every", "momentum"), KEPT)
@pytest.mark.parametrize(("backend", "bound"), [("exact", 1e-9), ("logit_fd", 1e-5)])
@pytest.mark.parametrize("name", MODELS)
def test_a_run_agrees_with_the_formula_with_dropout_on(name, backend, bound, every, momentum):
    model, steps = build(MODELS[name]), drawn(7)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        expected = oracle(model, steps, every, momentum)
    if backend == "exact":  # no rule covers the positions of the transformer
        backend = "per_example" if name == "transformer" else "ghost"
    method = make(backend=backend, clean_every=every, clean_momentum=momentum)
    for number, ((train, clean), (u, gradient)) in enumerate(zip(steps, expected, strict=True)):
        given = [clean] if number % every == 0 else []
        assert method.clean_for(["three"]) == [bool(given)]
        report = method.backward(model, [[train]], [given])
        assert error([report.sums[0][0].score], [u]) < bound
        made = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]
        assert report.skipped == bool((u <= 0).all())
        assert error(made, [gradient]) < bound if not report.skipped else True
        with torch.no_grad():
            for p, g in zip(model.parameters(), made, strict=True):
                p -= 0.3 * g


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_head_agrees_with_the_formula(kind):
    model, steps = build(Net), drawn(3, kind)
    expected = oracle(model, steps, 2, 0.5, rate=0.0)
    method = make(clean_every=2, clean_momentum=0.5)
    for number, ((train, clean), (u, _)) in enumerate(zip(steps, expected, strict=True)):
        report = method.backward(model, [[train]], [[clean] if number % 2 == 0 else []])
        assert error([report.sums[0][0].score], [u]) < 1e-6


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_backend_scores_with_what_is_kept(backend):
    steps, found = drawn(3), {}
    for name in ("per_example", backend):
        model, method = build(Net), make(backend=name, **OPTIONS)
        for number, (train, clean) in enumerate(steps):
            report = method.backward(model, [[train]], [[clean] if number % 2 == 0 else []])
            found[name, number] = report.sums[0][0].score
            with torch.no_grad():
                for p in model.parameters():
                    p.mul_(0.95)
    for number in range(3):
        a, b = found[backend, number], found["per_example", number]
        assert error([a], [b]) < (1e-5 if backend == "logit_fd" else 1e-10)


# limits


def trail(steps=5, count=1, update="erm", **options):
    model, method, found = build(Net), make("supervised", update, **options), []
    for s in range(steps):
        report = method.backward(model, *draw(count, seed=100 + 10 * s))
        found += [one.score for some in report.sums for one in some] + gradients(model)
        with torch.no_grad():
            for p in model.parameters():
                p -= 0 if p.grad is None else 0.1 * p.grad
    return found


@pytest.mark.parametrize("backend", ["ghost", "logit_fd"])
@pytest.mark.parametrize(("count", "update"), [(1, "erm"), (2, "dotprod"), (4, "reptile")])
def test_every_one_without_momentum_is_a_clean_gradient_for_each_batch_to_the_bit(monkeypatch, backend, count, update):
    today = trail(count=count, update=update, backend=backend)
    assert same(today, trail(count=count, update=update, backend=backend, clean_every=1, clean_momentum=0.0))
    monkeypatch.setattr(Kept, "off", False)
    assert same(today, trail(count=count, update=update, backend=backend))


def test_momentum_that_tends_to_zero_is_none():
    today, near = trail(), trail(clean_momentum=1e-13)
    assert not same(today, near)
    assert error(near, today) < 1e-9
    assert error(trail(clean_momentum=0.5), today) > 1e-2


def test_the_mean_of_equal_gradients_is_the_gradient():
    model, (b,), (c,) = build(Net).eval(), *draw(1)
    method, today = make(clean_momentum=0.9), make()
    expected = today.backward(model, [b], [c]).sums[0][0].score
    for _ in range(4):
        torch.testing.assert_close(method.backward(model, [b], [c]).sums[0][0].score, expected, rtol=1e-12, atol=0)


# several batches in a step: the hold law


def test_a_later_inner_step_is_scored_at_its_own_point_with_the_clean_gradient_of_the_first():
    """Reptile, two batches of one task: the second is visited at theta - 0.1 G_1."""
    model, seen = build(Net), []
    theta = {n: p.detach().clone().requires_grad_() for n, p in model.named_parameters()}
    (one,), (two,), (clean,) = (draw(1, seed=s)[0][0] for s in (100, 101, 900))
    v = clean_by_hand(model, theta, clean, 0)
    first = rows(model, theta, one, "train", 0)
    w = (first @ v).clamp_min(0)
    step = (0.1 * (w @ first) / w.sum()).split([p.numel() for p in theta.values()])
    moved = {n: (p.detach() - s.view_as(p)).requires_grad_() for (n, p), s in zip(theta.items(), step, strict=True)}
    seen = [first @ v, rows(model, moved, two, "train", 1) @ v]
    update = {"reptile": {"batches": 2, "inner_lr": 0.1}}
    report = make("supervised", update, clean_every=2).backward(model, [[one], [two]], [[clean], []])
    for some, u in zip(report.sums, seen, strict=True):
        assert error([some[0].score], [u]) < 1e-9
