"""Activation checkpointing changes memory and time, and no number: the oracle is the same model without it."""

import functools

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import BertConfig, BertForSequenceClassification

from gradworks.methods import Method
from tests.methods.own_models import BATCHES, WORDS, Blocks, Centred, Classes, Net, gradient, group, made, off
from tests.methods.shipped import STAR

TASK = Classes()
SLOTS = [dict(zip(("objective", "weighting", "update"), triple, strict=True)) for triple in STAR]
SLOTS += [{"weighting": {"reweight": {"backend": name}}} for name in ("logit_fd", "jvp", "per_example", "second_order")]
SLOTS += [{"update": {"dotprod": {"form": form}}} for form in ("exact", "one_sided")]
SLOTS += [{"update": {"grad_norm_penalty": {"form": form}}} for form in ("exact", "central")]
SLOTS += [{"update": {"maml": {"inner_lr": 0.5}}}, {"objective": "smart", "update": "maml"}]


def two_steps(model, slots, task=TASK, micro=1):
    method = Method(task=task, **slots)
    for step in range(2):
        method.backward(model, *group(method, step, micro))
    return gradient(model), [b.clone() for b in model.buffers()]


KINDS = [{}, {"norm": True}, {"drop": 0.3}, {"norm": True, "drop": 0.3, "nested": True}]


@functools.cache
def without(slots, kind):
    """The oracle of both kinds of checkpoint and of the nested ones: indices of SLOTS and KINDS."""
    return two_steps(made(lambda: Blocks(**(KINDS[kind] | {"nested": False}))), SLOTS[slots], micro=2)


@pytest.mark.parametrize("kind", range(len(KINDS)), ids=lambda i: str(KINDS[i]))
@pytest.mark.parametrize("slots", range(len(SLOTS)), ids=lambda i: "-".join(map(str, SLOTS[i].values())))
@pytest.mark.parametrize("reentrant", [False, True])
def test_every_entry_gives_the_gradient_of_the_model_without_checkpoints(reentrant, slots, kind):
    found, moved = two_steps(made(lambda: Blocks(reentrant, **KINDS[kind])), SLOTS[slots], micro=2)
    expected, plain = without(slots, kind)
    assert off(found, expected) < 1e-8
    for a, b in zip(moved, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-9)


@pytest.mark.parametrize("reentrant", [None, False, True])
def test_plain_training_is_the_plain_loop(reentrant):
    model, plain = made(lambda: Blocks(reentrant)), made(Blocks)
    Method(task=TASK).backward(model, [[BATCHES[0]]])
    TASK.loss(TASK.outputs(plain, BATCHES[0]), BATCHES[0]).mean().backward()
    assert off(gradient(model), gradient(plain)) < 1e-12


class Bert(Classes):
    def outputs(self, model, batch, embedded=None):
        given = {"input_ids": batch.inputs} if embedded is None else {"inputs_embeds": embedded}
        return (model(**given).logits,)

    def embed(self, model, batch):
        return model.get_input_embeddings()(batch.inputs)


def bert(**checkpointing):
    config = BertConfig(
        vocab_size=WORDS, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=32, num_labels=3, attn_implementation="eager",
    )  # fmt: skip
    model = made(lambda: BertForSequenceClassification(config))
    if checkpointing:
        model.gradient_checkpointing_enable(checkpointing["options"])
    return model


BERT_SLOTS = [
    {"update": "maml"}, {"update": "sam"}, {"update": {"dotprod": {"form": "exact"}}}, {"weighting": "reweight"},
    {"objective": "smart", "update": "dotprod"}, {"weighting": {"reweight": {"backend": "second_order"}}},
]  # fmt: skip


@functools.cache
def bert_without(slots):
    return two_steps(bert(), BERT_SLOTS[slots], Bert())[0]


@pytest.mark.parametrize("slots", range(len(BERT_SLOTS)), ids=lambda i: str(BERT_SLOTS[i]))
@pytest.mark.parametrize("options", [None, {"use_reentrant": True}, {"use_reentrant": False}], ids=str)
def test_bert_with_its_own_switch_and_dropout(slots, options):
    found, _ = two_steps(bert(options=options), BERT_SLOTS[slots], Bert())
    assert off(found, bert_without(slots)) < 1e-8


def test_a_buffer_that_a_checkpointed_block_reads_and_moves():
    """It runs again from the buffers with which it began, and moves none."""

    class Saved(Centred):
        def forward(self, x):
            return checkpoint(self.inner, x, use_reentrant=False)

        def inner(self, x):
            return torch.tanh(super().forward(x))

    class Plain(Saved):
        def forward(self, x):
            return self.inner(x)

    for update in ("erm", "sam", "grad_norm_penalty", {"maml": {"batches": 2}}):
        found, moved = two_steps(made(lambda: Net(Saved)), {"update": update})
        expected, plain = two_steps(made(lambda: Net(Plain)), {"update": update})
        assert off(found, expected) < 1e-8
        torch.testing.assert_close(moved[0], plain[0], rtol=0, atol=1e-12)


def test_autocast_does_not_give_a_block_the_casts_of_another_point():
    """Between a forward pass and its backward pass `logit_fd` runs the model beside its parameters."""

    def run(reentrant):
        slots = {"objective": "smart", "weighting": {"reweight": {"backend": "logit_fd"}}}
        with torch.autocast("cpu", torch.bfloat16):
            return two_steps(made(lambda: Blocks(reentrant), dtype=torch.float32), slots)[0]

    assert off(run(False), run(None)) < 1e-6


def test_a_block_that_does_something_else_the_second_time_is_named():
    class Odd(nn.Module):
        calls = 0

        def forward(self, x):
            self.calls += 1
            return x.sin() if self.calls % 2 else torch.cat([x, x]).sin()[: len(x)]

    model = made(lambda: Net(lambda: Saving(Odd())))
    with pytest.raises(ValueError, match=r"^torch.utils.checkpoint: .*\n.*expected it without activation checkpoint"):
        Method(task=TASK).backward(model, [[BATCHES[0]]])


class Saving(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return checkpoint(self.inner, x, use_reentrant=False)


def test_torch_has_its_own_functions_back():
    from torch.utils import checkpoint as module

    before = module._checkpoint_without_reentrant_generator, module.CheckpointFunction
    Method(task=TASK).backward(made(lambda: Blocks(False)), [[BATCHES[0]]])
    assert (module._checkpoint_without_reentrant_generator, module.CheckpointFunction) == before
