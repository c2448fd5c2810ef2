"""A person's own loop: functions for what an entry asks for, and models with adapters (peft)."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.nn import functional as F
from transformers import BertConfig, BertForSequenceClassification, GPT2Config, GPT2LMHeadModel

from gradworks import Method
from tests.methods.shipped import PAIRWISE, STAR
from tests.methods.toys import TASKS, Kind, Net, batch, build, draw, gradients, same, symmetric_kl

# the functions of a person, for the toy model


def outputs(model, b, embedded=None):
    return TASKS["three"].outputs(model, b, embedded)[0]


def loss(z, b):
    return F.cross_entropy(z, b.labels, reduction="none")


def embed(model, b):
    return model.emb(b.inputs)


FUNCTIONS = {"outputs": outputs, "loss": loss, "embed": embed, "divergence": symmetric_kl}


def served(objective):
    """Whether the four functions are all that an objective asks for."""
    try:
        Method(objective, **FUNCTIONS)
    except ValueError as error:
        assert "give Method(..., task=...): no function serves it" in str(error)
        return False
    return True


@pytest.mark.parametrize("triple", STAR, ids="-".join)
def test_functions_do_what_a_task_does(triple):
    if not served(triple[0]):
        return
    model, other = build(Net), build(Net)
    if Method(*triple, tasks=TASKS).needs.batches == "one_per_task":  # functions serve one task
        triple = (*triple[:2], {triple[2]: {"batches": 2}})
    ours, theirs = Method(*triple, **FUNCTIONS, seed=3), Method(*triple, tasks=TASKS, seed=3)
    ours.backward(model, *draw(ours.batches))
    theirs.backward(other, *draw(ours.batches))
    assert same(gradients(model), gradients(other))


def test_several_outputs_reach_the_divergence_as_they_were_made():
    seen = []

    def pair_divergence(p, q):
        seen.append((type(p), len(p)))
        return sum(symmetric_kl(a, b) for a, b in zip(p, q, strict=True)) / 2

    def pair(model, b, embedded=None):
        z = outputs(model, b, embedded)
        return z, z

    method = Method("smart", outputs=pair, loss=lambda z, b: loss(z[0], b), embed=embed, divergence=pair_divergence)
    method.backward(build(Net), *draw(1))
    assert set(seen) == {(tuple, 2)}


def test_batches_of_a_loader_reach_every_function_as_they_came():
    seen, x = set(), batch()

    def note(name, b):
        seen.add((name, type(b)))
        return x

    method = Method(
        "smart",
        outputs=lambda m, b, e=None: outputs(m, note("outputs", b), e),
        loss=lambda z, b: loss(z, note("loss", b)),
        embed=lambda m, b: embed(m, note("embed", b)),
        divergence=symmetric_kl,
    )
    method.backward(build(Net), *next(method.groups([{"ids": x.inputs}])))
    assert seen == {(name, dict) for name in ("outputs", "loss", "embed")}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((), "objective smart: needs embed(...); give Method(..., embed=..., divergence=...)"),
        (("embed",), "objective smart: needs divergence(...); give Method(..., divergence=...)"),
        (("divergence",), "objective smart: needs embed(...); give Method(..., embed=...)"),
    ],
)
def test_what_an_entry_asks_for_is_named_before_training(given, words):
    with pytest.raises(ValueError) as caught:
        Method("smart", outputs=outputs, loss=loss, **{name: FUNCTIONS[name] for name in given})
    assert str(caught.value) == words


def test_outputs_that_take_no_embeddings_are_refused_before_training():
    expected = r"Method: embed=... was given, and outputs takes no embeddings; expected outputs\(model, batch, embedded"
    with pytest.raises(ValueError, match=expected):
        Method(outputs=lambda m, b: m(b), loss=loss, embed=embed)
    Method(outputs=lambda m, *b: m(*b), loss=loss, embed=embed)
    with pytest.raises(ValueError, match="embed and divergence go with the functions outputs and loss"):
        Method(task=TASKS["three"], divergence=symmetric_kl)


def test_examples_of_one_batch_have_names_of_their_own():
    """Over micro-batches and ranks: noise is keyed by name."""
    loader = [torch.zeros(2, 1) for _ in range(4)]
    found = []
    for rank in (0, 1):
        method = Method(outputs=outputs, loss=loss, rank=rank)
        found += [b.ids for batches, _ in method.groups(loader, accumulate=2) for drawn in batches for b in drawn]
    names = [name for ids in found for name in ids]
    assert len(set(names)) == len(names) == 16


def test_a_model_without_trainable_parameters_is_refused():
    with pytest.raises(ValueError, match="no parameter requires a gradient"):
        Method(tasks=TASKS).backward(build(Net).requires_grad_(False), *draw(1))


# adapters


class Classes:
    """The task of a classifier from transformers: every part that an objective may ask for."""

    def embed(self, model, b):
        return model.get_input_embeddings()(b.inputs)

    def outputs(self, model, b, embedded=None):
        given = {"input_ids": b.inputs} if embedded is None else {"inputs_embeds": embedded}
        return (model(**given).logits,)

    loss, divergence = Kind("three").loss, Kind("three").divergence

    def smoothed(self, out, b, share):
        return F.cross_entropy(out[0], b.labels, reduction="none", label_smoothing=share)


class Words(Classes):
    """The task of a causal language model: the next word; every example has five."""

    def loss(self, out, b):
        return F.cross_entropy(out[0][:, :-1].transpose(1, 2), b.inputs[:, 1:], reduction="none").mean(1)

    def divergence(self, p, q):
        return symmetric_kl(p[0], q[0]).mean(1)

    def smoothed(self, out, b, share):
        z, y = out[0][:, :-1].transpose(1, 2), b.inputs[:, 1:]
        return F.cross_entropy(z, y, reduction="none", label_smoothing=share).mean(1)


LORA = {"r": 2, "lora_dropout": 0.1, "init_lora_weights": False}  # as trained ones: half of them start as zeros


def bert():
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    # eager attention can be differentiated twice
    config = BertConfig(vocab_size=30, **sizes, max_position_embeddings=8, num_labels=3, attn_implementation="eager")
    adapters = LoraConfig(task_type="SEQ_CLS", target_modules=["query", "value"], **LORA)
    return get_peft_model(BertForSequenceClassification(config), adapters).train()


def gpt2():
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=30, n_positions=8, n_embd=16, n_layer=1, n_head=2, attn_implementation="eager")
    adapters = LoraConfig(target_modules=["c_attn"], fan_in_fan_out=True, **LORA)
    return get_peft_model(GPT2LMHeadModel(config), adapters).train()


@pytest.fixture(scope="module")
def classifier():
    return bert()


@pytest.fixture(scope="module")
def language_model():
    return gpt2()


def adapted(model, task, triple):
    """The names of the parameters that get a gradient, of those that may, and of all."""
    before = [p.detach().clone() for p in model.parameters()]
    method = Method(*triple, task=task, seed=3)
    report = method.backward(model, *draw(method.batches))
    assert report.log["finite"] == 1.0
    assert not report.skipped
    assert same(before, list(model.parameters()))
    rows = list(model.named_parameters())
    assert {name for name, p in rows if p.grad is not None} == {name for name, p in rows if p.requires_grad}
    return {name for name, p in rows if p.grad is not None and p.grad.any()}, {name for name, _ in rows}


@pytest.mark.parametrize("triple", PAIRWISE, ids="-".join)
def test_every_method_trains_the_adapters_of_a_classifier_and_nothing_else(classifier, triple):
    reached, names = adapted(classifier, Classes(), triple)
    assert reached == {name for name in names if "lora_" in name or "modules_to_save" in name}


@pytest.mark.parametrize("triple", STAR, ids="-".join)
def test_every_entry_trains_the_adapters_of_a_language_model(language_model, triple):
    reached, names = adapted(language_model, Words(), triple)
    assert reached == {name for name in names if "lora_" in name}


def test_adapters_get_the_gradient_of_backward():
    model, plain = bert().eval(), bert().eval()
    b = draw(1)[0][0]
    Method(task=Classes()).backward(model, [b])
    Classes().loss(Classes().outputs(plain, b[0]), b[0]).mean().backward()
    for p, q in zip(model.parameters(), plain.parameters(), strict=True):
        assert (p.grad is None) == (q.grad is None)
        if p.grad is not None:
            torch.testing.assert_close(p.grad, q.grad)
