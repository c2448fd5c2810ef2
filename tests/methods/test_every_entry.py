"""Every entry of every slot, found by listing the folders, on every kind of head."""

import itertools
from pathlib import Path

import pytest
import torch

import gradworks.methods
from gradworks.methods import Method
from tests.methods.toys import KINDS, TASKS, Net, build, draw, flat, gradients, same

FOLDER = Path(gradworks.methods.__file__).parent
ENTRIES = {
    slot: sorted(p.stem for p in (FOLDER / slot).glob("*.py") if not p.stem.startswith("_"))
    for slot in ("objectives", "weightings", "updates")
}
TRIPLES = list(itertools.product(*ENTRIES.values()))


def step(triple, kind, model, **options):
    method = Method(*triple, tasks=TASKS, seed=3, **options)
    report = method.backward(model, *draw(method.batches, kind))
    return method, report, gradients(model)


@pytest.mark.parametrize("triple", TRIPLES, ids="-".join)
@pytest.mark.parametrize("kind", KINDS)
def test_a_step_is_finite_repeatable_and_touches_only_grad(triple, kind):
    model = build(Net)
    before = [p.detach().clone() for p in model.parameters()]
    memory = [(p.data_ptr(), p._version) for p in model.parameters()]
    torch.manual_seed(11)
    random = torch.get_rng_state()
    _, report, first = step(triple, kind, model)
    assert torch.equal(torch.get_rng_state(), random)
    assert same(before, list(model.parameters()))
    assert [(p.data_ptr(), p._version) for p in model.parameters()] == memory
    assert not report.skipped
    assert report.log["finite"] == 1.0
    assert all(g is None or torch.isfinite(g).all() for g in first)
    torch.manual_seed(12)  # the state of the global generator must not matter
    assert same(step(triple, kind, build(Net))[2], first)


@pytest.mark.parametrize("triple", TRIPLES, ids="-".join)
def test_parameters_that_no_batch_reaches_keep_no_gradient(triple):
    model = build(Net)
    step(triple, "three", model)
    unreached = {n for n, p in model.named_parameters() if p.grad is None}
    expected = {n for n, _ in model.named_parameters() if n.startswith("heads.") and not n.startswith("heads.three")}
    assert unreached == expected


@pytest.mark.parametrize("triple", TRIPLES, ids="-".join)
def test_frozen_parameters_are_left_alone(triple):
    model = build(Net)
    model.emb.weight.requires_grad_(False)
    step(triple, "three", model)
    assert model.emb.weight.grad is None
    assert model.a.weight.grad is not None


@pytest.mark.parametrize("triple", TRIPLES, ids="-".join)
def test_running_statistics_move_as_in_one_plain_pass_over_each_batch(triple):
    model, plain = build(Net, norm=True), build(Net, norm=True)
    model.drop.p = plain.drop.p = 0.0
    method = Method(*triple, tasks=TASKS)
    batches, clean = draw(method.batches)
    method.backward(model, batches, clean)
    for (b,) in batches:
        plain(b.inputs, "three")
    assert model.norm.num_batches_tracked == plain.norm.num_batches_tracked == method.batches
    # a central difference visits its second batch beside theta, at the distance of a finite difference
    torch.testing.assert_close(model.norm.running_mean, plain.norm.running_mean, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(model.norm.running_var, plain.norm.running_var, rtol=1e-3, atol=1e-5)
    assert model.norm.track_running_stats


@pytest.mark.parametrize("triple", TRIPLES, ids="-".join)
def test_a_resumed_run_ends_bit_identical(triple):
    def run(cut):
        method, model = Method(*triple, tasks=TASKS, seed=5), build(Net)
        optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
        for s in range(6):
            if s == cut:
                state = method.state_dict()
                method = Method(*triple, tasks=TASKS, seed=5)
                method.load_state_dict(state)
                torch.manual_seed(999)
            method.backward(model, *draw(method.batches, seed=100 + 7 * s))
            optimizer.step()
        return [p.detach() for p in model.parameters()], method.state_dict()

    (whole, state), (cut, resumed) = run(None), run(3)
    assert same(whole, cut)
    assert state == resumed


@pytest.mark.parametrize("triple", TRIPLES, ids="-".join)
@pytest.mark.parametrize("kind", ["three", "seq"])
def test_accumulated_equals_unaccumulated_without_dropout(triple, kind):
    def run(micro):
        model = build(Net).eval()
        method = Method(*triple, tasks=TASKS)
        method.backward(model, *draw(method.batches, kind, micro=micro))
        return flat(gradients(model))

    whole, parts = run(None), run(2)
    finite_difference = triple[1] == "reweight" or triple[2] == "dotprod"
    assert float((whole - parts).norm() / whole.norm()) < (1e-8 if finite_difference else 1e-12)


@pytest.mark.parametrize("triple", TRIPLES, ids="-".join)
def test_counted_passes_are_what_module_hooks_see(triple):
    model = build(Net)
    method = Method(*triple, tasks=TASKS)
    method.backward(model, *draw(method.batches))  # the first step may calibrate
    seen = {"forward": 0, "backward": 0}

    def forward(module, args, out):
        seen["forward"] += len(args[0])
        if out.requires_grad:
            out.register_hook(lambda g: seen.__setitem__("backward", seen["backward"] + len(g)))

    handle = model.heads["three"].register_forward_hook(forward)
    report = method.backward(model, *draw(method.batches, seed=200, clean_n=3))
    handle.remove()
    assert report.passes == pytest.approx((seen["forward"] + 2 * seen["backward"]) / 3 / 6)


@pytest.mark.parametrize(
    ("triple", "floor"),
    [
        (("supervised", "uniform", "erm"), 1.0),
        (("supervised", "random", "erm"), 1.0),
        (("supervised", "reweight", "erm"), (4 + 3 / 2) / 3),
        (("supervised", "uniform", "dotprod"), 3.0),
        (("supervised", "reweight", "dotprod"), 3.0 + 2 * (1 + 3 / 2) / 3),
    ],
    ids=lambda v: "-".join(v) if isinstance(v, tuple) else None,
)
def test_the_cost_in_passes_is_the_floor(triple, floor):
    model = build(Net)
    method = Method(*triple, tasks=TASKS)
    method.backward(model, *draw(method.batches))
    report = method.backward(model, *draw(method.batches, seed=300, clean_n=3))
    assert all(float(part.weights.sum()) > 0 for parts in report.sums for part in parts)
    assert report.passes == pytest.approx(floor)
