"""Small models that bring something along: buffers that move in forward, checkpointed blocks, random numbers."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm
from torch.utils.checkpoint import checkpoint

from gradworks.spec import Batch

WORDS, WIDTH = 50, 8
_g = torch.Generator().manual_seed(0)
BATCHES = [
    Batch(
        "t", [f"{i}-{k}" for k in range(6)], torch.randint(0, WORDS, (6, 5), generator=_g),
        torch.randint(0, 3, (6,), generator=_g), torch.ones(6, dtype=torch.float64),
    )
    for i in range(8)
]  # fmt: skip


class Classes:
    """Three classes; a model takes ids and, in their place, embeddings."""

    def outputs(self, model, batch, embedded=None):
        return (model(batch.inputs, embedded),)

    def loss(self, out, batch):
        return F.cross_entropy(out[0], batch.labels, reduction="none")

    def embed(self, model, batch):
        return model.e(batch.inputs)

    def divergence(self, p, q):
        a, b = p[0].log_softmax(-1), q[0].log_softmax(-1)
        return ((a.exp() - b.exp()) * (a - b)).sum(-1)

    def smoothed(self, out, batch, share):
        return (1 - share) * self.loss(out, batch) - share * out[0].log_softmax(-1).mean(-1)


class Net(nn.Module):
    """Embeddings, a layer, `middle`, a layer; `wrap` goes around the linear layers."""

    def __init__(self, middle=nn.Identity, wrap=lambda layer: layer):
        super().__init__()
        self.e, self.a = nn.Embedding(WORDS, WIDTH), wrap(nn.Linear(WIDTH, WIDTH))
        self.middle, self.h = middle(), wrap(nn.Linear(WIDTH, 3))

    def forward(self, ids, embedded=None):
        x = self.e(ids) if embedded is None else embedded
        return self.h(torch.tanh(self.middle(self.a(x))).mean(1))


class Centred(nn.Module):
    """Reads the running mean that it has just written in place."""

    late = False

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(WIDTH, dtype=torch.float64))

    @torch.no_grad()
    def move(self, x):
        self.mean.lerp_(x.mean((0, 1)), 0.1)

    def forward(self, x):
        before = self.mean.clone() if self.late else self.mean
        if self.training:
            self.move(x)
        return x - (before if self.late else self.mean)


class Replaced(Centred):
    """Assigns a new tensor."""

    @torch.no_grad()
    def move(self, x):
        self.mean = 0.9 * self.mean + 0.1 * x.mean((0, 1))


class Late(Centred):
    """Reads the mean as it was, and writes a part of it."""

    late = True

    @torch.no_grad()
    def move(self, x):
        self.mean[:4].mul_(0.9).add_(0.1 * x.mean((0, 1))[:4])


class Codebook(nn.Module):
    """Vector quantisation; the codes are running means of what is near them."""

    late = True

    def __init__(self):
        super().__init__()
        self.register_buffer("codes", torch.randn(12, WIDTH, dtype=torch.float64))
        self.register_buffer("size", torch.ones(12, dtype=torch.float64))
        self.register_buffer("total", self.codes.clone())

    def forward(self, x):
        flat = x.reshape(-1, WIDTH)
        near = torch.cdist(flat.detach(), self.codes).argmin(1)
        code = self.codes[near].view_as(x)
        if self.training:
            with torch.no_grad():
                here = F.one_hot(near, 12).to(x)
                self.size.mul_(0.9).add_(here.sum(0), alpha=0.1)
                self.total.mul_(0.9).add_(here.t() @ flat, alpha=0.1)
                self.codes.copy_(self.total / self.size[:, None].clamp_min(1e-3))
        return x + code


class Turned(nn.Module):
    """A normalisation over (n, width, length) on (n, length, width)."""

    def __init__(self, norm):
        super().__init__()
        self.norm = norm

    def forward(self, x):
        return self.norm(x.transpose(1, 2)).transpose(1, 2)


def old_spectral(layer):
    return nn.utils.spectral_norm(layer)


# models whose buffers move, and whether the forward pass reads them before it writes them
MOVING = {
    "spectral": (lambda: Net(wrap=spectral_norm), False),
    "old_spectral": (lambda: Net(wrap=old_spectral), False),
    "centred": (lambda: Net(Centred), False),
    "replaced": (lambda: Net(Replaced), False),
    "late": (lambda: Net(Late), True),
    "codebook": (lambda: Net(Codebook), True),
}


class Blocks(nn.Module):
    """Two residual blocks, checkpointed with `reentrant` True or False, not with None."""

    def __init__(self, reentrant=None, norm=False, drop=0.0, nested=False):
        super().__init__()
        self.e, self.h = nn.Embedding(WORDS, WIDTH), nn.Linear(WIDTH, 3)
        self.blocks = nn.ModuleList([Block(norm, drop, nested) for _ in range(2)])
        self.reentrant = reentrant

    def forward(self, ids, embedded=None):
        x = self.e(ids) if embedded is None else embedded
        for block in self.blocks:
            if self.reentrant is None:
                x = block(x)
            else:
                x = checkpoint(block, x, use_reentrant=self.reentrant, preserve_rng_state=False)
        return self.h(x.mean(1))


class Block(nn.Module):
    def __init__(self, norm, drop, nested):
        super().__init__()
        self.a, self.b, self.drop = nn.Linear(WIDTH, 16), nn.Linear(16, WIDTH), nn.Dropout(drop)
        self.norm = Turned(nn.BatchNorm1d(16)) if norm else nn.Identity()
        self.nested = nested

    def inner(self, x):
        return self.drop(torch.tanh(self.norm(self.a(x))))

    def forward(self, x):
        h = checkpoint(self.inner, x, use_reentrant=False) if self.nested else self.inner(x)
        return x + self.b(h)


def made(build, seed=0, dtype=torch.float64):
    """A model in train mode, the same for the same seed."""
    torch.manual_seed(seed)
    return build().to(dtype).train()


def group(method, step=0, micro=1):
    """(batches, clean batches) of a step; `micro` micro-batches a batch."""
    k = method.batches
    batches = [[BATCHES[(step * k + i + 3 * m) % 8] for m in range(micro)] for i in range(k)]
    return batches, [[BATCHES[(step + i + 5) % 8]] for i in range(k)] if method.clean else ()


def gradient(model):
    """All of it in one vector, zero where there is none."""
    parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]
    return torch.cat([(g.to_dense() if g.is_sparse else g).flatten() for g in parts])


def off(found, expected):
    return float((found - expected).norm() / expected.norm())
