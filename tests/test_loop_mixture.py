"""The loop on a mixture of two tasks: every update, weighting and objective; killed and resumed it ends the same."""

import dataclasses

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gradworks import loop
from gradworks.base.checkpoint import Checkpoint
from gradworks.base.errors import InputError
from gradworks.data.batching import Examples
from gradworks.data.mixture import Mixture, Part
from gradworks.methods import Method
from tests.methods.shipped import STAR

SETTINGS = loop.Settings(batches=24, batch=8, clean_batch=4, learning_rate=0.02, warmup=0.25, clip=1.0, every=0.25)
CLASSES, VALUES = "kinds", "sizes"  # in which third of the vocabulary the tokens are; how far to the right


class Toy(nn.Module):
    """Embedding, dropout, mean, and a head for each task."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.embedding, self.dropout = nn.Embedding(30, 8), nn.Dropout(0.2)
        self.heads = nn.ModuleDict({CLASSES: nn.Linear(8, 3), VALUES: nn.Linear(8, 1)})

    def forward(self, inputs, embedded=None, task=None):
        x = self.embedding(inputs["ids"]) if embedded is None else embedded
        return self.heads[task](self.dropout(x).mean(1))


class Task:
    def outputs(self, model, batch, embedded=None):
        return (model(batch.inputs, embedded, batch.task),)

    def embed(self, model, batch):
        return model.embedding(batch.inputs["ids"])


class Classes(Task):
    def loss(self, outputs, batch):
        return F.cross_entropy(outputs[0], batch.labels, reduction="none")

    def smoothed(self, outputs, batch, share):
        return F.cross_entropy(outputs[0], batch.labels, reduction="none", label_smoothing=share)

    def divergence(self, p, q):
        a, b = p[0].log_softmax(-1), q[0].log_softmax(-1)
        return ((a.exp() - b.exp()) * (a - b)).sum(-1)


class Values(Task):
    def loss(self, outputs, batch):
        return (outputs[0][:, 0] - batch.labels) ** 2

    def smoothed(self, outputs, batch, share):
        return self.loss(outputs, batch)

    def divergence(self, p, q):
        return (p[0] - q[0])[:, 0] ** 2


TASKS = {CLASSES: Classes(), VALUES: Values()}


def collate(encodings):
    return {"ids": torch.tensor([e["ids"] for e in encodings])}


def examples(task, n, seed):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, (n,), generator=generator)
    ids = torch.randint(0, 10, (n, 5), generator=generator) + 10 * labels[:, None]
    values = ids.float().mean(1) / 30
    names, encodings = [f"{seed}-{i}" for i in range(n)], [{"ids": x} for x in ids.tolist()]
    if task == VALUES:
        return Examples(task, names, encodings, values, collate)
    return Examples(task, names, encodings, labels, collate, strata=labels)


PARTS = {
    CLASSES: Part(examples(CLASSES, 60, 1), examples(CLASSES, 40, 3), examples(CLASSES, 20, 2)),
    VALUES: Part(examples(VALUES, 28, 1), examples(VALUES, 40, 3), examples(VALUES, 12, 2)),
}
MIXTURES = {name: Mixture(PARTS, name) for name in ("round_robin", "proportional")}


def score(model):
    """The mean first: it chooses. Of classes the accuracy, of values 1 - the squared error over that of the mean."""
    training, found = model.training, {}
    model.eval()
    with torch.no_grad():
        for task, part in PARTS.items():
            batch = part.selection.batch(range(40))
            made = model(batch.inputs, task=task)
            right = (made.argmax(1) == batch.labels).float().mean()
            left = 1 - ((made[:, 0] - batch.labels) ** 2).mean() / batch.labels.float().var(correction=0)
            found[task] = float(right if task == CLASSES else left)
    model.train(training)
    return {"mean": sum(found.values()) / 2} | found


def fit(triple=("supervised", "uniform", "erm"), mixture="round_robin", model=None, settings=SETTINGS, **more):
    model = model or Toy()
    method = Method(*triple, tasks=TASKS, seed=5)
    return model, loop.fit(model, method, MIXTURES[mixture], settings, 5, score, **more)


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.mark.parametrize("mixture", MIXTURES)
def test_both_tasks_are_learned_and_the_best_mean_is_kept(mixture):
    settings = dataclasses.replace(SETTINGS, batches=400, learning_rate=0.05, every=0.1)
    model, trace = fit(mixture=mixture, settings=settings)
    looks = [row for row in trace.history if "selection_mean" in row]
    assert trace.best["score"] == max(row["selection_mean"] for row in looks) == score(model)["mean"]
    for task in PARTS:
        assert looks[-1][f"selection_{task}"] > 0.8  # chance: a third, and 0
    for row in looks:
        both = [row[f"selection_{task}"] for task in PARTS]
        assert row["selection_mean"] == sum(both) / 2


ENTRIES = [*STAR, ("smart", "reweight", "dotprod"), ("rdrop", "reweight", "reptile"),
           ("supervised", "reweight", {"fomaml": {"batches": 2, "tasks": "different"}}),
           ("supervised", {"reweight": {"clean_every": 3, "clean_momentum": 0.5}}, "erm"),
           ("supervised", {"reweight": {"every": 2, "clean_every": 2}}, "dotprod"),
           ("supervised", {"reweight": {"backend": "head"}}, "reptile"),
           ("supervised", "uniform", {"reptile": {"batches": 3, "tasks": "same"}})]  # fmt: skip


@pytest.mark.parametrize("mixture", MIXTURES)
@pytest.mark.parametrize("triple", ENTRIES, ids=lambda triple: "-".join(str(one) for one in triple))
def test_killed_and_resumed_it_ends_bit_identical(tmp_path, triple, mixture):
    if "class_ratio" in triple:
        with pytest.raises(ValueError, match=r"class_ratio: found .*, expected class indices"):
            fit(triple, mixture)
        return
    whole, trace = fit(triple, mixture)
    killed = max(1, trace.step // 2 - 1)  # not at a look, and not where an epoch ends
    saved, asked = Checkpoint("key", tmp_path), iter([False] * (killed - 1) + [True])
    with pytest.raises(loop.Stopped, match=f"stopped after step {killed} "):
        fit(triple, mixture, checkpoint=saved, stop=lambda: next(asked))
    read = Checkpoint("key", tmp_path).load()["mixture"]["read"]
    assert sum(read.values()) == killed * (24 // trace.step) and all(read.values())
    torch.manual_seed(99)
    resumed, again = fit(triple, mixture, model=Toy(seed=9), checkpoint=Checkpoint("key", tmp_path))
    assert same(whole, resumed)
    assert again.history == trace.history and again.statistics == trace.statistics
    for a, b in zip(again.state_dict()["weights"], trace.state_dict()["weights"], strict=True):
        assert all(torch.equal(x.nan_to_num(9.0), y.nan_to_num(9.0)) for x, y in zip(a, b, strict=True))


def test_what_the_schedule_cannot_give_is_refused_before_the_first_step():
    model = Toy()
    with pytest.raises(InputError, match="4 batches of different tasks, and there are 2: kinds, sizes"):
        fit(("supervised", "uniform", {"reptile": {"batches": 4, "tasks": "different"}}), model=model)
    assert same(model, Toy())


def test_conflicts_are_the_cosines_of_the_steps_gradients_and_change_nothing(tmp_path, monkeypatch):
    """Every 5 steps from 0 on, of the next batch of each task, on what both reach: the embedding."""
    looked, grads = dataclasses.replace(SETTINGS, conflicts=5), []
    plain_step = loop.step

    def kept(model, backward, optimizer, drawn, *rest, **more):
        made = plain_step(model, backward, optimizer, drawn, *rest, **more)
        grads.append((drawn[0][0].task, model.embedding.weight.grad.double().flatten().clone()))
        return made

    monkeypatch.setattr(loop, "step", kept)
    plain, bare = fit()
    grads.clear()
    whole, trace = fit(settings=looked)
    assert same(plain, whole) and bare.history == trace.history
    expected = []
    for first in range(0, 24, 5):
        (a, x), (b, y) = grads[first : first + 2]
        assert a != b
        cosine = float(x @ y / x.norm() / y.norm())
        expected += [[first + 2, "cosine", pytest.approx(cosine, rel=1e-5)], [first + 2, "conflict", cosine < 0]]
    assert [row for row in trace.statistics if row[1] in ("cosine", "conflict")] == expected
    assert trace.passes == bare.passes
    # killed in the middle of a look
    saved, asked = Checkpoint("key", tmp_path), iter([False] * 5 + [True])
    with pytest.raises(loop.Stopped, match="stopped after step 6 "):
        fit(settings=looked, checkpoint=saved, stop=lambda: next(asked))
    resumed, again = fit(settings=looked, model=Toy(seed=9), checkpoint=Checkpoint("key", tmp_path))
    assert same(whole, resumed) and again.statistics == trace.statistics
    with pytest.raises(InputError, match="conflicts: found an update whose steps are of several batches"):
        fit(("supervised", "uniform", "dotprod"), settings=looked)
