"""Cloze: a score for each candidate in its place, several right ones, both layouts of ReCoRD, bad rows."""

import json
import math

import numpy as np
import pyarrow as pa
import pytest
import torch

from gradworks import models, tasks
from gradworks.base.errors import InputError
from gradworks.data import files, predictions, records, remote, tables
from gradworks.data.tokenizer import train
from gradworks.predict import answers
from gradworks.tasks import TaskSpec

RECORD = tasks.kind(tasks.find("record", {}))
ROWS = [  # passage, query, entities, right ones
    ("a b c d", "@placeholder e a", ["a b", "c", "d"], ["c"]),
    ("e d", "d @placeholder", ["e", "d"], ["e", "d"]),
    ("b a c e", "c @placeholder d @placeholder", ["b", "a", "c", "e a"], ["b", "e a"]),
    ("c", "@placeholder", ["c"], ["c"]),
]
ENCODERS = {
    "gru": {"embedding": 6, "hidden": 5, "mlp": 4, "dropout": 0.0},
    "transformer": {"layers": 1, "width": 8, "heads": 2, "dropout": 0.0},
}


def build(name, folder):
    folder.mkdir()
    module, tokenizer = models.find(name), train(["a b c d e"], 40, True)
    module.prepare(module.Options(model=name, **ENCODERS[name]), tokenizer, folder, texts=2, vectors=None)
    model = models.create(folder, RECORD.size, seed=1).eval()
    torch.manual_seed(0)
    for parameter in model.parameters():
        parameter.data += 0.5 * torch.randn_like(parameter)
    return model


def table():
    passages, queries, names, right = zip(*ROWS, strict=True)
    columns = {"id": list("pqrs"), "passage": passages, "query": queries, "entities": ["\n".join(n) for n in names]}
    return pa.table(columns | {"label": pa.array(right, RECORD.label_type)})


@pytest.mark.parametrize("name", ENCODERS)
def test_a_candidate_is_scored_in_its_place_whatever_else_the_batch_holds(name, tmp_path):
    model = build(name, tmp_path / "m")
    examples = tables.to_examples(table(), RECORD, model, 32, "f")
    made, losses, smoothed = answers(model, RECORD, examples, batch_size=3), [], []
    for (passage, query, names, right), found in zip(ROWS, made, strict=True):
        with torch.no_grad():
            pairs = [(passage, query.replace("@placeholder", one)) for one in names]
            e = [math.exp(float(model(model.collate(model.encode([one], 32))))) for one in pairs]
        p = {one: value / sum(e) for one, value in zip(names, e, strict=True)}
        assert [one for one, _ in found] == names and [v for _, v in found] == pytest.approx(list(p.values()), abs=1e-5)
        losses.append(-math.log(sum(p[one] for one in right)))
        smoothed.append(0.9 * losses[-1] - 0.1 * sum(map(math.log, p.values())) / len(p))
    batch = examples.batch([2, 0, 3, 1])
    outputs = RECORD.outputs(model, batch)
    assert batch.mass.tolist() == [1, 1, 1, 1] and outputs[0].shape == (4, 4)
    assert RECORD.loss(outputs, batch).tolist() == pytest.approx([losses[i] for i in (2, 0, 3, 1)], abs=1e-5)
    assert RECORD.smoothed(outputs, batch, 0.1).tolist() == pytest.approx([smoothed[i] for i in (2, 0, 3, 1)], abs=1e-5)
    embedded = RECORD.embed(model, batch)
    assert torch.allclose(RECORD.outputs(model, batch, embedded)[0], outputs[0], atol=1e-6)
    assert all(one.isfinite().all() for one in outputs) and (RECORD.divergence(outputs, outputs) == 0).all()
    (alone,) = RECORD.loss(RECORD.outputs(model, one := examples.batch([1])), one).tolist()
    assert alone == pytest.approx(losses[1], abs=1e-5)


def test_predictions_are_scored_by_text(tmp_path):
    model = build("gru", tmp_path / "m")
    made = answers(model, RECORD, tables.to_examples(table(), RECORD, model, 32, "f"))
    written = predictions.to_table(table(), made, RECORD, [])
    best = [max(one, key=lambda pair: pair[1])[0] for one in made]
    assert written["prediction"].to_pylist() == best and RECORD.read(written).tolist() == made.tolist()
    truths = RECORD.truths(written)
    right = sum(one in row[3] for one, row in zip(best, ROWS, strict=True))
    assert RECORD.score("cloze_em", truths, RECORD.read(written)).value == right / 4
    tie = RECORD.predictions(np.array([[("x", 0.4), ("y", 0.4), ("z", 0.2)], [("u", 1.0)]], dtype=object))
    assert tie["prediction"].to_pylist() == ["x", "u"]  # the first of equals
    both = np.stack([made, made[:].copy()])
    both[1, 0] = [("a b", 0.0), ("c", 1.0), ("d", 0.0)]
    mean = RECORD.mean(both)[0]
    assert [p for _, p in mean] == pytest.approx([(p + (t == "c")) / 2 for t, p in made[0]])


TEXT = "Ann met Bob.\n@highlight\nBob left; ANN stayed"
PLACES = [(0, 2), (8, 10), (24, 26), (34, 36)]
QUERIES = [("Who left? @placeholder", ["Bob", "Bob"]), ("@placeholder stayed", ["ANN", "Ann"])]


def passage(qas=QUERIES, places=PLACES, **more):
    asked = [
        {"idx": 7 + i, "query": query, "answers": [{"start": 0, "end": 2, "text": one} for one in right]}
        for i, (query, right) in enumerate(qas)
    ]
    entities = [{"start": start, "end": end} for start, end in places]
    return {"source": "Daily mail", "passage": {"text": TEXT, "entities": entities}, "qas": asked, "idx": 3} | more


def read(tmp_path, *lines):
    (tmp_path / "val.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    return files.read(RECORD, {"val": tmp_path / "val.jsonl"}, "r", tmp_path, "r")[0]["val"]


def test_official_files_are_read_a_row_per_question(tmp_path):
    split = read(tmp_path, passage())
    assert not split.bad and [one["id"] for one in split.records] == ["r/val-7", "r/val-8"]
    assert [one["label"] for one in split.records] == [["Bob"], ["ANN", "Ann"]]
    (made,) = records.to_tables(RECORD, split.records)
    assert made["entities"].to_pylist() == ["Ann\nBob\nANN"] * 2 and made["passage"].to_pylist() == [TEXT] * 2
    assert RECORD.truths(made)[1] == (("ANN", "Ann"), ("Ann", "Bob", "ANN"))


def test_bad_questions_are_reported_with_file_and_row(tmp_path):
    split = read(
        tmp_path, passage(), passage([("@placeholder left", ["Eve"]), ("nobody left", ["Bob"])]), passage(places=[]),
        passage(places=[(0, 2), (99, 103)]), {"passage": {"text": "t"}, "qas": []}, passage([("@placeholder", [])]),
    )  # fmt: skip
    assert len(split.records) == 2 and [one["line"] for one in split.unlabelled] == [6]
    assert [(one["file"], one["line"], one["reason"]) for one in split.bad] == [
        ("r/val.jsonl", 2, "the answer 'Eve' is none of the 3 candidates"),
        ("r/val.jsonl", 2, "no @placeholder in the column 'query'"),
        *[("r/val.jsonl", 3, "no text in the column 'entities'")] * 2,
        *[("r/val.jsonl", 4, "an entity without text, from character 99 to 103")] * 2,
        ("r/val.jsonl", 5, "not a ReCoRD passage: 'entities' is missing"),
    ]


def test_the_hubs_layout_is_the_same_questions(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "hub/record").mkdir(parents=True)
    for split, rows in (("validation", QUERIES), ("test", [(query, []) for query, _ in QUERIES])):
        made = {"passage": [TEXT] * 2, "query": [one for one, _ in rows], "entities": [["Bob", "Ann", "ANN"]] * 2,
                "entity_spans": [{"text": ["Ann"], "start": [0], "end": [3]}] * 2,
                "answers": pa.array([sorted(set(right)) for _, right in rows], pa.list_(pa.string())),
                "idx": [{"passage": 3, "query": i} for i in range(2)]}  # fmt: skip
        pa.parquet.write_table(pa.table(made), tmp_path / f"hub/record/{split}-00000-of-00001.parquet")
    (tmp_path / "hub/README.md").write_text(
        "---\nconfigs:\n- config_name: record\n  data_files:\n  - {split: validation, path: record/validation-*}\n"
        "  - {split: test, path: record/test-*}\n---\n"
    )
    found, left_out = remote.hub(RECORD, str(tmp_path / "hub"), "0" * 40, "record", "r")
    assert list(found) == ["validation"] and list(left_out) == ["test"] and not found["validation"].bad
    local = read(tmp_path, passage())
    for ours, theirs in zip(found["validation"].records, local.records, strict=True):
        assert (ours["passage"], ours["query"], ours["label"]) == (theirs["passage"], theirs["query"], theirs["label"])
        assert sorted(ours["entities"].split("\n")) == sorted(theirs["entities"].split("\n"))


def test_rows_that_do_not_fit_are_refused():
    for spec, words in [
        (TaskSpec("t", "cloze", ("a", "b"), None, ()), "texts: found .*\nexpected three"),
        (TaskSpec("t", "cloze", ("a", "b", "c"), ("x", "y"), ()), "classes: found .*\nexpected none"),
    ]:
        with pytest.raises(InputError, match=words):
            tasks.kind(spec)
