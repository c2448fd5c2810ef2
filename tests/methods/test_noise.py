"""Dropout's noise is drawn once for all passes over a micro-batch, and is what each pass would have drawn itself."""

import gc
import weakref

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gradworks import Method
from gradworks.methods._shared import noise
from gradworks.methods._shared.masks import Masks
from tests.methods.toys import TASKS, Net, build, draw, flat, gradients, same


class Draws(torch.overrides.TorchFunctionMode):
    """Counts the drawing of noise by `noise.py`."""

    count = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.Tensor.bernoulli_
        return func(*args, **(kwargs or {}))


def block(inplace: bool = False) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Dropout(0.1), nn.Linear(16, 16), nn.Dropout(0.3, inplace),
        nn.TransformerEncoderLayer(16, 2, 32, 0.2, batch_first=True), nn.Dropout1d(0.5), nn.Dropout(0.5),
    )  # fmt: skip


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_pass_sees_what_it_would_have_drawn(inplace, dtype):
    model, x = block(inplace).to(dtype), torch.randn(3, 5, 16).to(dtype)
    own, kept = Masks(0, "train", 0, 0), {}
    for stream in (0, 1, 0):  # one after another: streams do not displace each other
        with own(stream):
            expected = model(x.clone())
        with Draws() as draws, Masks(0, "train", 0, 0, (), kept)(stream):
            assert torch.equal(model(x.clone()), expected)
    assert draws.count == 0


def test_other_draws_between_and_other_shapes_are_seen():
    x, own, kept = torch.ones(64), Masks(0, "train", 0, 0), Masks(0, "train", 0, 0, (), {})
    runs = [
        lambda: F.dropout(x, 0.5),
        lambda: (torch.rand(1), F.dropout(x, 0.5))[1],  # something else draws before
        lambda: F.dropout(x, 0.4),
        lambda: F.dropout(x[:32], 0.5),
        lambda: F.dropout(x.double(), 0.5),
        lambda: F.dropout(x.view(8, 8), 0.5),
        lambda: F.dropout(x.view(8, 8).t(), 0.5),
        lambda: F.dropout(x, 0.5, training=False),
        lambda: F.dropout(x, 1.0),
        lambda: torch.cat([F.dropout(x, 0.5), torch.rand(4), F.dropout(x, 0.5)]),
        lambda: torch.cat([F.dropout(x, 0.5), torch.rand(4), F.dropout(x, 0.5)]),
    ]
    for run in runs:
        with own(0):
            expected = run()
        with kept(0):
            found = run()
        assert torch.equal(found, expected)


@pytest.mark.parametrize("slots", [{"objective": "smart"}, {"update": "dotprod"}, {"weighting": "reweight"}], ids=str)
def test_a_method_gives_the_same_gradient_with_and_without(slots, monkeypatch):
    grads = []
    for keeps in (True, False):
        if not keeps:
            monkeypatch.setattr(noise.Noise, "_dropout", lambda _, *args, **more: F.dropout(*args, **more))
        model, method = build(Net), Method(**slots, tasks=TASKS)
        for i in range(2):
            model.zero_grad()
            method.backward(model, *draw(method.batches, seed=i))
        grads.append(gradients(model))
    assert same(*grads)


def test_only_the_noise_of_the_micro_batch_at_hand_is_kept():
    kept, seen = {}, []
    for micro in range(3):
        stream = micro  # another one: not simply written over
        with Masks(0, "train", 0, micro, (), kept)(stream):
            F.dropout(torch.ones(100), 0.5)
        seen.append(weakref.ref(kept[stream][0].noise))
    assert [ref() is None for ref in seen] == [True, True, False]


def test_nothing_is_kept_after_the_step(monkeypatch):
    made, drawn = [], noise.Drawn

    def make(*args):
        one = drawn(*args)
        made.append(weakref.ref(one))
        return one

    monkeypatch.setattr(noise, "Drawn", make)
    gc.disable()  # counting references is enough
    try:
        Method(objective="smart", tasks=TASKS).backward(build(Net), *draw(1))
        assert made and not any(ref() for ref in made)
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("slots", "kept"),
    [
        ({}, 0), ({"update": {"erm": {"batches": 2}}}, 0), ({"update": "reptile"}, 0), ({"update": "fomaml"}, 0),
        ({"weighting": {"reweight": {"backend": "ghost"}}}, 0), ({"weighting": "hard_mining"}, 0),
        ({"weighting": {"reweight": {"backend": "logit_fd"}}}, 1), ({"objective": "smart"}, 1),
        ({"update": "dotprod"}, 1), ({"update": {"dotprod": {"every": 2}}}, 0), ({"update": "sam"}, 1),
        ({"update": "maml"}, 1),
        ({"objective": "smart", "update": "reptile"}, 1), ({"weighting": "hard_mining", "update": "sam"}, 1),
    ],
    ids=str,
)  # fmt: skip
def test_where_a_micro_batch_is_passed_once_nothing_is_kept(slots, kept, monkeypatch):
    entered, enter = [], noise.Noise.__enter__
    monkeypatch.setattr(noise.Noise, "__enter__", lambda self: entered.append(self) or enter(self))
    method, model = Method(**slots, tasks=TASKS), build(Net)
    method.backward(model, *draw(method.batches))
    entered.clear()
    method.backward(model, *draw(method.batches, seed=300))  # the first step checks and measures with more passes
    assert bool(entered) == bool(kept)


def test_a_compiled_model_draws_for_itself(monkeypatch):
    inner, method = build(Net), Method(objective="smart", tasks=TASKS)
    method.backward(inner, *draw(1))
    expected = gradients(inner)
    whole = Method(objective="smart", tasks=TASKS)
    inner.compile(backend="eager")
    monkeypatch.setattr(noise.Noise, "__enter__", lambda self: pytest.fail("a mode around what is compiled"))
    whole.backward(inner, *draw(1))
    torch.testing.assert_close(flat(gradients(inner)), flat(expected))
