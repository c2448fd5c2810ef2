"""The models of the cost table, a task for them, and batches that can be learnt.

Random weights, dropout 0.1. The BERTs are Hugging Face's; `bow` and `gru` have the sizes of the reweighting paper's
encoders. Those of `KINKED` have ReLU or max-pooling, where finite differences are hardest.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradworks.spec import Batch, Outputs

LENGTH, CLASSES = 64, 3


class Bert(nn.Module):
    """A BERT encoder and a linear head on its pooled first state."""

    def __init__(self, layers: int, width: int, heads: int, vocabulary: int, dropout: float, attention: str, act: str):
        super().__init__()
        from transformers import BertConfig, BertModel

        config = BertConfig(
            vocab_size=vocabulary, hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads,
            intermediate_size=4 * width, hidden_act=act, hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout, attn_implementation=attention,
        )  # fmt: skip
        self.bert, self.drop, self.head = BertModel(config), nn.Dropout(dropout), nn.Linear(width, CLASSES)

    def embed(self, ids: Tensor) -> Tensor:
        return self.bert.embeddings.word_embeddings(ids)

    def forward(self, ids: Tensor, embedded: Tensor | None = None, positions: Tensor | None = None) -> Tensor:
        words = {"input_ids": ids} if embedded is None else {"inputs_embeds": embedded}
        return self.head(self.drop(self.bert(**words, position_ids=positions).pooler_output))


class Gru(nn.Module):
    """Embeddings, a GRU, and a linear head on its last state or the maximum over its states."""

    def __init__(self, vocabulary: int, width: int, hidden: int, dropout: float, pooling: str):
        super().__init__()
        self.emb, self.gru = nn.Embedding(vocabulary, width), nn.GRU(width, hidden, batch_first=True)
        self.drop, self.head, self.pooling = nn.Dropout(dropout), nn.Linear(hidden, CLASSES), pooling

    def embed(self, ids: Tensor) -> Tensor:
        return self.emb(ids)

    def forward(self, ids: Tensor, embedded: Tensor | None = None) -> Tensor:
        states, last = self.gru(self.drop(self.emb(ids) if embedded is None else embedded))
        return self.head(self.drop(states.amax(1) if self.pooling == "max" else last[0]))


class Bow(nn.Module):
    """The mean of the embeddings and a multilayer perceptron of four layers."""

    def __init__(self, vocabulary: int, width: int, hidden: int, dropout: float, act: Callable[[], nn.Module]):
        super().__init__()
        self.emb = nn.Embedding(vocabulary, width)
        sizes = (width, hidden, hidden, hidden)
        layers = [(nn.Linear(a, b), act(), nn.Dropout(dropout)) for a, b in itertools.pairwise(sizes)]
        self.mlp = nn.Sequential(*(part for layer in layers for part in layer), nn.Linear(hidden, CLASSES))

    def embed(self, ids: Tensor) -> Tensor:
        return self.emb(ids)

    def forward(self, ids: Tensor, embedded: Tensor | None = None) -> Tensor:
        return self.mlp((self.emb(ids) if embedded is None else embedded).mean(1))


@dataclass(frozen=True)
class Sizes:
    """A model by its sizes; `small` ones are for warming up and for tests."""

    kind: str
    vocabulary: int
    width: int
    hidden: int = 0  # of the GRU and the perceptron
    layers: int = 0
    heads: int = 0
    act: str = "gelu"
    pooling: str = "last"

    def build(self, dropout: float = 0.1, attention: str = "sdpa", seed: int = 0) -> nn.Module:
        """In training mode; the same seed gives the same weights for any attention."""
        torch.manual_seed(seed)
        if self.kind == "bert":
            size = (self.layers, self.width, self.heads, self.vocabulary)
            return Bert(*size, dropout, attention, self.act).train()
        if self.kind == "gru":
            return Gru(self.vocabulary, self.width, self.hidden, dropout, self.pooling).train()
        act = {"gelu": nn.GELU, "relu": nn.ReLU}[self.act]
        return Bow(self.vocabulary, self.width, self.hidden, dropout, act).train()

    @property
    def small(self) -> Sizes:
        layers, heads = min(self.layers, 1), min(self.heads, 2)
        return Sizes(self.kind, 60, 8, min(self.hidden, 8), layers, heads, self.act, self.pooling)


MODELS = {
    "bert-2x128": Sizes("bert", 30522, 128, layers=2, heads=2),
    "bert-4x256": Sizes("bert", 30522, 256, layers=4, heads=4),
    "gru": Sizes("gru", 20000, 100, hidden=256),
    "bow": Sizes("bow", 20000, 300, hidden=200),
    "bert-base": Sizes("bert", 30522, 768, layers=12, heads=12),
    "bert-2x128-relu": Sizes("bert", 30522, 128, layers=2, heads=2, act="relu"),
    "gru-max": Sizes("gru", 20000, 100, hidden=256, pooling="max"),
    "bow-relu": Sizes("bow", 20000, 300, hidden=200, act="relu"),
}
ON_CPU = ("bert-2x128", "bert-4x256", "gru", "bow")
KINKED = ("bert-2x128-relu", "gru-max", "bow-relu")


class Classification:
    """See `gradworks.spec.Task`. Counts the examples of its forward passes and of the backward passes through them."""

    def __init__(self) -> None:
        self.forward = self.backward = 0

    def embed(self, model: nn.Module, batch: Batch) -> Tensor:
        return model.embed(batch.inputs)

    def outputs(self, model: nn.Module, batch: Batch, embedded: Tensor | None = None) -> Outputs:
        z = model(batch.inputs, embedded)
        n = len(batch.ids)
        self.forward += n
        if z.requires_grad:
            z.register_hook(lambda _: self._count(n))
        return (z,)

    def loss(self, outputs: Outputs, batch: Batch) -> Tensor:
        return F.cross_entropy(outputs[0], batch.labels, reduction="none")

    def divergence(self, p: Outputs, q: Outputs) -> Tensor:
        a, b = p[0].log_softmax(-1), q[0].log_softmax(-1)
        return ((a.exp() - b.exp()) * (a - b)).sum(-1)

    def smoothed(self, outputs: Outputs, batch: Batch, share: float) -> Tensor:
        return F.cross_entropy(outputs[0], batch.labels, reduction="none", label_smoothing=share)

    def _count(self, n: int) -> None:
        self.backward += n


def batch(sizes: Sizes, n: int, seed: int, device: str = "cpu", length: int = LENGTH) -> Batch:
    """n texts of `length` tokens, an eighth of them drawn from a third of the vocabulary that the label names."""
    g = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (n,), generator=g)
    third = sizes.vocabulary // CLASSES
    inputs = torch.randint(third * CLASSES, (n, length), generator=g)
    hints = length // 8
    inputs[:, :hints] = torch.randint(third, (n, hints), generator=g) + labels[:, None] * third
    ids = [f"{seed}-{i}" for i in range(n)]
    return Batch("classification", ids, inputs.to(device), labels.to(device), torch.ones(n, device=device))
