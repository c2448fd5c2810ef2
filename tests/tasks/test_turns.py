"""Conversations of several turns: the labels are the tokens that transformers itself says the assistant writes."""

import json

import pytest
import torch

from gradworks import tasks
from gradworks.base.errors import InputError
from gradworks.data import records, tables
from gradworks.tasks import TaskSpec
from tests import written

CHAT = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}<a>{% generation %}{{ m['content'] }}</s>"
    "{% endgeneration %}{% else %}<{{ m['role'][0] }}>{{ m['content'] }}</s>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<a>{% endif %}"
)
TURNS = [
    ["user: red cat", "assistant: sun"],
    ["system: be", "user: sun", "assistant: dog", "user: red", "user: cat", "assistant: cat"],
    ["user: sun", "assistant: red", "user: moon", "assistant: dog"],
]


def messages(turns):
    return [dict(zip(("role", "content"), turn.split(": "), strict=True)) for turn in turns]


def kind(**options):
    return tasks.kind(TaskSpec("t", "causal", ("chat",), None, (), options={"chat": True, "turns": True} | options))


def read(made, rows, asked=None):
    return records.read(made, enumerate(rows, 1), list(rows[0]), "f.jsonl", "s", asked)


@pytest.fixture(scope="module")
def model():
    made = written.model("causal", dropout=0.0)
    made.chat = CHAT
    return made


def examples(made, model, longest=64, turns=TURNS):
    split = read(made, [{"chat": messages(one)} for one in turns])
    assert not split.bad
    (table,) = records.to_tables(made, split.records)
    return tables.to_examples(table, made, model, longest, "f")


def theirs(model, turns):
    """Token ids and, where the assistant writes, the labels of the next token, by transformers' own template."""
    writer = model._writer()
    found = writer.apply_chat_template(
        messages(turns), return_dict=True, return_assistant_tokens_mask=True, add_special_tokens=False
    )
    pairs = zip(found["input_ids"], found["assistant_masks"], strict=True)
    return found["input_ids"], [i if mask else -100 for i, mask in pairs]


def test_the_labels_are_all_turns_of_the_assistant_and_nothing_else(model):
    made = kind(max_response=8)
    data = examples(made, model)
    for row, turns in enumerate(TURNS):
        ids, labels = theirs(model, turns)
        batch = data.batch([row])
        assert batch.inputs["input_ids"][0].tolist() == ids[:-1]
        first = next(i for i, label in enumerate(labels) if label != -100)
        assert batch.labels[0].tolist() == labels[first:]
        assert float(batch.mass[0]) == sum(label != -100 for label in labels)
        assert model.tokenizer.decode(ids[int(batch.inputs["prompt"][0]) :]) == turns[-1].split(": ")[1] + "</s>"


def test_the_loss_of_a_batch_is_transformers_own(model):
    made = kind(max_response=8)
    batch = examples(made, model).batch([0, 1, 2])
    losses = made.loss(made.outputs(model, batch), batch).detach()
    pairs = [theirs(model, turns) for turns in TURNS]
    pad = torch.nn.utils.rnn.pad_sequence
    ids, labels = (
        pad([torch.tensor(p[k]) for p in pairs], True, value) for k, value in enumerate((model.config["pad"], -100))
    )
    mask = pad([torch.ones(len(one)) for one, _ in pairs], True)
    loss = model.lm(input_ids=ids, attention_mask=mask, labels=labels).loss.detach()
    assert float((losses * batch.mass).sum() / batch.mass.sum()) == pytest.approx(float(loss), rel=1e-6)


def test_a_conversation_that_is_too_long_loses_its_start_and_the_last_turn_its_end(model):
    ids, labels = theirs(model, TURNS[1])
    last = next(i for i in range(len(labels) - 1, 0, -1) if labels[i - 1] == -100 and labels[i] != -100)
    begins = next(i for i, label in enumerate(labels) if label != -100)
    for room in (last - begins + 3, last - begins, 5):  # more than the first answer, just that, and less
        batch = examples(kind(max_response=2), model, longest=room + 2, turns=TURNS[1:2]).batch([0])
        kept = slice(last - room, last + 2)
        assert batch.inputs["input_ids"][0].tolist() == ids[kept][:-1] and int(batch.inputs["prompt"][0]) == room
        found = [-100, *labels[kept][1:]]  # nothing stands before the first token
        first = next(i for i, label in enumerate(found) if label != -100)
        assert batch.labels[0].tolist() == found[first:]
        assert len(examples(kind(max_response=2), model, room + 2).batch([0, 1, 2]).labels) == 3


def test_the_system_message_is_the_conversations_own_where_it_has_one(model):
    data = examples(kind(max_response=8, system="x y"), model)
    for row, begins in enumerate(("<s>x y</s><u>red cat", "<s>be</s><u>sun", "<s>x y</s><u>sun")):
        assert model.tokenizer.decode(data.batch([row]).inputs["input_ids"][0].tolist()).startswith(begins)


def test_rows_that_are_no_conversation_are_bad_rows_with_the_reason():
    good = messages(TURNS[0])
    rows = [
        {"chat": good},
        {"chat": json.dumps(good)},
        {"chat": "hello"},
        {"chat": good[:1]},
        {"chat": [{"role": "tool", "content": "a"}, good[1]]},
        {"chat": [good[0], {"role": "assistant", "content": " "}]},
        {"chat": [good[0], good[1], good[0]]},
        {"chat": [{"role": "system", "content": "a"}, good[1]]},
    ]
    split = read(kind(), rows)
    assert [one["label"] for one in split.records] == ["sun", "sun"]
    assert [json.loads(one["chat"]) for one in split.records] == [good[:1]] * 2
    said = ("a list of messages", "two or more", "message 1: ", "message 2: ", "is of user", "behind")
    assert [one["line"] for one in split.bad] == [3, 4, 5, 6, 7, 8]
    assert all(part in one["reason"] for part, one in zip(said, split.bad, strict=True))
    with pytest.raises(InputError, match="columns: found label"):
        read(kind(), rows, records.Asked(columns={"label": "chat"}))


@pytest.mark.parametrize(
    "options", [{"chat": False}, {"template": "{chat}"}], ids=["without a template", "with one of our own"]
)
def test_options_that_do_not_fit_turns(options):
    with pytest.raises(InputError, match="turns: found it without chat"):
        kind(**options)


def test_a_template_that_leaves_out_earlier_answers_is_refused(model):
    last = "{% if m['role'] != 'assistant' or loop.last %}<{{ m['content'] }}>{% endif %}"
    last = "{% for m in messages %}" + last + "{% endfor %}"
    made, model.chat = kind(), last + "{% if add_generation_prompt %}<{% endif %}"
    try:
        with pytest.raises(InputError, match="does not write a response behind its prompt"):
            examples(made, model)
        model.chat = "{{ raise_exception('no system') }}"
        with pytest.raises(InputError, match="refuses turns of user, assistant: no system"):
            examples(made, model)
    finally:
        model.chat = CHAT
