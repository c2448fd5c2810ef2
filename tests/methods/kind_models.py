"""Models and batches whose kind changes while they train: padding is what changes it."""

import torch
from torch import nn
from torch.nn import functional as F

from tests.methods.toys import draw

V, L = 30, 6


class Model(nn.Module):
    """Words, what a subclass makes of them, and a head over their mean where they are no padding (0)."""

    def __init__(self, width=8):
        super().__init__()
        self.emb, self.a, self.b = nn.Embedding(V, width), nn.Linear(width, width), nn.Linear(width, width)
        self.out, self.drop = nn.Linear(width, 3), nn.Dropout(0.2)

    def forward(self, ids, kind="three"):
        return self.out(self.pooled(self.drop(self.emb(ids)), ids > 0))

    def pooled(self, h, real):
        return (self.inside(h, real) * real[..., None]).sum(1) / real.sum(1, keepdim=True).clamp_min(1)

    def inside(self, h, real):
        return torch.tanh(self.a(h))


class Unpadded(Model):
    """Layers see tokens only, as padding-free encoders do."""

    def inside(self, h, real):
        return h.new_zeros(h.shape).index_put((real,), torch.tanh(self.a(h[real])).to(h))


class UnpaddedFlat(Model):
    """The same by indices into all positions."""

    def inside(self, h, real):
        index = real.flatten().nonzero()[:, 0]
        made = torch.tanh(self.a(h.flatten(0, 1)[index]))
        return torch.zeros_like(h).flatten(0, 1).index_copy(0, index, made).view_as(h)


class UnpaddedScatter(UnpaddedFlat):
    """The same with scatter."""

    def inside(self, h, real):
        index = real.flatten().nonzero()[:, 0]
        made = torch.tanh(self.a(h.flatten(0, 1).index_select(0, index)))
        return torch.zeros_like(h).flatten(0, 1).scatter_add(0, index[:, None].expand_as(made), made).view_as(h)


class Segments(Model):
    """Tokens from the embedding on, pooled by segment."""

    def forward(self, ids, kind="three"):
        of = torch.arange(len(ids))[:, None].expand_as(ids)[ids > 0]
        h = torch.tanh(self.a(self.emb(ids[ids > 0])))
        return self.out(h.new_zeros(len(ids), h.shape[1]).index_add(0, of, h))


class Split(Model):
    """Tokens, cut into texts by a list of lengths."""

    def forward(self, ids, kind="three"):
        h = torch.tanh(self.a(self.emb(ids[ids > 0])))
        return self.out(torch.stack([text.sum(0) for text in h.split((ids > 0).sum(1).tolist())]))


class Joined(Model):
    """Texts cut to their lengths one by one, joined for the layer, and padded again."""

    def inside(self, h, real):
        lengths = real.sum(1).tolist()
        h = torch.cat([text[:length] for text, length in zip(h, lengths, strict=True)])
        return nn.utils.rnn.pad_sequence(torch.tanh(self.a(h)).split(lengths), batch_first=True)

    def pooled(self, h, real):
        return self.inside(h, real).sum(1)


class Sorted(Model):
    """Longest first, as packed sequences were made for years."""

    def inside(self, h, real):
        order = real.sum(1).argsort(descending=True, stable=True)
        return torch.tanh(self.a(h[order]))[order.argsort()]


class SortedIds(Model):
    """The same before the embedding, whose graph does not see it."""

    def forward(self, ids, kind="three"):
        order = (ids > 0).sum(1).argsort(descending=True, stable=True)
        return super().forward(ids[order]).index_select(0, order.argsort())


class TimeMajor(Model):
    """Another layout where there is padding."""

    def inside(self, h, real):
        if real.all():
            return super().inside(h, real)
        return torch.tanh(self.a(h.transpose(0, 1))).transpose(0, 1)


class StackedLate(Model):
    def inside(self, h, real):
        if real.all():
            return super().inside(h, real)
        return torch.cat(torch.tanh(self.a(torch.cat(h.chunk(2, 1)))).chunk(2), 1)


class Flipped(Model):
    def inside(self, h, real):
        return super().inside(h, real) if real.all() else torch.tanh(self.a(h.flip(0))).flip(0)


class Past(Model):
    """Reads a layer's weights beside calling it where there is padding."""

    def inside(self, h, real):
        h = super().inside(h, real)
        return h if real.all() else F.linear(h, self.a.weight)


class PastUnseen(Model):
    """The same, between operations that follow each other elsewhere too."""

    def inside(self, h, real):
        h = super().inside(h, real)
        if not real.all():
            h = torch.tanh(F.linear(h, self.a.weight, self.a.bias))
        return torch.tanh(torch.tanh(h.flatten(0, 1)).view_as(h))


class TiedLate(Model):
    """The table of words as output weights where there is padding."""

    def forward(self, ids, kind="three"):
        h = self.pooled(self.drop(self.emb(ids)), ids > 0)
        return self.out(h) if (ids > 0).all() else F.linear(h, self.emb.weight[:3])


class Coupled(Model):
    """Relative to the batch where there is padding."""

    def inside(self, h, real):
        h = super().inside(h, real)
        return h if real.all() else h - h.mean(0)


class LateModule(Model):
    """Another module where there is padding."""

    def inside(self, h, real):
        h = super().inside(h, real)
        return h if real.all() else torch.tanh(self.b(h))


class LateConvolution(Model):
    def __init__(self):
        super().__init__()
        self.late = nn.Conv1d(8, 8, 3, padding=1)

    def inside(self, h, real):
        h = super().inside(h, real)
        return h if real.all() else self.late(h.transpose(1, 2)).transpose(1, 2)


def batches(lengths, seed=100):
    """One step; texts of these lengths, the rest is padding."""
    n = len(lengths)
    drawn, clean = draw(1, n=n, seed=seed, clean_n=n)
    for (one,), of in ((drawn[0], lengths), (clean[0], [L] * n)):
        one.inputs.clamp_min_(1)
        one.inputs[torch.arange(one.inputs.shape[1]) >= torch.tensor(of)[:, None]] = 0
    return drawn, clean


FULL, RAGGED, EVEN = [L] * 8, [6, 2, 5, 1, 4, 3, 2, 1], [6, 4, 4, 2, 3, 5, 4, 4]  # 24 and 32 of 48 tokens: 3, 4 of each

LEAVES = [
    Unpadded, UnpaddedFlat, UnpaddedScatter, Segments, Split, Joined, Sorted, SortedIds, Flipped, Past, PastUnseen,
    TiedLate, Coupled,
]  # fmt: skip
STAYS = [TimeMajor, StackedLate, LateModule, LateConvolution, Model]
