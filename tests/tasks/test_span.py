"""Span: windows of a text are one example; positions, losses, answers and thresholds against loops; bad rows."""

import json
import math
from dataclasses import replace

import pyarrow as pa
import pytest
import torch

from gradworks import models, tasks
from gradworks.base.errors import InputError
from gradworks.data import files, predictions, records, tables
from gradworks.data.tokenizer import train
from gradworks.predict import answers
from gradworks.tasks import TaskSpec

SPEC = TaskSpec("t", "span", ("question", "context"), None, ("answer_f1",),
                options={"step": 2, "query": 3, "longest": 3, "best": 4})  # fmt: skip
KIND = tasks.kind(SPEC)
QUESTIONS = ["a b", "c", "a b c d e", "d"]
CONTEXTS = ["a b c d e a b c d", "e d c b a", "b c a d e b c", "ab c"]
ANSWERS = [[("d e", 6), ("d", 6)], [], [("b c", 10)], [("ab", 0)]]
LABELS = [[{"text": text, "start": start} for text, start in one] for one in ANSWERS]
ENCODERS = {
    "gru": {"embedding": 6, "hidden": 5, "mlp": 4, "dropout": 0.0, "bidirectional": True, "pooling": "mean"},
    "transformer": {"layers": 1, "width": 8, "heads": 2, "dropout": 0.0},
}
ROOM = 9  # tokens of a window


def build(name, folder, **more):
    folder.mkdir()
    tokenizer = train(["a b c d e"], 40, True)
    module = models.find(name)
    options = ENCODERS.get(name, {"embedding": 6, "hidden": 4}) | more
    module.prepare(module.Options(model=name, **options), tokenizer, folder, texts=2, vectors=None)
    model = models.create(folder, KIND.size, seed=1).eval()
    torch.manual_seed(0)
    for parameter in model.parameters():
        parameter.data += 0.5 * torch.randn_like(parameter)
    return model


def table(labels=LABELS):
    columns = {"id": [str(i) for i in range(4)], "question": QUESTIONS, "context": CONTEXTS}
    return pa.table(columns | {"label": pa.array(labels, KIND.label_type)})


def windows(model, question, context):
    """Token ids of each window, and the words of the text in it, by the rule: a window begins every 2 tokens."""
    ids = model.tokenizer.token_to_id
    spans = [(i, i + 1) for i, c in enumerate(context) if c != " "]  # letters are tokens
    tokens = [ids(context[i] if i == 0 or context[i - 1] == " " else f"##{context[i]}") for i, _ in spans]
    asked = [ids(c) for c in question.split()][:3]
    room, start = ROOM - 3 - len(asked), 0
    while True:
        window = [ids("[CLS]"), *asked, ids("[SEP]"), *tokens[start : start + room], ids("[SEP]")]
        yield window, 2 + len(asked), spans[start : start + room]
        if start + room >= len(tokens):
            return
        start += min(2, room)


def log_p(model, name, window, first, spans):
    """Of first and last token: over the first token of the window and those of the text."""
    window = torch.tensor([window])
    with torch.no_grad():
        if name == "gru":
            x = model.embedding(window)
            states = torch.cat([model.directions[0](x)[0], model.directions[1](x.flip(1))[0].flip(1)], -1)
            vectors = model.mlp(torch.cat([states, 0 * states, states, 0 * states], -1))
        else:
            types = (torch.arange(window.shape[1]) >= first).long()[None]
            vectors = model.encoder(window, torch.ones_like(window), token_type_ids=types).last_hidden_state
        z = model.head(vectors)[0]
    return torch.cat([z[:1], z[first : first + len(spans)]]).log_softmax(0).tolist()


@pytest.mark.parametrize("name", ENCODERS)
def test_losses_and_answers_are_those_of_a_loop_over_windows(name, tmp_path):
    model = build(name, tmp_path / "m")
    examples = tables.to_examples(table(), KIND, model, ROOM, "f")
    made, losses, masses = answers(model, KIND, examples, batch_size=3), [], []
    for question, context, gold, (none, best) in zip(QUESTIONS, CONTEXTS, ANSWERS, made, strict=True):
        each, found, refused = [], {}, []
        for window, first, spans in windows(model, question, context):
            p = log_p(model, name, window, first, spans)
            at = (0, 0)
            if gold:
                begin, end = gold[0][1], gold[0][1] + len(gold[0][0])
                if spans[0][0] <= begin and end <= spans[-1][1]:
                    at = (
                        next(i for i, s in enumerate(spans) if s[0] == begin) + 1,
                        next(i for i, s in enumerate(spans) if s[1] == end) + 1,
                    )
            each.append(-(p[at[0]][0] + p[at[1]][1]) / 2)
            refused.append(p[0][0] + p[0][1])
            for i in range(len(spans)):
                for j in range(i, min(i + 3, len(spans))):
                    text, score = context[spans[i][0] : spans[j][1]], p[i + 1][0] + p[j + 1][1]
                    found[text] = max(score, found.get(text, score))
        losses.append(sum(each) / len(each))
        masses.append(len(each))
        expected = sorted(found.items(), key=lambda one: -one[1])[:4]
        assert [text for text, _ in best] == [text for text, _ in expected]
        assert [score for _, score in best] == pytest.approx([score for _, score in expected], abs=1e-4)
        assert none == pytest.approx(min(refused) - expected[0][1], abs=1e-4)
    assert max(masses) > 1 == min(masses)
    tokens = [
        sum(len(window) for window, _, _ in windows(model, *one)) for one in zip(QUESTIONS, CONTEXTS, strict=True)
    ]
    assert examples.lengths == tokens  # texts of as many windows share a batch
    batch = examples.batch([2, 0, 1, 3])
    outputs = KIND.outputs(model, batch)
    assert batch.mass.tolist() == [masses[i] for i in (2, 0, 1, 3)]
    assert KIND.loss(outputs, batch).tolist() == pytest.approx([losses[i] for i in (2, 0, 1, 3)], abs=1e-4)
    embedded = KIND.embed(model, batch)
    assert torch.allclose(KIND.outputs(model, batch, embedded)[0], outputs[0], atol=1e-5)
    assert all(torch.isfinite(one).all() for one in outputs) and (KIND.divergence(outputs, outputs) == 0).all()
    (alone,) = KIND.loss(KIND.outputs(model, one := examples.batch([1])), one).tolist()
    assert alone == pytest.approx(losses[1], abs=1e-5)


def test_smoothing_spreads_over_the_tokens_that_may_be_it():
    p = torch.tensor([[[0.2, 0.0, 0.3, 0.5]]])
    scores = torch.where(p > 0, p.log(), 0.0)
    allowed = {"allowed": torch.tensor([[[True, False, True, True]]])}
    batch = type("B", (), {"labels": torch.tensor([[[2, 3]]]), "inputs": allowed})()
    mean = (math.log(0.2) + math.log(0.3) + math.log(0.5)) / 3
    expected = -(0.9 * math.log(0.3) + 0.1 * mean + 0.9 * math.log(0.5) + 0.1 * mean) / 2
    assert KIND.smoothed((scores, scores), batch, 0.1).tolist() == pytest.approx([expected])


def test_an_answer_that_no_window_holds_is_refused_or_not_learned_from(tmp_path):
    model = build("gru", tmp_path / "m")
    labels = [*LABELS[:3], [{"text": "ab c", "start": 0}]]
    assert len(tables.to_examples(table(labels), KIND, model, ROOM, "f")) == 4
    long = [[{"text": "a b c d e a", "start": 0}], *LABELS[1:]]
    said = f"f: row 0: no window of {ROOM} tokens holds 'a b c d e a'\nexpected a longer max_length"
    with pytest.raises(InputError, match=said):
        tables.to_examples(table(long), KIND, model, ROOM, "f")
    lenient = tasks.kind(replace(SPEC, options={**SPEC.options, "across": "unlearned"}))
    batch = tables.to_examples(table(long), lenient, model, ROOM, "f").batch([0, 1])
    assert batch.mass.tolist()[0] == 0 and batch.mass.tolist()[1] > 0
    assert lenient.loss(lenient.outputs(model, batch), batch).tolist()[0] == 0
    with pytest.raises(InputError, match="max_length: found 6\nexpected more than 6"):
        tables.to_examples(table(), KIND, model, 6, "f")


def test_the_threshold_is_chosen_on_the_selection_split_and_kept_in_the_table():
    held = KIND.read(pa.table(KIND.predictions(ragged([(-3.0, "x"), (-1.0, "y"), (0.5, "z")]))))
    truths = ragged_truths([("x",), (), ()])
    test = ragged([(-2.0, "p"), (-0.9, "q"), (-5.0, "r")])
    tuned = KIND.tuned(test, held, truths)  # best on held: refuse above -3
    written = KIND.predictions(tuned)
    assert written["prediction"].to_pylist() == ["", "", "r"]
    assert written["no_answer"].to_pylist() == [1.0, 2.1, -2.0]
    always = tasks.kind(replace(SPEC, options={"impossible": False}))
    assert always.tuned(test, held, truths) is test


def ragged(rows):
    from gradworks.tasks.kinds._shared import several

    return several.ragged([(none, [(text, -0.1)]) for none, text in rows])


def ragged_truths(rows):
    from gradworks.tasks.kinds._shared import several

    return several.ragged(rows)


def test_members_of_an_ensemble_are_averaged_by_text():
    from gradworks.tasks.kinds._shared import several

    one = several.ragged([(-1.0, [("a", math.log(0.6)), ("b", math.log(0.3))])])
    two = several.ragged([(3.0, [("b", math.log(0.5))])])
    import numpy as np

    ((none, best),) = KIND.mean(np.stack([one, two]))
    assert none == 1.0 and [text for text, _ in best] == ["b", "a"]
    assert [math.exp(score) for _, score in best] == pytest.approx([0.4, 0.3])


def squad(tmp_path, qas, context="Rome is old. It is in Italy."):
    file = tmp_path / "dev.json"
    file.write_text(
        json.dumps({"version": "v2.0", "data": [{"title": "T", "paragraphs": [{"context": context, "qas": qas}]}]})
    )
    return files.read(KIND, {"dev": file}, "s", tmp_path, "s")[0]["dev"]


def asked(key, *found, **more):
    return {"id": key, "question": "where?", "answers": [{"text": t, "answer_start": i} for t, i in found], **more}


def test_squad_files_are_read_and_bad_answers_reported(tmp_path):
    split = squad(tmp_path, [
        asked("a", ("Italy", 22), ("in Italy", 19)), asked("b", ("Rome", 0), is_impossible=True),
        asked("c", ("Italy", 21)), asked("d", ("", 3)), {"id": "e", "answers": []},
        {"id": "f", "question": "q", "answers": [{"text": "x"}]}, {"id": "g", "question": "q"},
    ])  # fmt: skip
    assert [(one["id"], one["label"], one["title"]) for one in split.records] == [
        ("s/dev-a", [{"text": "Italy", "start": 22}, {"text": "in Italy", "start": 19}], "T"), ("s/dev-b", [], "T"),
    ]  # fmt: skip
    assert [(one["line"], one["reason"]) for one in split.bad] == [
        (3, "the answer 'Italy' is not in the text at character 21"),
        (4, "an answer without text"),
        (5, "not a SQuAD question: 'question' is missing"),
        (6, "found label [{'text': 'x'}], expected a list of answers, each its text and its first character"),
    ]
    assert [one["line"] for one in split.unlabelled] == [7]
    back = pa.concat_tables(records.to_tables(KIND, split.records))
    assert back["label"].to_pylist()[0][1] == {"text": "in Italy", "start": 19}
    assert KIND.truths(back).tolist() == [("Italy", "in Italy"), ()]


def test_the_hubs_form_is_read_and_a_file_that_is_none_refused(tmp_path):
    found, _ = KIND.label({"text": ["x", "y"], "answer_start": [1, 2]}, False)
    assert found == [{"text": "x", "start": 1}, {"text": "y", "start": 2}]
    (tmp_path / "dev.json").write_text('{"paragraphs": 1}')
    with pytest.raises(InputError, match="no SQuAD file"):
        files.read(KIND, {"dev": tmp_path / "dev.json"}, "s", tmp_path, "s")


def test_a_question_without_an_answer_is_bad_where_each_has_one(tmp_path):
    kind = tasks.kind(replace(SPEC, options={"impossible": False}))
    assert kind.fault({"question": "q", "context": "c", "label": []}) == "a question without an answer"
    assert KIND.fault({"question": "q", "context": "c", "label": []}) is None


def test_articles_of_squad_are_read_whole(data):
    squad2 = tasks.kind(tasks.find("squad2", {}))
    path = data / "squad/dev-v2.0-10-articles.json"
    found = files.read(squad2, {"dev": path}, "s", path.parent, "s")[0]["dev"]
    assert len(found.records) == 3708 and not found.bad
    made = pa.concat_tables(records.to_tables(squad2, found.records))
    none = squad2.references("answer_em", squad2.truths(made), None)["no answer"]
    assert none.value == pytest.approx(1987 / 3708)
    assert squad2.count(made["label"].to_pylist()) == {"answered": 1721, "impossible": 1987}


def test_predictions_of_a_table_are_whole(tmp_path):
    model = build("gru", tmp_path / "m")
    made = answers(model, KIND, tables.to_examples(table(), KIND, model, ROOM, "f"))
    written = predictions.to_table(table(), made, KIND, [])
    assert KIND.read(written).tolist() == made.tolist()
    for context, text in zip(CONTEXTS, written["prediction"].to_pylist(), strict=True):
        assert text in context
