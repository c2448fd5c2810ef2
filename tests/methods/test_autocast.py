"""Precision: bf16 autocast works with every method; float16, which needs a GradScaler, is refused and names bf16."""

import pytest
import torch
from torch import nn

from gradworks.methods import Method
from tests.methods.shipped import PAIRWISE
from tests.methods.toys import TASKS, Net, build, draw, flat, gradients, same


def step(triple, model, **autocast):
    method = Method(*triple, tasks=TASKS, seed=3)
    with torch.autocast("cpu", **autocast):
        report = method.backward(model, *draw(method.batches, n=32))
    return report, gradients(model)


@pytest.mark.parametrize("triple", PAIRWISE, ids="-".join)
def test_bf16_autocast_stays_near_float32(triple):
    _, plain = step(triple, build(Net, act=nn.Tanh, dtype=torch.float32), enabled=False)
    report, mixed = step(triple, build(Net, act=nn.Tanh, dtype=torch.float32), dtype=torch.bfloat16)
    assert report.log["finite"] == 1.0
    assert [g is None for g in plain] == [g is None for g in mixed]
    assert all(g is None or g.dtype == torch.float32 for g in mixed)
    assert not same(plain, mixed)  # it was bf16
    a, b = flat(plain), flat(mixed)
    assert float(a @ b / a.norm() / b.norm()) > 0.9


def refused(act):
    with pytest.raises(ValueError) as caught:
        act()
    assert "GradScaler" in str(caught.value)
    assert "bf16" in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 3


def test_float16_autocast_is_refused_before_any_pass():
    model = build(Net, dtype=torch.float32)
    model.register_forward_hook(lambda *_: pytest.fail("a pass"))
    method = Method(tasks=TASKS)
    with torch.autocast("cpu", torch.float16):
        refused(lambda: method.backward(model, *draw(1)))
    assert method.state_dict()["drawn"] == 0


def test_float16_parameters_are_refused():
    model = build(Net, dtype=torch.float16)
    refused(lambda: Method(tasks=TASKS).backward(model, *draw(1)))


def test_float16_inside_the_models_own_forward_is_refused():
    class Inside(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = build(Net, dtype=torch.float32)

        def forward(self, *args):
            with torch.autocast("cpu", torch.float16):
                return self.net(*args)

    refused(lambda: Method(tasks=TASKS).backward(Inside(), *draw(1)))


def test_a_scaler_that_scaled_no_loss_refuses_the_gradient_itself():
    """What a person sees who keeps the lines of GradScaler in the loop: torch stops, nothing is unscaled silently."""
    model = build(Net, dtype=torch.float32)
    optimizer, scaler = torch.optim.SGD(model.parameters(), 0.1), torch.amp.GradScaler("cpu")
    Method(tasks=TASKS).backward(model, *draw(1))
    before = gradients(model)
    for act in (scaler.unscale_, scaler.step):
        with pytest.raises(AssertionError, match="_scale is None"):
            act(optimizer)
    assert same(gradients(model), before)
