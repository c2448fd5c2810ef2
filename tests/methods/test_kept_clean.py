"""`reweight` with `clean_every` and `clean_momentum`, against the formula written out with autograd in float64."""

import copy
import itertools

import pytest
import torch
from torch.func import functional_call

from gradworks.methods import Method
from gradworks.methods.weightings._shared.clean import Kept
from tests.methods.shipped import ENTRIES
from tests.methods.toys import KINDS, MODELS, TASKS, Net, batch, build, draw, error, flat, gradients, masks, same

SEED = 7
KEPT = [(1, 0.9), (3, 0.0), (2, 0.5), (4, 0.5)]  # clean_every, clean_momentum
OPTIONS = {"clean_every": 2, "clean_momentum": 0.5}
BACKENDS = ("ghost", "logit_fd", "jvp", "per_example", "second_order")


def make(*triple, **options):
    objective, update = triple or ("supervised", "erm")
    return Method(objective, {"reweight": options}, update, tasks=TASKS, seed=SEED)


def by_hand(model, theta, b, name, number, task=None):
    """(n,) losses at `theta` under the masks of this batch of the stream."""
    task = task or TASKS[b.task]

    class At(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self):
            return task.loss(task.outputs(self.model, b), b)

    with masks(SEED, name, number):
        return functional_call(At(), {f"model.{n}": p for n, p in theta.items()})


def rows(model, theta, b, name, number):
    """The gradient of each example, flat: (n, P)."""
    losses = by_hand(model, theta, b, name, number)
    every = list(theta.values())
    made = [torch.autograd.grad(one, every, retain_graph=True, materialize_grads=True) for one in losses]
    return torch.stack([torch.cat([g.flatten() for g in row]) for row in made])


def clean_by_hand(model, theta, b, number):
    return (b.mass[:, None] * rows(model, theta, b, "clean", number)).sum(0) / b.mass.sum()


def oracle(model, steps, every, momentum, rate=0.3):
    """Scores and gradients of a run of plain descent; of the clean batches only those that are due are read."""
    theta = {n: p.detach().clone().requires_grad_() for n, p in model.named_parameters()}
    made, found = [], []
    for number, (train, clean) in enumerate(steps):
        if number % every == 0:
            made.append(clean_by_hand(model, theta, clean, number))
        shares = torch.tensor([momentum ** (len(made) - 1 - j) for j in range(len(made))], dtype=torch.float64)
        v = torch.stack(made).T @ shares / shares.sum()
        own = rows(model, theta, train, "train", number)
        u = own @ v
        w = u.clamp_min(0) * train.mass
        gradient = w @ own / w.sum() if w.sum() > 0 else torch.zeros_like(v)
        found.append((u, gradient))
        parts = gradient.split([p.numel() for p in theta.values()])
        theta = {
            n: (p.detach() - rate * g.view_as(p)).requires_grad_()
            for (n, p), g in zip(theta.items(), parts, strict=True)
        }
    return found


def drawn(count, kind="three"):
    return [(batch(kind, 6, 100 + s), batch(kind, 4, 600 + s)) for s in range(count)]


@pytest.mark.parametrize(("every", "momentum"), KEPT)
@pytest.mark.parametrize(("backend", "bound"), [("exact", 1e-9), ("logit_fd", 1e-5)])
@pytest.mark.parametrize("name", MODELS)
def test_a_run_agrees_with_the_formula_with_dropout_on(name, backend, bound, every, momentum):
    model, steps = build(MODELS[name]), drawn(7)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        expected = oracle(model, steps, every, momentum)
    if backend == "exact":  # no rule covers the positions of the transformer
        backend = "per_example" if name == "transformer" else "ghost"
    method = make(backend=backend, clean_every=every, clean_momentum=momentum)
    for number, ((train, clean), (u, gradient)) in enumerate(zip(steps, expected, strict=True)):
        given = [clean] if number % every == 0 else []
        assert method.clean_for(["three"]) == [bool(given)]
        report = method.backward(model, [[train]], [given])
        assert error([report.sums[0][0].score], [u]) < bound
        made = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]
        assert report.skipped == bool((u <= 0).all())
        assert error(made, [gradient]) < bound if not report.skipped else True
        with torch.no_grad():
            for p, g in zip(model.parameters(), made, strict=True):
                p -= 0.3 * g


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_head_agrees_with_the_formula(kind):
    model, steps = build(Net), drawn(3, kind)
    expected = oracle(model, steps, 2, 0.5, rate=0.0)
    method = make(clean_every=2, clean_momentum=0.5)
    for number, ((train, clean), (u, _)) in enumerate(zip(steps, expected, strict=True)):
        report = method.backward(model, [[train]], [[clean] if number % 2 == 0 else []])
        assert error([report.sums[0][0].score], [u]) < 1e-6


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_backend_scores_with_what_is_kept(backend):
    steps, found = drawn(3), {}
    for name in ("per_example", backend):
        model, method = build(Net), make(backend=name, **OPTIONS)
        for number, (train, clean) in enumerate(steps):
            report = method.backward(model, [[train]], [[clean] if number % 2 == 0 else []])
            found[name, number] = report.sums[0][0].score
            with torch.no_grad():
                for p in model.parameters():
                    p.mul_(0.95)
    for number in range(3):
        a, b = found[backend, number], found["per_example", number]
        assert error([a], [b]) < (1e-5 if backend == "logit_fd" else 1e-10)


# limits


def trail(steps=5, count=1, update="erm", **options):
    model, method, found = build(Net), make("supervised", update, **options), []
    for s in range(steps):
        report = method.backward(model, *draw(count, seed=100 + 10 * s))
        found += [one.score for some in report.sums for one in some] + gradients(model)
        with torch.no_grad():
            for p in model.parameters():
                p -= 0 if p.grad is None else 0.1 * p.grad
    return found


@pytest.mark.parametrize("backend", ["ghost", "logit_fd"])
@pytest.mark.parametrize(("count", "update"), [(1, "erm"), (2, "dotprod"), (4, "reptile")])
def test_every_one_without_momentum_is_a_clean_gradient_for_each_batch_to_the_bit(monkeypatch, backend, count, update):
    today = trail(count=count, update=update, backend=backend)
    assert same(today, trail(count=count, update=update, backend=backend, clean_every=1, clean_momentum=0.0))
    monkeypatch.setattr(Kept, "off", False)
    assert same(today, trail(count=count, update=update, backend=backend))


def test_momentum_that_tends_to_zero_is_none():
    today, near = trail(), trail(clean_momentum=1e-13)
    assert not same(today, near)
    assert error(near, today) < 1e-9
    assert error(trail(clean_momentum=0.5), today) > 1e-2


def test_the_mean_of_equal_gradients_is_the_gradient():
    model, (b,), (c,) = build(Net).eval(), *draw(1)
    method, today = make(clean_momentum=0.9), make()
    expected = today.backward(model, [b], [c]).sums[0][0].score
    for _ in range(4):
        torch.testing.assert_close(method.backward(model, [b], [c]).sums[0][0].score, expected, rtol=1e-12, atol=0)


# what is drawn, computed and counted


def test_passes_and_clean_batches_of_a_period():
    model, method = build(Net), make(clean_every=3)
    method.backward(model, *draw(1))  # examines
    found = []
    for s in range(1, 7):
        (wanted,) = method.clean_for(["three"])
        batches, clean = draw(1, seed=100 + s, clean_n=3)
        report = method.backward(model, batches, clean if wanted else [[]])
        found.append((wanted, report.passes))
    held, fresh = (False, pytest.approx(4 / 3)), (True, pytest.approx(4 / 3 + 3 / 6))
    assert found == [held, held, fresh, held, held, fresh]


def test_a_clean_batch_that_is_not_due_is_not_computed():
    model, method = build(Net), make(clean_every=2)
    passes = [method.backward(model, *draw(1, seed=100 + s)).passes for s in range(4)]
    assert passes[1:] == pytest.approx([4 / 3, 7 / 3, 4 / 3])


def test_scoring_every_second_step_counts_the_batches_that_are_scored():
    model, method, found = build(Net), make(every=2, clean_every=2), []
    for s in range(8):
        wanted = method.clean_for(["three"])
        batches, clean = draw(1, seed=100 + s)
        report = method.backward(model, batches, clean if wanted[0] else [[]])
        found.append((wanted[0], report.sums[0][0].score is not None))
    assert found == [(True, True), (False, False), (False, True), (False, False)] * 2


def test_batches_of_a_step_and_tasks_are_counted_each():
    method = make("supervised", {"erm": {"batches": 3}}, clean_every=2)
    assert method.clean_for(["three", "one", "three"]) == [True, True, False]
    assert method.clean_for(["three", "three", "three"]) == [True, False, True]  # asking moves nothing
    parts = [[batch(kind, seed=100 + i)] for i, kind in enumerate(("three", "one", "three"))]
    clean = [[batch(kind, seed=900 + i)] for i, kind in enumerate(("three", "one"))]
    method.backward(build(Net), parts, [*clean, []])
    assert method.clean_for(["one", "three", "one", "three"]) == [False, True, True, False]


def test_each_task_has_a_clean_gradient_of_its_own():
    model, method = build(Net).eval(), make("supervised", {"erm": {"batches": 2}}, clean_every=2, backend="ghost")
    alone = {kind: make(clean_every=2) for kind in ("three", "one")}
    for s in range(2):
        parts = {kind: batch(kind, seed=100 + s) for kind in alone}
        clean = {kind: [batch(kind, seed=900)] if s == 0 else [] for kind in alone}
        report = method.backward(model, [[b] for b in parts.values()], list(clean.values()))
        for kind, some in zip(alone, report.sums, strict=True):
            single = alone[kind].backward(model, [[parts[kind]]], [clean[kind]])
            torch.testing.assert_close(some[0].score, single.sums[0][0].score, rtol=1e-9, atol=1e-12)


def test_loaders_are_read_for_the_batches_that_are_due():
    read = []

    def clean():
        for i in itertools.count():
            read.append(i)
            yield batch(seed=900 + i)

    model, method = build(Net), make(clean_every=3)
    lists = []
    for batches, beside in method.groups([batch(seed=100 + i) for i in range(7)], clean()):
        lists.append([len(one) for one in beside])
        method.backward(model, batches, beside)
    assert lists == [[1], [0], [0], [1], [0], [0], [1]]
    assert read == [0, 1, 2]


def test_a_clean_batch_that_is_missing_is_refused_in_words():
    model, method = build(Net), make(clean_every=2)
    with pytest.raises(ValueError, match="found no clean batch beside batch 0 of the step") as error:
        method.backward(model, draw(1)[0], [[]])
    assert "`Method.clean_for`" in str(error.value) and len(str(error.value).splitlines()) <= 3
    with pytest.raises(ValueError, match="clean: found 0, expected 1"):
        method.backward(model, draw(1)[0], [])


def test_another_weighting_without_its_clean_batch_is_refused_too():
    with pytest.raises(ValueError, match="found no clean batch beside batch 0 of the step"):
        make().backward(build(Net), draw(1)[0], [[]])


# several batches in a step: the hold law


def test_a_later_inner_step_is_scored_at_its_own_point_with_the_clean_gradient_of_the_first():
    """Reptile, two batches of one task: the second is visited at theta - 0.1 G_1."""
    model, seen = build(Net), []
    theta = {n: p.detach().clone().requires_grad_() for n, p in model.named_parameters()}
    (one,), (two,), (clean,) = (draw(1, seed=s)[0][0] for s in (100, 101, 900))
    v = clean_by_hand(model, theta, clean, 0)
    first = rows(model, theta, one, "train", 0)
    w = (first @ v).clamp_min(0)
    step = (0.1 * (w @ first) / w.sum()).split([p.numel() for p in theta.values()])
    moved = {n: (p.detach() - s.view_as(p)).requires_grad_() for (n, p), s in zip(theta.items(), step, strict=True)}
    seen = [first @ v, rows(model, moved, two, "train", 1) @ v]
    update = {"reptile": {"batches": 2, "inner_lr": 0.1}}
    report = make("supervised", update, clean_every=2).backward(model, [[one], [two]], [[clean], []])
    for some, u in zip(report.sums, seen, strict=True):
        assert error([some[0].score], [u]) < 1e-9


# state


def copied(state):
    return copy.deepcopy(state)


@pytest.mark.parametrize("backend", ["auto", "logit_fd"])
@pytest.mark.parametrize("cut", [1, 2, 3, 4])
@pytest.mark.parametrize("update", ["erm", "dotprod"])
def test_a_resumed_run_is_the_same_to_the_bit(backend, cut, update):
    def run(cut):
        model, method, reports = build(Net), make("supervised", update, backend=backend, clean_every=3,
                                                  clean_momentum=0.5), []  # fmt: skip
        optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
        for s in range(6):
            if s == cut:
                state = copied(method.state_dict())
                method = make("supervised", update, backend=backend, clean_every=3, clean_momentum=0.5)
                method.load_state_dict(state)
            batches, clean = draw(method.batches, seed=100 + 10 * s)
            wanted = method.clean_for([b.task for (b,) in batches])
            report = method.backward(model, batches, [c if w else [] for c, w in zip(clean, wanted, strict=True)])
            reports.append(report.passes)
            optimizer.step()
        return reports, list(model.parameters())

    (passes, whole), (again, resumed) = run(None), run(cut)
    assert same(whole, resumed)
    assert passes == again


def test_a_state_that_was_given_away_does_not_change():
    model, method = build(Net), make(clean_momentum=0.9)
    method.backward(model, *draw(1))
    state = method.state_dict()
    before = copied(state)
    method.backward(model, *draw(1, seed=300))
    assert same(state["weighting"]["clean"]["three"]["mean"], before["weighting"]["clean"]["three"]["mean"])


def test_where_the_trained_set_changes_a_mean_begins_again():
    model, method = build(Net), make(clean_every=4, clean_momentum=0.5)
    method.backward(model, *draw(1))
    model.emb.weight.requires_grad_(False)
    found = method.backward(model, *draw(1, seed=300)).sums[0][0].score
    fresh = make()
    fresh._drawn = 1
    torch.testing.assert_close(found, fresh.backward(model, *draw(1, seed=300)).sums[0][0].score, rtol=1e-9, atol=0)
    batches, _ = draw(1, seed=400)
    method.backward(model, batches, [[]])
    model.a.weight.requires_grad_(False)
    model.emb.weight.requires_grad_(True)
    with pytest.raises(ValueError, match="and where what is trained changes"):
        method.backward(model, batches, [[]])


def test_the_mean_of_half_precision_parameters_is_kept_in_float32():
    model = build(Net, dtype=torch.bfloat16)
    method = Method(weighting={"reweight": {"clean_momentum": 0.99, "backend": "logit_fd"}}, tasks=TASKS, seed=SEED)
    for s in range(3):
        method.backward(model, *draw(1, seed=100 + s))
    mean = method.state_dict()["weighting"]["clean"]["three"]["mean"]
    assert {t.dtype for t in mean} == {torch.float32}
    assert any(not torch.equal(t, t.bfloat16().float()) for t in mean)


def test_bf16_autocast_stays_near_float32():
    found = []
    for enabled in (False, True):
        model, method = build(Net, dtype=torch.float32).eval(), make(**OPTIONS)
        for s in range(3):
            batches, clean = draw(1, n=16, seed=100 + s)
            with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
                report = method.backward(model, batches, clean if s % 2 == 0 else [[]])
        found.append(report.sums[0][0].score.double())
    assert error(found[1:], found[:1]) < 0.1


def test_no_positive_score_skips_the_step_and_the_clean_gradient_serves_on():
    model = build(Net).eval()
    train, clean = batch("one", 6), batch("one", 6)
    model.heads["one"].weight.data.zero_()
    train.inputs[:] = clean.inputs[:] = train.inputs[0]
    train.labels[:], clean.labels[:] = 1, 0
    method = make(clean_every=2)
    assert method.backward(model, [[train]], [[clean]]).skipped
    report = method.backward(model, [[train]], [[]])
    assert report.skipped and all(p.grad is None for p in model.parameters())
    train.labels[:] = 0
    assert method.backward(model, [[train]], [[clean]]).skipped is False


# with every other entry


@pytest.mark.parametrize("update", ENTRIES["update"])
@pytest.mark.parametrize("objective", ENTRIES["objective"])
def test_every_objective_and_update_is_finite_repeatable_and_resumes(objective, update):
    options = {update: {"batches": 2}} if update in ("fomaml", "maml", "reptile") else update

    def run(cut):
        model, method = build(Net), make(objective, options, **OPTIONS)
        for s in range(4):
            if s == cut:
                state, method = copied(method.state_dict()), make(objective, options, **OPTIONS)
                method.load_state_dict(state)
            batches, clean = draw(method.batches, KINDS[0], seed=100 + 10 * s)
            wanted = method.clean_for([b.task for (b,) in batches])
            report = method.backward(model, batches, [c if w else [] for c, w in zip(clean, wanted, strict=True)])
            assert report.log["finite"] == 1
            with torch.no_grad():
                for p in model.parameters():
                    p -= 0 if p.grad is None else 0.05 * p.grad
        return list(model.parameters())

    whole = run(None)
    assert same(whole, run(None))
    assert same(whole, run(1)) and same(whole, run(2))


@pytest.mark.parametrize("kind", KINDS)
def test_accumulated_equals_unaccumulated(kind):
    def run(micro):
        model, method = build(Net).eval(), make(**OPTIONS)
        for s in range(3):
            batches, clean = draw(1, kind, n=8, seed=104 + s, micro=micro)
            method.backward(model, batches, clean if s % 2 == 0 else [[]])
        return flat(gradients(model))

    whole, parts = run(None), run(4)
    assert float((whole - parts).norm() / whole.norm()) < 1e-10


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"clean_every": 0}, "clean_every: found 0, expected a whole number of at least 1"),
        ({"clean_momentum": 1}, "clean_momentum: found 1, expected a number below 1"),
        ({"clean_momentum": -0.1}, "clean_momentum: found -0.1, expected a number of at least 0"),
    ],
)
def test_options_are_checked(options, said):
    with pytest.raises(ValueError, match="reweight: ") as error:
        make(**options)
    assert said in str(error.value)
