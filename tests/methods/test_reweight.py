"""`reweight` against equations 2-7 of Ren et al. (2018), written out with autograd, and against a per-example loop.

The rules of `ghost` are tested in test_ghost.py.
"""

import pytest
import torch
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from gradworks.methods import Method
from gradworks.methods.weightings.reweight import Reweight
from tests.methods.toys import (
    KINDS,
    MODELS,
    TASKS,
    Net,
    batch,
    build,
    draw,
    error,
    gradients,
    masks,
    same,
    split,
)  # fmt: skip

SEED = 7
FD = {"reweight": {"backend": "logit_fd"}}


def forward(model, parameters, b, split_name, micro=0):
    task = TASKS[b.task]

    class At(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self):
            return task.loss(task.outputs(self.model, b), b)

    with masks(SEED, split_name, 0, micro):
        return functional_call(At(), {f"model.{n}": p for n, p in parameters.items()})


def mean(losses, b):
    return (b.mass * losses).sum() / b.mass.sum()


def epsilon_oracle(model, train, clean):
    """u (eq. 4) by differentiating the clean loss after an inner step by the example weights eps at 0."""
    theta = {n: p.detach().clone().requires_grad_() for n, p in model.named_parameters()}
    eps = torch.zeros(len(train.ids), dtype=torch.float64, requires_grad=True)
    inner = (eps * forward(model, theta, train, "train")).sum()
    grads = torch.autograd.grad(inner, list(theta.values()), create_graph=True, materialize_grads=True)
    moved = {n: p - g for (n, p), g in zip(theta.items(), grads, strict=True)}  # eq. 2, eta = 1: it cancels
    return -torch.autograd.grad(mean(forward(model, moved, clean, "clean"), clean), eps)[0]  # eq. 3, 4


def loop_oracle(model, train, clean):
    """u as one inner product per example."""
    theta = {n: p.detach().clone().requires_grad_() for n, p in model.named_parameters()}
    every = list(theta.values())
    v = torch.autograd.grad(mean(forward(model, theta, clean, "clean"), clean), every, materialize_grads=True)
    losses = forward(model, theta, train, "train")
    rows = [torch.autograd.grad(l, every, retain_graph=True, materialize_grads=True) for l in losses]
    return torch.stack([sum((a * b).sum() for a, b in zip(v, row, strict=True)) for row in rows])


def weighted_oracle(model, train, u):
    """The gradient of eq. 7's sum, weights of eq. 5 and 6."""
    theta = {n: p.detach().clone().requires_grad_() for n, p in model.named_parameters()}
    w = u.clamp_min(0) * train.mass
    loss = (w / w.sum() * forward(model, theta, train, "train")).sum()
    return torch.autograd.grad(loss, list(theta.values()), materialize_grads=True)


def filled(model):
    return [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("trained", [0, 30])
def test_logit_fd_agrees_with_the_epsilon_oracle_with_dropout_on(name, dtype, trained):
    model = build(MODELS[name])
    plain, optimizer = Method(tasks=TASKS), torch.optim.Adam(model.parameters(), 1e-2)
    for s in range(trained):
        plain.backward(model, draw(1, n=16, seed=1000 + s)[0])
        optimizer.step()
    (train,), (clean,) = (side[0] for side in draw(1, n=16, clean_n=8))
    with sdpa_kernel(SDPBackend.MATH):  # the fused kernels have no double backward
        u, by_loop = epsilon_oracle(model, train, clean), loop_oracle(model, train, clean)
        expected = weighted_oracle(model, train, u)
    torch.testing.assert_close(u, by_loop, rtol=1e-10, atol=1e-12)
    assert 0 < (u > 0).sum() < len(u)  # both signs, else nothing is told apart
    model = model.to(dtype)
    report = Method(weighting=FD, tasks=TASKS, seed=SEED).backward(model, [[train]], [[clean]])
    found = report.sums[0][0].score.double()
    bound = 1e-6 if dtype == torch.float64 else 1e-3
    assert float((found - u).norm() / u.norm()) < bound
    clear = u.abs() > bound * u.abs().max()
    assert torch.equal(found[clear] > 0, u[clear] > 0)
    assert error(filled(model), expected) < bound


@pytest.mark.parametrize(("backend", "bound"), [("ghost", 1e-10), ("logit_fd", 1e-6)])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_head_agrees_with_the_oracle(kind, backend, bound):
    model = build(Net)
    (train,), (clean,) = (side[0] for side in draw(1, kind, n=8, seed=140))
    u = epsilon_oracle(model, train, clean)
    method = Method(weighting={"reweight": {"backend": backend}}, tasks=TASKS, seed=SEED)
    report = method.backward(model, [[train]], [[clean]])
    assert float((report.sums[0][0].score - u).norm() / u.norm()) < bound
    assert error(filled(model), weighted_oracle(model, train, u)) < bound
    torch.testing.assert_close(report.sums[0][0].weights, u.clamp_min(0) * train.mass, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("backend", ["ghost", "logit_fd"])
def test_pinned_scores(backend):
    """From the epsilon oracle, so that a change of oracle and method together is seen too."""
    method = Method(weighting={"reweight": {"backend": backend}}, tasks=TASKS, seed=SEED)
    report = method.backward(build(Net), *draw(1, n=4))
    pinned = torch.tensor(PINNED, dtype=torch.float64)
    (train,), (clean,) = (side[0] for side in draw(1, n=4))
    torch.testing.assert_close(epsilon_oracle(build(Net), train, clean), pinned, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(report.sums[0][0].score, pinned, rtol=1e-4, atol=1e-6)


PINNED = [2.2443045, -0.9864773, -1.1422256, -1.0231160]


def test_weights_are_normalised_over_all_micro_batches_not_within_each():
    model = build(Net).eval()
    (whole,), clean = draw(1, n=8)[0][0], draw(1, n=8)[1]
    weights = {}
    for name, parts in (("whole", [whole]), ("parts", split(whole, 4))):
        report = Method(weighting="reweight", tasks=TASKS).backward(model, [parts], clean)
        weights[name] = torch.cat([s.weights for s in report.sums[0]])
    torch.testing.assert_close(weights["whole"], weights["parts"], rtol=1e-6, atol=1e-12)


def test_the_clean_gradient_is_taken_over_all_clean_micro_batches():
    model = build(Net).eval()
    batches, ((clean,),) = draw(1, n=8)
    scores = [
        Method(weighting="reweight", tasks=TASKS).backward(model, batches, [parts]).sums[0][0].score
        for parts in ([clean], split(clean, 3))
    ]
    torch.testing.assert_close(*scores, rtol=1e-6, atol=1e-12)


def test_the_distance_is_measured_at_first_and_then_follows():
    model = build(Net, dtype=torch.float32)
    method = Method(weighting=FD, tasks=TASKS)
    first = method.backward(model, *draw(1)).passes
    distance = method.state_dict()["weighting"]["backend"]["distance"]
    assert first > 7 / 3  # calibration
    for p in model.parameters():
        p.data.mul_(3)  # another model: outputs change more per distance
    for s in range(6):
        assert method.backward(model, *draw(1, seed=200 + s)).passes == pytest.approx(7 / 3)
    assert method.state_dict()["weighting"]["backend"]["distance"] < distance / 2


def test_no_positive_score_skips_the_step():
    """Eq. 6's indicator: the clean batch is the train batch with every label moved to what is least likely."""
    model = build(Net).eval()
    train = batch("one", 6)
    clean = batch("one", 6)
    clean.labels = 1 - train.labels
    model.heads["one"].weight.data.zero_()  # p = 1/2 for all: opposite labels have exactly opposite gradients
    train.inputs[:] = train.inputs[0]
    clean.inputs[:] = train.inputs[0]
    train.labels[:], clean.labels[:] = 1, 0
    report = Method(weighting="reweight", tasks=TASKS).backward(model, [[train]], [[clean]])
    assert report.skipped
    assert (report.sums[0][0].score < 0).all()
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize(("backend", "bound"), [("ghost", 1e-14), ("logit_fd", 0)])
def test_equal_weights_are_erm(backend, bound):
    class Equal(Reweight):
        def rectified(self, score):
            return torch.ones_like(score)

    model, plain = build(Net), build(Net)
    batches, clean = draw(1)
    Method(weighting=Equal(backend), tasks=TASKS).backward(model, batches, clean)
    Method(tasks=TASKS).backward(plain, batches)
    assert error(gradients(model), gradients(plain)) <= bound
    assert [g is None for g in gradients(model)] == [g is None for g in gradients(plain)]


def run(steps, cut=None, **options):
    """Reports of some steps with an optimizer, the state taken and given back before step `cut`."""
    model, reports = build(Net), []
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    method = Method(weighting={"reweight": options}, tasks=TASKS, seed=SEED)
    for s in range(steps):
        if s == cut:
            state, method = method.state_dict(), Method(weighting={"reweight": options}, tasks=TASKS, seed=SEED)
            method.load_state_dict(state)
        reports.append(method.backward(model, *draw(1, seed=100 + s)))
        optimizer.step()
    return reports, list(model.parameters())


@pytest.mark.parametrize("backend", ["ghost", "logit_fd"])
def test_every_k_th_step_is_scored_and_every_label_counts_the_same_between(backend):
    every, (reports, _) = 3, run(7, backend=backend, every=3)
    for s, report in enumerate(reports):
        (one,) = report.sums[0]
        if s % every:
            assert one.score is None
            assert torch.equal(one.weights, torch.ones(6, dtype=torch.float64))
            assert report.passes == 1  # no clean pass
        else:
            torch.testing.assert_close(one.weights, one.score.clamp_min(0))
    assert [r.passes for r in reports[3::3]] == pytest.approx([7 / 3] * 2)


@pytest.mark.parametrize("backend", ["auto", "logit_fd"])
@pytest.mark.parametrize("cut", [1, 2, 3])
def test_a_resumed_run_scores_the_same_steps(backend, cut):
    (_, whole), (reports, resumed) = run(5, backend=backend, every=2), run(5, cut, backend=backend, every=2)
    assert same(whole, resumed)
    assert reports[2].passes == pytest.approx(7 / 3)  # nothing is checked or calibrated again


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"backend": "magic"}, "backend: found 'magic', expected one of auto, ghost, logit_fd, head, jvp, per_example"),
        ({"every": 0}, "every: found 0, expected a whole number of at least 1"),
        ({"backend": "ghost", "tau": 1e-3}, "tau: found with backend ghost, expected with logit_fd or auto"),
    ],
)
def test_options_are_checked(options, said):
    with pytest.raises(ValueError, match="reweight: ") as error:
        Method(weighting={"reweight": options}, tasks=TASKS)
    assert said in str(error.value)


@pytest.mark.parametrize("backend", ["ghost", "logit_fd", "jvp", "per_example", "second_order"])
def test_every_backend_makes_the_same_step(backend):
    model, reference = build(Net), build(Net)
    for one, name in ((reference, "ghost"), (model, backend)):
        Method(weighting={"reweight": {"backend": name}}, tasks=TASKS, seed=SEED).backward(one, *draw(1, n=8))
    assert error(gradients(model), gradients(reference)) < (1e-6 if backend == "logit_fd" else 1e-12)


@pytest.mark.parametrize("tau", [1e-4, 1e-2])
def test_tau_is_the_change_of_the_outputs(tau):
    model = build(Net).eval()
    method = Method(weighting={"reweight": {"backend": "logit_fd", "tau": tau}}, tasks=TASKS)
    for _ in range(8):
        method.backward(model, *draw(1, n=32, seed=100))
    distance = method.state_dict()["weighting"]["backend"]["distance"]
    (train,), (clean,) = (side[0] for side in draw(1, n=32, seed=100))
    theta = list(model.parameters())
    v = torch.autograd.grad(
        TASKS["three"].loss(TASKS["three"].outputs(model, clean), clean).mean(), theta, materialize_grads=True
    )
    length = torch.cat([t.flatten() for t in v]).norm()
    with torch.no_grad():
        z = model(train.inputs, "three")
        for p, t in zip(theta, v, strict=True):
            p += t * distance / length
        rms = (model(train.inputs, "three") - z).square().mean().sqrt()
    assert float(rms) == pytest.approx(tau, rel=0.05)
