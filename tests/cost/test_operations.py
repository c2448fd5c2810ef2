"""Counted operations against closed forms: 2 m n k of a product, twice that backward."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from gradworks.cost import operations
from gradworks.cost.operations import Operations

N, L, D, H = 4, 5, 8, 16


def counted(run):
    with Operations() as found:
        run()
    assert found.not_counted == []
    return found.total


def forward_and_backward(module, x):
    """Operations of a forward pass, and of one with its backward pass, for a module whose input needs no gradient."""

    def forward():
        out = module(x)
        return out[0] if isinstance(out, tuple) else out

    return counted(forward), counted(lambda: forward().sum().backward())


def test_linear():
    x = torch.randn(N, D)
    forward, both = forward_and_backward(nn.Linear(D, H), x)
    assert forward == 2 * N * D * H
    assert both == 2 * forward  # no gradient of the input
    assert forward_and_backward(nn.Linear(D, H), x.requires_grad_())[1] == 3 * forward


@pytest.mark.parametrize("eager", [False, True])
def test_attention(eager):
    """Two products of L x L x D for each head; backward the two of each, and what SDPA makes anew."""
    heads, columns = 2, 7
    q = torch.randn(N, heads, L, D, requires_grad=True)
    k, v = (torch.randn(N, heads, columns, D, requires_grad=True) for _ in range(2))

    def run():
        if eager:
            return (q @ k.transpose(-1, -2)).softmax(-1) @ v
        return scaled_dot_product_attention(q, k, v)

    one = 2 * N * heads * L * columns * D
    assert counted(run) == 2 * one
    assert counted(lambda: run().sum().backward()) == (2 + 4 + (not eager)) * one  # a flash kernel keeps no scores


def test_attention_by_the_mathematical_kernel_is_counted_as_eager():
    q = torch.randn(N, 1, L, D)
    with sdpa_kernel(SDPBackend.MATH):
        assert counted(lambda: scaled_dot_product_attention(q, q, q)) == 2 * 2 * N * L * L * D


@pytest.mark.parametrize(("kind", "gates"), [(nn.GRU, 3), (nn.LSTM, 4)])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("both_ways", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
def test_recurrent(kind, gates, layers, both_ways, batch_first):
    """A step of a direction: all gates of the input and of the state."""
    module = kind(D, H, num_layers=layers, bidirectional=both_ways, batch_first=batch_first)
    x = torch.randn(N, L, D) if batch_first else torch.randn(L, N, D)
    ways = 1 + both_ways
    wide = [D] + [ways * H] * (layers - 1)
    forward = sum(2 * N * L * gates * H * (width + H) * ways for width in wide)
    found, both = forward_and_backward(module, x.requires_grad_())
    assert found == forward
    # a first state that needs no gradient saves an LSTM nothing, a GRU made of single products one of them
    spared = 2 * N * gates * H * H * ways * layers if kind is nn.GRU else 0
    assert both in (3 * forward, 3 * forward - spared)


@pytest.mark.parametrize("mode", ["mean", "sum"])
def test_embedding_bag(mode):
    bag, x = nn.EmbeddingBag(10, D, mode=mode), torch.randint(0, 10, (N, L))
    forward, both = forward_and_backward(bag, x)
    assert forward == N * L * D
    assert both == 2 * forward


def test_every_pass_is_counted():
    """Gradients by hand, and a gradient of a gradient."""
    w = torch.randn(D, D, requires_grad=True)
    x = torch.randn(N, D)
    one = 2 * N * D * D

    def twice():
        (g,) = torch.autograd.grad((x @ w).square().sum(), w, create_graph=True)
        g.square().sum().backward()

    assert counted(lambda: torch.autograd.grad((x @ w).sum(), w)) == 2 * one
    assert counted(twice) == 4 * one  # x w, its gradient, and each of them once more backward


def test_what_cannot_be_counted_is_named(monkeypatch):
    w = nn.Linear(D, D)
    with forward_ad.dual_level(), Operations() as found:
        w(forward_ad.make_dual(torch.randn(N, D), torch.randn(N, D)))
    assert found.not_counted == ["forward-mode derivatives"]
    monkeypatch.delitem(operations._FORMULAS, torch.ops.aten.mkldnn_rnn_layer)
    with Operations() as found:
        nn.LSTM(D, H)(torch.randn(L, N, D))
    assert found.not_counted == ["mkldnn_rnn_layer"]
