"""Texts that are encoded one by one, the features of two, and the layer that some tasks share."""

import copy

import pytest
import torch
from torch.nn import functional as F

from gradworks import models, tasks
from gradworks.base.errors import InputError
from gradworks.methods import Method
from gradworks.spec import Batch
from tests.models.test_transformer import PAIRS, new

SINGLE = [("the pilot slept",), ("a doctor",)]
SIZES = {"same": 2, "near": 1, "mood": 5}


@pytest.fixture
def encoder(tmp_path):
    return new(tmp_path / "encoder", pair="bi", pooling="mean", dropout=0.0)


def made(encoder, **more):
    return models.create(encoder, SIZES, 0, **({"pairs": ["same", "near"]} | more)).double().eval()


def read(model, texts, task, embedded=None):
    inputs = model.collate(model.encode(texts, 16))
    return model(inputs, embedded, task=task)


def alone(model, texts):
    """The encoding of each text in a batch of its own, by the encoder without any of our code."""
    vectors = []
    for text in texts:
        ids = torch.tensor([model.tokenizer.encode(text).ids])
        vectors.append(model.encoder(input_ids=ids).last_hidden_state.mean(1))
    return torch.cat(vectors)


def test_the_head_reads_both_texts_and_their_distance(encoder):
    model = made(encoder)
    u, v = (alone(model, [pair[side] for pair in PAIRS]) for side in (0, 1))
    head = model.heads.of("same")
    expected = torch.cat([u, v, (u - v).abs()], 1) @ head.weight.T + head.bias
    assert torch.allclose(read(model, PAIRS, "same"), expected, atol=1e-12)
    mood = model.heads.of("mood")
    assert torch.allclose(
        read(model, SINGLE, "mood"), alone(model, [one for (one,) in SINGLE]) @ mood.weight.T + mood.bias, atol=1e-12
    )
    assert {task: model.heads.of(task).in_features for task in SIZES} == {"same": 48, "near": 48, "mood": 16}


def test_the_shared_layer_is_the_published_one(encoder):
    model = made(encoder, layer=["near", "mood"])
    layer, near = model.relational.linear, model.heads.of("near")
    assert (layer.in_features, layer.out_features, near.in_features) == (64, 16, 16)
    u, v = (alone(model, [pair[side] for pair in PAIRS]) for side in (0, 1))

    def through(u, v):
        rows = []
        for a, b in zip(u, v, strict=True):
            scaled = [
                x * y / (a.square().sum().sqrt() * b.square().sum().sqrt() + 1e-6) for x, y in zip(a, b, strict=True)
            ]
            rows.append(torch.cat([a, b, (a - b).abs(), torch.stack(scaled)]))
        return F.leaky_relu(torch.stack(rows) @ layer.weight.T + layer.bias, 0.01)

    assert torch.allclose(read(model, PAIRS, "near"), through(u, v) @ near.weight.T + near.bias, atol=1e-12)
    mood, single = model.heads.of("mood"), alone(model, [one for (one,) in SINGLE])
    expected = through(single, torch.zeros_like(single)) @ mood.weight.T + mood.bias
    assert torch.allclose(read(model, SINGLE, "mood"), expected, atol=1e-12)
    assert model.heads.of("same").in_features == 48  # not of the layer


def test_texts_that_are_padded_alike_or_not_give_the_same(encoder):
    model = made(encoder)
    together = read(model, PAIRS, "near")
    assert torch.allclose(together, torch.cat([read(model, [pair], "near") for pair in PAIRS]), atol=1e-12)
    turned = read(model, [pair[::-1] for pair in PAIRS], "near")
    assert not torch.allclose(together, turned)
    inputs = model.collate(model.encode(PAIRS, 16))
    embedded = model.embed(inputs)
    assert embedded.shape == (2, 7 + 9, 16)
    assert torch.equal(model(inputs, embedded, task="near"), together)
    assert not torch.allclose(model(inputs, embedded.flip(2), task="near"), together)


def test_seeds_decide_heads_and_layer_by_name(encoder):
    """Neither other tasks nor their order matter to a head or to the layer."""
    model = made(encoder, layer=["near"])
    fewer = models.create(encoder, {"near": 1, "other": 3}, 0, pairs=["near"], layer=["near"]).double()
    for name in ("heads.near.weight", "relational.linear.weight", "relational.linear.bias"):
        assert torch.equal(model.state_dict()[name], fewer.state_dict()[name]), name
    other = models.create(encoder, SIZES, 1, pairs=["same", "near"], layer=["near"]).double()
    assert not torch.equal(model.relational.linear.weight, other.relational.linear.weight)


def test_saved_and_loaded_it_is_the_same_and_goes_on_with_other_tasks(encoder, tmp_path):
    model = made(encoder, layer=["near"]).float()
    models.save(model, tmp_path / "a")
    loaded = models.load(tmp_path / "a").eval()
    for task in ("same", "near"):
        assert torch.equal(read(loaded, PAIRS, task), read(model, PAIRS, task))
    before = copy.deepcopy(loaded.state_dict())
    models.replace_heads(loaded, {"near": 1, "new": 2}, "near", None, 0, pairs=["near", "new"], layer=["near"])
    assert loaded.heads.of("new").in_features == 48
    for name, tensor in loaded.state_dict().items():
        assert name.startswith("heads.new.") or torch.equal(tensor, before[name]), name
    models.replace_heads(loaded, 1, "near", None, 0, pairs=["near"])  # without the layer: nothing to carry
    assert not hasattr(loaded, "relational") and loaded.head.in_features == 48
    assert read(loaded, PAIRS, None).shape == (2, 1)


def test_a_layer_needs_a_bi_encoder(tmp_path):
    with pytest.raises(InputError, match=r"found a layer of near\nexpected an encoder with pair: bi"):
        models.create(new(tmp_path / "cross"), {"near": 1, "mood": 2}, 0, pairs=["near"], layer=["near"])


def batch(model, kind, n=6):
    texts = [(f"{PAIRS[i % 2][0]} {'doctor ' * (i % 3)}", PAIRS[(i + 1) % 2][1]) for i in range(n)]
    labels = torch.arange(n) % 2 if kind.spec.classes else torch.linspace(0, 5, n)
    inputs = model.collate(model.encode(texts, 16))
    return Batch(kind.name, tuple(map(str, range(n))), inputs, labels, torch.ones(n))


@pytest.mark.parametrize("layer", [[], ["rte"]])
@pytest.mark.parametrize("backend", ["ghost", "logit_fd"])
def test_scores_are_those_of_a_loop_over_examples(encoder, layer, backend):
    """<gradient of an example, clean gradient>: the weights of one step are proportional to their positive parts."""
    kind = tasks.kind(tasks.shipped()["rte"])
    model = models.create(encoder, kind.size, 0, pairs=["rte"], layer=layer).double().eval()
    drawn, clean = batch(model, kind), batch(model, kind, 4)
    every = [p for p in model.parameters() if p.requires_grad]

    def gradient(one):
        return torch.autograd.grad(kind.loss(kind.outputs(model, one), one).mean(), every)

    whole = gradient(clean)
    scores = []
    for i in range(6):
        inputs = {name: tensor[i : i + 1] for name, tensor in drawn.inputs.items()}
        one = Batch("rte", drawn.ids[i : i + 1], inputs, drawn.labels[i : i + 1], drawn.mass[i : i + 1])
        scores.append(sum((a * b).sum() for a, b in zip(gradient(one), whole, strict=True)))
    weights = torch.stack(scores).clamp_min(0)
    assert (weights > 0).sum() > 0 and weights.std() > 0.1 * weights.mean()
    method = Method(weighting={"reweight": {"backend": backend}}, task=kind, seed=0)
    found = method.backward(model, [[drawn]], [[clean]]).sums[0][0].weights.double()
    assert torch.allclose(found / found.sum(), weights / weights.sum(), atol=1e-6 if backend == "ghost" else 1e-4)


@pytest.mark.parametrize("task", ["rte", "stsb"])
def test_smoothness_is_positive_where_embeddings_move(encoder, task):
    kind = tasks.kind(tasks.shipped()[task])
    model = models.create(encoder, kind.size, 0, pairs=[task], layer=[task]).double().eval()
    drawn = batch(model, kind)
    base, moved = (kind.outputs(model, drawn, e) for e in (None, kind.embed(model, drawn).flip(2)))
    assert (kind.divergence(moved, base) > 0).all()


@pytest.mark.parametrize("layer", [None, ["near", "mood"]], ids=["own", "shared layer"])
@pytest.mark.parametrize(("task", "texts"), [("same", PAIRS), ("near", PAIRS), ("mood", SINGLE)])
def test_smoothness_is_felt_by_every_head(encoder, task, texts, layer):
    model = made(encoder, **({"layer": layer} if layer else {}))
    size, columns = SIZES[task], ("a", "b")[: len(texts[0])]
    kinds = ("regression", None) if size == 1 else ("classification", tuple("vwxyz"[:size]))
    kind = tasks.kind(tasks.TaskSpec(task, kinds[0], columns, kinds[1], ()))
    n = len(texts)
    labels = torch.zeros(n, dtype=torch.float64 if size == 1 else torch.int64)
    batch = Batch(task, [str(i) for i in range(n)], model.collate(model.encode(texts, 16)), labels, torch.ones(n))
    report = Method("smart", task=kind, seed=1).backward(model, [[batch]])
    assert report.log["smoothness"] > 0
