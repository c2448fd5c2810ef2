"""Kinds: whole, found by their file; losses and divergences against formulas written out, one value per example."""

import ast
import contextlib
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from gradworks import metrics, predict, tasks
from gradworks.base.errors import InputError
from gradworks.data import predictions, tables
from gradworks.spec import Batch, offers
from gradworks.tasks import TaskSpec, kinds
from tests.kinds import classes, example, kind, network, values
from tests.kinds import table as sample

_TEXTS = [3.0, 4.0, 7.0, 2.0, 5.0, 7.0]  # tokens
MASS = {"tagging": [2.0] * 6, "causal": _TEXTS, "seq2seq": _TEXTS}  # of the examples of tests.kinds, where it is not 1
TUNED = ("span",)
NEAR = dict.fromkeys(
    ("macro_f1", "f1", "matthews", "f1a", "entity_f1"), 0.3
)  # of few examples the mean of jackknife values is not the score
MADE = {
    "classes": (kind("nli"), 3),
    "two": (classes(2), 2),
    "logit": (classes(2, one_logit=True), 1),
    "value": (values(), 1),
    "cosine": (values("similarity", ("a", "b")), 1),
}


def batch(labels):
    labels = torch.as_tensor(labels)
    return Batch("t", [str(i) for i in range(len(labels))], {}, labels, torch.ones(len(labels)))


def kl(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def softmax(z):
    e = [math.exp(v) for v in z]
    return [v / sum(e) for v in e]


# every kind, found by listing the folder


@pytest.mark.parametrize("name", kinds.names())
def test_a_kind_forgets_nothing(name):
    made = example(name)
    assert kinds.forgotten(made) == [], f"gradworks/tasks/kinds/{name}.py"
    assert all(offers(made, part) for part in ("embed", "divergence"))
    assert set(made.METRICS) <= set(metrics.NAMES) and made.name == "t"


def test_what_a_kind_forgot_is_named():
    class Half:
        METRICS = ()

        def outputs(self, model, batch, embedded=None): ...

        def loss(self, outputs, batch): ...

    lacks = kinds.forgotten(Half())
    assert {"size", "encode", "answers", "score", "constants", "best"} <= set(lacks)
    assert not {"METRICS", "outputs", "loss"} & set(lacks)


def table(labels, texts=("x y", "x z", "x", "y")):
    return pa.table({"id": list("pqrs"), "a": list(texts), "b": ["x"] * 4, "label": labels})


class Words:
    """A model that encodes words as their numbers."""

    def encode(self, texts, max_length):
        return [{f"t{k}": [ord(c) for c in text.split()][:max_length] for k, text in enumerate(one)} for one in texts]


@pytest.mark.parametrize("name", kinds.names())
def test_predictions_are_read_as_they_were_written(name):
    made = example(name)
    model, rows = network(made), made.arrange("test", sample(made, 6), 0, "f")
    answers = predict.answers(model, made, tables.to_examples(rows, made, model, 8, "f"), batch_size=3)
    written = predictions.to_table(rows, answers, made, [])
    assert len(answers) == 6 and written.column_names == ["id", "label", *made.also, *made.columns]
    assert (
        made.read(written).tolist() == answers.tolist() and made.truths(written).tolist() == made.truths(rows).tolist()
    )
    empty = predictions.to_table(rows, None, made, [])
    assert len(empty) == 0 and empty.schema == written.schema


@pytest.mark.parametrize("name", kinds.names())
def test_a_kind_encodes_scores_and_compares(name):
    made = example(name)
    model, rows = network(made), made.arrange("test", sample(made, 6), 0, "f")
    assert all(made.accepts(one) for one in rows["label"].to_pylist()) and made.expected()
    encoded = tables.to_examples(rows, made, model, 8, "f")
    strata, labels = encoded.strata, encoded.truths
    assert len(encoded) == len(labels) == 6 and encoded.batch(range(6)).mass.tolist() == MASS.get(name, [1.0] * 6)
    names = rows["label"].to_pylist()
    assert strata.tolist() == [made.drawn_from("").index(x) for x in names] if made.calibrated else strata is None
    constants = made.constants(labels)
    good = predict.answers(model, made, encoded)
    for answers in (*constants, good):
        assert len(answers) == 6
        for metric in metrics_of(made):
            score, added = made.score(metric, labels, answers), made.shares(metric, labels, answers)
            assert score.n in (6, 3)  # examples, or groups of two
            assert added is None or added.mean() == pytest.approx(score.value, abs=NEAR.get(metric, 1e-9))
    for metric in made.METRICS[:1]:
        for reference in made.references(metric, labels, None).values():
            assert reference is None or reference.n in (6, 3)
    members = np.stack([constants[0], good])
    assert made.mean(members).shape == good.shape
    assert (made.apart(good, good) == 0).all() and made.apart(good, constants[0]).shape == (6,)
    best = made.best(members, labels)
    assert best.shape == (6,) and set(best.tolist()) <= {0, 1}
    metric = made.METRICS[0]
    before, after = (made.score(metric, labels, one).value for one in (good, made.tuned(good, good, labels)))
    assert after >= before if name in TUNED else after == before


def metrics_of(made):
    """That the task knows."""
    for metric in made.METRICS:
        with contextlib.suppress(InputError):
            made.check_metric(metric, "f")
            yield metric


# the one place that asks whether a task has classes

NAMES_OF_CLASSES = {
    "gradworks/metrics/classification.py": "names or indices: labels come as either",
    "gradworks/report/details.py": "labels the rows and columns of a confusion matrix",
    "gradworks/new.py": "of a column of a file, from which it guesses a kind",
    "gradworks/submission.py": "any label that a table may hold, for rows whose labels nobody has",
}


def asks(source):
    """Lines that read classes of something, or ask whether labels are floating point."""
    found = [one for one in ast.walk(ast.parse(source)) if isinstance(one, ast.Attribute)]
    return [
        one.lineno
        for one in found
        if one.attr == "classes"
        or (one.attr in ("dtype", "is_floating_point") and ast.unparse(one.value).endswith("labels"))
    ]


def test_no_other_file_asks_whether_a_task_has_classes():
    assert asks("a.task.classes is None; b.labels.dtype; labels.is_floating_point()") == [1, 1, 1]
    root = Path(__file__).parents[2]
    files = [
        p.relative_to(root) for folder in ("gradworks", "components") for p in sorted((root / folder).rglob("*.py"))
    ]
    # methods get batches of any loop, whose tasks are no kinds
    outside = [p for p in files if p.parts[1] not in ("tasks", "methods")]
    found = {p.as_posix(): lines for p in outside if (lines := asks((root / p).read_text()))}
    assert set(found) == set(NAMES_OF_CLASSES), found


# losses and divergences


@pytest.mark.parametrize("name", ["classes", "two", "logit", "value"])
def test_size(name):
    made, size = MADE[name]
    assert made.size == size


def test_classification():
    z, other = [[0.5, -1.0, 2.0], [0.0, 0.0, 0.0]], [[1.0, 0.0, 0.0], [0.0, 3.0, -1.0]]
    made, x, y = MADE["classes"][0], torch.tensor(z, dtype=torch.float64), torch.tensor(other, dtype=torch.float64)
    loss = made.loss((x,), batch([2, 0]))
    assert loss.tolist() == pytest.approx([-math.log(softmax(z[0])[2]), math.log(3)])
    expected = [kl(softmax(a), softmax(b)) + kl(softmax(b), softmax(a)) for a, b in zip(z, other, strict=True)]
    assert made.divergence((x,), (y,)).tolist() == pytest.approx(expected)
    assert made.answers((x,)).tolist() == [pytest.approx(softmax(one)) for one in z]


def test_one_logit():
    made = MADE["logit"][0]
    x, y = torch.tensor([[0.3], [-2.0]], dtype=torch.float64), torch.tensor([[1.0], [2.0]], dtype=torch.float64)

    def p(z):
        return 1 / (1 + math.exp(-z))

    assert made.loss((x,), batch([1, 0])).tolist() == pytest.approx([-math.log(p(0.3)), -math.log(1 - p(-2.0))])
    pairs = [((p(0.3), 1 - p(0.3)), (p(1.0), 1 - p(1.0))), ((p(-2.0), 1 - p(-2.0)), (p(2.0), 1 - p(2.0)))]
    expected = [kl(a, b) + kl(b, a) for a, b in pairs]
    assert made.divergence((x,), (y,)).tolist() == pytest.approx(expected)
    assert made.answers((x,)).tolist() == [pytest.approx([1 - p(0.3), p(0.3)]), pytest.approx([1 - p(-2), p(-2)])]
    # two logits (0, z) are the same model
    two = MADE["two"][0]
    zeros = torch.zeros_like(x)
    assert two.divergence((torch.cat([zeros, x], 1),), (torch.cat([zeros, y], 1),)).tolist() == pytest.approx(expected)


def test_regression():
    made = MADE["value"][0]
    x, y = torch.tensor([[1.0], [4.0]]), torch.tensor([[1.5], [1.0]])
    assert made.loss((x,), batch([3.0, 4.0])).tolist() == [4.0, 0.0]
    assert made.divergence((x,), (y,)).tolist() == [0.25, 9.0]


@pytest.mark.parametrize("name", MADE)
def test_divergence_is_symmetric_and_zero_only_for_equal_outputs(name):
    made, size = MADE[name]
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(50, size, generator=generator, dtype=torch.float64) * 3 for _ in range(2))
    both = made.divergence((x,), (y,))
    assert both.shape == (50,) and (both > 0).all()
    assert torch.allclose(both, made.divergence((y,), (x,)))
    assert (made.divergence((x,), (x.clone(),)) == 0).all()


@pytest.mark.parametrize("name", MADE)
def test_divergence_stays_finite_for_sure_outputs(name):
    made, size = MADE[name]
    x = torch.full((1, size), 0.0)
    x[:, 0] = 1e4
    x.requires_grad_()
    total = made.divergence((x,), (-x.detach(),)).sum() + made.loss((x,), batch([0])).sum()
    total.backward()
    assert torch.isfinite(total) and torch.isfinite(x.grad).all()


def test_outputs_and_embeddings_are_the_models():
    class Model(torch.nn.Module):
        def forward(self, inputs, embedded=None):
            return inputs["x"] if embedded is None else embedded.sum(1)

        def embed(self, inputs):
            return inputs["x"][:, None]

    one = Batch("t", ["a"], {"x": torch.ones(1, 3)}, torch.tensor([0]), torch.ones(1))
    made = MADE["classes"][0]
    assert made.outputs(Model(), one)[0].tolist() == [[1, 1, 1]]
    assert made.outputs(Model(), one, torch.zeros(1, 2, 3))[0].tolist() == [[0, 0, 0]]
    assert made.embed(Model(), one).shape == (1, 1, 3)


# constants, references, ensembles


def test_constants_are_the_best_that_read_no_input():
    made, labels = kind("nli"), np.array([0, 0, 0, 1, 2])
    accuracy = max(made.score("accuracy", labels, one).value for one in made.constants(labels))
    assert accuracy == pytest.approx(0.6)
    loss = min(made.score("log_loss", labels, one).value for one in made.constants(labels))
    assert loss == pytest.approx(-(0.6 * math.log(0.6) + 0.4 * math.log(0.2)))  # the entropy of the labels
    (mean,) = values().constants(np.array([1.0, 2.0, 6.0]))
    assert mean.tolist() == [3.0] * 3


def test_a_label_that_is_no_class_names_its_row():
    with pytest.raises(InputError, match=r"f: row q: found label 'maybe'\nexpected one of: no, yes"):
        tasks.kind(TaskSpec("t", "classification", ("a", "b"), ("no", "yes"), ())).encode(
            table(["no", "maybe", "no", "no"]), Words(), 8, "f"
        )


def test_rows_that_do_not_fit_their_kind_are_refused():
    for spec, words in [
        (TaskSpec("t", "classification", ("a",), None, ()), "classes: found"),
        (TaskSpec("t", "classification", ("a",), ("x", "X"), ()), "classes: found"),
        (TaskSpec("t", "classification", ("a",), ("x", "y"), (), {"z": "w"}), "collapse: found z: w"),
        (TaskSpec("t", "classification", ("a",), ("x", "y", "z"), (), {}, {"one_logit": True}), "one_logit: found 3"),
        (TaskSpec("t", "regression", ("a",), ("x", "y"), ()), "classes: found"),
        (TaskSpec("t", "similarity", ("a",), None, ()), "texts: found"),
        (TaskSpec("t", "regresion", ("a",), None, ()), "did you mean regression"),
    ]:
        with pytest.raises(InputError, match=words):
            tasks.kind(spec)
