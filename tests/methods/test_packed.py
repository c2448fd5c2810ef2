"""Differences of gradients leave out the rows of embeddings that are zero: what comes out is the same."""

import pytest
import torch

from gradworks.methods import Method
from gradworks.methods._shared import tensors
from gradworks.methods.updates._shared import packed
from gradworks.methods.updates._shared.packed import alike, move, pack, point_in
from tests.methods.toys import TASKS, Gru, Net, batch, build, error, flat, gradients, same


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(packed, "_LEAST", 1)


def matrix(*rows):
    x = torch.zeros(12, 3)
    x[list(rows)] = torch.arange(1.0, 1 + 3 * len(rows)).view(-1, 3)
    return x


def test_rows_are_packed_by_what_they_hold_and_come_back_bit_for_bit():
    sparse = matrix(1, 4, 7, 9)
    sparse[1], sparse[4], sparse[7] = torch.tensor([0, 0, -1e-45]), torch.tensor([-1.0, 0, 1]), torch.nan
    x = [sparse, matrix(*range(7)), torch.zeros(12, 3), torch.ones(12), matrix(2).t()]
    found = pack(x)
    assert [None if r is None else r.tolist() for r in found.rows] == [[1, 4, 7, 9], None, [], None, None]
    for back in (found.whole(), found.unpacked(x)):
        for a, b in zip(back, x, strict=True):
            assert torch.equal(a.nan_to_num(5.0), b.nan_to_num(5.0))


@pytest.mark.parametrize(
    ("second", "rows"), [((4, 1), [1, 4]), ((0, 4, 9), [0, 1, 4, 9]), ((), [1, 4]), (range(10), None)]
)
def test_alike_gives_the_same_gradients_with_common_rows(second, rows):
    x, y = [matrix(1, 4), torch.ones(5)], [matrix(*second), torch.zeros(5)]
    a, b = alike(pack(x), pack(y))
    for found, given in ((a, x), (b, y)):
        assert (found.rows[0] is None) == (rows is None)
        assert rows is None or found.rows[0].tolist() == rows
        assert same(found.whole(), given)


def test_a_point_is_moved_in_the_memory_of_its_direction():
    theta, direction = [torch.randn(12, 3), torch.randn(5)], [matrix(1, 4), torch.randn(5)]
    expected = [[torch.empty_like(t) for t in theta] for _ in range(2)]
    for out, scale in zip(expected, (0.3, -0.7), strict=True):
        tensors.move(out, theta, direction, scale)
    v = pack(direction)
    point = point_in(direction, theta, v)
    for out, scale in zip(expected, (0.3, -0.7), strict=True):
        move(point, theta, v, scale)
        assert same(point, out)
    assert point[0] is direction[0]
    assert point[1] is not direction[1]


UPDATES = [
    "dotprod", {"dotprod": {"form": "one_sided"}}, {"dotprod": {"form": "exact"}}, {"dotprod": {"pair": "same"}},
    {"dotprod": {"limit": 1e-3}}, "grad_norm_penalty", {"grad_norm_penalty": {"form": "central"}},
    {"grad_norm_penalty": {"form": "exact"}},
]  # fmt: skip


@pytest.mark.parametrize("sizes", [(1, 1, 1, 1), (1, 12, 1, 12), (12, 1, 12, 1)])
@pytest.mark.parametrize("update", UPDATES, ids=str)
def test_every_update_gives_the_same(monkeypatch, update, sizes):
    """Batches of 12 read most rows, so that their gradients are whole."""
    found = []
    for make in (Net, Gru):
        for least in (1, 1000):
            monkeypatch.setattr(packed, "_LEAST", least)
            model = build(make)
            method = Method(update=update, tasks=TASKS, seed=3)
            for step in range(2):
                batches = [[batch(n=n, seed=100 + 10 * step + i)] for i, n in enumerate(sizes[: method.batches])]
                log = method.backward(model, batches).log
            found.append([flat(gradients(model)), torch.tensor(list(log.values()))])
    for mine, whole in zip(found[::2], found[1::2], strict=True):
        assert error(mine[:1], whole[:1]) < 1e-8
        assert error(mine[1:], whole[1:]) < 1e-5
