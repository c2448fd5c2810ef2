"""Labels that are distributions: the loss is the expected one, and every entry trains on it or says why not."""

import pyarrow as pa
import pytest
import torch

from gradworks.methods import Method
from gradworks.spec import Batch
from tests import kinds
from tests.methods.shipped import STAR

P = torch.tensor([[0.7, 0.2, 0.1], [0.0, 0.0, 1.0], [0.25, 0.25, 0.5]], dtype=torch.float64)


@pytest.mark.parametrize("one_logit", [False, True])
def test_the_loss_is_the_expected_one(one_logit):
    task = kinds.classes(2 if one_logit else 3, **({"one_logit": True} if one_logit else {}))
    p = torch.tensor([[0.4, 0.6], [1.0, 0.0], [0.5, 0.5]], dtype=torch.float64) if one_logit else P
    z = torch.randn(3, task.size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def loss(labels):
        return task.loss((z,), Batch("t", "abc", {}, labels, torch.ones(3)))

    each = torch.stack([loss(torch.full((3,), c)) for c in range(p.shape[1])], 1)
    torch.testing.assert_close(loss(p), (p * each).sum(1))


def soft(task):
    """The rows of `kinds.table` with a distribution; every fourth has none."""
    table = kinds.table(task)
    names, labels = list(task.classes), table["label"].to_pylist()
    rows = [None if i % 4 == 3 else [0.6 if name == one else 0.2 for name in names] for i, one in enumerate(labels)]
    return table.append_column("distribution", pa.array(rows, pa.list_(pa.float64())))


def test_rows_without_a_distribution_are_sure():
    task = kinds.classes(3, texts=("one", "two"))
    found = task.targets(soft(task), "f")
    assert found.shape == (32, 3) and torch.equal(found.argmax(1), task.targets(kinds.table(task), "f"))
    assert found[0].sort().values.tolist() == pytest.approx([0.2, 0.2, 0.6]) and found[3].max() == 1
    assert torch.equal(task.strata(found), task.targets(kinds.table(task), "f"))


@pytest.mark.parametrize("triple", STAR, ids="-".join)
def test_every_entry_trains_on_distributions_or_says_why_not(triple, monkeypatch):
    task = kinds.classes(3, texts=("one", "two"))
    method, model = Method(*triple, tasks={"t": task}, seed=3), kinds.network(task)
    clean = kinds.examples(task, model)
    table = soft(task)
    monkeypatch.setattr(kinds, "table", lambda made, n=32: table)
    data, k = kinds.examples(task, model), method.batches
    assert data.labels.shape == (32, 3)
    drawn = [[data.batch(range(8 * (i % 4), 8 * (i % 4) + 8))] for i in range(k)]
    if triple[1] == "class_ratio":
        with pytest.raises(ValueError, match=r"class_ratio: found float32 labels of shape \(8, 3\)"):
            method.backward(model, drawn, ())
        return
    report = method.backward(model, drawn, [[clean.batch(range(24, 32))]] * k if method.clean else ())
    assert report.log["finite"] == 1
