"""Steps of plain passes: what is left out of them changes no bit, and every model is trained as a loop by hand does."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gradworks.methods import Method
from gradworks.methods._shared import passes, plain
from gradworks.methods._shared.bases import BaseObjective, BaseWeighting
from gradworks.methods.updates.erm import Erm
from tests.methods import bert
from tests.methods.own_models import MOVING, Blocks, Classes
from tests.methods.toys import MODELS, TASKS, Net, Tied, build, draw, gradients, masks, same


class Sparse(nn.Module):
    """An embedding whose gradient is sparse."""

    def __init__(self):
        super().__init__()
        self.emb, self.out, self.drop = nn.Embedding(30, 8, sparse=True), nn.Linear(8, 3), nn.Dropout(0.2)

    def forward(self, ids, kind="three"):
        return self.out(self.drop(torch.tanh(self.emb(ids))).mean(1))


class Shared(nn.Module):
    """Two parameters whose gradients are one tensor, and one whose gradient is a number, expanded."""

    def __init__(self):
        super().__init__()
        self.emb, self.out = nn.Embedding(30, 8), nn.Linear(8, 3)
        self.a, self.b, self.c = (nn.Parameter(torch.randn(8)) for _ in range(3))

    def forward(self, ids, kind="three"):
        return self.out(self.emb(ids).mean(1) + (self.a + self.b) * self.c.sum())


class Bert(nn.Module):
    def __init__(self):
        super().__init__()
        self.bert = bert.build(hidden_dropout_prob=0.1)

    def forward(self, ids, kind="three"):
        return self.bert(input_ids=ids).logits


class Ours:
    """A task of three classes for models that take ids alone."""

    loss = Classes.loss

    def outputs(self, model, batch, embedded=None):
        return (model(batch.inputs),)


class Own(BaseWeighting):
    """Uniform weights in an entry of one's own, which is not known to be plain."""

    def weights(self, here, outputs, losses):
        return here.batch.mass.to(losses), None


def frozen():
    model = Net()
    model.emb.requires_grad_(False)
    return model


NETS = {kind: (Net, kind) for kind in ("three", "one", "reg", "span", "seq", "choice")}
EVERY = {
    **NETS, **{name: (make, "three") for name, make in MODELS.items()}, "tied": (Tied, "seq"),
    "frozen": (frozen, "three"), "norm": (lambda: Net(norm=True), "three"), "sparse": (Sparse, "three"),
    "shared": (Shared, "three"), "bert": (Bert, "three"),
    "checkpointed": (lambda: Blocks(False, norm=True, drop=0.2), "three"),
    "reentrant": (lambda: Blocks(True, norm=True, drop=0.2), "three"),
    **{name: (make, "three") for name, (make, _) in MOVING.items()},
}  # fmt: skip
UPDATES = [
    "erm", {"erm": {"batches": 2}}, {"reptile": {"inner_lr": 0.1}}, {"fomaml": {"inner_lr": 0.1}},
    {"dotprod": {"weight": 0.0}}, {"dotprod": {"every": 3}},
]  # fmt: skip
ALONE = ("bow", "gru", "transformer", "bert", "shared", "sparse", "checkpointed", "reentrant", *MOVING)


def task(name, kind):
    return Ours() if name in ALONE else TASKS[kind]


@pytest.fixture
def taken(monkeypatch):
    """Whether the passes of each step so far were plain."""
    found, own = [], passes.StepPasses

    def spy(self, step, *rest):
        found.append(step.plain)
        start(self, step, *rest)

    def one(*args):
        found.append(True)
        return gradient(*args)

    start, gradient = own.__init__, plain.gradient
    monkeypatch.setattr(own, "__init__", spy)
    monkeypatch.setattr(plain, "gradient", one)
    return found


def steps(name, weighting, update, micro, count):
    make, kind = EVERY[name]
    model, made = build(make), []
    method = Method(weighting=weighting, update=update, task=task(name, kind), seed=3)
    for i in range(count):
        report = method.backward(model, draw(method.batches, kind, seed=100 + 10 * i, micro=micro)[0])
        found = [p.grad.to_dense() if p.grad is not None and p.grad.is_sparse else p.grad for p in model.parameters()]
        sums = [(one.losses, one.weights, one.weight) for parts in report.sums for one in parts]
        made.append((found, sums, report.log, report.passes, [b.clone() for b in model.buffers()], report.skipped))
    return made


SEVERAL = pytest.mark.slow("updates of several batches on further models")
# cut into micro-batches, the gradients of several batches of the sparse model are dense
CASES = [
    pytest.param(name, update, micro, marks=[] if update == "erm" or name in ("three", "norm", "bert") else SEVERAL)
    for name in EVERY for update in UPDATES for micro in (None, 2)
    if not micro or name != "sparse" or update == "erm"
]  # fmt: skip


@pytest.mark.parametrize(("name", "update", "micro"), CASES, ids=str)
def test_what_is_left_out_changes_no_bit(name, update, micro, taken):
    """Several steps: buffers move, and some updates are plain in some of their steps only."""
    short = steps(name, "uniform", update, micro, 3)
    assert any(taken)
    taken.clear()
    general = steps(name, Own(), update, micro, 3)
    assert not any(taken)
    for (grads, sums, log, count, buffers, skipped), other in zip(short, general, strict=True):
        assert same(grads, other[0]) and all(same(a, b) for a, b in zip(sums, other[1], strict=True))
        assert log == other[2] and count == other[3] and same(buffers, other[4]) and skipped is other[5] is False


@pytest.mark.parametrize("name", [name for name in EVERY if name not in ("checkpointed", "reentrant", *MOVING)])
def test_every_model_is_trained_as_by_hand(name):
    """Three micro-batches of a batch, each under its own masks; what nothing reaches keeps no gradient."""
    make, kind = EVERY[name]
    model, one = build(make), task(name, kind)
    method = Method(task=one, seed=3)
    (drawn,), _ = draw(1, kind, micro=2)
    report = method.backward(model, [drawn])
    found = gradients(model)
    model.zero_grad()
    hand, mass = build(make), sum(b.mass.sum() for b in drawn)
    for k, b in enumerate(drawn):
        with masks(3, "train", 0, k):
            out = one.outputs(hand, b)
        ((b.mass * one.loss(out, b)).sum() / mass).backward()
    for mine, p in zip(found, (p for p in hand.parameters() if p.requires_grad), strict=True):
        assert (mine is None) == (p.grad is None)
        if mine is not None:
            torch.testing.assert_close(mine.to_dense(), p.grad.to_dense(), rtol=1e-12, atol=1e-14)
    assert report.passes == pytest.approx(1) and report.log["finite"] == 1


@pytest.mark.parametrize("micro", [None, 2])
def test_a_batch_without_weight_leaves_no_gradient(micro, taken):
    model, method = build(Net), Method(task=TASKS["three"])
    (drawn,), _ = draw(1, micro=micro)
    for b in drawn:
        b.mass.zero_()
    report = method.backward(model, [drawn])
    assert taken == [True] and report.skipped and not any(g is not None for g in gradients(model))


class Halved(BaseObjective):
    """An objective of one's own: another loss."""

    def loss(self, task, outputs, batch, held):
        return F.cross_entropy(outputs[0], batch.labels, reduction="none") / 2


class Patched(BaseObjective):
    """Its loss is an attribute of the object."""

    def __init__(self):
        self.loss = Halved().loss


@pytest.mark.parametrize(
    "slots",
    [{"objective": Halved()}, {"objective": Patched()}, {"weighting": "random"}],
    ids=["method", "attribute", "weighting"],
)
def test_an_entry_that_overrides_anything_is_not_plain(slots, taken):
    method = Method(**slots, task=TASKS["three"])
    method.backward(build(Net), draw(1)[0])
    assert taken == [False]


class Doubled(Erm):
    """An update of one's own that builds on erm."""

    def gradient(self, passes):
        return [2 * g for g in super().gradient(passes)]


def test_an_update_that_overrides_the_gradient_is_not_plain(taken):
    found = []
    for update in (Doubled(), "erm"):
        model = build(Net)
        Method(update=update, task=TASKS["three"]).backward(model, draw(1)[0])
        found.append([g for g in gradients(model) if g is not None])
    assert same(found[0], [2 * g for g in found[1]])
