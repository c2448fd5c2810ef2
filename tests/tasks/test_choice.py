"""Choice: each text scored with those that all share, a softmax over the scores, read as official COPA files."""

import json
import math

import numpy as np
import pyarrow as pa
import pytest
import torch

from gradworks import models, tasks
from gradworks.base.errors import InputError
from gradworks.data import files, tables
from gradworks.data.tokenizer import train
from gradworks.predict import answers
from gradworks.tasks import TaskSpec

COPA = tasks.kind(tasks.find("copa", {}))
ROWS = [
    {"premise": "a b", "question": "cause", "choice1": "c d e", "choice2": "b", "label": 1, "idx": 0},
    {"premise": "e", "question": "effect", "choice1": "a", "choice2": "d d", "label": 0, "idx": 1},
    {"premise": "d c b", "question": "cause", "choice1": "c", "choice2": "e a", "label": 1, "idx": 2},
]
ENCODERS = {
    "gru": {"embedding": 6, "hidden": 5, "mlp": 4, "dropout": 0.0},
    "bow": {"embedding": 6, "hidden": 4, "dropout": 0.0},
    "transformer": {"layers": 1, "width": 8, "heads": 2, "dropout": 0.0},
}


def build(name, folder):
    folder.mkdir()
    tokenizer = train(["a b c d e cause effect"], 40, True)
    module = models.find(name)
    module.prepare(module.Options(model=name, **ENCODERS[name]), tokenizer, folder, texts=2, vectors=None)
    return models.create(folder, COPA.size, seed=1).eval()


def table(rows=ROWS):
    columns = {"id": [str(one["idx"]) for one in rows], "label": [COPA.classes[one["label"]] for one in rows]}
    return pa.table(columns | {name: [one[name] for one in rows] for name in COPA.spec.texts})


@pytest.mark.parametrize("name", ENCODERS)
def test_a_choice_is_scored_with_the_shared_texts_whatever_else_the_batch_holds(name, tmp_path):
    model = build(name, tmp_path / "m")
    examples = tables.to_examples(table(), COPA, model, 32, "f")
    made = answers(model, COPA, examples)
    with torch.no_grad():
        for row, found in zip(ROWS, made, strict=True):
            texts = [(row["premise"], row["question"], row[choice]) for choice in COPA.classes]
            scores = [float(model(model.collate(model.encode([one], 32)))) for one in texts]
            e = [math.exp(score) for score in scores]
            assert found.tolist() == pytest.approx([one / sum(e) for one in e], abs=1e-5)
    batch = examples.batch([0, 1, 2])
    (plain,) = COPA.outputs(model, batch)
    assert plain.shape == (3, 2) and batch.mass.tolist() == [1, 1, 1]
    embedded = COPA.embed(model, batch)
    assert embedded.shape[0] == 3 and torch.allclose(COPA.outputs(model, batch, embedded)[0], plain, atol=1e-6)
    assert COPA.loss((plain,), batch).tolist() == pytest.approx(
        [-math.log(found[row["label"]]) for row, found in zip(ROWS, made, strict=True)], abs=1e-5
    )


def read(tmp_path, rows):
    file = tmp_path / "val.jsonl"
    file.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return files.read(COPA, {"val": file}, "copa", tmp_path, "copa")[0]["val"]


def test_official_files_are_read_and_a_choice_without_text_costs_its_row(tmp_path):
    split = read(tmp_path, ROWS)
    assert [one["label"] for one in split.records] == ["choice2", "choice1", "choice2"] and not split.bad
    without = {name: one for name, one in ROWS[0].items() if name != "choice1"}
    split = read(tmp_path, [*ROWS, {**ROWS[0], "choice2": " ", "idx": 3}, without])
    assert len(split.records) == 3
    assert split.bad == [
        {"file": "copa/val.jsonl", "line": 4, "reason": "no text in the column 'choice2'"},
        {"file": "copa/val.jsonl", "line": 5, "reason": "no text in the column 'choice1'"},
    ]


def test_classes_that_are_no_texts_are_refused():
    with pytest.raises(InputError, match="classes: found b\nexpected names of text columns: a, c"):
        tasks.kind(TaskSpec("t", "choice", ("a", "c"), ("a", "b"), ()))


def test_copa_is_read_whole(data):
    found = files.read(COPA, {s: data / f"superglue/COPA/{s}.jsonl" for s in ("train", "val")}, "copa",
                       data, "copa")[0]  # fmt: skip
    assert {name: len(one.records) for name, one in found.items()} == {"train": 400, "val": 100}
    labels = np.array([one["label"] for one in found["val"].records])
    assert max(COPA.score("accuracy", labels, one).value for one in COPA.constants(labels)) == pytest.approx(0.55)
