"""Arithmetic on lists of tensors."""

import torch

from gradworks.methods._shared.tensors import add_, divide_, dot, move, norm, owned


def lists():
    g = torch.Generator().manual_seed(0)
    return [[torch.randn(s, generator=g, dtype=torch.float64) for s in ((3, 4), (5,), ())] for _ in range(2)]


def joined(x):
    return torch.cat([t.flatten() for t in x])


def test_norm_dot_add():
    x, y = lists()
    torch.testing.assert_close(norm(x), joined(x).norm())
    torch.testing.assert_close(dot(x, y), joined(x) @ joined(y))
    expected = joined(x) - 2 * joined(y)
    add_(x, y, -2)
    torch.testing.assert_close(joined(x), expected)


def test_move_in_place_of_the_direction():
    x, y = lists()
    expected = joined(x) + 0.5 * joined(y)
    out = [torch.empty_like(t) for t in x]
    move(out, x, y, 0.5)
    move(y, x, y, 0.5)
    assert torch.equal(joined(out), joined(y))
    torch.testing.assert_close(joined(y), expected)


def test_divide_by_zero_weight_leaves_a_zero_sum():
    x = [torch.zeros(3)]
    divide_(x, torch.tensor(0.0))
    assert torch.equal(x[0], torch.zeros(3))
    x = [torch.full((3,), 6.0)]
    divide_(x, torch.tensor(2.0))
    assert torch.equal(x[0], torch.full((3,), 3.0))


def test_owned_separates_gradients_that_share_memory():
    a, b, c = (torch.ones(3, requires_grad=True) for _ in range(3))
    raw = torch.autograd.grad(((a + b) * torch.tensor([1.0, 2, 3])).sum() + c.sum(), [a, b, c])
    mine = owned(raw, [a, b, c])
    for t in mine:
        t *= 2  # in place: each exactly once
    torch.testing.assert_close(mine[0], torch.tensor([2.0, 4, 6]))
    torch.testing.assert_close(mine[1], torch.tensor([2.0, 4, 6]))
    torch.testing.assert_close(mine[2], torch.full((3,), 2.0))
    assert torch.equal(owned([None], [a])[0], torch.zeros(3))
