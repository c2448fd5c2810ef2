"""`ghost` on batches of another kind than those that were examined, against the loop over examples."""

import logging

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gradworks.methods.weightings import reweight
from gradworks.methods.weightings._shared.agreement import examine
from tests.methods.kind_models import (
    EVEN,
    FULL,
    LEAVES,
    RAGGED,
    STAYS,
    L,
    LateModule,
    Model,
    StackedLate,
    Unpadded,
    batches,
)
from tests.methods.test_ghost import filled, loop_oracle, method, off, scores
from tests.methods.toys import build, draw, same, split


class Keyed:
    """Masks of the oracle are those of a first step; so every step is the first of its method but for what it knows."""

    def __init__(self, backend="auto"):
        self.backend, self.state = backend, None
        self.one = None

    def step(self, model, drawn):
        self.one = method(self.backend)
        if self.state is not None:
            self.one.load_state_dict(self.state | {"drawn": 0})
        report = self.one.backward(model, *drawn)
        self.state = self.one.state_dict()
        return report


def right(model, drawn, report, bound=1e-10):
    u, gradient = loop_oracle(model, drawn[0][0], drawn[1][0])
    assert 0 < (u > 0).sum() < len(u)
    assert off([scores(report)], [u]) <= bound
    assert off(filled(model), gradient) <= bound


@pytest.mark.parametrize("make", LEAVES + STAYS)
@pytest.mark.parametrize("late", [RAGGED, EVEN], ids=["ragged", "even"])
def test_a_later_kind_of_batch_is_examined_before_its_scores_count(make, late, caplog):
    model, keyed = build(make), Keyed()
    right(model, batches(FULL), keyed.step(model, batches(FULL)))
    assert keyed.one.weighting.taken == "ghost"
    caplog.clear()
    with caplog.at_level(logging.INFO, "gradworks"):
        report = keyed.step(model, batches(late, 200))
    right(model, batches(late, 200), report)
    assert keyed.one.weighting.taken == ("logit_fd" if make in LEAVES else "ghost")
    assert len(caplog.records) == (make in LEAVES)
    report = keyed.step(model, batches(late, 300))
    right(model, batches(late, 300), report, 1e-6 if make in LEAVES else 1e-10)
    assert report.passes == pytest.approx(7 / 3) or make in LEAVES  # calibrated


@pytest.mark.parametrize("make", LEAVES)
def test_ghost_that_was_asked_for_refuses_a_later_kind_of_batch(make):
    model, keyed = build(make), Keyed("ghost")
    keyed.step(model, batches(FULL))
    with pytest.raises(ValueError, match=r"reweight: ghost cannot serve .*\nuse backend: logit_fd") as error:
        keyed.step(model, batches(RAGGED, 200))
    assert len(str(error.value).splitlines()) <= 3
    assert all(p.grad is None for p in model.parameters())


def test_lengths_and_sizes_of_batches_are_no_kinds():
    class Loop(Model):
        """A layer called once a position."""

        def inside(self, h, real):
            state, made = h[:, 0], []
            for k in range(h.shape[1]):
                state = torch.tanh(self.a(h[:, k]) + self.b(state))
                made.append(state)
            return torch.stack(made, 1)

    for make in (Model, Loop):
        one, model = method("ghost"), build(make)
        for k, (n, length) in enumerate([(8, 6), (8, 5), (5, 4), (12, 3), (16, 7)]):
            drawn, clean = draw(1, n=n, clean_n=n, seed=100 + k)
            for (b,) in (drawn[0], clean[0]):
                b.inputs = b.inputs.clamp_min(1)[:, torch.arange(length) % L]
            report = one.backward(model, drawn, clean)
        assert report.passes == pytest.approx(7 / 3)
        assert len(one.state_dict()["weighting"]["backend"]["layouts"]) == 1


def test_other_parameters_of_the_same_number_are_examined():
    class Reader(Model):
        def inside(self, h, real):
            return F.linear(super().inside(h, real), self.b.weight)  # b is never called

    model, keyed = build(Reader), Keyed()
    model.b.requires_grad_(False)
    right(model, batches(FULL), keyed.step(model, batches(FULL)))
    assert keyed.one.weighting.taken == "ghost"
    model.b.requires_grad_(True)
    model.a.requires_grad_(False)
    right(model, batches(FULL, 200), keyed.step(model, batches(FULL, 200)), 1e-6)
    assert keyed.one.weighting.taken == "logit_fd"


def test_parameters_trained_in_turn_are_examined_once_each(monkeypatch):
    model, one = build(LateModule), method("ghost")
    passes, made = [], []
    monkeypatch.setattr(reweight, "examine", lambda *a: made.append(examine(*a)))
    for k in range(4):
        model.a.requires_grad_(k % 2 == 0)
        model.b.requires_grad_(k % 2 == 1)
        passes.append(one.backward(model, *batches(RAGGED, 100 + k)).passes)
    assert passes[2:] == pytest.approx([7 / 3] * 2)
    assert len(made) == 2


def test_a_change_of_mode_is_a_kind():
    class Relative(Model):
        """BatchNorm without parameters couples examples while it trains."""

        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm1d(8, affine=False)

        def inside(self, h, real):
            return self.norm(super().inside(h, real).transpose(1, 2)).transpose(1, 2)

    for switch in (lambda m: m.train(), lambda m: m.norm.train()):
        model, keyed = build(Relative), Keyed()
        model.eval()
        right(model, batches(FULL), keyed.step(model, batches(FULL)))
        assert keyed.one.weighting.taken == "ghost"
        switch(model)
        right(model, batches(FULL, 200), keyed.step(model, batches(FULL, 200)))
        assert keyed.one.weighting.taken == "logit_fd"


def test_rows_moved_by_a_product_are_seen_by_the_look_now_and_then_and_stop_the_run():
    class Moved(Model):
        """No index: a product with a permutation, that of the identity at first."""

        swap = False

        def inside(self, h, real):
            move = torch.eye(len(h), dtype=h.dtype)
            move = move.flip(0) if self.swap else move
            return torch.einsum("ij,jkl->ikl", move.t(), torch.tanh(self.a(torch.einsum("ij,jkl->ikl", move, h))))

    model, one = build(Moved), method("auto")
    for k in range(5):
        one.backward(model, *batches(FULL, 100 + k))
    model.swap = True
    with pytest.raises(
        ValueError, match=r"module a: its rows are not examples.*\nbatches of this kind were right"
    ) as error:
        for k in range(5, 20):
            one.backward(model, *batches(FULL, 100 + k))
    assert k == 10
    assert len(str(error.value).splitlines()) <= 3


def test_examinations_change_no_number():
    model = build(Model)
    one = method("ghost")
    found = {}
    for k in range(12):
        one.backward(model, *batches(RAGGED, 100 + k))
        found[k] = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    other = method("ghost")
    for k in range(12):
        other.weighting._steps = 1000 + k  # no look in these steps
        other.backward(model, *batches(RAGGED, 100 + k))
        assert same(found[k], [p.grad for p in model.parameters() if p.grad is not None])


def test_batches_of_ever_new_kinds_move_auto_to_logit_fd(monkeypatch):
    monkeypatch.setattr(reweight, "_KINDS", 3)

    class Restless(Model):
        depth = 0

        def inside(self, h, real):
            for k in range(self.depth):
                h = getattr(torch, ("sin", "tanh", "exp", "sigmoid", "relu")[k])(h)
            return super().inside(h, real)

    model, one = build(Restless), method("auto")
    for depth in range(5):
        model.depth = depth
        one.backward(model, *batches(FULL, 100 + depth))
    assert one.weighting.taken == "logit_fd" and "more than 3 kinds" in one.weighting.why


def test_micro_batches_of_two_kinds():
    def step():
        whole, clean = batches(FULL[:4] + RAGGED[:4])
        return [split(whole[0][0], 4)], clean

    for make in (LateModule, StackedLate):
        model, keyed = build(make), Keyed("ghost")
        right(model, step(), keyed.step(model, step()))
    model, keyed = build(Unpadded), Keyed("auto")
    right(model, step(), keyed.step(model, step()))
    assert keyed.one.weighting.taken == "logit_fd"


def test_examinations_after_the_first_are_not_counted_as_passes_of_the_step():
    model, one = build(LateModule), method("ghost")
    passes = [one.backward(model, *batches(FULL if k < 5 else RAGGED, 100 + k)).passes for k in range(12)]
    assert passes[0] > 7 / 3 and passes[1:] == pytest.approx([7 / 3] * 11)
