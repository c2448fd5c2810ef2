"""Word in context: linear on the vectors of the sequence and of the word in both texts; files of WiC."""

import json

import pyarrow as pa
import pytest
import torch

from gradworks import models, tasks
from gradworks.base.errors import InputError
from gradworks.data import files, tables
from gradworks.data.tokenizer import train
from gradworks.predict import answers

WIC = tasks.kind(tasks.find("wic", {}))
ROWS = [
    {"word": "b", "sentence1": "a b c", "sentence2": "bcd e", "start1": 2, "end1": 3, "start2": 0, "end2": 3,
     "label": True, "idx": 0},
    {"word": "e", "sentence1": "e", "sentence2": "d d d e a", "start1": 0, "end1": 1, "start2": 6, "end2": 7,
     "label": False, "idx": 1},
]  # fmt: skip
PLACES = [([2], [5, 6, 7]), ([1], [6])]  # of the word's tokens in [CLS] one [SEP] two [SEP]
ENCODERS = {
    "gru": {"embedding": 6, "hidden": 5, "mlp": 4, "dropout": 0.0, "bidirectional": True, "pooling": "mean"},
    "transformer": {"layers": 1, "width": 8, "heads": 2, "dropout": 0.0},
}


def build(name, folder):
    folder.mkdir()
    module, tokenizer = models.find(name), train(["a b c d e"], 40, True)
    options = ENCODERS.get(name, {"embedding": 6, "hidden": 4})
    module.prepare(module.Options(model=name, **options), tokenizer, folder, texts=2, vectors=None)
    return models.create(folder, WIC.size, seed=1).eval()


def table(rows=ROWS):
    columns = {name: [one[name] for one in rows] for name in WIC.spec.texts}
    ends = {name: [str(one[name]) for one in rows] for name in WIC.also}
    label = [str(one["label"]).lower() for one in rows]
    return pa.table({"id": [str(i) for i in range(len(rows))]} | columns | ends | {"label": label})


@pytest.mark.parametrize("name", ENCODERS)
def test_the_head_is_one_layer_on_three_vectors_side_by_side(name, tmp_path):
    model = build(name, tmp_path / "m")
    examples = tables.to_examples(table(), WIC, model, 32, "f")
    made = answers(model, WIC, examples)
    weight = torch.cat(list(model.head.weight.view(3, 2, -1)), 1)  # (2, 3 W)
    bias = model.head.bias.view(3, 2).sum(0)
    for row, places, found in zip(ROWS, PLACES, made, strict=True):
        ids = model.tokenizer.encode(row["sentence1"], row["sentence2"]).ids
        with torch.no_grad():
            if name == "gru":
                states = model.tokens({"ids": torch.tensor([[ids]]), "lengths": torch.tensor([[len(ids)]])})[0]
            else:
                window = torch.tensor([ids])
                types = (torch.arange(len(ids)) > ids.index(ids[-1])).long()[None]
                states = model.encoder(window, torch.ones_like(window), token_type_ids=types).last_hidden_state[0]
            vectors = [states[0], *(states[at].mean(0) for at in places)]
            expected = (weight @ torch.cat(vectors) + bias).softmax(0)
        assert found.tolist() == pytest.approx(expected.tolist(), abs=1e-5)
    batch = examples.batch([1, 0])
    (plain,) = WIC.outputs(model, batch)
    assert plain.shape == (2, 2)
    assert torch.allclose(WIC.outputs(model, batch, WIC.embed(model, batch))[0], plain, atol=1e-6)


def test_official_files_are_read_and_words_that_are_not_there_reported(tmp_path):
    rows = [*ROWS, {**ROWS[0], "start2": 90, "end2": 93}, {**ROWS[0], "start1": None}, {**ROWS[0], "end1": 2}]
    (tmp_path / "val.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    split = files.read(WIC, {"val": tmp_path / "val.jsonl"}, "w", tmp_path, "w")[0]["val"]
    assert [one["label"] for one in split.records] == ["true", "false"]
    assert [(one["line"], one["reason"]) for one in split.bad] == [
        (3, "no word in 'sentence2' from character 90 to 93"),
        (4, "found 'None' and '3' in the columns start1 and end1, expected whole numbers"),
        (5, "no word in 'sentence1' from character 2 to 2"),
    ]


def test_a_word_that_is_cut_off_and_a_model_without_tokens_are_refused(tmp_path):
    with pytest.raises(InputError, match="f: row 1: no token of the word among the first 7 of both texts"):
        tables.to_examples(table(), WIC, build("gru", tmp_path / "gru"), 7, "f")
    with pytest.raises(InputError, match="Bow reads no sequence of tokens"):
        tables.to_examples(table(), WIC, build("bow", tmp_path / "bow"), 32, "f")


def test_wic_is_read_whole(data):
    found = files.read(WIC, {"train": data / "superglue/WiC/train.jsonl", "val": data / "superglue/WiC/val.jsonl"},
                       "w", data, "w")[0]  # fmt: skip
    assert {name: len(one.records) for name, one in found.items()} == {"train": 5428, "val": 638}
    assert not any(one.bad for one in found.values())
