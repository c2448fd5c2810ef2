"""Tasks that read the same rows: one forward pass, and the sum of the losses that each has in a pass of its own."""

import contextlib
import dataclasses
import hashlib
import itertools

import pyarrow as pa
import pytest
import torch

from gradworks import loop, models, tasks
from gradworks.base.checkpoint import Checkpoint
from gradworks.base.errors import InputError
from gradworks.data import tables
from gradworks.data.mixture import Mixture, Part
from gradworks.data.together import joined
from gradworks.data.tokenizer import train
from gradworks.methods import Method
from gradworks.methods._shared.masks import Masks
from gradworks.tasks import TaskSpec
from gradworks.tasks.kinds._shared.together import Together, check_method, kinds_of
from tests.methods.shipped import STAR

KINDS = {
    name: tasks.kind(TaskSpec(name, kind, ("text",), classes, (metric,)))
    for name, kind, classes, metric in (
        ("mood", "classification", ("bad", "fair", "good"), "accuracy"),
        ("worth", "regression", None, "pearson"),
        ("words", "tagging", ("low", "high"), "tag_accuracy"),
    )
}
TONE = tasks.kind(TaskSpec("tone", "classification", ("text",), ("calm", "loud"), ("accuracy",)))
KINDS["tone"] = TONE
WEIGHTS = {"mood": 1.0, "worth": 0.25, "words": 2.0, "tone": 0.5}
ENCODERS = {
    "transformer": {"layers": 1, "width": 8, "heads": 2, "dropout": 0.3, "pooling": "cls"},
    "gru": {"embedding": 6, "hidden": 5, "mlp": 4, "dropout": 0.3, "bidirectional": True, "pooling": "mean"},
}
ROWS, SEED = 16, 5
TEXTS = [" ".join("abcde"[(i * i + k) % 5] for k in range(2 + i % 4)) for i in range(ROWS)]
LABELS = {
    "mood": [("bad", "fair", "good")[i % 3] for i in range(ROWS)],
    "worth": [i % 5 / 4 for i in range(ROWS)],
    "tone": [("calm", "loud")[i % 5 > 1] for i in range(ROWS)],
    "words": [" ".join("low" if word < "c" else "high" for word in text.split()) for text in TEXTS],
}


def build(name, folder, of=KINDS):
    folder.mkdir(exist_ok=True)
    module = models.find(name)
    module.prepare(
        module.Options(model=name, **ENCODERS[name]), train(["a b c d e"], 40, True), folder, texts=1, vectors=None
    )
    return models.create(folder, {task: KINDS[task].size for task in of}, seed=1).double()


def examples(model, task, texts=TEXTS, labels=None, length=16, ids=None):
    """The ids have the name of the task's own source, as `fetch` gives them."""
    ids = ids or [f"{task}/train-{i}" for i in range(len(texts))]
    column = pa.array(labels or LABELS[task], KINDS[task].label_type)
    return tables.to_examples(pa.table({"id": ids, "text": texts, "label": column}), KINDS[task], model, length, "f")


def mixture(model, sets, of=KINDS, schedule="single", **more):
    parts = {task: Part(*[examples(model, task)] * 3) for task in of}
    return Mixture(parts, schedule, together=sets, **more)


def key(*parts):
    """As `gradworks.spec.Masks` says of dropout: seed, split, batch, micro-batch, stream."""
    return int.from_bytes(hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest(), "big") >> 1


def alone(model, task, rows, seed):
    """() the mean loss of one task in a forward pass of its own whose dropout draws from `seed`; by hand."""
    encoded = model.collate(model.encode([(TEXTS[i],) for i in rows], 16))
    torch.manual_seed(seed)
    states = model.encoder(**encoded).last_hidden_state
    head = model.heads.of(task)
    if task != "words":
        z = head(model.dropout(states[:, 0]))
        if task == "worth":
            return ((z[:, 0] - torch.tensor([LABELS[task][i] for i in rows]).double()) ** 2).mean()
        right = torch.tensor([("bad", "fair", "good").index(LABELS[task][i]) for i in rows])
        return -z.log_softmax(-1)[range(len(rows)), right].mean()
    p = head(model.dropout(states)).log_softmax(-1)
    each = [-p[n, 1 + k, ("low", "high").index(tag)]  # a word is a token, behind [CLS]
            for n, i in enumerate(rows) for k, tag in enumerate(LABELS[task][i].split())]  # fmt: skip
    return torch.stack(each).mean()


@pytest.mark.parametrize("order", [("mood", "worth", "words"), ("words", "mood", "worth")])
def test_the_gradient_is_that_of_the_sum_of_the_losses_of_passes_of_their_own(tmp_path, order):
    """Each by hand, with the dropout noise of the one pass."""
    model, rows = build("transformer", tmp_path / "m", order), [3, 0, 7, 8, 2]
    batch = joined("all", {task: examples(model, task) for task in order}).batch(rows)
    calls = []
    model.encoder.register_forward_hook(lambda *_: calls.append(1))
    method = Method(task=Together({task: KINDS[task] for task in order}, WEIGHTS), seed=SEED)
    report = method.backward(model, [[batch]])
    assert len(calls) == 1 and report.passes == 1
    found = {name: p.grad.clone() for name, p in model.named_parameters()}
    loss = sum(WEIGHTS[task] * alone(model, task, rows, key(SEED, "train", 0, 0, 0)) for task in order)
    expected = torch.autograd.grad(loss, list(model.parameters()))
    assert report.log["loss"] == pytest.approx(loss.item(), abs=1e-6)  # the log is float32
    assert (report.sums[0][0].losses.mean() - loss).item() == pytest.approx(0, abs=1e-9)
    for (name, g), e in zip(found.items(), expected, strict=True):
        assert (g - e).abs().max() < 1e-9, name
    assert max(float(g.abs().max()) for g in found.values()) > 0.01


def test_micro_batches_are_the_batch(tmp_path):
    """Words are counted over the whole batch: its halves have other numbers of them."""
    model = build("transformer", tmp_path / "m").eval()
    batch = joined("all", {task: examples(model, task) for task in KINDS}).batch(range(8))
    settings, found = loop.Settings(1, 8, 8, 0.1), []
    for micro in (None, 3):
        task = Together(KINDS, WEIGHTS)
        report = Method(task=task, seed=1).backward(
            model, loop.cut([batch], dataclasses.replace(settings, micro=micro))
        )
        found.append(([p.grad.clone() for p in model.parameters()], report.log["loss"]))
    assert found[0][1] == pytest.approx(found[1][1])
    for a, b in zip(found[0][0], found[1][0], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ENCODERS)
def test_each_task_has_the_outputs_of_a_pass_of_its_own(tmp_path, name):
    """To the bit, in any order; the encoder runs once."""
    model, calls = build(name, tmp_path / "m"), []
    body = model.encoder if name == "transformer" else model.directions[1]
    body.register_forward_hook(lambda *_: calls.append(1))
    rows = [5, 1, 6]
    for order in itertools.permutations(KINDS if name == "transformer" else ("mood", "tone", "worth")):
        batch = joined("all", {task: examples(model, task) for task in order}).batch(rows)
        task, given = Together({one: KINDS[one] for one in order}), None
        for given in (None, task.embed(model, batch)):
            calls.clear(), torch.manual_seed(3)
            made = dict(zip(order, task.outputs(model, batch, given), strict=True))
            assert len(calls) == 1
            for one in order:
                torch.manual_seed(3)
                own = examples(model, one).batch(rows)
                assert KINDS[one].outputs(model, own, given)[0].equal(made[one]), (order, one)


class Sum:
    """Two classifications by hand, for `test_every_entry...`: one pass, two heads, the sum of the losses."""

    def _batch(self, batch):
        return {k.removeprefix("mood "): v for k, v in batch.inputs.items() if k.startswith("mood ")}

    def outputs(self, model, batch, embedded=None):
        inputs = self._batch(batch)
        read = model.vectors(inputs, embedded).view(*inputs["ids"].shape[:2], -1)[:, 0]
        z = model.mlp(read)
        return model.heads.of("mood")(z), model.heads.of("tone")(z)

    def embed(self, model, batch):
        return model.embed(self._batch(batch))

    def _loss(self, z, labels, share=0.0):
        logs = z.log_softmax(-1)
        return -(1 - share) * logs.gather(1, labels[:, None])[:, 0] - share * logs.mean(-1)

    def loss(self, outputs, batch, share=0.0):
        mood, tone = (self._loss(z, batch.labels.of[k], share) for z, k in zip(outputs, ("mood", "tone"), strict=True))
        return mood + 0.5 * tone

    smoothed = loss

    def divergence(self, p, q):
        def of(p, q):
            a, b = p.log_softmax(-1), q.log_softmax(-1)
            return ((a.exp() - b.exp()) * (a - b)).sum(-1)

        return of(p[0], q[0]) + 0.5 * of(p[1], q[1])


@pytest.mark.parametrize("triple", STAR, ids="-".join)
def test_every_entry_works_on_the_summed_loss_or_is_refused(tmp_path, triple):
    """As on a task of one's own that has the sum as its loss."""
    sets, found = {"mood+tone": {"mood": 1.0, "tone": 0.5}}, []
    kinds = kinds_of({task: KINDS[task] for task in ("mood", "tone")}, sets)
    assert list(kinds) == ["mood+tone"]
    model = build("gru", tmp_path / "m", ("mood", "tone"))
    drawn = mixture(model, sets, ("mood", "tone"))
    for task in (kinds["mood+tone"], Sum()):
        method = Method(*triple, task=task, seed=SEED)
        if task is not kinds["mood+tone"]:
            pass
        elif triple[2] in ("joint", "pcgrad", "cagrad", "upgrad", "uncertainty", "famo"):
            with pytest.raises(InputError, match=f"{triple[2]} takes a gradient of"):
                check_method(method, sets, "p: mixtures.x", "m")
            return
        elif triple[1] == "class_ratio":
            with pytest.raises(InputError, match="class_ratio counts the classes of one task"):
                check_method(method, sets, "p: mixtures.x", "m")
            return
        check_method(method, sets, "p: mixtures.x", "m")
        draws = drawn.draws(method.needs, 8, 4 if method.clean else None, SEED)
        for number in range(2):
            batches, clean = draws.step(number, method.clean_for)
            report = method.backward(model, [[b] for b in batches], [[b] if b else [] for b in clean])
        found.append(([p.grad.clone() for p in model.parameters()], report.passes, report.log["loss"]))
    assert found[0][1:] == pytest.approx(found[1][1:])
    for a, b in zip(found[0][0], found[1][0], strict=True):
        assert (a - b).abs().max() < 1e-9
    assert max(float(g.abs().max()) for g in found[0][0]) > 1e-4


SETTINGS = loop.Settings(batches=12, batch=4, clean_batch=4, learning_rate=0.02, clip=1.0, every=0.5)
THREE = ("mood", "worth", "tone")
SET = {"mood+tone": {"mood": 1.0, "tone": 0.5}}


@pytest.mark.parametrize("triple", [("supervised", "reweight", "dotprod"), ("smart", "uniform", "erm")], ids="-".join)
def test_killed_and_resumed_it_ends_bit_identical_and_a_row_counts_once(tmp_path, triple):
    """A set and a task alone; every row of a set is one example, whatever its tasks."""
    kinds = kinds_of({task: KINDS[task] for task in THREE}, SET)

    def fit(folder=None, stop=lambda: False):
        model = build("gru", tmp_path / "m", THREE)
        saved = Checkpoint("key", folder) if folder else None
        trained = mixture(model, SET, THREE, "proportional")
        method = Method(*triple, tasks=kinds, seed=SEED)
        trace = loop.fit(model, method, trained, SETTINGS, SEED, lambda _: {"x": 0.0}, saved, stop)
        return model, trace, trained

    whole, trace, trained = fit()
    assert trained.sizes(4) == {"mood+tone": 4, "worth": 4} and trained.rows()[0] == ("mood+tone", "mood/train-0")
    assert (trace.batches, trace.examples) == (12, 48)
    asked = iter([False, False, True])
    with pytest.raises(loop.Stopped):
        fit(tmp_path, lambda: next(asked))
    read = Checkpoint("key", tmp_path).load()["mixture"]["read"]
    assert sum(read.values()) == 3 * 12 // trace.step and set(read) == {"mood+tone", "worth"}
    torch.manual_seed(99)
    resumed, again, _ = fit(tmp_path)
    assert all(
        torch.equal(a, b) for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True)
    )
    assert again.history == trace.history and again.statistics == trace.statistics
    assert bool(trace.weights) == ("reweight" in triple)
    for a, b in zip(trace.state_dict()["weights"], again.state_dict()["weights"], strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_what_is_not_the_same_rows_is_refused_in_words(tmp_path):
    model = build("transformer", tmp_path / "m")
    mood, ids = examples(model, "mood"), [f"tone/train-{i}" for i in range(ROWS)]

    def tone(texts=TEXTS, **more):
        return joined("x", {"mood": mood, "tone": examples(model, "tone", texts, LABELS["tone"][: len(texts)], **more)})

    assert tone().batch([1, 0]).ids == ["mood/train-1", "mood/train-0"]
    for change, said in (
        (lambda: tone(TEXTS[:9]), "mood and tone: found 16 and 9 rows, row train-9 of mood alone\nexpected the same"),
        (lambda: tone(ids=ids[::-1]), "found 16 and 16 rows, the same rows in another order"),
        (lambda: tone(["b a", *TEXTS[1:]]), r"row train-0: found other tokens, \[4, 4\] and \[4, 4\] of them"),
        (lambda: tone(length=3), r"row train-0: found other tokens, \[4, 4\] and \[3, 3\] of them\nexpected texts"),
        (lambda: joined("x", {"mood": mood, "words": examples(model, "words", length=4)}), "row train-1: found other"),
        (
            lambda: joined("x", {"mood": mood, "tone": dataclasses.replace(mood, sampler=print)}),
            "tone, which draws its",
        ),
    ):
        with pytest.raises(InputError, match=said):
            change()
    batch = tone().batch([1, 2])
    batch.inputs["tone input_ids"] = batch.inputs["tone input_ids"] + 1  # whatever became of the rows on the way
    task = Together({"mood": KINDS["mood"], "tone": KINDS["tone"]})
    with pytest.raises(InputError, match="together: found tasks whose encoder is not of the same tokens"):
        task.outputs(model, batch)
    other = tone()
    other.members["tone"].ids[1] = "tone/train-0"
    with pytest.raises(ValueError, match="tone and mood: found other rows in a batch"):
        other.batch([0, 1])


def test_it_offers_what_all_its_tasks_offer():
    """A tagger's examples count by their words, which a divergence does not see."""
    both = Together({"mood": KINDS["mood"], "words": KINDS["words"]})
    assert Method(objective="label_smoothing", task=both) and not hasattr(both, "divergence")
    with pytest.raises(ValueError, match=r"rdrop: needs divergence\(...\) of a task"):
        Method(objective="rdrop", task=both)
    with pytest.raises(ValueError, match=r"label_smoothing: needs smoothed"):
        Method(objective="label_smoothing", task=Together({"mood": KINDS["mood"], "worth": KINDS["worth"]}))


@pytest.mark.parametrize("triple", [("supervised", "uniform", "sam"), ("smart", "reweight", "dotprod")], ids="-".join)
def test_dropout_noise_that_is_kept_for_further_passes_is_that_of_the_first(tmp_path, triple, monkeypatch):
    """Words and sentences draw from one state of the generator: noise of other shapes."""
    order = ("words", "mood", "worth") if triple[0] == "supervised" else ("mood", "worth")
    sets, found = {"+".join(order): dict.fromkeys(order, 1.0)}, []
    model = build("transformer", tmp_path / "m", order)
    (task,) = kinds_of({one: KINDS[one] for one in order}, sets).values()
    for kept in (True, False):
        if not kept:
            monkeypatch.setattr(Masks, "_noise", lambda *_: contextlib.nullcontext())
        method = Method(*triple, task=task, seed=SEED)
        batches, clean = mixture(model, sets, order).draws(method.needs, 8, 4 if method.clean else None, SEED).step(0)
        method.backward(model, [[b] for b in batches], [[b] for b in clean])
        found.append([p.grad.clone() for p in model.parameters()])
    for a, b in zip(*found, strict=True):
        assert (a - b).abs().max() < 1e-12
