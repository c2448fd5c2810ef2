"""Models that the back-end `ghost` covers, one per rule and per way of using a module."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.methods.toys import Bow, Gru, Net

V, L = 30, 6


class Words(nn.Module):
    """Embeddings of words, positions and types, then whatever, then a mean over positions and a head."""

    def __init__(self, inside=None, width=8, pad=None, **_):
        super().__init__()
        self.word, self.position = nn.Embedding(V, width, padding_idx=pad), nn.Embedding(L, width)
        self.inside = inside or nn.Identity()
        self.drop, self.out = nn.Dropout(0.2), nn.Linear(width, 3)

    def forward(self, ids, kind="three"):
        h = self.word(ids) + self.position(torch.arange(L)[None])  # (1, L): one row of positions for all examples
        return self.out(self.drop(self.inside(self.drop(h))).mean(1))


class Attention(nn.Module):
    """Heads of attention from linear layers: query, key and value share their input."""

    def __init__(self, width=8):
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))
        self.norm = nn.LayerNorm(width)

    def forward(self, h):
        return self.norm(h + self.o(F.scaled_dot_product_attention(self.q(h), self.k(h), self.v(h))))


class Twice(nn.Module):
    """One module called twice, in place after it."""

    def __init__(self, width=8):
        super().__init__()
        self.a = nn.Linear(width, width)

    def forward(self, h):
        return torch.relu_(self.a(torch.tanh(self.a(h))))


class Pictures(nn.Module):
    """Convolutions: strides, groups, padding modes; positions as a picture."""

    def __init__(self, width=8):
        super().__init__()
        self.one = nn.Conv1d(width, width, 3, padding=1, groups=2)
        self.two = nn.Conv2d(1, 4, 3, stride=2, padding="valid", bias=False)
        self.three = nn.Conv2d(4, width, 2, padding=1, padding_mode="circular")
        self.four = nn.Conv2d(width, width, 2, padding="same", dilation=1)

    def forward(self, h):
        h = self.one(h.transpose(1, 2))
        return self.four(torch.tanh(self.three(torch.tanh(self.two(h[:, None]))))).flatten(2).transpose(1, 2)


class Recurrent(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.gru = nn.GRU(8, 8 // (1 + options.get("bidirectional", False)), **options)

    def forward(self, h):
        first = self.gru.batch_first
        states, last = self.gru(h if first else h.transpose(0, 1))
        states.mul_(2)  # in place
        return (states if first else states.transpose(0, 1)) + last.mean(0).repeat(1, 8 // last.shape[2])[:, None]


class Rms(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(8, 8, bias=False), nn.RMSNorm(8), nn.LayerNorm((L, 8)), nn.LayerNorm(8, bias=False))


class SequenceFirst(nn.Module):
    """Dimension 1 is the example."""

    def __init__(self):
        super().__init__()
        self.a, self.norm = nn.Linear(8, 5), nn.LayerNorm(5)
        self.b = nn.Linear(5, 8)

    def forward(self, h):
        return self.b(torch.tanh(self.norm(self.a(h.transpose(0, 1))))).transpose(0, 1)


class Stacked(nn.Module):
    """Two texts of an example are rows i and i + n."""

    def __init__(self):
        super().__init__()
        self.a, self.gru = nn.Linear(8, 8), nn.GRU(8, 8, batch_first=True)

    def forward(self, h):
        p, q = self.gru(torch.tanh(self.a(torch.cat([h[:, :3], h[:, 3:]]))))[0].chunk(2)
        return torch.cat([p, q * p], 1)


def bert(attention, **_):
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=V, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=L,
    )  # fmt: skip
    config._attn_implementation = attention

    class Bert(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder, self.head = transformers.BertModel(config), nn.Linear(8, 3)
            nn.init.normal_(self.encoder.embeddings.token_type_embeddings.weight)

        def forward(self, ids, kind="three"):
            inside = (ids > 3) | (torch.arange(L) == 0)
            return self.head(self.encoder(input_ids=ids, attention_mask=inside.long()).pooler_output)

    return Bert()


MODELS = {
    "bow": Bow,
    "gru": Gru,
    "every head": Net,
    "positions": Words,
    "padding": lambda: Words(pad=3),
    "attention": lambda: Words(Attention()),
    "twice": lambda: Words(Twice()),
    "convolutions": lambda: Words(Pictures()),
    "norms": lambda: Words(Rms()),
    "gru, both ways": lambda: Words(Recurrent(num_layers=2, bidirectional=True, batch_first=True)),
    "gru, no bias": lambda: Words(Recurrent(bias=False)),
    "sequence first": lambda: Words(SequenceFirst()),
    "stacked": lambda: Words(Stacked()),
    "bert eager": lambda: bert("eager"),
    "bert sdpa": lambda: bert("sdpa"),
}
