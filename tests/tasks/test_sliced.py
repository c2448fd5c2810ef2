"""A task with heads for its slices: its loss, its gradients and its combined answers, by hand."""

import dataclasses

import numpy as np
import pytest
import torch

from gradworks import loop
from gradworks.base.errors import InputError
from gradworks.methods import Method
from gradworks.tasks.kinds._shared.sliced import COMBINE, Sliced, check, combined
from tests import kinds
from tests.methods.shipped import STAR

ROWS = 32
MEMBERS = {"every_third": frozenset(str(i) for i in range(0, ROWS, 3)), "one": frozenset(("1",)), "none": frozenset()}


def made(name, **options):
    base = kinds.classes(3, texts=("one", "two")) if name == "classification" else kinds.values(texts=("one", "two"))
    return Sliced(base, MEMBERS, **options)


def batch_of(task, rows):
    model = kinds.network(task)
    return model, kinds.examples(task, model, n=ROWS).batch(rows)


def by_hand(name, z, labels, inside, weight):
    """(n,) in numpy, head by head: the task's loss, and each slice's times n / members."""

    def loss(z):
        if name == "regression":
            return (z[:, 0] - labels) ** 2
        e = np.exp(z - z.max(1, keepdims=True))
        return -np.log((e / e.sum(1, keepdims=True))[np.arange(len(z)), labels])

    size, total = z.shape[1] // (1 + inside.shape[1]), loss(z[:, : z.shape[1] // (1 + inside.shape[1])])
    for k, own in enumerate(inside.T, 1):
        if own.any():
            total = total + weight * own * len(z) / own.sum() * loss(z[:, k * size : (k + 1) * size])
    return total


@pytest.mark.parametrize("name", ["classification", "regression"])
def test_a_slices_loss_is_the_mean_over_its_members_and_0_without_any(name):
    task = made(name, weight=0.5)
    rows = [0, 3, 2, 4, 5, 7, 6, 1]
    model, batch = batch_of(task, rows)
    outputs = task.outputs(model.eval(), batch)
    inside = np.array([[str(i) in own for own in MEMBERS.values()] for i in rows])
    found = task.loss(outputs, batch)
    expected = by_hand(name, outputs[0].detach().numpy(), batch.labels.numpy(), inside, 0.5)
    assert found.detach().numpy() == pytest.approx(expected, rel=1e-6)  # n / members is float32
    found.mean().backward()
    blocks = model.head.weight.grad.view(4, task.kind.size, -1).abs().sum((1, 2))
    assert (blocks[:3] > 0).all() and blocks[3] == 0  # "none" has no members
    if name == "classification":
        assert task.smoothed(outputs, batch, 0.0).equal(found)
        assert not task.smoothed(outputs, batch, 0.2).equal(found)


def test_micro_batches_are_the_batch():
    """A slice's members are those of the whole batch: one micro-batch has none of "one", the other has it."""
    task = made("classification")
    model, batch = batch_of(task, range(8))
    settings = loop.Settings(1, 8, 8, 0.1, micro=4)
    whole, parts = ([Method(task=task, seed=1).backward(model.eval(), loop.cut([batch], s), ()),
                     [p.grad.clone() for p in model.parameters()]]
                    for s in (dataclasses.replace(settings, micro=None), settings))  # fmt: skip
    for a, b in zip(whole[1], parts[1], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
    assert whole[0].log["loss"] == pytest.approx(parts[0].log["loss"])


def test_all_heads_share_one_forward_pass():
    task = made("classification")
    model, batch = batch_of(task, range(8))
    calls = []
    model.embedding.register_forward_hook(lambda *_: calls.append(1))
    Method(task=task, seed=1).backward(model, [[batch]], ())
    assert len(calls) == 1
    with torch.no_grad():
        task.respond(model, batch, kinds.examples(task, model, n=ROWS).encodings[:8])
    assert len(calls) == 2


@pytest.mark.parametrize("triple", STAR, ids="-".join)
@pytest.mark.parametrize("name", ["classification", "regression"])
def test_every_entry_trains_the_heads_or_says_why_not(name, triple):
    task, plain = made(name), made(name).kind
    results = []
    for one in (task, plain):
        model = kinds.network(one)
        data, before = kinds.examples(one, model, n=ROWS), model.head.weight.detach().clone()
        try:
            method = Method(*triple, tasks={one.spec.name: one}, seed=3)
            k = method.batches
            drawn = [[data.batch(range(8 * (i % 4), 8 * (i % 4) + 8))] for i in range(k)]
            report = method.backward(model, drawn, [[data.batch(range(24, 32))]] * k if method.clean else ())
        except ValueError as error:
            results.append(str(error).splitlines()[-1])
            continue
        torch.optim.SGD(model.parameters(), 0.1).step()
        moved = (model.head.weight - before).view(-1, plain.size, 6).abs().sum((1, 2)) > 0
        results.append((report.log["finite"], [report.skipped, *moved.tolist()]))
    if isinstance(results[1], str):
        assert results[0] == results[1]
    else:
        assert results[0][0] == 1
        assert results[0][1][0] or results[0][1][1:3] == [True, True]  # the task's head and that of "every_third"


def test_smoothness_is_that_of_the_tasks_head():
    task = made("classification")
    model, batch = batch_of(task, range(8))
    p = task.outputs(model.eval(), batch)
    q = (torch.cat([p[0][:, :3] + torch.tensor([0.3, 0.0, 0.0]), p[0][:, 3:]], 1),)
    assert (task.divergence(p, q) > 0).all()
    assert task.divergence(p, q).equal(task.kind.divergence((p[0][:, :3],), (q[0][:, :3],)))


P = np.array([[[0.5, 0.5], [0.9, 0.1], [0.2, 0.8]]] * 4)  # task, two slices
INSIDE = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], dtype=bool)


def test_combined_by_hand():
    found = {how: combined(P, INSIDE, how, True)[:, 0] for how in COMBINE}
    assert found["task"] == pytest.approx([0.5] * 4)
    assert found["mean"] == pytest.approx([0.5, 0.7, 1.6 / 3, 0.35])
    assert found["defer"] == pytest.approx([0.5, 0.9, 0.55, 0.2])
    # of log odds 0: + log 9, + log 1/4, and both: log 9/4
    assert found["residual"] == pytest.approx([0.5, 0.9, 9 / 13, 0.2])
    values = combined(np.array([[1.0, 3.0, 4.0]] * 4), INSIDE, "residual", False)
    assert values == pytest.approx([1.0, 3.0, 6.0, 4.0])


def test_what_cannot_have_heads_for_slices_is_refused_in_words():
    for name in ("tagging", "span", "similarity", "choice", "seq2seq", "word_in_context"):
        with pytest.raises(
            InputError, match=f"^m: found slices of t, a task of kind {name}\nexpected a task whose head"
        ):
            check(kinds.example(name), "m")
    check(kinds.example("classification"), "m")
    with pytest.raises(ValueError, match="combine: found 'sum'"):
        made("classification", combine="sum")


@pytest.mark.parametrize("name", ["classification", "regression"])
def test_smoothness_is_felt_by_heads_of_slices(name):
    task = made(name)
    model, batch = batch_of(task, range(8))
    report = Method("smart", task=task, seed=1).backward(model.eval(), [[batch]])
    assert report.log["smoothness"] > 0
