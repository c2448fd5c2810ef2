"""Small models, every kind of head, batches, and the machinery's promises in a form that oracles can use.

Nothing here imports gradworks.methods: `masks` rebuilds the documented keys with hashlib, so that an oracle can draw
the same dropout masks as a method without sharing its code.
"""

from __future__ import annotations

import contextlib
import hashlib

import torch
from torch import nn
from torch.nn import functional as F

from gradworks.spec import Batch

KINDS = ("three", "one", "reg", "span", "seq", "choice")
VOCABULARY, LENGTH = 30, 6


@contextlib.contextmanager
def masks(seed, split, batch, micro=0, stream=0):
    """Dropout as the documented key says: 63 bits of blake2b of 'seed/split/batch/micro/stream'."""
    digest = hashlib.blake2b(f"{seed}/{split}/{batch}/{micro}/{stream}".encode(), digest_size=8).digest()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int.from_bytes(digest, "big") >> 1)
        yield


class Net(nn.Module):
    """A shared encoder with dropout and one head per kind of task; `norm` puts BatchNorm into the encoder."""

    def __init__(self, act=nn.GELU, norm=False, width=8):
        super().__init__()
        self.emb, self.a, self.b = nn.Embedding(VOCABULARY, width), nn.Linear(width, width), nn.Linear(width, width)
        self.act, self.drop = act(), nn.Dropout(0.2)
        self.norm = nn.BatchNorm1d(width) if norm else None
        sizes = {"three": 3, "one": 1, "reg": 1, "span": 2, "seq": VOCABULARY, "choice": 1}
        self.heads = nn.ModuleDict({kind: nn.Linear(width, size) for kind, size in sizes.items()})

    def forward(self, ids, kind, embedded=None):
        x = self.emb(ids) if embedded is None else embedded
        h = self.drop(self.act(self.a(self.drop(x))))
        if self.norm is not None:
            h = self.norm(h.transpose(1, 2)).transpose(1, 2)
        h = self.drop(torch.tanh(self.b(h)) + h)
        return self.heads[kind](h if kind in ("span", "seq") else h.mean(1))


class Bow(nn.Module):
    """Mean of embeddings, then an MLP."""

    def __init__(self, act=nn.Tanh, width=16, hidden=24):
        super().__init__()
        self.emb = nn.Embedding(VOCABULARY, width)
        first, second = nn.Linear(width, hidden), nn.Linear(hidden, hidden)
        self.mlp = nn.Sequential(first, act(), nn.Dropout(0.2), second, act(), nn.Linear(hidden, 3))

    def forward(self, ids, kind="three"):
        return self.mlp(self.emb(ids).mean(1))


class Gru(nn.Module):
    """Last state of a GRU."""

    def __init__(self, width=16):
        super().__init__()
        self.emb, self.gru = nn.Embedding(VOCABULARY, width), nn.GRU(width, width, batch_first=True)
        self.drop, self.out = nn.Dropout(0.2), nn.Linear(width, 3)

    def forward(self, ids, kind="three"):
        return self.out(self.drop(self.gru(self.drop(self.emb(ids)))[1][0]))


class Transformer(nn.Module):
    """Two post-norm encoder layers with learned positions; scaled dot product attention."""

    def __init__(self, width=16):
        super().__init__()
        self.emb = nn.Embedding(VOCABULARY, width)
        self.position = nn.Parameter(0.1 * torch.randn(LENGTH, width))
        layer = nn.TransformerEncoderLayer(width, 2, 32, 0.1, "gelu", batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.out = nn.Linear(width, 3)

    def forward(self, ids, kind="three"):
        return self.out(torch.tanh(self.layers(self.emb(ids) + self.position)[:, 0]))


class Tied(nn.Module):
    """A language model whose output weights are its embeddings."""

    def __init__(self, width=8):
        super().__init__()
        self.emb, self.mid = nn.Embedding(VOCABULARY, width), nn.Linear(width, width)
        self.out = nn.Linear(width, VOCABULARY, bias=False)
        self.out.weight = self.emb.weight
        self.drop = nn.Dropout(0.2)

    def forward(self, ids, kind="seq"):
        return self.out(self.drop(torch.tanh(self.mid(self.emb(ids)))))


MODELS = {"bow": Bow, "gru": Gru, "transformer": Transformer}


def build(make=Net, seed=0, dtype=torch.float64, **options):
    torch.manual_seed(seed)
    return make(**options).to(dtype).train()


def symmetric_kl(a, b):
    p, q = a.log_softmax(-1), b.log_softmax(-1)
    return ((p.exp() - q.exp()) * (p - q)).sum(-1)


class Kind:
    """A task of each kind: three classes, one logit, regression, span, sequence, multiple choice."""

    def __init__(self, name):
        self.name = name

    def _rows(self, batch):
        return batch.inputs.flatten(0, 1) if self.name == "choice" else batch.inputs

    def embed(self, model, batch):
        return model.emb(self._rows(batch))

    def outputs(self, model, batch, embedded=None):
        given = () if embedded is None else (embedded,)
        z = model(self._rows(batch), self.name, *given)
        if self.name == "choice":
            return (z.view(len(batch.ids), -1),)
        return (z[..., 0], z[..., 1]) if self.name == "span" else (z,)

    def loss(self, out, batch):
        y = batch.labels
        if self.name in ("three", "choice"):
            return F.cross_entropy(out[0], y, reduction="none")
        if self.name == "one":
            return F.binary_cross_entropy_with_logits(out[0][:, 0], y.to(out[0]), reduction="none")
        if self.name == "reg":
            return (out[0][:, 0] - y.to(out[0])) ** 2
        if self.name == "span":
            return sum(F.cross_entropy(z, y[:, k], reduction="none") for k, z in enumerate(out)) / 2
        return F.cross_entropy(out[0].transpose(1, 2), y, reduction="none", ignore_index=-100).sum(1) / batch.mass.to(
            out[0]
        )

    def smoothed(self, out, batch, share):
        """The loss with `share` of each label spread over all classes; a value has none to spread over."""
        y, even = batch.labels, 1 / out[0].shape[-1]
        if self.name == "reg":
            return self.loss(out, batch)
        if self.name == "one":
            soft = (1 - share) * y.to(out[0]) + share / 2
            return F.binary_cross_entropy_with_logits(out[0][:, 0], soft, reduction="none")
        logs = [z.log_softmax(-1) for z in out]
        if self.name == "seq":
            (log,), here = logs, (y != -100).to(out[0])
            spread = -even * log.sum(-1) * here
            return (1 - share) * self.loss(out, batch) + share * spread.sum(1) / batch.mass.to(out[0])
        return (1 - share) * self.loss(out, batch) - share * even * sum(log.sum(-1) for log in logs) / len(logs)

    def divergence(self, p, q):
        if self.name == "reg":
            return (p[0] - q[0])[:, 0] ** 2
        if self.name == "one":
            return symmetric_kl(*(torch.cat([z, torch.zeros_like(z)], 1) for z in (p[0], q[0])))
        kl = sum(symmetric_kl(a, b) for a, b in zip(p, q, strict=True))
        return kl.mean(1) if self.name == "seq" else kl


TASKS = {kind: Kind(kind) for kind in KINDS}


def batch(kind="three", n=6, seed=100):
    g = torch.Generator().manual_seed(seed)
    x = torch.randint(0, VOCABULARY, (n, 3, LENGTH) if kind == "choice" else (n, LENGTH), generator=g)
    mass = torch.ones(n, dtype=torch.float64)
    if kind == "seq":
        y = torch.randint(0, VOCABULARY, (n, LENGTH), generator=g)
        for i in range(n):
            y[i, LENGTH - i % 3 :] = -100
        mass = (y != -100).sum(1).double()
    elif kind == "span":
        y = torch.randint(0, LENGTH, (n, 2), generator=g)
    elif kind == "reg":
        y = torch.rand(n, generator=g, dtype=torch.float64)
    else:
        y = torch.randint(0, 2 if kind == "one" else 3, (n,), generator=g)
    return Batch(kind, [f"{seed}-{i}" for i in range(n)], x, y, mass, torch.arange(n) % 2)


def split(whole, size):
    """Micro-batches of `size` examples."""
    parts = [slice(i, i + size) for i in range(0, len(whole.ids), size)]
    return [
        Batch(whole.task, whole.ids[s], whole.inputs[s], whole.labels[s], whole.mass[s], whole.group[s]) for s in parts
    ]


def draw(count, kind="three", n=6, seed=100, micro=None, clean_n=None):
    """(batches, clean batches) of one step, each a list of micro-batches."""
    cut = (lambda b: split(b, micro)) if micro else (lambda b: [b])
    return (
        [cut(batch(kind, n, seed + i)) for i in range(count)],
        [cut(batch(kind, clean_n or n, seed + 5000 + i)) for i in range(count)],
    )


def gradients(model):
    return [None if p.grad is None else p.grad.clone() for p in model.parameters() if p.requires_grad]


def flat(tensors):
    return torch.cat([t.detach().flatten().double() for t in tensors if t is not None])


def error(found, expected):
    """Relative Euclidean error over all tensors."""
    return float((flat(found) - flat(expected)).norm() / flat(expected).norm())


def same(xs, ys):
    """Bit for bit, None where None."""
    return all((a is None and b is None) or torch.equal(a, b) for a, b in zip(xs, ys, strict=True))
