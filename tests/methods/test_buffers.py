"""Buffers that move in forward: after a step as one plain pass over each batch leaves them, at rest in all others.

The oracles differentiate, by plain autograd, the model with its buffers fixed at what the plain pass read.
"""

import pytest
import torch
from torch import nn
from torch.ao.quantization import FakeQuantize, MovingAverageMinMaxObserver
from torch.func import functional_call

from gradworks.methods import Method
from tests.methods.own_models import BATCHES, MOVING, Classes, Net, Turned, gradient, group, made, off
from tests.methods.shipped import STAR

TASK = Classes()
PENALTY, RHO, TERM = 0.1, 0.05, 0.1


def buffers(model):
    return {f"{name}.{key}": b.clone() for name, m in model.named_modules() for key, b in m._buffers.items()}


class Fixed:
    """The mean loss of batch i as a function of the parameters, its buffers as the plain pass over it read them."""

    def __init__(self, name, count):
        build, late = MOVING[name]
        self.model, self.read = made(build), []
        for i in range(count):
            before = buffers(self.model)
            with torch.no_grad():
                self.model(BATCHES[i].inputs)
            self.read.append(before if late else buffers(self.model))
        self.after = buffers(self.model)
        self.model.eval()
        self.names = [n for n, _ in self.model.named_parameters()]
        self.theta = [p.detach().clone().requires_grad_() for p in self.model.parameters()]

    def loss(self, i, theta):
        state = dict(zip(self.names, theta, strict=True)) | self.read[i]
        out = (functional_call(self.model, state, (BATCHES[i].inputs,)),)
        return TASK.loss(out, BATCHES[i]).mean()

    def gradient(self, i, theta=None, graph=False):
        theta = self.theta if theta is None else theta
        return torch.autograd.grad(self.loss(i, theta), theta, create_graph=graph)

    def hessian(self, i, v):
        return torch.autograd.grad(self.gradient(i, graph=True), self.theta, grad_outputs=v)


def sam(f):
    g = f.gradient(0)
    size = torch.cat([t.flatten() for t in g]).norm()
    return f.gradient(0, [(t + RHO * d / size).detach().requires_grad_() for t, d in zip(f.theta, g, strict=True)])


def penalty(f):
    g = f.gradient(0)
    return [a + PENALTY * b for a, b in zip(g, f.hessian(0, g), strict=True)]


def dotprod(f):
    g, h = f.gradient(0), f.gradient(1)
    return [(a + b - TERM * c) / 2 for a, b, c in zip(g, h, f.hessian(1, g), strict=True)]


ORACLES = {
    "erm": ("erm", 1, lambda f: f.gradient(0)),
    "sam": ({"sam": {"rho": RHO}}, 1, sam),
    "penalty": ({"grad_norm_penalty": {"weight": PENALTY}}, 1, penalty),
    "penalty_exact": ({"grad_norm_penalty": {"weight": PENALTY, "form": "exact"}}, 1, penalty),
    "dotprod": ({"dotprod": {"weight": TERM}}, 2, dotprod),
    "one_sided": ({"dotprod": {"weight": TERM, "form": "one_sided"}}, 2, dotprod),
}


@pytest.mark.parametrize("update", ORACLES)
@pytest.mark.parametrize("name", MOVING)
def test_every_pass_of_a_batch_reads_what_its_plain_pass_read(name, update):
    chosen, count, oracle = ORACLES[update]
    fixed, model = Fixed(name, count), made(MOVING[name][0])
    report = Method(update=chosen, task=TASK).backward(model, [[BATCHES[i]] for i in range(count)])
    expected = torch.cat([t.detach().flatten() for t in oracle(fixed)])
    assert off(gradient(model), expected) < 1e-6
    assert report.log["finite"] == 1
    for key, found in buffers(model).items():
        torch.testing.assert_close(found, fixed.after[key], rtol=0, atol=1e-12)


@pytest.mark.parametrize("micro", [1, 2])
@pytest.mark.parametrize("triple", [t for t in STAR if t[2] not in ("maml", "fomaml", "reptile")], ids="-".join)
@pytest.mark.parametrize("name", ["spectral", "replaced", "late"])
def test_every_entry_leaves_buffers_as_one_pass_over_each_batch(name, triple, micro):
    model, plain = made(MOVING[name][0]), made(MOVING[name][0])
    method = Method(*triple, task=TASK)
    for step in range(2):
        batches, clean = group(method, step, micro)
        method.backward(model, batches, clean)
        with torch.no_grad():
            for batch in [b for drawn in batches for b in drawn]:
                plain(batch.inputs)
    for key, found in buffers(plain).items():
        torch.testing.assert_close(buffers(model)[key], found, rtol=0, atol=1e-12)


def test_the_scores_of_a_finite_difference_are_those_of_the_fixed_model():
    """A pass beside theta that writes what it likes would give scores of 1e11."""
    fixed, model = Fixed("late", 1), made(MOVING["late"][0])
    method = Method(weighting={"reweight": {"backend": "logit_fd"}}, task=TASK)
    score = method.backward(model, [[BATCHES[0]]], [[BATCHES[5]]]).sums[0][0].score
    fixed.read.append(buffers(made(MOVING["late"][0])))  # of the clean batch: as they are when the step begins
    state = dict(zip(fixed.names, fixed.theta, strict=True)) | fixed.read[1]
    out = (functional_call(fixed.model, state, (BATCHES[5].inputs,)),)
    v = torch.autograd.grad(TASK.loss(out, BATCHES[5]).mean(), fixed.theta)
    state |= fixed.read[0]
    losses = TASK.loss((functional_call(fixed.model, state, (BATCHES[0].inputs,)),), BATCHES[0])
    rows = [torch.autograd.grad(one, fixed.theta, retain_graph=True) for one in losses]
    expected = torch.stack([sum((a * b).sum() for a, b in zip(v, row, strict=True)) for row in rows])
    assert off(score / score.norm(), expected / expected.norm()) < 1e-5


def test_a_teacher_and_its_model_read_the_same_at_the_first_step():
    """The first step of the proximal term: the teacher is the model, so that it adds nothing, in any micro-batch."""
    model, plain = made(MOVING["centred"][0]), made(MOVING["centred"][0])
    smart = {"smart": {"smoothness": 0, "proximal": 1.0}}
    log = Method(smart, task=TASK).backward(model, [BATCHES[:3]]).log
    assert log["proximal"] == 0
    Method(task=TASK).backward(plain, [BATCHES[:3]])
    assert off(gradient(model), gradient(plain)) < 1e-12


@pytest.mark.parametrize("norm", [nn.InstanceNorm1d, nn.BatchNorm1d])
@pytest.mark.parametrize("update", ORACLES)
def test_a_normalisation_in_eval_reads_its_statistics_in_every_pass(norm, update):
    """InstanceNorm with track_running_stats: an affine function with these statistics, nothing of the batch."""
    chosen, count, oracle = ORACLES[update]
    model = made(lambda: Net(lambda: Turned(norm(8, affine=False, track_running_stats=True))))
    with torch.no_grad():
        [model(b.inputs) for b in BATCHES]
    one = model.middle.norm.eval()
    mean, std = one.running_mean.clone(), (one.running_var + one.eps).sqrt()

    class Hand(nn.Module):
        def forward(self, x):
            return (x - mean) / std

    fixed = Fixed.__new__(Fixed)
    fixed.model = made(lambda: Net(Hand))
    fixed.names = [n for n, _ in fixed.model.named_parameters()]
    fixed.theta, fixed.read = [p.detach().clone().requires_grad_() for p in model.parameters()], [{}, {}]
    Method(update=chosen, task=TASK).backward(model, [[BATCHES[i]] for i in range(count)])
    assert off(gradient(model), torch.cat([t.flatten() for t in oracle(fixed)])) < 1e-6
    assert torch.equal(one.running_mean, mean)


@pytest.mark.parametrize("update", ["sam", "dotprod", "grad_norm_penalty"])
def test_what_quantisation_observes_moves_once(update):
    def build():
        return Net(lambda: FakeQuantize(observer=MovingAverageMinMaxObserver, quant_min=0, quant_max=255))

    model, plain = made(build, dtype=torch.float32), made(build, dtype=torch.float32)
    method = Method(update=update, task=TASK)
    batches, _ = group(method)
    assert method.backward(model, batches).log["finite"] == 1
    with torch.no_grad():
        [plain(b.inputs) for (b,) in batches]
    for key, found in buffers(plain).items():
        torch.testing.assert_close(buffers(model)[key], found, rtol=1e-6, atol=1e-6)


def test_forward_mode_is_refused_where_it_would_reach_what_is_held():
    method = Method(weighting={"reweight": {"backend": "jvp"}}, task=TASK)
    with pytest.raises(ValueError, match=r"backend jvp: found buffers that the model moves and reads.*middle\.mean"):
        method.backward(made(MOVING["centred"][0]), [[BATCHES[0]]], [[BATCHES[5]]])


@pytest.mark.parametrize("name", ["centred", "replaced", "spectral"])
@pytest.mark.parametrize("slots", [{"update": "sam"}, {"update": "dotprod"}, {"objective": "rdrop"}], ids=str)
def test_a_compiled_model_holds_the_same(name, slots):
    def run(wrap):
        model = wrap(made(MOVING[name][0]))
        method = Method(task=TASK, **slots)
        method.backward(model, group(method)[0])
        return gradient(model), list(model.buffers())

    torch.compiler.reset()
    (found, moved), (expected, plain) = run(lambda m: torch.compile(m, backend="aot_eager")), run(lambda m: m)
    assert off(found, expected) < 1e-6
    assert all(torch.allclose(a, b, atol=1e-9) for a, b in zip(moved, plain, strict=True))


def test_a_module_that_is_exchanged_between_steps_rests_too():
    """As `prepare_qat` exchanges modules: no parameter is another."""
    model, plain = made(Net), made(Net)
    method = Method(update="sam", task=TASK)
    method.backward(model, [[BATCHES[0]]])
    for one in (model, plain):
        one.middle = MOVING["centred"][0]().middle
    method.backward(model, [[BATCHES[1]]])
    with torch.no_grad():
        plain(BATCHES[1].inputs)
    assert torch.equal(model.middle.mean, plain.middle.mean)


def test_a_ghost_that_is_asked_for_looks_twice_at_buffers_that_rest():
    method = Method(weighting={"reweight": {"backend": "ghost"}}, task=TASK)
    model, plain = made(MOVING["centred"][0]), made(MOVING["centred"][0])
    method.backward(model, [[BATCHES[0]]], [[BATCHES[5]]])
    with torch.no_grad():
        plain(BATCHES[0].inputs)
    assert torch.equal(model.middle.mean, plain.middle.mean)


class Padded(nn.Module):
    """Reads padded positions, which the fast path of attention in eval sets to zero."""

    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.e, self.layers, self.h = nn.Embedding(50, 8), nn.TransformerEncoder(layer, 2), nn.Linear(8, 3)

    def forward(self, ids, embedded=None):
        padding = torch.zeros(ids.shape, dtype=torch.bool)
        padding[::2, 3:] = True
        x = self.e(ids) if embedded is None else embedded
        return self.h(self.layers(x, src_key_padding_mask=padding).mean(1))


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize(
    "slots",
    [{"weighting": {"reweight": {"backend": "logit_fd"}}}, {"weighting": "reweight"}, {"objective": "smart"},
     {"weighting": "hard_mining"}],
    ids=str,
)  # fmt: skip
def test_passes_without_a_graph_take_the_path_of_those_with_one(slots, monkeypatch):
    def run():
        model, method = made(Padded).eval(), Method(task=TASK, **slots)
        batches, clean = group(method, micro=2)
        method.backward(model, batches, clean)
        return gradient(model)

    found = run()
    assert torch.backends.mha.get_fastpath_enabled()
    monkeypatch.setattr(torch.nn.TransformerEncoderLayer, "forward", slow(torch.nn.TransformerEncoderLayer.forward))
    assert off(found, run()) < 1e-12


def slow(forward):
    """With a graph there is one path."""

    def run(self, *args, **kwargs):
        graph = torch.is_grad_enabled()
        with torch.enable_grad():
            made = forward(self, *args, **kwargs)
        return made if graph else made.detach()

    return run
