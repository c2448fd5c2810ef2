"""bow, gru and bilstm: padding, seeds, files, and that methods can work with them."""

import copy

import pytest
import torch
from torch.func import functional_call

from gradworks import models
from gradworks.base import validate
from gradworks.base.errors import InputError
from gradworks.data import tokenizer
from gradworks.models import bilstm, bow, gru

PAIRS = [
    ("the pilot met the lawyer near the house", "the pilot slept"),
    ("a doctor ran", "the lawyer met a doctor who ran"),
    ("", "the house"),
    ("pilot", "pilot"),
]
WORDS = sorted({w for pair in PAIRS for text in pair for w in text.split()})
KINDS = {
    "bow": (bow, {"embedding": 12}),
    "gru": (gru, {"embedding": 12, "hidden": 8}),
    "bigru": (gru, {"embedding": 12, "hidden": 8, "bidirectional": True}),
    "gru-mean": (gru, {"embedding": 12, "hidden": 8, "bidirectional": True, "pooling": "mean"}),
    "gru-max": (gru, {"embedding": 12, "hidden": 8, "bidirectional": True, "pooling": "max"}),
    "bilstm": (bilstm, {"embedding": 12, "hidden": 8}),
    "bilstm-last": (bilstm, {"embedding": 12, "hidden": 8, "pooling": "last"}),
}


def folder_of(kind, folder, texts=2, table=None, **options):
    folder.mkdir(exist_ok=True)
    name = kind.__name__.rpartition(".")[2]
    chosen = validate({"model": name, **options}, kind.Options, "test")
    words = tokenizer.words(["[PAD]", "[UNK]", *WORDS], True)
    kind.prepare(chosen, words, folder, texts=texts, vectors=table)
    return folder


@pytest.fixture(params=KINDS)
def encoder(request, tmp_path):
    kind, options = KINDS[request.param]
    return folder_of(kind, tmp_path / "encoder", **options)


def logits(model, pairs, max_length=16):
    return model(model.collate(model.encode(pairs, max_length)))


def test_padding_changes_nothing(encoder):
    model = models.create(encoder, 3, seed=0).eval().double()
    together = logits(model, PAIRS)
    alone = torch.cat([logits(model, [pair]) for pair in PAIRS])
    assert together.shape == (4, 3)
    assert torch.allclose(together, alone, atol=1e-12)
    assert (together[0] - together[1]).abs().max() > 1e-6
    # whatever stands at the padding
    inputs = model.collate(model.encode(PAIRS, 16))
    noisy = {**inputs, "ids": inputs["ids"].clone()}
    inside = torch.arange(inputs["ids"].shape[2]) < inputs["lengths"][..., None]
    noisy["ids"][~inside] = 5
    assert torch.allclose(model(noisy), together, atol=1e-12)


def test_every_token_and_its_place_count(encoder):
    model = models.create(encoder, 3, seed=0).eval().double()
    inputs = model.collate(model.encode(PAIRS[:2], 16))
    embedded = model.embed(inputs).detach().requires_grad_()
    model(inputs, embedded).square().sum().backward()
    size = embedded.grad.view(2, 2, -1, embedded.shape[-1]).abs().sum(-1)
    inside = torch.arange(size.shape[2]) < inputs["lengths"][..., None]
    assert (size[~inside] == 0).all()
    if model.config.get("pooling") != "max":
        assert (size[inside] > 0).all()


def test_embedded_stands_for_the_embeddings(encoder):
    model = models.create(encoder, 3, seed=0).eval()
    inputs = model.collate(model.encode(PAIRS, 16))
    embedded = model.embed(inputs)
    assert embedded.shape[0] == 4 and embedded.shape[2] == 12
    assert torch.equal(model(inputs, embedded), model(inputs))
    assert not torch.allclose(model(inputs, embedded + 0.1), model(inputs))


def test_the_seed_decides_every_weight_and_nothing_else_does(encoder):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = models.create(encoder, 3, seed=7)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    same, other = models.create(encoder, 3, seed=7), models.create(encoder, 3, seed=8)
    for (name, a), b, c in zip(first.state_dict().items(), same.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b), name
        assert not torch.equal(a, c), name


def test_saved_and_loaded_it_is_the_same(encoder, tmp_path):
    model = models.create(encoder, 3, seed=0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01)
    models.save(model, tmp_path / "a")
    loaded = models.load(tmp_path / "a")
    assert torch.equal(logits(model.eval(), PAIRS), logits(loaded.eval(), PAIRS))
    models.save(loaded, tmp_path / "b")
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


def test_it_works_under_functional_call_and_deepcopy(encoder):
    model = models.create(encoder, 3, seed=0).eval()
    inputs = model.collate(model.encode(PAIRS, 16))
    base = model(inputs)
    moved = {name: p + 0.05 for name, p in model.named_parameters()}
    elsewhere = functional_call(model, moved, (inputs,))
    assert not torch.allclose(elsewhere, base)
    assert torch.equal(model(inputs), base)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for p, value in zip(twin.parameters(), moved.values(), strict=True):
            p.copy_(value)
    assert torch.allclose(twin(inputs), elsewhere, atol=1e-6)
    assert torch.equal(model(inputs), base)
    assert twin.encode(PAIRS, 4) == model.encode(PAIRS, 4)


def test_dropout_draws_only_in_training(encoder):
    model = models.create(encoder, 3, seed=0)
    torch.manual_seed(0)
    a, b = logits(model, PAIRS), logits(model, PAIRS)
    torch.manual_seed(0)
    assert torch.equal(a, logits(model, PAIRS)) and not torch.equal(a, b)
    model.eval()
    assert torch.equal(logits(model, PAIRS), logits(model, PAIRS))


def test_texts_are_cut_and_later_ones_joined(encoder):
    model = models.create(encoder, 3, seed=0)
    cut = model.encode(PAIRS, 3)
    assert [len(one["text0"]) for one in cut] == [3, 3, 0, 1]
    assert model.encode([("a", "the pilot", "slept")], 16) == model.encode([("a", "the pilot slept")], 16)


@pytest.mark.parametrize("name", KINDS)
def test_one_text(name, tmp_path):
    kind, options = KINDS[name]
    model = models.create(folder_of(kind, tmp_path / "one", texts=1, **options), 2, seed=0).eval()
    assert logits(model, [("the pilot slept",), ("a doctor",)]).shape == (2, 2)


def test_features_and_layers_of_bow_are_the_papers(tmp_path):
    model = models.create(folder_of(bow, tmp_path / "bow", embedding=12), 3, seed=0).eval().double()
    linears = [m for m in model.modules() if isinstance(m, torch.nn.Linear)]
    assert [(m.in_features, m.out_features) for m in linears] == [(48, 200), (200, 200), (200, 200), (200, 3)]
    assert linears[-1] is model.head
    (one,) = model.encode([("the pilot", "a lawyer ran")], 16)
    p, h = (model.embedding.weight[torch.tensor(one[k])].mean(0) for k in ("text0", "text1"))
    x = torch.cat([p, h, p - h, p * h])
    for layer in linears[:-1]:
        x = layer(x).relu()
    assert torch.allclose(model.head(x), logits(model, [("the pilot", "a lawyer ran")])[0], atol=1e-12)


def test_the_gru_is_torchs_on_packed_texts(tmp_path):
    folder = folder_of(gru, tmp_path / "gru", embedding=12, hidden=8, bidirectional=True)
    model = models.create(folder, 3, seed=0).eval()
    reference = torch.nn.GRU(12, 8, batch_first=True, bidirectional=True)
    forward, backward = model.directions
    reversed_ = {f"{name}_reverse": p for name, p in backward.named_parameters()}
    reference.load_state_dict(dict(forward.named_parameters()) | reversed_)
    lengths = torch.tensor([5, 2, 7])
    x = torch.randn(3, 7, 12, generator=torch.Generator().manual_seed(0))
    packed = torch.nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    _, final = reference(packed)
    assert torch.allclose(model.read(x, lengths), torch.cat([final[0], final[1]], 1), atol=1e-6)


@pytest.mark.parametrize("frozen", [True, False])
def test_vectors(tmp_path, frozen):
    table = torch.arange((len(WORDS) + 2) * 4.0).view(-1, 4) / 50
    folder = folder_of(bow, tmp_path / "v", table=table, vectors={"file": "v.txt", "frozen": frozen})
    model = models.create(folder, 3, seed=0)
    assert torch.equal(model.embedding.weight, table)
    assert model.embedding.weight.requires_grad is not frozen
    groups = models.parameter_groups(model, 0.1)
    ids = {id(p) for group in groups for p in group["params"]}
    assert (id(model.embedding.weight) in ids) is not frozen
    logits(model, PAIRS).sum().backward()
    assert (model.embedding.weight.grad is None) is frozen
    models.save(model, tmp_path / "saved")
    again = models.load(tmp_path / "saved")
    assert torch.equal(logits(model.eval(), PAIRS), logits(again.eval(), PAIRS))
    assert again.embedding.weight.requires_grad is not frozen
    if frozen:  # kept apart, byte for byte the encoder's own: stored once
        assert (tmp_path / "saved/vectors.safetensors").read_bytes() == (folder / "vectors.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop("head.weight"), r"no tensor 'head.weight'\nexpected: shape \(3, 200\)"),
        (lambda t: t.update(extra=torch.ones(1)), "tensor 'extra' belongs to no layer"),
        (lambda t: t.update({"head.bias": torch.ones(4)}), r"tensor 'head.bias'\nfound shape \(4,\), expected \(3,\)"),
    ],
)
def test_wrong_weights_are_named(encoder, tmp_path, change, said):
    from safetensors.torch import load_file, save_file

    models.save(models.create(encoder, 3, seed=0), tmp_path / "m")
    path = tmp_path / "m/model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    with pytest.raises(InputError, match=said) as found:
        models.load(tmp_path / "m")
    assert str(path) in str(found.value)


def test_damaged_and_missing_files_are_named(encoder, tmp_path):
    models.save(models.create(encoder, 3, seed=0), tmp_path / "m")
    with pytest.raises(InputError, match="an encoder without a head"):
        models.load(encoder)
    for name, content in (("model.safetensors", b"x"), ("tokenizer.json", b"{}"), (models.CONFIG, b"{")):
        path = tmp_path / "m" / name
        before = path.read_bytes()
        path.write_bytes(content)
        with pytest.raises(InputError, match=f"{name}: not"):
            models.load(tmp_path / "m")
        path.unlink()
        with pytest.raises(InputError, match=f"{name}: no such file"):
            models.load(tmp_path / "m")
        path.write_bytes(before)
    with pytest.raises(InputError, match="no such folder"):
        models.load(tmp_path / "none")


def test_an_unknown_model_is_named():
    with pytest.raises(InputError, match=r"found 'lstm'\nexpected one of: bilstm, bow, .*gru"):
        models.find("lstm")
    for hidden in ("_shared", "__init__", "../bow"):
        with pytest.raises(InputError):
            models.find(hidden)


def test_weight_decay_is_not_on_biases_and_norms():
    class RMSNorm(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(2, 2))

    model = torch.nn.ModuleDict(
        {
            "embedding": torch.nn.Embedding(3, 2),
            "gru": torch.nn.GRU(2, 2),
            "norm": torch.nn.LayerNorm([2, 2]),
            "rms": RMSNorm(),
            "linear": torch.nn.Linear(2, 2),
            "frozen": torch.nn.Linear(2, 2).requires_grad_(False),
        }
    )
    decayed, plain = models.parameter_groups(model, 0.01)
    names = {id(p): name for name, p in model.named_parameters()}
    assert [names[id(p)] for p in decayed["params"]] == [
        "embedding.weight", "gru.weight_ih_l0", "gru.weight_hh_l0", "linear.weight",
    ]  # fmt: skip
    assert {names[id(p)] for p in plain["params"]} == {
        "gru.bias_ih_l0", "gru.bias_hh_l0", "norm.weight", "norm.bias", "rms.weight", "linear.bias",
    }  # fmt: skip
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.01, 0.0)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "one of embedding and vectors is needed"),
        ({"embedding": 4, "vectors": {"file": "v"}}, "vectors bring their own width"),
        ({"embedding": 4, "hiden": 3}, "hiden: unknown key"),
        ({"embedding": 0}, "embedding: found 0"),
        ({"embedding": 4, "dropout": 1.0}, "dropout: found 1.0"),
    ],
)
def test_bad_options_are_named(options, said):
    with pytest.raises(InputError, match=said):
        validate({"model": "gru", **options}, gru.Options, "params.yaml: pretrain.gru")


@pytest.mark.parametrize("name", ["bigru", "bilstm-last"])
def test_both_directions_are_those_of_torch(name, tmp_path):
    """Text by text, where torch's own bidirectional layer has no padding to begin at."""
    kind, options = KINDS[name]
    model = models.create(folder_of(kind, tmp_path / "encoder", **options), 3, seed=0).eval().double()
    forward, backward = model.directions
    both = type(forward)(12, 8, batch_first=True, bidirectional=True).double()
    for key, value in forward.state_dict().items():
        both.state_dict()[key].copy_(value)
        both.state_dict()[f"{key}_reverse"].copy_(backward.state_dict()[key])
    inputs = model.collate(model.encode(PAIRS[:2], 16))
    found = model.vectors(inputs).view(2, 2, 16)
    for one, ids, lengths in zip(found, inputs["ids"], inputs["lengths"], strict=True):
        for vector, text, length in zip(one, ids, lengths, strict=True):
            states = both(model.embedding(text[:length])[None])[0][0]
            assert torch.allclose(vector, torch.cat([states[-1, :8], states[0, 8:]]), atol=1e-12)
