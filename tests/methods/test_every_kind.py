"""Every entry of every slot with every kind of task, all found by listing their folders: trained, or refused in words.

A kind of one's own, the exercise of tests/tasks, is put among them.
"""

import pytest
import torch

from gradworks.methods import Method
from gradworks.methods._shared import entries
from gradworks.spec import offers
from gradworks.tasks import kinds
from tests.kinds import EVERY, ORDINAL, example, examples, network
from tests.methods.shipped import STAR

OPTIONAL = ("embed", "divergence", "smoothed")
NO_GRADIENT = dict.fromkeys(("choice", "cloze", "span"), "head.bias")  # of a softmax over choices, or over tokens
SPARSE = ("random", "reweight")  # may leave no weight in a batch


@pytest.fixture(autouse=True)
def exercise(tmp_path, monkeypatch):
    (tmp_path / ORDINAL.name).write_text(ORDINAL.read_text())
    monkeypatch.setattr(kinds, "__path__", [*kinds.__path__, str(tmp_path)])


def refusal(triple, task):
    """What is said of a kind that lacks what an entry needs; None where it lacks nothing."""
    for part in entries.entry_class("objective", triple[0])().requires:
        if not offers(task, part):
            which = f"task {task.name!r}" if getattr(task, "name", "") else type(task).__name__
            return f"objective {triple[0]}: needs {part}(...) of a task, and {which} does not offer it"
    if triple[1] == "class_ratio" and not task.calibrated and task.spec.kind != "episodes":
        labels = examples(task, network(task), 8).batch(range(4)).labels
        return (
            f"class_ratio: found {str(labels.dtype)[6:]} labels of shape {tuple(labels.shape)} in task {task.name!r}, "
            "expected class indices, one per example: (n,) whole numbers from 0"
        )
    return None


def drawn(count, data, clean):
    """Micro-batches of `count` batches, and clean ones."""
    batches = [[data.batch(range(8 * i, 8 * i + 4)), data.batch(range(8 * i + 4, 8 * i + 8))] for i in range(count)]
    return batches, [[data.batch(range(28, 32))] for _ in batches] if clean else ()


def method(triple, task):
    return Method(*triple, tasks={task.spec.name: task}, seed=3)


def train(triple, task, steps=2):
    """The model after some steps, and the last report. Raises ValueError where the kind is refused."""
    made = method(triple, task)
    model = network(task)
    data = examples(task, model, n=8 * max(4, made.batches))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(steps):
        report = made.backward(model, *drawn(made.batches, data, made.clean))
        optimizer.step()
    return model, report


@pytest.mark.parametrize("triple", STAR, ids="-".join)
@pytest.mark.parametrize("name", EVERY)
def test_an_entry_trains_a_kind_or_refuses_it_in_words(name, triple):
    task = example(name)
    expected = refusal(triple, task)
    if expected is not None:
        with pytest.raises(ValueError) as error:
            train(triple, task)
        assert str(error.value) == expected and len(expected.splitlines()) <= 3
        return
    model, report = train(triple, task)
    assert report.log["finite"] == 1 and (not report.skipped or triple[1] in SPARSE)
    untrained = network(task)
    before = dict(untrained.named_parameters())
    still = {name for name, p in model.named_parameters() if torch.equal(p, before[name])}
    assert still <= {NO_GRADIENT.get(task.spec.kind)} or report.skipped
    again, _ = train(triple, task)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize("name", EVERY)
def test_smoothness_is_felt_by_every_kind_of_head(name):
    _, report = train(("smart", "uniform", "erm"), example(name), steps=1)
    assert report.log["smoothness"] > 0 and report.log["delta"] > 0


@pytest.mark.parametrize("options", [{"clean_every": 2, "clean_momentum": 0.5}, {"backend": "head"}], ids=str)
@pytest.mark.parametrize("name", EVERY)
def test_a_cheaper_setting_of_reweight_trains_every_kind(name, options):
    task = example(name)
    triple = ("supervised", {"reweight": options}, "erm")
    if "backend" in options and not any(type(m) is torch.nn.Linear for m in network(task).modules()):
        with pytest.raises(ValueError, match=r"found no trained nn\.Linear"):
            train(triple, task)
        return
    model, report = train(triple, task, steps=3)
    assert report.log["finite"] == 1 and report.sums[0][0].score is not None
    again, _ = train(triple, task, steps=3)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), again.parameters(), strict=True))
    faithful, _ = train(("supervised", "reweight", "erm"), task, steps=3)
    assert any(not torch.equal(p, q) for p, q in zip(model.parameters(), faithful.parameters(), strict=True))


@pytest.mark.parametrize("part", OPTIONAL)
@pytest.mark.parametrize("name", EVERY)
def test_a_kind_without_an_optional_part_is_refused_by_the_entries_that_need_it(name, part, monkeypatch):
    task = example(name)
    monkeypatch.setattr(type(task), part, None, raising=False)
    needing = [t for t in STAR if part in entries.entry_class("objective", t[0])().requires]
    assert needing, f"no entry needs {part}"
    for triple in needing:
        with pytest.raises(ValueError) as error:
            method(triple, task)
        assert str(error.value) == refusal(triple, task)
    assert method(STAR[0], task)


def test_the_table_of_refusals():
    """Which kind lacks what, so that a part that gets lost is seen."""
    found = {name: [t for t in STAR if refusal(t, example(name))] for name in EVERY}
    labels = [("label_smoothing", "uniform", "erm"), ("supervised", "class_ratio", "erm")]
    known = {
        "classification": [], "choice": [], "answers": [], "word_in_context": [], "tagging": labels[1:],
        "span": labels[1:], "cloze": labels[1:], "causal": labels[1:], "seq2seq": labels[1:],
        "ordinal": labels[:1], "regression": labels,
        "similarity": labels, "image": [], "episodes": [],
    }  # fmt: skip
    assert {name: found[name] for name in known} == known
