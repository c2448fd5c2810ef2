"""`hard_mining` against sorting by hand."""

import math

import pytest
import torch

from gradworks.methods import Method
from gradworks.methods.objectives.rdrop import RDrop
from gradworks.methods.objectives.smart import Smart
from gradworks.methods.weightings.hard_mining import _largest, _ordered
from tests.methods.toys import KINDS, TASKS, Net, batch, build, draw, error, flat, gradients, masks, same, split

SEED = 7


def make(keep=0.5, objective="supervised", update="erm", **options):
    return Method(objective, {"hard_mining": {"keep": keep}}, update, tasks=TASKS, seed=SEED, **options)


def joined(report, name):
    return torch.cat([getattr(part, name) for parts in report.sums for part in parts])


def by_sorting(losses, mass, keep):
    """The share of highest losses; the number is rounded up, equal losses share their fate."""
    order = sorted(losses.tolist(), reverse=True)
    last = order[math.ceil(round(keep * len(order), 6)) - 1]
    return torch.tensor([float(l >= last) for l in losses.tolist()], dtype=torch.float64) * mass


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("keep", [0.01, 0.3, 0.5, 0.7, 1])
@pytest.mark.parametrize("micro", [None, 4, 3])
def test_the_highest_losses_of_the_whole_batch_count(kind, keep, micro):
    whole = batch(kind, 10)
    parts = split(whole, micro) if micro else [whole]
    model = build(Net)
    losses = []
    for m, b in enumerate(parts):
        with masks(SEED, "train", 0, m), torch.no_grad():
            losses.append(TASKS[kind].loss(TASKS[kind].outputs(model, b), b))
    report = make(keep).backward(model, [parts])
    expected = by_sorting(torch.cat(losses), whole.mass, keep)
    assert torch.equal(joined(report, "weights"), expected)
    assert (expected > 0).sum() == max(1, math.ceil(round(keep * 10, 6)))


def test_the_number_is_rounded_up_but_not_by_rounding_errors():
    for keep, n, expected in ((0.28, 25, 7), (0.3, 25, 8)):
        assert joined(make(keep).backward(build(Net), draw(1, n=n)[0]), "weights").sum() == expected


def test_the_gradient_is_that_of_the_chosen_examples():
    model, plain = build(Net), build(Net)
    ((b,),) = draw(1, n=8)[0]
    report = make(0.25).backward(model, [[b]])
    with masks(SEED, "train", 0):
        losses = TASKS["three"].loss(TASKS["three"].outputs(plain, b), b)
    losses.topk(2).values.mean().backward()
    assert error(gradients(model), gradients(plain)) < 1e-14
    assert report.passes == pytest.approx(1)


PINNED = [0.0, 1.0, 1.0, 0.0, 0.0, 0.0]  # of the two highest of six losses, sorted by hand


def test_pinned_choice():
    assert joined(make(0.3).backward(build(Net), draw(1)[0]), "weights").tolist() == PINNED


@pytest.mark.parametrize("micro", [None, 2])
def test_keeping_all_is_erm(micro):
    model, plain = build(Net), build(Net)
    make(1).backward(model, draw(1, "seq", micro=micro)[0])
    Method(tasks=TASKS, seed=SEED).backward(plain, draw(1, "seq", micro=micro)[0])
    assert same(gradients(model), gradients(plain))


@pytest.mark.parametrize("objective", [lambda: "supervised", RDrop, Smart], ids=["supervised", "rdrop", "smart"])
@pytest.mark.parametrize("kind", ["three", "seq"])
def test_accumulated_equals_unaccumulated_without_dropout(objective, kind):
    found = []
    for micro in (None, 2):
        model = build(Net).eval()
        make(objective=objective()).backward(model, draw(1, kind, n=8, micro=micro)[0])
        found.append(gradients(model))
    # smart's ascent direction of 1e-3 differs in rounding, and its normalisation makes that visible
    assert error(*found) < (1e-9 if objective is Smart else 1e-12)


@pytest.mark.parametrize(
    ("objective", "alone", "thirds"),
    [
        (lambda: "supervised", 3, 1),
        (RDrop, 6, 2),
        # the first pass is made twice: once with the ascent's backward pass and the teacher
        (Smart, 8, 2),
    ],
    ids=["supervised", "rdrop", "smart"],
)
def test_choosing_over_micro_batches_costs_a_forward_pass(objective, alone, thirds):
    found = []
    for micro in (None, 4):
        method, model = make(objective=objective()), build(Net)
        for seed in (100, 200):  # the first step measures shares of gradient too
            report = method.backward(model, draw(1, n=8, seed=seed, micro=micro)[0])
        found.append(report.passes)
    assert found == [pytest.approx(alone / 3), pytest.approx((alone + thirds) / 3)]


@pytest.mark.parametrize("update", ["central", "one_sided"])
@pytest.mark.parametrize("micro", [None, 4])
def test_hold_law_dotprod_differences_one_function(update, micro):
    found = {}
    for form in (update, "exact"):
        model = build(Net)
        method = make(objective=Smart(), update={"dotprod": {"form": form}})
        assert method.weighting.holds
        method.backward(model, draw(2, n=8, seed=104, micro=micro)[0])
        found[form] = gradients(model)
    assert error(found[update], found["exact"]) < 1e-6


def test_running_statistics_move_once_per_micro_batch():
    for objective in ("supervised", Smart(0.0, 0.0)):
        model, plain = build(Net, norm=True), build(Net, norm=True)
        model.drop.p = plain.drop.p = 0.0
        ((parts),) = draw(1, n=8, micro=4)[0]
        make(objective=objective).backward(model, [parts])
        for b in parts:
            plain(b.inputs, "three")
        assert model.norm.num_batches_tracked == plain.norm.num_batches_tracked
        torch.testing.assert_close(model.norm.running_mean, plain.norm.running_mean, rtol=1e-10, atol=1e-12)


def test_ranks_choose_together():
    """One rank's sums are the other's and its own: what both send, step by step, is recorded and added."""
    whole, model = batch(n=8, seed=102), build(Net)
    parts = split(whole, 4)
    both = make().backward(model, [parts])
    records = {0: [], 1: []}
    for _ in range(12):  # each round settles one reduction more: the other's part of it is known by then
        for rank in (0, 1):
            found, others, count = [], records[1 - rank], iter(range(99))

            def reduce(tensors, found=found, others=others, count=count):
                at = next(count)
                found.append([t.clone() for t in tensors])
                if at < len(others) and [t.shape for t in others[at]] == [t.shape for t in tensors]:
                    for t, other in zip(tensors, others[at], strict=True):
                        t += other

            report = make(reduce=reduce, rank=rank).backward(build(Net), [[parts[rank]]])
            records[rank] = found
            assert len(found) >= 9
            if rank:
                second = report
            else:
                first = report
    assert torch.equal(torch.cat([joined(first, "weights"), joined(second, "weights")]), joined(both, "weights"))
    assert joined(first, "weights").sum() != joined(second, "weights").sum()  # else each could have chosen alone


def test_the_kth_largest_by_histograms_is_the_one_of_sorting():
    g = torch.Generator().manual_seed(0)
    values = torch.cat([
        torch.randn(200, generator=g, dtype=torch.float64) * 10.0 ** torch.randint(-300, 300, (200,), generator=g),
        torch.tensor([0.0, -0.0, 1.0, 1.0, 1.0, math.inf, -math.inf, math.nan, -math.nan], dtype=torch.float64),
    ])  # fmt: skip
    keys = _ordered(values)
    expected = torch.nan_to_num(values, nan=math.inf).sort(descending=True).values
    for k in (1, 2, 3, 4, 50, 104, 105, 106, 207, 208, 209):
        chosen = keys >= _largest(keys, k, lambda tensors: None)
        assert chosen.sum() >= k
        assert torch.nan_to_num(values[chosen], nan=math.inf).min() == expected[k - 1]
    assert _ordered(torch.tensor([math.nan, -math.nan])).unique().numel() == 1
    assert _ordered(torch.tensor([0.0, -0.0])).unique().numel() == 1


def test_equal_losses_share_their_fate():
    for micro in (1, 2, 6):
        parts = split(batch(n=6), micro)
        for b in parts:
            b.inputs[:], b.labels[:] = 3, 1
        report = make(0.3).backward(build(Net).eval(), [parts])
        assert joined(report, "weights").tolist() == [1.0] * 6


@pytest.mark.parametrize("micro", [None, 3])
def test_a_loss_that_is_not_a_number_is_not_hidden(micro):
    class Sick:
        def __init__(self):
            self.inner = TASKS["three"]

        def outputs(self, model, b):
            return self.inner.outputs(model, b)

        def loss(self, out, b):
            losses = self.inner.loss(out, b)
            return torch.where(b.inputs[:, 0] == 7, math.nan, 1) * losses

    whole = batch(n=6)
    whole.inputs[:, 0] = torch.tensor([1, 2, 7, 3, 4, 5])
    method = Method(weighting="hard_mining", task=Sick(), seed=SEED)
    report = method.backward(build(Net), [split(whole, micro) if micro else [whole]])
    assert joined(report, "weights")[2] == 1
    assert report.log["finite"] == 0
    assert not torch.isfinite(flat([part.losses for parts in report.sums for part in parts])).all()


@pytest.mark.parametrize("keep", [0, -0.1, 1.5, "half", True, math.nan])
def test_options(keep):
    with pytest.raises(ValueError, match="weighting hard_mining: keep: found"):
        make(keep)
