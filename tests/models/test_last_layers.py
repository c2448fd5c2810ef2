"""Several heads by task name on one encoder, of every kind of model; of one task the model is what it always was."""

import hashlib
import itertools
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from gradworks import models
from gradworks.base.errors import InputError
from tests.models.test_towers import KINDS, folder_of, logits
from tests.models.test_transformer import new
from tests.written import ARCHITECTURES

PAIRS = [("the pilot met the lawyer", "the pilot slept"), ("a doctor ran", "the lawyer met a doctor")]
SIZES = {"nli": 3, "near": 1, "train": 2}  # the last is also a method of every module


def encoder_of(name, folder):
    return new(folder) if name == "transformer" else folder_of(KINDS[name][0], folder, **KINDS[name][1])


@pytest.fixture(params=[*KINDS, "transformer"])
def encoder(request, tmp_path):
    return encoder_of(request.param, tmp_path / "encoder")


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def of(model, prefix):
    return {name: t for name, t in model.state_dict().items() if name.startswith(prefix)}


def body(model):
    return {name: t for name, t in model.state_dict().items() if not name.startswith("head")}


def written(model, folder):
    models.save(model, folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_every_kind_of_model_is_tried():
    there = {p.stem for p in Path(models.__file__).parent.glob("[!_]*.py") if models.reads(p.stem) == "texts"}
    tried = {kind.__name__.rpartition(".")[2] for kind, _ in KINDS.values()} | {"transformer"}
    tried |= set(ARCHITECTURES)  # their last layer is the vocabulary's: test_generation.py
    assert there == tried, "tests/models/test_last_layers.py: make an encoder of it in encoder_of"


def test_of_one_task_the_model_is_the_same_to_the_byte(encoder, tmp_path):
    plain, named = models.create(encoder, 3, seed=7), models.create(encoder, {"nli": 3}, seed=7)
    assert written(plain, tmp_path / "a") == written(named, tmp_path / "b")
    assert {name for name in plain.state_dict() if name.startswith("head")} == {"head.weight", "head.bias"}
    inputs = plain.collate(plain.encode(PAIRS, 16))
    assert torch.equal(plain.eval()(inputs), named.eval()(inputs, task="nli"))
    models.fresh_head(plain, 4), models.fresh_head(named, 4)
    assert same(plain.state_dict(), named.state_dict())


def test_neither_the_other_tasks_nor_their_order_matter_to_a_head(encoder):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    made = [models.create(encoder, sizes, seed=7) for sizes in (
        SIZES, dict(reversed(SIZES.items())), {"near": 1, "nli": 3}, {"nli": 3, "other": 50},
    )]  # fmt: skip
    assert torch.equal(before, torch.get_rng_state())
    for model in made[1:]:
        assert same(body(made[0]), body(model))
        assert same(of(made[0], "heads.nli."), of(model, "heads.nli."))
    assert same(of(made[0], "heads.near."), of(made[2], "heads.near."))
    other = models.create(encoder, SIZES, seed=8)
    for task in SIZES:
        assert not torch.equal(other.heads.of(task).weight, made[0].heads.of(task).weight)
    equal = models.create(encoder, {"a": 3, "b": 3}, seed=7)
    assert not torch.equal(equal.heads.of("a").weight, equal.heads.of("b").weight)


def test_a_head_is_drawn_as_the_key_says(encoder):
    model = models.create(encoder, SIZES, seed=7)
    fresh = models.create(encoder, SIZES, seed=0)
    models.fresh_head(fresh, 7)
    for task, size in SIZES.items():
        digest = hashlib.blake2b(f"7/head/{task}".encode(), digest_size=8).digest()
        head = model.heads.of(task)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int.from_bytes(digest, "big") >> 1)
            expected = torch.nn.Linear(head.in_features, size)
            assert torch.equal(fresh.heads.of(task).weight, expected.weight)
            assert torch.equal(fresh.heads.of(task).bias, expected.bias)
            if "pooling" in model.config and "attention" in model.config:  # a transformer's are BERT's
                torch.nn.init.normal_(expected.weight, std=0.02)
                torch.nn.init.zeros_(expected.bias)
        assert torch.equal(head.weight, expected.weight) and torch.equal(head.bias, expected.bias)
    assert same(body(fresh), body(models.create(encoder, SIZES, seed=0)))


def test_the_task_chooses_the_head(encoder):
    model = models.create(encoder, SIZES, seed=0).eval()
    inputs = model.collate(model.encode(PAIRS, 16))
    seen = []
    hook = model.heads.of("nli").register_forward_hook(lambda _, given, made: seen.append((given[0], made)))
    assert torch.equal(model(inputs, task="nli"), seen[0][1])
    hook.remove()
    for task, size in SIZES.items():
        made = model(inputs, model.embed(inputs), task)
        assert made.shape == (2, size)
        assert torch.allclose(made, model.heads.of(task)(seen[0][0]), atol=1e-6)
    for task, found in (("mood", "'mood'"), (None, "None")):
        with pytest.raises(ValueError, match=f"found task {found}, expected one of near, nli, train"):
            model(inputs, task=task)


def test_saved_and_loaded_it_is_the_same(encoder, tmp_path):
    model = models.create(encoder, SIZES, seed=0)
    first = written(model, tmp_path / "a")
    loaded = models.load(tmp_path / "a")
    assert same(model.state_dict(), loaded.state_dict())
    turned = models.create(encoder, dict(reversed(SIZES.items())), seed=0)
    assert list(model.state_dict()) == list(loaded.state_dict()) == list(turned.state_dict())
    assert written(loaded, tmp_path / "b") == first
    assert json.loads(first["gradworks.json"])["outputs"] == SIZES
    stored = load_file(tmp_path / "a/model.safetensors")
    assert {name: len(t) for name, t in stored.items() if name.startswith("head")} == {
        f"heads.{task}.{part}": size for task, size in SIZES.items() for part in ("weight", "bias")
    }
    config = json.loads(first["gradworks.json"])
    (tmp_path / "a/gradworks.json").write_text(json.dumps(config | {"outputs": {"nli": 3, "near": 1}}))
    with pytest.raises(InputError, match=r"tensor 'heads\.train\.bias' belongs to no layer"):
        models.load(tmp_path / "a")
    for wrong in ({}, {"nli": "3"}, None):
        (tmp_path / "a/gradworks.json").write_text(json.dumps(config | {"outputs": wrong}))
        with pytest.raises(InputError, match="an encoder without a head"):
            models.load(tmp_path / "a")


def test_a_head_that_no_batch_uses_has_no_gradient_and_biases_no_decay(encoder):
    model = models.create(encoder, SIZES, seed=0)
    model(model.collate(model.encode(PAIRS, 16)), task="near").sum().backward()
    without = {name for name, p in model.named_parameters() if p.grad is None}
    assert without == {f"heads.{task}.{part}" for task in ("nli", "train") for part in ("weight", "bias")}
    decayed, plain = ({id(p) for p in group["params"]} for group in models.parameter_groups(model, 0.1))
    for task in SIZES:
        assert id(model.heads.of(task).weight) in decayed and id(model.heads.of(task).bias) in plain


@pytest.mark.parametrize("sizes", [3, SIZES])
def test_the_heads_alone_are_trained(encoder, sizes):
    model = models.create(encoder, sizes, seed=0)
    models.train_head_only(model)
    assert all(p.requires_grad == name.startswith("head") for name, p in model.named_parameters())
    trained = list(itertools.chain(*(group["params"] for group in models.parameter_groups(model, 0.1))))
    assert len(trained) == (2 if sizes == 3 else 6)
    assert logits(model, PAIRS).shape == (2, 3) if sizes == 3 else True


def test_tasks_of_one_text_and_of_two_share_an_encoder(encoder):
    model = models.create(encoder, SIZES, seed=0).eval()
    one = model.collate(model.encode([(first,) for first, _ in PAIRS], 16))
    made = model(one, task="near")
    assert made.shape == (2, 1) and not torch.equal(made[0], made[1])
    if "rows" in model.config:  # a tower: the second vector is 0
        read = model.read(model.embed(one), one["lengths"].flatten())
        both = torch.cat([read, torch.zeros_like(read), read, torch.zeros_like(read)], 1)
        assert torch.equal(made, model.heads.of("near")(model.mlp(both)))


@pytest.mark.parametrize("outputs", [3, SIZES], ids=["one", "several"])
def test_heads_of_slices_are_copies_of_the_tasks(encoder, outputs, tmp_path):
    """With the rest of the model as it is without them; saved and loaded they are the same, and they can go again."""
    plain, model = (models.create(encoder, outputs, seed=1) for _ in range(2))
    models.slice_heads(model, "nli", 3, 2)
    name = "head" if outputs == 3 else "heads.nli"
    for part in ("weight", "bias"):
        rows = model.state_dict()[f"{name}.{part}"]
        assert torch.equal(rows, torch.cat([plain.state_dict()[f"{name}.{part}"]] * 3))
    assert all(torch.equal(t, plain.state_dict()[n]) for n, t in model.state_dict().items() if not n.startswith(name))
    models.save(model, tmp_path / "model")
    again = models.load(tmp_path / "model")
    assert same(again.state_dict(), model.state_dict())
    models.slice_heads(again, "nli", 3, 0)
    assert same(again.state_dict(), plain.state_dict()) and again.config == plain.config
