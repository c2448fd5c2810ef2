"""Where the back-end `ghost` may be used: rows that are examples, what it refuses and names, what it leaves behind."""

import logging

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gradworks.methods import Method
from gradworks.methods.weightings._shared import agreement, layers
from gradworks.methods.weightings._shared.ghost import recording
from gradworks.methods.weightings.reweight import Reweight
from gradworks.models.bow import Bow as RealBow
from gradworks.models.gru import Gru as RealGru
from gradworks.spec import Batch
from tests.kinds import classes
from tests.methods.ghost_models import MODELS, Attention, Recurrent, SequenceFirst, Stacked, Words
from tests.methods.test_ghost import agrees, method, off
from tests.methods.toys import TASKS, Bow, Net, Transformer, build, draw, gradients, same


class Norm(nn.Sequential):
    """Couples the examples of a batch, without parameters of its own."""

    def forward(self, h):
        return super().forward(h - h.mean(0))


class Past(nn.Module):
    """Reads the weights of a layer beside calling it."""

    def __init__(self):
        super().__init__()
        self.a = nn.Linear(8, 8)

    def forward(self, h):
        return F.linear(torch.tanh(self.a(h)), self.a.weight)


class Packed(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(8, 8, batch_first=True)

    def forward(self, h):
        packed = nn.utils.rnn.pack_padded_sequence(h, [6] * len(h), batch_first=True)
        return nn.utils.rnn.pad_packed_sequence(self.gru(packed)[0], batch_first=True)[0]


class Lstm(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(8, 8, batch_first=True)

    def forward(self, h):
        return self.lstm(h)[0]


class Shuffled(nn.Module):
    """Rows are examples in another order."""

    def __init__(self):
        super().__init__()
        self.a = nn.Linear(8, 8)

    def forward(self, h):
        return torch.tanh(self.a(h.flip(0))).flip(0)


class Flattened(nn.Module):
    """All tokens in one row, as padding-free encoders have them."""

    def __init__(self):
        super().__init__()
        self.a = nn.Linear(8, 8)

    def forward(self, h):
        return torch.tanh(self.a(h.reshape(1, -1, 8))).reshape(h.shape)


def linear(change):
    """A linear layer that something was done to."""
    return change(nn.Linear(8, 8))


UNCOVERED = {
    "free-standing parameter": (Transformer, "the model: its parameter position"),
    "lstm": (lambda: Words(Lstm()), "module inside.lstm: its parameter weight_ih_l0 belongs to no layer with a rule"),
    "batch norm": (lambda: Net(norm=True), "module norm: its parameter weight belongs to no layer with a rule (found"),
    "renormalised": (lambda: Words(nn.Sequential(), pad=None), "module word: max_norm is not covered"),
    "weight norm": (lambda: Words(linear(nn.utils.parametrizations.weight_norm)), "module inside"),
    "old weight norm": (lambda: Words(linear(nn.utils.weight_norm)), "module inside"),
    "coupled": (lambda: Words(Norm(nn.Linear(8, 8))), "module"),
    "past its forward": (lambda: Words(Past()), "module inside.a: its rows are not examples, or it is used past"),
    "packed": (lambda: Words(Packed()), "module inside.gru: a GRU over packed sequences"),
    "dropout between layers": (
        lambda: Words(Recurrent(num_layers=2, dropout=0.1, batch_first=True)),
        "module inside.gru: dropout between layers is not covered",
    ),
    "shuffled": (lambda: Words(Shuffled()), "module inside.a: its rows are not examples"),
    "flattened": (lambda: Words(Flattened()), "the model: a recorded forward pass fails"),
}


def uncovered(name):
    model = build(UNCOVERED[name][0])
    if name == "renormalised":
        model.word.max_norm = 100.0
    return model


def layouts(one):
    """Of every kind of pass that was examined."""
    return list(one.state_dict()["weighting"]["backend"]["layouts"].values())


@pytest.mark.filterwarnings("ignore:.*weight_norm")
@pytest.mark.parametrize("name", UNCOVERED)
def test_auto_takes_logit_fd_and_says_which_module_and_ghost_refuses_before_training(name, caplog):
    model, (batches, clean) = uncovered(name), draw(1, n=12)
    before = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(ValueError, match="use backend: logit_fd") as error:
        method("ghost").backward(model, batches, clean)
    assert UNCOVERED[name][1] in str(error.value)
    assert len(str(error.value).splitlines()) <= 3
    assert same(before, list(model.parameters()))
    assert all(not m._forward_hooks and "forward" not in m.__dict__ for m in model.modules())
    one = method("auto")
    with caplog.at_level(logging.INFO, "gradworks"):
        for _ in range(2):
            report = one.backward(model, batches, clean)
    (line,) = [r.getMessage() for r in caplog.records if r.name == "gradworks"]
    assert line.startswith("reweight: backend logit_fd: ghost cannot serve ") and UNCOVERED[name][1] in line
    assert (one.weighting.taken, one.weighting.why) == ("logit_fd", line.partition("logit_fd: ")[2])
    assert report.log["finite"] == 1


def test_auto_takes_ghost_and_says_so_once(caplog):
    one, model = method("auto"), build(Net)
    with caplog.at_level(logging.INFO, "gradworks"):
        for s in range(3):
            one.backward(model, *draw(1, seed=100 + s))
    (line,) = [r.getMessage() for r in caplog.records if r.name == "gradworks"]
    assert line == "reweight: backend ghost: every trained parameter belongs to a layer with a rule"
    assert one.weighting.taken == "ghost"


def test_a_task_that_ghost_cannot_serve_moves_a_run_to_logit_fd():
    class Two(Net):
        def forward(self, ids, kind, embedded=None):
            z = super().forward(ids, kind, embedded)
            return z if kind == "three" else z + F.linear(z[:, :1], self.a.weight[:1, :1])

    one, model = method("auto"), build(Two)
    one.backward(model, *draw(1, "three"))
    assert one.weighting.taken == "ghost"
    one.backward(model, *draw(1, "reg"))
    assert one.weighting.taken == "logit_fd"
    assert "module a" in one.weighting.why


def test_what_is_trained_from_some_step_on_is_checked_then():
    one, model = method("auto"), build(Transformer)
    for name, p in model.named_parameters():
        p.requires_grad_(name.startswith("out."))
    one.backward(model, *draw(1))
    assert one.weighting.taken == "ghost"
    model.requires_grad_(True)
    one.backward(model, *draw(1))
    assert one.weighting.taken == "logit_fd"


@pytest.mark.parametrize(
    ("inside", "expected"),
    [
        (Stacked, {"inside.a": "stacked", "inside.gru": "stacked"}),
        (SequenceFirst, {"inside.a": "second", "inside.norm": "second", "inside.b": "second"}),
        (Attention, {}),
    ],
)
@pytest.mark.parametrize("n", [6, 12])  # 6 positions: the shapes alone cannot tell
def test_the_layout_of_rows_is_found_by_checking_not_by_shape(inside, expected, n):
    one, model = method(), build(lambda: Words(inside()))
    agrees(model, *draw(1, n=n, seed=103), one=one)
    assert layouts(one) == [expected]
    resumed = method()
    resumed.load_state_dict(one.state_dict())
    reports = [m.backward(model, *draw(1, n=n, seed=7)) for m in (one, resumed)]
    assert same(*([r.sums[0][0].score] for r in reports))
    assert reports[1].passes == pytest.approx(7 / 3)  # not checked again


def test_choices_are_rows_of_one_example():
    agrees(build(Net), *draw(1, "choice", n=8, seed=140))


def test_one_example_says_nothing_about_rows():
    one, model = method(), build(lambda: Words(Stacked()))
    one.backward(model, *draw(1, n=1))
    assert one.state_dict()["weighting"]["checked"] == []
    one.backward(model, *draw(1, n=12))
    assert [kind.split()[0] for kind in one.state_dict()["weighting"]["checked"]] == ["three"]
    assert layouts(one)[-1]["inside.a"] == "stacked"


@pytest.mark.parametrize("backend", ["auto", "ghost"])
def test_scores_that_logit_fd_does_not_confirm_stop_the_run_and_name_the_module(backend, monkeypatch):
    right = layers.Linear.inner

    def wrong(self, use, x, g, v):
        return right(self, use, x, g, v) * (-30 if use.name == "inside.v" else 1)

    monkeypatch.setattr(layers.Linear, "inner", wrong)
    with pytest.raises(ValueError, match="ghost and logit_fd disagree on the first batch") as error:
        method(backend).backward(build(MODELS["attention"]), *draw(1, n=12))
    assert "responsible: module inside.v (Linear)" in str(error.value)
    assert len(str(error.value).splitlines()) == 3


def test_scores_that_logit_fd_gets_wrong_do_not_stop_the_run(monkeypatch):
    """On kinks its difference errs, and a backward pass for each example says so."""
    right, wrong = build(MODELS["attention"]), build(MODELS["attention"])
    batches = draw(1, n=12)
    method("ghost").backward(right, *batches)
    asked = []

    class Wrong(agreement.LogitFd):
        def scores(self, here, outputs, losses):
            asked.append(here)
            return -super().scores(here, outputs, losses)

    monkeypatch.setattr(agreement, "LogitFd", Wrong)
    method("ghost").backward(wrong, *batches)
    assert asked
    assert all(torch.equal(p.grad, q.grad) for p, q in zip(right.parameters(), wrong.parameters(), strict=True))


def test_a_model_with_random_numbers_of_its_own_is_stopped():
    generator = torch.Generator().manual_seed(0)

    class Noisy(Bow):
        def forward(self, ids, kind="three"):
            return self.mlp(self.emb(ids).mean(1) + torch.randn(16, generator=generator, dtype=torch.float64))

    with pytest.raises(ValueError, match=r"found a generator of its own \(generator\)"):
        method("ghost").backward(build(Noisy), *draw(1, n=12))


@pytest.mark.parametrize("name", ["bow", "gru", "attention", "twice", "convolutions", "norms", "bert sdpa"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_checks_do_not_fire_falsely(name, dtype):
    model = build(MODELS[name], dtype=torch.float32)
    for p in model.parameters():
        p.data.mul_(2)  # clear kinks and saturation
    for seed in range(3):
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            method().backward(model, *draw(1, n=4 + 8 * seed, seed=500 + seed))


def test_a_model_that_is_not_finite_is_reported_not_stopped():
    model = build(Net)
    model.a.bias.data[0] = float("nan")
    assert method().backward(model, *draw(1)).log["finite"] == 0


@pytest.mark.parametrize("options", [{}, {"bidirectional": True}, {"num_layers": 2}, {"bias": False}])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("given", [True, False])
def test_the_gru_that_stands_in_is_nn_gru(options, batch_first, given):
    torch.manual_seed(0)
    module = nn.GRU(3, 4, batch_first=batch_first, **options).double()
    x = torch.randn(5, 7, 3, dtype=torch.float64, requires_grad=True)
    rows = module.num_layers * (1 + module.bidirectional)
    hx = torch.randn(rows, 5 if batch_first else 7, 4, dtype=torch.float64, requires_grad=True) if given else None
    plain = module(x, hx)
    with recording([("gru", module)], 5) as uses:
        made = module(x, hx)
    assert len(uses) == 2 * rows
    assert "forward" not in module.__dict__
    torch.testing.assert_close(made, plain, rtol=1e-13, atol=1e-14)
    grads = [torch.autograd.grad((a.sin() * 3).sum() + b.square().sum(), [x] + [hx] * given) for a, b in (made, plain)]
    torch.testing.assert_close(*grads, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", ["bow", "gru", "both ways"])
def test_our_models_of_pairs(name):
    config = {
        "rows": 30, "embedding": 5, "dropout": 0.1, "texts": 2, "layers": 3 if name == "bow" else 2, "hidden": 7,
        "mlp": 6, "bidirectional": name == "both ways", "pooling": "last", "frozen": False,
    }  # fmt: skip
    torch.manual_seed(0)
    model = (RealBow if name == "bow" else RealGru)(config, None, 3).double().train()
    task = classes(3)

    def pairs(n, seed):
        g = torch.Generator().manual_seed(seed)
        ids = torch.randint(1, 30, (n, 2, 6), generator=g)
        lengths = torch.randint(1, 7, (n, 2), generator=g)
        inputs = {"ids": ids * (torch.arange(6) < lengths[..., None]), "lengths": lengths}
        labels = torch.randint(0, 3, (n,), generator=g)
        return Batch("t", [f"{seed}-{i}" for i in range(n)], inputs, labels, torch.ones(n, dtype=torch.float64))

    one = method(tasks={"t": task})
    agrees(model, [[pairs(12, 1)]], [[pairs(5, 2)]], one=one, task=task)
    assert layouts(one) == [{}]


def test_no_weight_skips_and_counts_as_zero_beside_another_batch():
    class Nothing(Reweight):
        def rectified(self, score):
            return torch.zeros_like(score)

    model = build(Net)
    report = Method(weighting=Nothing("ghost"), tasks=TASKS).backward(model, *draw(1))
    assert report.skipped and all(p.grad is None for p in model.parameters())

    class First(Reweight):
        def gradient(self, here):
            self.nothing = here.index == 1
            return super().gradient(here)

        def rectified(self, score):
            return torch.zeros_like(score) if self.nothing else score.clamp_min(0)

    both, alone = build(Net), build(Net)
    batches, clean = draw(2)
    Method(weighting=First("ghost"), update={"erm": {"batches": 2}}, tasks=TASKS).backward(both, batches, clean)
    Method(weighting=Reweight("ghost"), tasks=TASKS).backward(alone, batches[:1], clean[:1])
    assert off(gradients(both), [None if g is None else g / 2 for g in gradients(alone)]) < 1e-14
