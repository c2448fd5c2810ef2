"""Kinds `causal` and `seq2seq`: the loss is transformers' own, of the tokens of responses; what is written."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from components import measure
from gradworks import tasks
from gradworks.base.errors import InputError
from gradworks.methods import Method
from gradworks.spec import Batch
from gradworks.tasks import TaskSpec
from tests import written

KINDS = [(name, architecture) for name, all_of in written.ARCHITECTURES.items() for architecture in all_of]
every = pytest.mark.parametrize(("name", "architecture"), KINDS, ids=["llama", "gpt2", "t5", "bart"])


def plain(name, model, batch):
    """transformers' own loss, the mean over all labelled tokens of a batch, from its own reading of token ids."""
    if name == "seq2seq":
        return model.lm(input_ids=batch.inputs["input_ids"], attention_mask=batch.inputs["attention_mask"],
                        labels=batch.labels).loss  # fmt: skip
    ids, labels = [], []
    for row, mask, n, label in zip(
        batch.inputs["input_ids"], batch.inputs["attention_mask"], batch.inputs["prompt"], batch.labels, strict=True
    ):
        response = label[label != -100]
        whole = torch.cat([row[: int(mask.sum())], response[-1:]])
        assert whole[int(n) :].tolist() == response.tolist()
        ids.append(whole)
        labels.append(torch.cat([torch.full((int(n),), -100), response]))
    pad = torch.nn.utils.rnn.pad_sequence
    mask = pad([torch.ones(len(one)) for one in ids], True)
    return model.lm(input_ids=pad(ids, True), attention_mask=mask, labels=pad(labels, True, -100)).loss


@every
def test_the_mean_by_mass_is_transformers_loss_and_so_is_its_gradient(name, architecture):
    kind, model = written.kind(name), written.model(name, architecture, dropout=0.0)
    data = written.examples(kind, model)
    batch = data.batch([0, 5, 2, 7, 3])
    assert len(set(batch.mass.tolist())) > 1
    losses = kind.loss(kind.outputs(model, batch), batch)
    theirs = plain(name, model, batch)  # which rounds to float32
    assert float(((losses * batch.mass).sum() / batch.mass.sum()).detach()) == pytest.approx(
        float(theirs.detach()), rel=1e-6
    )
    theirs.backward()
    expected = [p.grad.clone() for p in model.parameters()]
    parts = [data.batch([0]), data.batch([5, 2, 7]), data.batch([3])]  # of unequal mass
    for drawn in ([batch], parts):
        Method(task=kind, seed=0).backward(model, [drawn])
        assert all(
            torch.allclose(p.grad, g, rtol=1e-5, atol=1e-7) for p, g in zip(model.parameters(), expected, strict=True)
        )


@pytest.mark.parametrize("name", written.ARCHITECTURES)
def test_plain_training_that_costs_are_compared_with_weighs_by_tokens_too(name):
    kind, model = written.kind(name), written.model(name, dropout=0.0)
    data = written.examples(kind, model)
    drawn = [[data.batch([0, 5]), data.batch([2])], [data.batch([7, 3, 9])]]
    Method(task=kind, seed=0, update={"erm": {"batches": 2}}).backward(model, drawn)
    expected = [p.grad.clone() for p in model.parameters()]
    side = object.__new__(measure.Side)
    side._optimizer = torch.optim.SGD(model.parameters(), 0.1)
    side._bench = SimpleNamespace(run=SimpleNamespace(trained={"t": kind}))
    side._plain(model, drawn, None)
    assert all(torch.allclose(p.grad, g, atol=1e-7) for p, g in zip(model.parameters(), expected, strict=True))


@every
def test_an_example_alone_has_the_loss_that_it_has_among_others(name, architecture):
    kind, model = written.kind(name), written.model(name, architecture).eval()
    data = written.examples(kind, model)
    together = data.batch(list(range(12)))
    losses = kind.loss(kind.outputs(model, together), together)
    for i in range(12):
        alone = data.batch([i])
        assert float(losses[i]) == pytest.approx(float(kind.loss(kind.outputs(model, alone), alone)), rel=1e-9)


@every
def test_rows_without_a_label_are_zero_and_embeddings_are_those_of_the_tokens(name, architecture):
    kind, model = written.kind(name), written.model(name, architecture).eval()
    batch = written.examples(kind, model).batch(list(range(8)))
    (logits,) = kind.outputs(model, batch)
    assert logits.shape[:2] == batch.labels.shape
    assert ((logits == 0).all(-1) == (batch.labels == -100)).all()
    assert torch.allclose(kind.outputs(model, batch, kind.embed(model, batch))[0], logits)
    assert batch.mass.tolist() == (batch.labels != -100).sum(1).tolist()


@every
def test_divergence_and_smoothing_by_hand(name, architecture):
    kind, model = written.kind(name), written.model(name, architecture).eval()
    batch = written.examples(kind, model).batch([1, 2, 6])
    p = kind.outputs(model, batch)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.3)
    q = kind.outputs(model, batch)
    divergence, smooth = kind.divergence(p, q), kind.smoothed(p, batch, 0.2)
    for i in range(3):
        kl, nll = [], []
        for a, b, label in zip(p[0][i].tolist(), q[0][i].tolist(), batch.labels[i].tolist(), strict=True):
            if label == -100:
                continue
            x, y = ([math.exp(v) / sum(map(math.exp, z)) for v in z] for z in (a, b))
            kl.append(sum((u - v) * (math.log(u) - math.log(v)) for u, v in zip(x, y, strict=True)))
            nll.append(-0.8 * math.log(x[label]) - 0.2 * sum(map(math.log, x)) / len(x))
        assert float(divergence[i]) == pytest.approx(sum(kl) / len(kl))
        assert float(smooth[i]) == pytest.approx(sum(nll) / len(nll))
    assert (kind.divergence(p, p) == 0).all() and torch.allclose(divergence, kind.divergence(q, p))


class OneMore(torch.nn.Module):
    """Gemma's norm: (1 + weight) times what is normalised."""

    __module__ = "transformers.models.gemma"

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(6, dtype=torch.float64))

    def forward(self, x):
        return torch.nn.functional.rms_norm(x, (6,), None, 1e-6) * (1 + self.weight)


OneMore.__name__ = "GemmaRMSNorm"


def test_the_rule_of_a_norm_holds_where_its_weight_is_added_to_one():
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.norm, self.head = OneMore(), torch.nn.Linear(6, 3).double()

        def forward(self, x):
            return self.head(self.norm(x)).mean(1)

    def batch(first):
        x = torch.randn(8, 4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(first))
        return Batch("t", [str(first + i) for i in range(8)], x, torch.arange(8) % 3, torch.ones(8))

    class Task:
        def outputs(self, model, batch, embedded=None):
            return (model(batch.inputs),)

        def loss(self, outputs, batch):
            return torch.nn.functional.cross_entropy(outputs[0], batch.labels, reduction="none")

    model, task = Model(), Task()
    expected, _ = scores_by_hand(task, model, [batch(0)], batch(50))
    method = Method(weighting={"reweight": {"backend": "ghost"}}, task=task, seed=0)
    report = method.backward(model, [[batch(0)]], [[batch(50)]])
    assert report.sums[0][0].score.tolist() == pytest.approx(expected)


def scores_by_hand(kind, model, batches, clean):
    """<mean clean gradient, gradient of each example>, one backward pass each; the weighted mean of the gradients."""
    trained = [p for p in model.parameters() if p.requires_grad]

    def gradient(loss):
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, trained, retain_graph=True)])

    losses = kind.loss(kind.outputs(model, clean), clean)
    direction = gradient((losses * clean.mass).sum() / clean.mass.sum())
    scores, total, weight = [], 0.0, 0.0
    for batch in batches:
        for loss, mass in zip(kind.loss(kind.outputs(model, batch), batch), batch.mass, strict=True):
            one = gradient(loss)
            scores.append(float(one @ direction))
            w = max(scores[-1], 0.0) * float(mass)
            total, weight = total + w * one, weight + w
    return scores, total / weight


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("backend", ["auto", "logit_fd"])
@every
def test_reweight_scores_and_weighs_as_a_loop_over_examples(name, architecture, backend, lora):
    # in float32: norms and softmax of these models work in it whatever their weights are
    kind, model = written.kind(name), written.model(name, architecture, lora, dropout=0.0).float()
    drawn = torch.Generator().manual_seed(0)
    for p in model.parameters():  # the scores of a fresh model are small, and adapters begin with a product of 0
        p.data += 0.2 * torch.randn(p.shape, generator=drawn)
    data = written.examples(kind, model)
    batches, clean = [data.batch([0, 2, 7, 9]), data.batch([3, 5])], data.batch(list(range(20, 28)))
    expected, gradient = scores_by_hand(kind, model, batches, clean)
    method = Method(weighting={"reweight": {"backend": backend}}, task=kind, seed=0)
    report = method.backward(model, [batches], [[clean]])
    scores = torch.cat([part.score for part in report.sums[0]])
    made = torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad])
    ghost = backend == "auto" and (name == "causal" or lora)
    assert method.weighting.taken == ("ghost" if ghost else "logit_fd")
    for ours, theirs in ((scores, torch.tensor(expected, dtype=scores.dtype)), (made, gradient)):
        assert float((ours - theirs).norm() / theirs.norm()) < (1e-4 if ghost else 2e-2)


def test_what_does_not_fit_is_refused_in_words():
    model, kind = written.model("causal"), written.kind("causal")
    with pytest.raises(InputError, match=r"train.max_length: found 7\nexpected more than max_response, 7"):
        written.examples(kind, model, max_length=7)
    with pytest.raises(InputError, match=r"train.max_length: found 65\nexpected at most 64, its positions"):
        written.examples(kind, model, max_length=65)
    with pytest.raises(InputError, match=r"task t: found the model seq2seq\nexpected the model causal"):
        written.examples(kind, written.model("seq2seq"))
    table = written.table(3).set_column(3, "label", [["cat", " ", "dog"]])
    with pytest.raises(InputError, match=r"f: row 1: found ' '\nexpected a text that is not empty"):
        kind.encode(table, model, 30, "f")
    for options, words in [
        ({"template": "no column"}, "template: found 'no column'\nexpected some of {one}, {two}"),
        ({"template": "{three}"}, "template: found '{three}'"),
        ({"template": "{one"}, "template: found '{one'"),
        ({"system": "x"}, "system: found it without chat"),
    ]:
        with pytest.raises(InputError) as error:
            written.kind("causal", **options)
        assert words in str(error.value)
    with pytest.raises(InputError, match=r"classes: found \['a', 'b'\]\nexpected none: labels are texts"):
        tasks.kind(TaskSpec("t", "causal", ("one",), ("a", "b"), ()))


def test_constants_are_the_empty_text_and_the_most_frequent_with_the_frequencies_of_tokens():
    kind, model = written.kind("causal"), written.model("causal")
    labels = np.array(["cat", "cat dog", "cat"], dtype=object)
    kind.encode(written.table(3).set_column(3, "label", [labels.tolist()]), model, 30, "f")
    empty, most = kind.constants(labels)
    assert set(empty["text"]) == {""} and set(most["text"]) == {"cat"}
    tokens = [one for label in labels for one in [*model.tokens([label], True)[0], 1]]
    entropy = -sum(math.log(tokens.count(one) / len(tokens)) for one in tokens) / len(tokens)
    assert kind.score("perplexity", labels, most).value == pytest.approx(math.exp(entropy))
    assert kind.score("exact_match", labels, most).value == pytest.approx(2 / 3)
    assert kind.references("perplexity", labels, None) == {}
    found = kind.references("exact_match", labels, np.array(["cat", "cat dog", "dog"], dtype=object))
    assert {name: one.value for name, one in found.items()} == pytest.approx(
        {"most frequent response": 2 / 3, "true rule": 2 / 3}
    )
