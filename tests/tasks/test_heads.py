"""Heads: losses and divergences against formulas written out, one value per example."""

import math

import pytest
import torch

from gradworks.spec import Batch
from gradworks.tasks import Row, row
from gradworks.tasks.heads import head


def batch(labels):
    labels = torch.as_tensor(labels)
    return Batch("t", [str(i) for i in range(len(labels))], {}, labels, torch.ones(len(labels)))


def kl(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def softmax(z):
    e = [math.exp(v) for v in z]
    return [v / sum(e) for v in e]


REGRESSION = Row("sts", ("a", "b"), None, ("pearson",))
BINARY = row("nli-binary")
HEADS = {
    "classes": (head(row("nli")), 3),
    "two": (head(BINARY), 2),
    "logit": (head(BINARY, one_logit=True), 1),
    "value": (head(REGRESSION), 1),
}


@pytest.mark.parametrize("name", HEADS)
def test_size(name):
    made, size = HEADS[name]
    assert made.size == size


def test_classification():
    z, other = [[0.5, -1.0, 2.0], [0.0, 0.0, 0.0]], [[1.0, 0.0, 0.0], [0.0, 3.0, -1.0]]
    made, x, y = HEADS["classes"][0], torch.tensor(z, dtype=torch.float64), torch.tensor(other, dtype=torch.float64)
    loss = made.loss((x,), batch([2, 0]))
    assert loss.tolist() == pytest.approx([-math.log(softmax(z[0])[2]), math.log(3)])
    expected = [kl(softmax(a), softmax(b)) + kl(softmax(b), softmax(a)) for a, b in zip(z, other, strict=True)]
    assert made.divergence((x,), (y,)).tolist() == pytest.approx(expected)


def test_one_logit():
    made = HEADS["logit"][0]
    x, y = torch.tensor([[0.3], [-2.0]], dtype=torch.float64), torch.tensor([[1.0], [2.0]], dtype=torch.float64)

    def p(z):
        return 1 / (1 + math.exp(-z))

    assert made.loss((x,), batch([1, 0])).tolist() == pytest.approx([-math.log(p(0.3)), -math.log(1 - p(-2.0))])
    pairs = [((p(0.3), 1 - p(0.3)), (p(1.0), 1 - p(1.0))), ((p(-2.0), 1 - p(-2.0)), (p(2.0), 1 - p(2.0)))]
    expected = [kl(a, b) + kl(b, a) for a, b in pairs]
    assert made.divergence((x,), (y,)).tolist() == pytest.approx(expected)
    # two logits (0, z) are the same model
    two = HEADS["two"][0]
    zeros = torch.zeros_like(x)
    assert two.divergence((torch.cat([zeros, x], 1),), (torch.cat([zeros, y], 1),)).tolist() == pytest.approx(expected)


def test_regression():
    made = HEADS["value"][0]
    x, y = torch.tensor([[1.0], [4.0]]), torch.tensor([[1.5], [1.0]])
    assert made.loss((x,), batch([3.0, 4.0])).tolist() == [4.0, 0.0]
    assert made.divergence((x,), (y,)).tolist() == [0.25, 9.0]


@pytest.mark.parametrize("name", HEADS)
def test_divergence_is_symmetric_and_zero_only_for_equal_outputs(name):
    made, size = HEADS[name]
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(50, size, generator=generator, dtype=torch.float64) * 3 for _ in range(2))
    both = made.divergence((x,), (y,))
    assert both.shape == (50,) and (both > 0).all()
    assert torch.allclose(both, made.divergence((y,), (x,)))
    assert (made.divergence((x,), (x.clone(),)) == 0).all()


@pytest.mark.parametrize("name", HEADS)
def test_divergence_stays_finite_for_sure_outputs(name):
    made, size = HEADS[name]
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
    made = HEADS["classes"][0]
    assert made.outputs(Model(), one)[0].tolist() == [[1, 1, 1]]
    assert made.outputs(Model(), one, torch.zeros(1, 2, 3))[0].tolist() == [[0, 0, 0]]
    assert made.embed(Model(), one).shape == (1, 1, 3)


def test_one_logit_needs_two_classes():
    with pytest.raises(ValueError, match="nli: one logit needs two classes"):
        head(row("nli"), one_logit=True)
