"""`reweight` where a loss reads the outputs of other examples, against a loop over examples."""

import logging

import pytest
import torch
from torch.nn import functional as F

from gradworks.methods import Method
from gradworks.methods.objectives.rdrop import RDrop
from gradworks.methods.weightings._shared import losses
from gradworks.methods.weightings._shared.losses import Coupling, coupled
from tests.methods.test_backends import distance, loop_oracle, scores
from tests.methods.toys import TASKS, Bow, Kind, Net, build, draw, error, masks

SEED = 7
BACKENDS = ("auto", "logit_fd", "jvp", "per_example", "second_order")


def in_batch(z, y):
    """Contrastive, as in-batch negatives are trained with: rows against all rows."""
    a, b = F.normalize(z, dim=-1), F.normalize(z.roll(1, -1).sin(), dim=-1)
    return F.cross_entropy(5 * a @ b.t(), torch.arange(len(z)), reduction="none")


def supervised_contrastive(z, y):
    """Couples examples of one class only."""
    likeness = z @ z.t() / 3
    same = (y[:, None] == y).double().fill_diagonal_(0)
    return -(same * likeness.log_softmax(1)).sum(1) / same.sum(1).clamp_min(1) + F.cross_entropy(z, y, reduction="none")


def relative(z, y):
    losses = F.cross_entropy(z, y, reduction="none")
    return losses - 0.3 * losses.mean() + 0.2 * losses.std()


def broadcast(z, y):
    """(n,) against (n, 1): no operation that moves rows."""
    s = z.sum(1)
    return F.softplus(s.view(-1, 1) - s).mean(1)


def two_outputs(z, y):
    return (z - z.flip(0)).square().sum(1)


LOSSES = {one.__name__: one for one in (in_batch, supervised_contrastive, relative, broadcast, two_outputs)}


class Coupled(Kind):
    def __init__(self, made):
        super().__init__("three")
        self.made = made

    def loss(self, out, batch):
        return self.made(out[0], batch.labels)


def step(name, backend, model, drawn, objective="supervised"):
    task = Coupled(LOSSES[name])
    method = Method(objective, {"reweight": {"backend": backend}}, seed=SEED, task=task)
    return method, method.backward(model, *drawn), loop_oracle(model, drawn[0][0], drawn[1][0], task=task)


def filled(model):
    return [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]


def weighted(model, name, drawn, u):
    w = u.clamp_min(0)
    with masks(SEED, "train", 0):
        task = Coupled(LOSSES[name])
        losses = task.loss(task.outputs(model, drawn[0][0][0]), drawn[0][0][0])
    every = list(model.parameters())
    return torch.autograd.grad((w / w.sum() * losses).sum(), every, materialize_grads=True)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", LOSSES)
def test_scores_and_gradient_are_those_of_the_loop(name, backend, caplog):
    model, drawn = build(Bow), draw(1, n=8)
    expected = weighted(model, name, drawn, loop_oracle(model, *drawn[0], drawn[1][0], task=Coupled(LOSSES[name])))
    with caplog.at_level(logging.INFO, "gradworks"):
        method, report, u = step(name, backend, model, drawn)
    assert 0 < (u > 0).sum() < len(u)
    bound = 1e-6 if backend in ("auto", "logit_fd") else 1e-10
    assert distance(scores(report), u) < bound
    assert error(filled(model), expected) < bound
    if backend == "auto":
        assert method.weighting.taken == "logit_fd"
        assert "its losses read the outputs of other examples" in caplog.records[0].getMessage()


@pytest.mark.parametrize("name", LOSSES)
def test_ghost_refuses(name):
    with pytest.raises(
        ValueError, match="reweight: ghost cannot serve the model: its losses read the outputs of other"
    ):
        step(name, "ghost", build(Bow), draw(1, n=8))


def late(backend, first, then, model=None, steps=1):
    """A loss that changes while training: (method, report, u) of the first step with the other one."""
    task, model = Coupled(first), model or build(Bow)
    one = Method(weighting={"reweight": {"backend": backend}}, seed=SEED, task=task)
    for k in range(steps):
        one.backward(model, *draw(1, n=8, seed=200 + k))
    assert one.weighting.taken == ("ghost" if backend == "auto" else backend)
    task.made = then
    again = Method(weighting={"reweight": {"backend": backend}}, seed=SEED, task=task)
    again.load_state_dict(one.state_dict() | {"drawn": 0})
    drawn = draw(1, n=8)
    u = loop_oracle(model, drawn[0][0], drawn[1][0], task=task)
    return again, again.backward(model, *drawn), u


def plain(z, y):
    return F.cross_entropy(z, y, reduction="none")


@pytest.mark.parametrize("backend", ["auto", "logit_fd", "jvp"])
@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_that_comes_later(backend, name):
    method, report, u = late(backend, plain, LOSSES[name])
    assert distance(scores(report), u) < (1e-6 if backend == "logit_fd" else 1e-10)  # auto: a pass by example
    assert method.weighting.taken == ("logit_fd" if backend == "auto" else backend)


@pytest.mark.parametrize("backend", ["auto", "logit_fd", "jvp"])
def test_examples_that_are_coupled_by_their_labels_in_some_batches_only(backend):
    coupling = [False]

    def now(z, y):
        same = (y[:, None] == y).double().fill_diagonal_(0) * coupling[0]
        likeness = z @ z.t() / 3
        return -(same * likeness).sum(1) + plain(z, y)

    task, model = Coupled(now), build(Bow).eval()  # without masks, which the oracle has of a first step
    one = Method(weighting={"reweight": {"backend": backend}}, seed=SEED, task=task)
    one.backward(model, *draw(1, n=8))
    assert one.weighting.taken == ("ghost" if backend == "auto" else backend)
    coupling[0] = True
    drawn = draw(1, n=8, seed=300)
    report = one.backward(model, *drawn)
    u = loop_oracle(model, drawn[0][0], drawn[1][0], task=task)
    assert distance(scores(report), u) < (1e-6 if backend == "logit_fd" else 1e-10)


@pytest.mark.parametrize("backend", ["logit_fd", "jvp"])
def test_a_loss_that_cannot_be_differentiated_twice_is_refused_in_words(backend):
    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx, z):
            ctx.save_for_backward(z)
            return z - z.mean(0)

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, g):
            return g - g.mean(0)

    task = Coupled(lambda z, y: Once.apply(z.tanh()).square().sum(1))
    one = Method(weighting={"reweight": {"backend": backend}}, seed=SEED, task=task)
    with pytest.raises(ValueError, match="cannot be differentiated twice") as caught:
        one.backward(build(Bow), *draw(1, n=8))
    assert "expected backend: per_example" in str(caught.value) and len(str(caught.value).splitlines()) <= 3
    drawn, model = draw(1, n=8), build(Bow)
    served = Method(weighting={"reweight": {"backend": "per_example"}}, seed=SEED, task=task)
    u = loop_oracle(model, drawn[0][0], drawn[1][0], task=task)
    assert distance(scores(served.backward(model, *drawn)), u) < 1e-10


@pytest.mark.parametrize("backend", BACKENDS)
def test_outputs_that_read_other_examples_are_no_such_losses(backend):
    """BatchNorm while it trains."""
    model, drawn = build(lambda: Net(norm=True)), draw(1, n=8)
    u = loop_oracle(build(lambda: Net(norm=True)), drawn[0][0], drawn[1][0])
    one = Method(weighting={"reweight": {"backend": backend}}, seed=SEED, tasks=TASKS)
    assert distance(scores(one.backward(model, *drawn)), u) < (1e-6 if backend in ("auto", "logit_fd") else 1e-10)


@pytest.mark.parametrize("backend", ["logit_fd", "jvp"])
def test_objectives_of_two_passes_and_micro_batches(backend):
    task, model = Coupled(in_batch), build(Bow)
    (train,), (clean,) = draw(1, n=8, micro=4)
    u = loop_oracle(model, train, clean, RDrop(), task)
    one = Method(RDrop(), {"reweight": {"backend": backend}}, seed=SEED, task=task)
    assert distance(scores(one.backward(model, [train], [clean])), u) < (1e-6 if backend == "logit_fd" else 1e-10)


@pytest.mark.parametrize("backend", ["logit_fd", "jvp"])
def test_a_resumed_run_differentiates_as_the_whole_one(backend):
    def run(cut):
        task, model = Coupled(broadcast), build(Bow)

        def made():
            return Method(weighting={"reweight": {"backend": backend}}, seed=SEED, task=task)

        one = made()
        for k in range(4):
            if k == cut:
                state, one = one.state_dict(), made()
                one.load_state_dict(state)
            report = one.backward(model, *draw(1, n=8, seed=100 + k))
        return scores(report)

    assert torch.equal(run(None), run(2))


@pytest.mark.parametrize("kind", TASKS)
def test_every_kind_of_head_reads_its_own_example_and_is_checked_once(kind, monkeypatch):
    made, differs = [], losses.differs
    monkeypatch.setattr(losses, "differs", lambda *a: made.append(differs(*a)) or made[-1])
    model, reads = build(Net), Coupling()
    for seed in range(3):
        (b,) = draw(1, kind, n=8, seed=100 + seed)[0][0]
        z = TASKS[kind].outputs(model, b)
        own = TASKS[kind].loss(z, b)
        assert not coupled(z, own)
        assert not reads(z, own, torch.autograd.grad(own.sum(), z, retain_graph=True))
    assert made.count(True) == 0 and len(made) == 3 + 1
