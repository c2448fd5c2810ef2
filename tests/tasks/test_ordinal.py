"""A kind of one's own is one file: found by its name, whole, trained, scored and written, with no change elsewhere."""

import math
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from gradworks import tasks
from gradworks.data import predictions
from gradworks.methods import Method
from gradworks.spec import Batch
from gradworks.tasks import kinds

VALUES = {"tasks": {"stars": {"kind": "ordinal", "texts": ["review"], "classes": [1, 2, 3], "metrics": ["accuracy"]}}}


@pytest.fixture
def stars(tmp_path, monkeypatch):
    shutil.copy(Path(__file__).parent / "ordinal.py", tmp_path)
    monkeypatch.setattr(kinds, "__path__", [*kinds.__path__, str(tmp_path)])
    return tasks.kind(tasks.find("stars", VALUES))


def test_it_is_found_and_whole(stars):
    assert "ordinal" in kinds.names() and kinds.forgotten(stars) == []
    assert (stars.size, stars.classes) == (1, ("1", "2", "3"))


def test_its_probabilities_and_loss(stars):
    def p(z):
        return 1 / (1 + math.exp(-z))

    z = torch.tensor([[0.3]], dtype=torch.float64)
    above = [p(0.3 + 2), p(0.3 - 2)]
    assert stars.answers((z,))[0].tolist() == pytest.approx([1 - above[0], above[0] - above[1], above[1]])
    one = Batch("stars", ["a"], {}, torch.tensor([1]), torch.ones(1))
    assert stars.loss((z,), one).tolist() == pytest.approx([-math.log(above[0]) - math.log(1 - above[1])])


@pytest.mark.parametrize(
    "slots", [{}, {"weighting": "reweight"}, {"objective": "smart"}, {"update": "dotprod"}], ids=str
)
def test_it_is_trained_by_any_method_scored_and_written(stars, slots):
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.embedding, self.head = torch.nn.Embedding(30, 4), torch.nn.Linear(4, 1)

        def embed(self, inputs):
            return self.embedding(inputs["ids"])

        def forward(self, inputs, embedded=None):
            return self.head((self.embed(inputs) if embedded is None else embedded).mean(1))

    labels = torch.arange(12) % 3
    ids = {"ids": 10 * labels[:, None] + torch.arange(5)}
    batch = Batch("stars", [str(i) for i in range(12)], ids, labels, torch.ones(12))
    model, method = Model(), Method(task=stars, seed=0, **slots)
    optimizer = torch.optim.AdamW(model.parameters(), 0.1)
    for _ in range(200):
        method.backward(model, [[batch]] * method.batches, [[batch]] * method.batches if method.clean else ())
        optimizer.step()
    answers = stars.answers((stars.outputs(model, batch)[0].detach(),))
    assert stars.score("accuracy", labels.numpy(), answers).value == 1
    table = pa.table({"id": batch.ids, "label": [stars.classes[i] for i in labels]})
    written = predictions.to_table(table, answers, stars, [])
    assert written["prediction"].to_pylist() == written["label"].to_pylist()
    assert np.array_equal(stars.read(written), answers)
