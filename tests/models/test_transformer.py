"""The transformer: any AutoModel, its files, checkpoints of others."""

import copy
import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.func import functional_call

from gradworks import models
from gradworks.base import validate
from gradworks.base.errors import InputError
from gradworks.data import tokenizer
from gradworks.models import transformer

PAIRS = [("the pilot met the lawyer", "the pilot slept"), ("a doctor", "the lawyer met a doctor who ran")]
WORDS = sorted({w for pair in PAIRS for text in pair for w in text.split()})
SIZES = {"layers": 2, "width": 16, "heads": 2, "vocabulary": 50, "positions": 32}


def words():
    return tokenizer.wordpiece([*tokenizer.SPECIAL, *WORDS], True)


def options(**more):
    return validate({"model": "transformer", **more}, transformer.Options, "params.yaml: pretrain.bert")


def new(folder, **more):
    folder.mkdir(exist_ok=True)
    transformer.prepare(options(**SIZES, **more), words(), folder)
    return folder


def adopt(source, folder, **more):
    folder.mkdir(exist_ok=True)
    transformer.adopt(options(**{"from": str(source)}, **more), folder, "params.yaml: pretrain.bert")
    return folder


def logits(model, pairs):
    return model(model.collate(model.encode(pairs, 16)))


def hub(folder, kind, config, text=None):
    """A checkpoint in the layout of the hub, written by transformers."""
    from transformers import PreTrainedTokenizerFast

    torch.manual_seed(0)
    kind(config).save_pretrained(folder)
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=text or words(), mask_token="[MASK]", **names).save_pretrained(folder)
    return folder


def bert_config(**more):
    from transformers import BertConfig

    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    return BertConfig(vocab_size=len(WORDS) + 5, **sizes, **more)


@pytest.fixture(params=["cls", "pooler", "mean"])
def encoder(request, tmp_path):
    return new(tmp_path / "encoder", pooling=request.param)


def test_padding_changes_nothing(encoder):
    model = models.create(encoder, 3, seed=0).eval().double()
    together = logits(model, PAIRS)
    assert torch.allclose(together, torch.cat([logits(model, [pair]) for pair in PAIRS]), atol=1e-12)
    assert together.shape == (2, 3) and (together[0] - together[1]).abs().max() > 1e-6


def test_embedded_stands_for_the_word_embeddings(encoder):
    model = models.create(encoder, 3, seed=0).eval()
    inputs = model.collate(model.encode(PAIRS, 16))
    embedded = model.embed(inputs)
    assert embedded.shape == (*inputs["input_ids"].shape, 16)
    assert torch.allclose(model(inputs, embedded), model(inputs), atol=1e-6)
    assert not torch.allclose(model(inputs, embedded + torch.linspace(0, 1, 16)), model(inputs), atol=1e-3)


def test_every_parameter_gets_a_gradient(encoder):
    model = models.create(encoder, 3, seed=0)
    logits(model, PAIRS).square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_seed_files_functional_call_and_deepcopy(encoder, tmp_path):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    model = models.create(encoder, 3, seed=7)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    same, other = models.create(encoder, 3, seed=7), models.create(encoder, 3, seed=8)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), same.parameters(), strict=True))
    assert not torch.equal(model.head.weight, other.head.weight)

    models.save(model, tmp_path / "a")
    loaded = models.load(tmp_path / "a")
    models.save(loaded, tmp_path / "b")
    base = logits(model.eval(), PAIRS)
    assert torch.equal(base, logits(loaded.eval(), PAIRS))
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()
        assert str(tmp_path).encode() not in file.read_bytes()

    inputs = model.collate(model.encode(PAIRS, 16))
    moved = {name: p + 0.05 for name, p in model.named_parameters()}
    assert not torch.allclose(functional_call(model, moved, (inputs,)), base)
    twin = copy.deepcopy(model)
    twin.head.weight.data.zero_()
    assert torch.equal(model(inputs), base) and not torch.equal(twin(inputs), base)


def test_pairs_have_token_types_and_no_decay_on_norms(tmp_path):
    model = models.create(new(tmp_path / "e"), 3, seed=0)
    (one,) = model.encode(PAIRS[:1], 16)
    assert one["token_type_ids"] == [0] * 7 + [1] * 4
    assert len(model.encode([("the " * 40, "pilot " * 40)], 16)[0]["input_ids"]) == 16
    _, plain = models.parameter_groups(model, 0.1)
    names = {id(p): name for name, p in model.named_parameters()}
    assert {names[id(p)].split(".")[-2] for p in plain["params"]} >= {"LayerNorm", "head", "query"}
    assert all(names[id(p)].endswith(("bias", "LayerNorm.weight")) for p in plain["params"])


def test_attention_is_transformers_choice_unless_it_is_named(tmp_path):
    default, eager = (
        models.create(new(tmp_path / "a"), 3, 0),
        models.create(new(tmp_path / "b", attention="eager"), 3, 0),
    )
    assert default.encoder.config._attn_implementation == "sdpa"
    assert eager.encoder.config._attn_implementation == "eager"
    assert torch.allclose(logits(default.eval(), PAIRS), logits(eager.eval(), PAIRS), atol=1e-6)


def test_a_checkpoint_of_bert_with_its_heads(tmp_path):
    from transformers import BertForPreTraining

    source = hub(tmp_path / "hub", BertForPreTraining, bert_config())
    model = models.create(adopt(source, tmp_path / "e", pooling="pooler"), 2, seed=0)
    theirs = BertForPreTraining.from_pretrained(source).bert.state_dict()
    ours = model.encoder.state_dict()
    assert theirs.keys() == ours.keys() and all(torch.equal(theirs[name], ours[name]) for name in theirs)
    assert "pooler.dense.weight" in ours
    # with another pooling the pooler stands in the folder but not in the model
    config = json.loads((tmp_path / "e" / models.CONFIG).read_text())
    (tmp_path / "e" / models.CONFIG).write_text(json.dumps({**config, "pooling": "cls"}))
    assert "pooler.dense.weight" not in models.create(tmp_path / "e", 2, seed=0).encoder.state_dict()
    assert not any(str(tmp_path).encode() in file.read_bytes() for file in (tmp_path / "e").iterdir())


def test_a_checkpoint_without_pooler_gets_one_from_the_seed(tmp_path):
    from transformers import BertForMaskedLM

    source = hub(tmp_path / "hub", BertForMaskedLM, bert_config())
    folder = adopt(source, tmp_path / "e", pooling="pooler")
    a, b, c = (models.create(folder, 2, seed=seed).encoder.pooler.dense.weight for seed in (0, 0, 1))
    assert torch.equal(a, b) and not torch.equal(a, c)


def test_other_architectures(tmp_path):
    from transformers import DistilBertConfig, DistilBertForMaskedLM, RobertaConfig, RobertaForMaskedLM

    shared = {"vocab_size": len(WORDS) + 5, "pad_token_id": 0}
    distil = DistilBertConfig(dim=16, n_layers=2, n_heads=2, hidden_dim=32, **shared)
    roberta = RobertaConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, type_vocab_size=1, **shared
    )  # fmt: skip
    for kind, config in ((DistilBertForMaskedLM, distil), (RobertaForMaskedLM, roberta)):
        source = hub(tmp_path / kind.__name__, kind, config)
        model = models.create(adopt(source, tmp_path / f"{kind.__name__}-e"), 2, seed=0).eval().double()
        assert "token_type_ids" not in model.encode(PAIRS, 16)[0]
        together = logits(model, PAIRS)
        assert torch.allclose(together, torch.cat([logits(model, [pair]) for pair in PAIRS]), atol=1e-12)
        inputs = model.collate(model.encode(PAIRS, 16))
        if kind is DistilBertForMaskedLM:
            with pytest.raises(InputError, match="found pooler\nexpected cls or mean: distilbert has no pooler"):
                models.create(adopt(source, tmp_path / "p", pooling="pooler"), 2, seed=0)
        assert torch.allclose(model(inputs, model.embed(inputs)), together, atol=1e-12)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda t: t.pop("bert.encoder.layer.1.output.dense.bias"),
            "no tensor 'encoder.layer.1.output.dense.bias'",
        ),
        (lambda t: t.update({"bert.encoder.layer.2.x": torch.ones(1)}), "tensor of no layer: 'bert.encoder.layer.2.x'"),
        (lambda t: t.update({"bert.embeddings.LayerNorm.bias": torch.ones(3)}), "size|shape"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(tmp_path, change, said):
    from transformers import BertForMaskedLM

    source = hub(tmp_path / "hub", BertForMaskedLM, bert_config())
    tensors = load_file(source / "model.safetensors")
    change(tensors)
    save_file(tensors, source / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=said) as found:
        adopt(source, tmp_path / "e")
    assert (
        str(found.value).startswith(f"params.yaml: pretrain.bert.from: {source}") and str(found.value).count("\n") < 3
    )


def test_pickled_weights_are_never_read(tmp_path):
    from transformers import BertForMaskedLM

    source = hub(tmp_path / "hub", BertForMaskedLM, bert_config())
    torch.save(load_file(source / "model.safetensors"), source / "pytorch_model.bin")
    (source / "model.safetensors").unlink()
    with pytest.raises(InputError, match="safetensors"):
        adopt(source, tmp_path / "e")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("./none", "no such folder"),
        ("google-bert/bert-base-uncased", "is a name on the hub\nexpected: its revision"),
        ("/none", "no such folder"),
    ],
)
def test_a_checkpoint_that_is_not_there(tmp_path, source, said):
    with pytest.raises(InputError, match=said):
        adopt(source, tmp_path / "e")


def test_a_hub_name_that_cannot_be_had_is_named(tmp_path):
    with pytest.raises(InputError, match=r"pretrain.bert.from: gradworks-none/none: \S+"):
        adopt("gradworks-none/none", tmp_path / "e", revision="main")


def test_wrong_weights_in_an_encoder_folder_are_named(tmp_path):
    folder = new(tmp_path / "e")
    transformer.write_encoder(models.create(folder, 3, seed=0).encoder, folder)
    tensors = load_file(folder / "model.safetensors")
    tensors.pop("embeddings.word_embeddings.weight")
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(InputError, match=r"model.safetensors: no tensor 'embeddings.word_embeddings.weight'"):
        models.create(folder, 3, seed=0)
    (folder / "config.json").write_text("{")
    with pytest.raises(InputError, match="not a transformers configuration"):
        models.create(folder, 3, seed=0)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"from": "x", "layers": 2}, "`from` brings its own sizes"),
        ({}, "layers, width and heads are needed"),
        ({**SIZES, "width": 15}, "width 15 is no multiple of heads 2"),
        ({**SIZES, "revision": "a"}, "revision is one of `from`"),
        ({**SIZES, "pretrain": {"steps": 1, "max_length": 64}}, "max_length 64 exceeds positions 32"),
        ({**SIZES, "pretrain": {"steps": 1, "stepz": 1}}, "pretrain.stepz: unknown key"),
        ({**SIZES, "pooling": "max"}, "pooling: found 'max'"),
    ],
)
def test_bad_options_are_named(more, said):
    with pytest.raises(InputError, match=said):
        options(**more)
