"""Every combination of entries, found by listing the folders: what each must keep, and what each costs."""

import itertools

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from gradworks.methods import Method
from tests.methods.shipped import ENTRIES, PAIRWISE, PLAIN, STAR, TRIPLES
from tests.methods.toys import KINDS, TASKS, Net, batch, build, draw, flat, gradients, same

OBJECTIVES, WEIGHTINGS, UPDATES = ENTRIES.values()
CLASSES = ("three", "one", "choice")  # heads whose labels are one class for each example
INNER = ("fomaml", "maml", "reptile")  # visit batches at moved parameters
SEVERAL = tuple(  # would have a batch of each of the tasks
    name for name in UPDATES if Method(update=name, tasks=TASKS).needs.batches == "one_per_task"
)
FINITE_DIFFERENCE = ("dotprod", "grad_norm_penalty")
SPARSE = ("random", "reweight")  # can leave no weight at all in a small batch


def make(triple, seed=3, **options):
    """`options`: of the update."""
    return Method(*triple[:2], {triple[2]: options}, tasks=TASKS, seed=seed)


def short(triple, **options):
    """With two batches where any number will do; `options`: of updates that move the parameters within a step."""
    two = {"batches": 2} if triple[2] in INNER + SEVERAL else {}
    return make(triple, **two, **(options if triple[2] in INNER else {}))


def step(triple, model, kind="three"):
    method = short(triple)
    report = method.backward(model, *draw(method.batches, kind))
    return method, report, gradients(model)


def without_weight(report):
    return not any(part.weights.any() for parts in report.sums for part in parts)


def without_gradient(model):
    return {name for name, p in model.named_parameters() if p.grad is None}


def alike(x, y):
    """Two states, bit for bit."""
    if isinstance(x, dict):
        return x.keys() == y.keys() and all(alike(x[k], y[k]) for k in x)
    if isinstance(x, list | tuple):
        return len(x) == len(y) and all(map(alike, x, y))
    return torch.equal(x, y) if isinstance(x, torch.Tensor) else type(x) is type(y) and x == y


@pytest.mark.parametrize("triple", TRIPLES, ids="-".join)
def test_every_kind_of_head_is_trained_or_refused_with_a_reason(triple):
    """One run over batches of every kind: parameters that none reaches, the other heads, keep no gradient."""
    model, method = build(Net), short(triple)
    for seed, kind in enumerate(KINDS):
        group = draw(method.batches, kind, n=4, seed=100 * seed)
        if triple[1] == "class_ratio" and kind not in CLASSES:
            with pytest.raises(ValueError, match=r"^class_ratio: found .*, expected class indices"):
                method.backward(model, *group)
            assert not any(p.grad is not None for p in model.parameters())
            continue
        report = method.backward(model, *group)
        assert report.log["finite"] == 1
        assert report.skipped == without_weight(report)
        assert not report.skipped or triple[1] in SPARSE
        names = {name for name, _ in model.named_parameters()}
        others = {name for name in names if name.startswith("heads.") and not name.startswith(f"heads.{kind}.")}
        assert without_gradient(model) == (names if report.skipped else others)


def check_step(triple, kind):
    model = build(Net)
    before = [p.detach().clone() for p in model.parameters()]
    memory = [(p.data_ptr(), p._version) for p in model.parameters()]
    torch.manual_seed(11)
    random = torch.get_rng_state()
    _, report, first = step(triple, model, kind)
    assert torch.equal(torch.get_rng_state(), random)
    assert same(before, list(model.parameters()))
    assert [(p.data_ptr(), p._version) for p in model.parameters()] == memory
    assert report.log["finite"] == 1
    assert report.skipped == without_weight(report)
    assert all(g is None or torch.isfinite(g).all() for g in first)
    torch.manual_seed(12)  # the state of the global generator must not matter
    assert same(step(triple, build(Net), kind)[2], first)


@pytest.mark.parametrize("triple", TRIPLES, ids="-".join)
def test_a_step_is_finite_repeatable_and_touches_only_grad(triple):
    check_step(triple, "three")


@pytest.mark.parametrize("triple", [t for t in STAR if t[1] != "class_ratio"], ids="-".join)
@pytest.mark.parametrize("kind", KINDS[1:])
def test_a_step_of_every_kind_is_repeatable_and_touches_only_grad(triple, kind):
    check_step(triple, kind)


@pytest.mark.parametrize("triple", [*STAR, *((o, "reweight", "dotprod") for o in OBJECTIVES)], ids="-".join)
def test_frozen_parameters_are_left_alone(triple):
    model = build(Net)
    model.emb.weight.requires_grad_(False)
    step(triple, model)
    assert model.emb.weight.grad is None
    assert model.a.weight.grad is not None


@pytest.mark.parametrize("triple", PAIRWISE, ids="-".join)
def test_running_statistics_move_as_in_one_plain_pass_over_each_batch(triple):
    model, plain = build(Net, norm=True), build(Net, norm=True)
    model.drop.p = plain.drop.p = 0.0
    # inner steps so short that all batches are visited at the same parameters as in plain passes
    method = short(triple, inner_lr=1e-9)
    batches, clean = draw(method.batches)
    method.backward(model, batches, clean)
    for (b,) in batches:
        plain(b.inputs, "three")
    assert model.norm.num_batches_tracked == plain.norm.num_batches_tracked == method.batches
    # a central difference visits its second batch beside theta, at the distance of a finite difference
    torch.testing.assert_close(model.norm.running_mean, plain.norm.running_mean, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(model.norm.running_var, plain.norm.running_var, rtol=1e-3, atol=1e-5)
    assert model.norm.track_running_stats


MIXED = [
    ("smart", "reweight", "dotprod"), ("r3f", "class_ratio", "reptile"), ("rdrop", "hard_mining", "grad_norm_penalty"),
    ("rdrop", "reweight", "reptile"),
]  # fmt: skip


@pytest.mark.parametrize("triple", STAR + MIXED, ids="-".join)
def test_a_resumed_run_ends_bit_identical(triple):
    def run(cut):
        method, model = make(triple, seed=5), build(Net)
        optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
        for s in range(6):
            if s == cut:
                state = method.state_dict()
                method = make(triple, seed=5)
                method.load_state_dict(state)
                torch.manual_seed(999)
            method.backward(model, *draw(method.batches, seed=100 + 7 * s))
            optimizer.step()
        return [p.detach() for p in model.parameters()], method.state_dict()

    (whole, state), (cut, resumed) = run(None), run(3)
    assert same(whole, cut)
    assert alike(state, resumed)


def check_accumulation(triple, kind):
    def run(micro):
        model, method = build(Net).eval(), short(triple)
        method.backward(model, *draw(method.batches, kind, n=8, seed=104, micro=micro))
        return flat(gradients(model))

    whole, parts = run(None), run(4)
    bound = 1e-8 if triple[2] in FINITE_DIFFERENCE else 1e-12
    # the direction of smart's delta differs in rounding, and its normalisation makes that visible
    assert float((whole - parts).norm() / whole.norm()) < bound * (10 if triple[0] == "smart" else 1)


@pytest.mark.parametrize("triple", PAIRWISE, ids="-".join)
def test_accumulated_equals_unaccumulated_without_dropout(triple):
    check_accumulation(triple, "three")


@pytest.mark.parametrize("triple", [t for t in STAR if t[1] != "class_ratio"], ids="-".join)
def test_accumulated_equals_unaccumulated_where_examples_have_several_labels(triple):
    check_accumulation(triple, "seq")


# cost


def products(run):
    """Floating point operations of all matrix products, and what `run` returns.

    In `Net` the forward pass, the backward pass through activations and the weight gradients have equally many.
    """
    # the counter does not know of products that are added in place
    in_place = {torch.ops.aten.addmm_: lambda out, a, b, *_, **__: 2 * a[0] * a[1] * b[1]}
    with FlopCounterMode(display=False, custom_mapping=in_place) as counter:
        found = run()
    return counter.get_total_flops(), found


def counted(triple, weighting=None):
    """Passes as the report counts them, and as matrix products do."""
    third, _ = products(lambda: TASKS["three"].outputs(build(Net), batch()))
    model, method = build(Net), make((triple[0], weighting or triple[1], triple[2]))
    method.backward(model, *draw(method.batches))  # the first step may calibrate
    done, report = products(lambda: method.backward(model, *draw(method.batches, seed=300, clean_n=3)))
    return report, done / third / 3


# maml differentiates gradients, whose backward pass has more products than a pass has
COUNTED = {*itertools.product(OBJECTIVES, WEIGHTINGS, ["erm"])}
COUNTED |= {*itertools.product(["supervised", "smart"], ["uniform", "reweight"], set(UPDATES) - {"maml"})}


@pytest.mark.parametrize("triple", sorted(COUNTED), ids="-".join)
def test_counted_passes_are_the_matrix_products_that_are_done(triple):
    weighting = {"reweight": {"backend": "logit_fd"}} if triple[1] == "reweight" else None
    report, done = counted(triple, weighting)
    assert report.passes == pytest.approx(done)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_counted_passes_of_ghost_are_an_upper_bound(objective):
    """Rows of examples with weight zero never enter the weight gradients, a third of each pass that it meets."""
    report, done = counted((objective, "reweight", "erm"))
    (part,) = report.sums[0]
    spared = (2 if objective in ("r3f", "rdrop", "smart") else 1) * float((part.weights == 0).double().mean()) / 3
    assert spared > 0
    assert report.passes - spared <= done <= report.passes


FLOORS = {
    ("supervised", "uniform", "erm"): 1,
    ("label_smoothing", "uniform", "erm"): 1,
    ("r3f", "uniform", "erm"): 2,
    ("rdrop", "uniform", "erm"): 2,
    ("smart", "uniform", "erm"): 8 / 3,
    ("supervised", "class_ratio", "erm"): 1,
    ("supervised", "hard_mining", "erm"): 1,
    ("supervised", "random", "erm"): 1,
    ("supervised", "reweight", "erm"): (4 + 3 / 2) / 3,
    ("supervised", "uniform", "asam"): 2,
    ("supervised", "uniform", "cagrad"): len(KINDS),
    ("supervised", "uniform", "dotprod"): 3,
    ("supervised", "uniform", "famo"): len(KINDS),
    ("supervised", "uniform", "fomaml"): 4,
    ("supervised", "uniform", "grad_norm_penalty"): 2,
    ("supervised", "uniform", "joint"): len(KINDS),
    ("supervised", "uniform", "maml"): 10,
    ("supervised", "uniform", "pcgrad"): len(KINDS),
    ("supervised", "uniform", "uncertainty"): len(KINDS),
    ("supervised", "uniform", "upgrad"): len(KINDS),
    ("supervised", "uniform", "reptile"): 4,
    ("supervised", "uniform", "sam"): 2,
    ("supervised", "reweight", "dotprod"): 3 + 2 * (1 + 3 / 2) / 3,
}


def test_every_entry_has_a_floor():
    assert set(STAR) <= set(FLOORS)
    assert STAR[0] == PLAIN


@pytest.mark.parametrize("triple", FLOORS, ids="-".join)
def test_the_cost_in_passes_is_the_floor(triple):
    model, method = build(Net), make(triple)
    method.backward(model, *draw(method.batches))
    report = method.backward(model, *draw(method.batches, seed=300, clean_n=3))
    assert all(float(part.weights.sum()) > 0 for parts in report.sums for part in parts)
    assert report.passes == pytest.approx(FLOORS[triple])
