"""Similarity on every model: the cosine of two texts encoded one by one, against the encodings computed by hand."""

import math

import pyarrow as pa
import pytest
import torch

from gradworks import models
from gradworks.data import tables, tokenizer
from gradworks.methods import Method
from gradworks.predict import answers
from tests.kinds import values

TEXTS = [("a b", "b c d a"), ("c", "c"), ("d d a b", "c"), ("b", "a c")]
LABELS = [5.0, 10.0, 2.5, 1.0]  # the second pair is the same text twice
MODELS = {
    "bow": {"vocabulary": 60, "embedding": 6, "hidden": 5},
    "gru": {"vocabulary": 60, "embedding": 6, "hidden": 5, "mlp": 5},
    "transformer": {"vocabulary": 60, "layers": 1, "width": 8, "heads": 2, "positions": 16},
}


def build(name, folder):
    file = models.find(name)
    folder.mkdir()
    words = tokenizer.train([one for pair in TEXTS for one in pair] * 3, 60, True)
    options = file.Options(model=name, lowercase=True, **MODELS[name])
    file.prepare(options, words, folder, texts=2, vectors=None)
    return models.create(folder, values("similarity", ("one", "two")).size, seed=1)


def examples(kind, model):
    columns = {"id": list("pqrs"), "one": [a for a, _ in TEXTS], "two": [b for _, b in TEXTS], "label": LABELS}
    return tables.to_examples(pa.table(columns), kind, model, 16, "f")


def alone(model, name, text):
    """The vector of one text, in a batch of its own, from the model's own layers."""
    inputs = model.collate(model.encode([(text,)], 16))
    if name == "transformer":
        return model.encoder(**inputs).last_hidden_state[0, 0]
    embedded = model.embedding(inputs["ids"][0])  # (1, L, D)
    return embedded[0].mean(0) if name == "bow" else model.directions[0](embedded)[0][0, -1]


@pytest.mark.parametrize("name", MODELS)
def test_the_cosine_is_that_of_texts_encoded_alone(name, tmp_path):
    model, kind = build(name, tmp_path / "m"), values("similarity", ("one", "two"))
    model.eval()
    made = answers(model, kind, examples(kind, model), batch_size=3)
    expected = []
    with torch.no_grad():
        for pair in TEXTS:
            u, v = (alone(model, name, text).tolist() for text in pair)
            dot, norms = sum(a * b for a, b in zip(u, v, strict=True)), (math.hypot(*u), math.hypot(*v))
            expected.append(5 * dot / norms[0] / norms[1])
    assert made.tolist() == pytest.approx(expected, abs=1e-5)
    assert made[1] == pytest.approx(5)


@pytest.mark.parametrize("name", MODELS)
def test_loss_embeddings_and_training(name, tmp_path):
    model, kind = build(name, tmp_path / "m"), values("similarity", ("one", "two"), scale=10.0)
    model.eval()
    data = examples(kind, model)
    batch = data.batch(range(4))
    (cosine,) = kind.outputs(model, batch)
    expected = [(c - label / 10) ** 2 for c, label in zip(cosine[:, 0].tolist(), LABELS, strict=True)]
    assert kind.loss((cosine,), batch).tolist() == pytest.approx(expected, rel=1e-5)
    same = kind.outputs(model, batch, kind.embed(model, batch))[0]
    assert torch.allclose(same, cosine, atol=1e-6)
    before = kind.loss((cosine,), batch).sum().item()
    method, optimizer = Method("smart", task=kind, seed=0), torch.optim.AdamW(model.parameters(), 1e-2)
    for _ in range(40):
        method.backward(model, [[batch]])
        optimizer.step()
    assert kind.loss(kind.outputs(model, batch), batch).sum().item() < before / 2
    models.save(model, tmp_path / "saved")
    again = models.load(tmp_path / "saved").eval()
    assert torch.equal(kind.outputs(again, batch)[0], kind.outputs(model, batch)[0])
