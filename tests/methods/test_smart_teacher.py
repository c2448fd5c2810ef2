"""The momentum teacher of SMART: how it moves, what it shares with the model, how it resumes."""

import copy

import pytest
import torch
from torch import nn

from gradworks.methods import Method
from tests.methods.smart_models import make
from tests.methods.smart_oracle import SEED
from tests.methods.toys import (
    Kind,
    Net,
    Tied,
    build,
    draw,
    same,
)


def teacher_of(method):
    return method.objective.state_dict()["teacher"]


@pytest.mark.parametrize("update", ["erm", {"erm": {"batches": 3}}, "dotprod"])
def test_the_teacher_moves_once_a_step_not_once_a_pass(update):
    model, method = build(Net), make(update, momentum=0.7)
    expected = {name: p.detach().clone() for name, p in model.named_parameters()}
    for step in range(4):
        method.backward(model, draw(method.batches, seed=100 + 7 * step)[0])
        for name, p in model.named_parameters():
            expected[name] = 0.7 * expected[name] + 0.3 * p.detach()
            torch.testing.assert_close(teacher_of(method)[name], expected[name], rtol=1e-13, atol=1e-15)
            p.data += 0.1 * torch.randn_like(p)


def test_momentum_switches_at_its_step():
    model, method = build(Net), make(momentum=[0.5, 0.9], switch=2)
    expected, p = model.a.bias.detach().clone(), model.a.bias
    for step in range(4):
        method.backward(model, draw(1, seed=100 + step)[0])
        beta = 0.5 if step < 2 else 0.9
        expected = beta * expected + (1 - beta) * p.detach()
        torch.testing.assert_close(teacher_of(method)["a.bias"], expected)
        p.data += 1.0


def test_the_teachers_running_statistics_and_modes_follow_the_model():
    model, method = build(Net, norm=True), make()
    for step in range(3):
        model.norm.train(step < 1)
        before = model.norm.running_mean.clone()
        method.backward(model, draw(1, seed=100 + step)[0])
        teacher = method.objective._teacher.model
        assert torch.equal(teacher.norm.running_mean, before)
        assert teacher.training and teacher.norm.training == (step < 1)
        model.norm.running_mean += 1.0
    assert teacher.norm is not model.norm


class Adapted(nn.Module):
    """A frozen model with a trained low-rank layer in it, wrapped, as peft does."""

    def __init__(self):
        super().__init__()
        self.base = Net().requires_grad_(False)
        self.down, self.up = nn.Linear(8, 2, bias=False), nn.Linear(2, 8, bias=False)
        self.emb = self.base.emb

    def forward(self, ids, kind, embedded=None):
        x = self.emb(ids) if embedded is None else embedded
        return self.base(ids, kind, x + self.up(self.down(x)))


def test_a_wrapped_model_with_frozen_parameters_shares_them_with_its_teacher():
    model, method = build(Adapted), make()
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), 1e-2)
    for step in range(3):
        log = method.backward(model, draw(1, seed=100 + step)[0]).log
        optimizer.step()
    teacher = method.objective._teacher.model
    assert teacher.base.emb.weight is model.base.emb.weight and teacher.up.weight is not model.up.weight
    assert set(teacher_of(method)) == {"down.weight", "up.weight"} and log["proximal"] > 0
    assert all(not p.requires_grad for p in teacher.parameters())


def test_a_phase_that_trains_other_parameters_keeps_the_means_there_are():
    model, method = build(Net), make(momentum=0.5)
    model.emb.weight.requires_grad_(False)
    method.backward(model, draw(1)[0])
    old = model.a.bias.detach().clone()
    model.emb.weight.requires_grad_(True)
    model.a.bias.data += 1.0
    method.backward(model, draw(1)[0])
    assert method.objective._teacher.model.emb.weight is not model.emb.weight
    torch.testing.assert_close(teacher_of(method)["a.bias"], old + 0.5)


def test_tied_parameters_stay_tied_in_the_teacher():
    class Language(Kind):
        def outputs(self, model, batch, embedded=None):
            x = model.emb(batch.inputs) if embedded is None else embedded
            return (model.out(model.drop(torch.tanh(model.mid(x)))),)

    model, method = build(Tied), Method("smart", task=Language("seq"), seed=SEED)
    method.backward(model, draw(1, "seq")[0])
    teacher = method.objective._teacher.model
    assert teacher.out.weight is teacher.emb.weight and teacher.emb.weight is not model.emb.weight


@pytest.mark.parametrize("ascent", ["vjp", "noise"])
def test_a_resumed_run_ends_bit_identical(ascent):
    def run(cut):
        options = {"momentum": [0.8, 0.9], "switch": 2, "ascent": ascent}
        method, model, logs = make("dotprod", **options), build(Net, norm=True), []
        optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
        for step in range(5):
            if step == cut:
                state = copy.deepcopy(method.state_dict())
                method = make("dotprod", **options)
                method.load_state_dict(state)
                assert same(teacher_of(method).values(), state["objective"]["teacher"].values())
                torch.manual_seed(999)
            logs.append(method.backward(model, draw(2, seed=100 + 7 * step)[0]).log)
            optimizer.step()
        return [p.detach() for p in model.parameters()], logs

    (whole, logs), (cut, again) = run(None), run(3)
    assert same(whole, cut) and logs == again
    assert ["smoothness_share" in log for log in logs] == [True, False, True, False, False]


def test_a_state_is_a_copy():
    model, method = build(Net), make()
    method.backward(model, draw(1)[0])
    state = method.state_dict()["objective"]["teacher"]["a.bias"]
    before = state.clone()
    model.a.bias.data += 1.0
    method.backward(model, draw(1)[0])
    assert torch.equal(state, before)


class Normed(Net):
    """Modules that keep a tensor with a graph from one forward pass to the next."""

    def __init__(self, norm):
        super().__init__()
        self.a = norm(self.a)

    def forward(self, ids, kind, embedded=None):
        made = super().forward(ids, kind, embedded)
        self.seen = {"last": [made]}
        return made


@pytest.mark.filterwarnings("ignore:.*_norm.*")
@pytest.mark.parametrize("norm", [nn.utils.weight_norm, nn.utils.parametrizations.weight_norm, nn.utils.spectral_norm])
def test_a_model_that_keeps_tensors_with_a_graph_has_a_teacher(norm):
    model, method = build(Normed, norm=norm), make(momentum=0.5)
    model(draw(1)[0][0][0].inputs, "three")  # a pass of somebody else's, before the first step
    old = model.b.bias.detach().clone()
    log = method.backward(model, draw(1)[0]).log
    teacher = method.objective._teacher.model
    assert log["finite"] == 1 and teacher is not model
    model.b.bias.data += 1.0
    method.backward(model, draw(1)[0])
    torch.testing.assert_close(teacher_of(method)["b.bias"], old + 0.5)
