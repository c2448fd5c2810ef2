"""Tagging: the first token of a word has its label, long texts are read in windows, files are read or refused."""

import json
import math

import pyarrow as pa
import pytest
import torch

from gradworks import models, tasks
from gradworks.base.errors import InputError
from gradworks.data import files, predictions, tables
from gradworks.data.tokenizer import train
from gradworks.predict import answers
from gradworks.tasks import TaskSpec

SPEC = TaskSpec("t", "tagging", ("tokens",), ("O", "B-X", "I-X"), ("entity_f1",))
KIND = tasks.kind(SPEC)
TEXTS = ["abc d-e a", "a", "e\u200b \u200b d", "a b c d e a b c d e a b c"]
LABELS = ["O B-X I-X", "B-X", "O B-X O", "O B-X I-X O B-X I-X O B-X I-X O B-X I-X O"]
ENCODERS = {
    "gru": {"embedding": 6, "hidden": 5, "mlp": 4, "dropout": 0.0, "bidirectional": True, "pooling": "mean"},
    "transformer": {"layers": 1, "width": 8, "heads": 2, "dropout": 0.0},
}


def build(name, folder, **more):
    folder.mkdir()
    tokenizer = train(["a b c d e -"], 40, True)  # letters: a word of three has three tokens
    module = models.find(name)
    options = ENCODERS.get(name, {"embedding": 6, "hidden": 4}) | more
    module.prepare(module.Options(model=name, **options), tokenizer, folder, texts=1, vectors=None)
    return models.create(folder, KIND.size, seed=1).eval()


def table(texts=TEXTS, labels=LABELS):
    return pa.table({"id": [str(i) for i in range(len(texts))], "tokens": texts, "label": labels})


FIRST = [[0, 3, 6], [0], [0, None, 1], list(range(13))]  # of the tokens of each text, without special ones


@pytest.mark.parametrize("length", [32, 7])
@pytest.mark.parametrize("name", ENCODERS)
def test_a_word_is_scored_at_its_first_token_whatever_else_the_batch_holds(name, length, tmp_path):
    model, special = build(name, tmp_path / "m"), 2  # [CLS] and [SEP]
    examples = tables.to_examples(table(), KIND, model, length, "f")
    made, ids = answers(model, KIND, examples), {c: model.tokenizer.token_to_id(c) for c in "abcde-"}
    inside = {c: model.tokenizer.token_to_id(f"##{c}") for c in "abcde"}
    begin, end = (model.tokenizer.token_to_id(one) for one in ("[CLS]", "[SEP]"))
    losses = []
    for text, label, first, found in zip(TEXTS, LABELS, FIRST, made, strict=True):
        words = text.replace("\u200b", "").replace("-", " - ").split()
        tokens = [ids[c] if not i else inside[c] for w in words for i, c in enumerate(w)]
        room, scores = length - special, []
        for start in range(0, len(tokens), room):
            window = torch.tensor([[begin, *tokens[start : start + room], end]])
            with torch.no_grad():
                if name == "gru":
                    embedded = model.embedding(window)
                    one = model.directions[0](embedded)[0]
                    two = model.directions[1](embedded.flip(1))[0].flip(1)
                    vectors = model.mlp(torch.cat([one, two], -1))
                else:
                    vectors = model.encoder(window, torch.ones_like(window)).last_hidden_state
                scores += model.head(vectors)[0, 1:-1].softmax(-1).tolist()
        assert len(found) == len(first)
        for at, p in zip(first, found, strict=True):
            assert p == pytest.approx([1, 0, 0] if at is None else scores[at], abs=1e-5)
        true = [
            (scores[at], KIND.classes.index(tag))
            for at, tag in zip(first, label.split(), strict=True)
            if at is not None
        ]
        losses.append(sum(-math.log(p[c]) for p, c in true) / len(true))
    batch = examples.batch([2, 0, 1, 3])
    assert batch.mass.tolist() == [2, 3, 1, 13]
    outputs = KIND.outputs(model, batch)
    assert KIND.loss(outputs, batch).tolist() == pytest.approx([losses[i] for i in (2, 0, 1, 3)], abs=1e-5)
    assert KIND.smoothed(outputs, batch, 0.0).tolist() == KIND.loss(outputs, batch).tolist()
    embedded = KIND.embed(model, batch)
    assert torch.allclose(KIND.outputs(model, batch, embedded)[0], outputs[0], atol=1e-6)
    assert (KIND.divergence(outputs, outputs) == 0).all()


def test_predictions_are_scored_on_all_words(tmp_path):
    model = build("gru", tmp_path / "m")
    made = answers(model, KIND, tables.to_examples(table(), KIND, model, 7, "f"))
    written = predictions.to_table(table(), made, KIND, [])
    assert [len(one.split()) for one in written["prediction"].to_pylist()] == [3, 1, 3, 13]
    right = sum(
        a == b
        for true, given in zip(LABELS, written["prediction"].to_pylist(), strict=True)
        for a, b in zip(true.split(), given.split(), strict=True)
    )
    assert KIND.score("tag_accuracy", KIND.truths(written), KIND.read(written)).value == pytest.approx(right / 20)


def test_smoothing_is_the_mean_over_all_classes():
    scores = torch.tensor([[[0.2, 0.3, 0.5], [0.1, 0.8, 0.1]]]).log()
    batch = type("B", (), {"labels": torch.tensor([[2, -100]]), "inputs": {}})()
    expected = -(0.7 * math.log(0.5) + 0.3 * (math.log(0.2) + math.log(0.3) + math.log(0.5)) / 3)
    assert KIND.smoothed((scores,), batch, 0.3).tolist() == pytest.approx([expected])


def test_a_model_without_vectors_of_tokens_is_refused(tmp_path):
    model = build("bow", tmp_path / "m")
    with pytest.raises(InputError, match=r"f: Bow reads no sequence of tokens\nexpected .*: gru, transformer"):
        tables.to_examples(table(), KIND, model, 32, "f")


CONLL = """-DOCSTART- -X- O O

EU NNP I-NP B-X
rejects VBZ I-VP O

German JJ B-X
call

Peter B-Z

. O
"""


def test_conll_files_are_read_and_broken_sentences_reported(tmp_path):
    (tmp_path / "train.conll").write_text(CONLL)
    split = files.read(KIND, {"train": tmp_path / "train.conll"}, "ner", tmp_path, "ner")[0]["train"]
    assert [(one["id"], one["tokens"], one["label"]) for one in split.records] == [
        ("ner/train-3", "EU rejects", "B-X O"), ("ner/train-11", ".", "O"),
    ]  # fmt: skip
    assert [(one["line"], one["reason"]) for one in split.bad] == [
        (6, "line 7: found 'call', expected a word and its tag"),
        (9, "found label 'B-Z', expected tags joined by blanks, each one of: O, B-X, I-X"),
    ]


def test_lists_of_words_and_tags_are_read(tmp_path):
    rows = [
        {"tokens": ["a", "b"], "ner_tags": [0, 1]},
        {"tokens": ["a", "b"], "ner_tags": ["O", "I-X"]},
        {"tokens": ["a", "b"], "ner_tags": [0]},
        {"tokens": ["a", "b c"], "ner_tags": [0, 1]},
        {"tokens": ["a"], "ner_tags": [3]},
    ]
    (tmp_path / "all.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    split = files.read(KIND, {"all": tmp_path / "all.jsonl"}, "n", tmp_path, "n")[0]["all"]
    assert [(one["tokens"], one["label"]) for one in split.records] == [("a b", "O B-X"), ("a b", "O I-X")]
    assert [one["reason"] for one in split.bad] == [
        "found 1 tags, expected 2, one for each word",
        "found a list in the column 'tokens', expected text",
        "found label [3], expected tags joined by blanks, each one of: O, B-X, I-X",
    ]


def test_another_number_of_tags_than_words_is_refused_where_a_table_is_read(tmp_path):
    model = build("gru", tmp_path / "m")
    with pytest.raises(InputError, match="f: row 0: found 1 tags, 'O'\nexpected 2"):
        tables.to_examples(table(["a b"], ["O"]), KIND, model, 32, "f")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"classes": ("O",)}, "classes: found"), ({"classes": ("O", "a b")}, "classes: found"),
        ({"texts": ("a", "b")}, "texts: found"), ({"collapse": {"x": "O"}}, "collapse: found"),
    ],
)  # fmt: skip
def test_rows_that_do_not_fit_are_refused(change, said):
    from dataclasses import replace

    with pytest.raises(InputError, match=said):
        tasks.kind(replace(SPEC, **change))
