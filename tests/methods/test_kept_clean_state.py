"""What `reweight` keeps of clean gradients as state, which clean batches it asks for, and every entry with it."""

import copy
import itertools

import pytest
import torch

from gradworks.methods import Method
from tests.methods.shipped import ENTRIES
from tests.methods.toys import KINDS, TASKS, Net, batch, build, draw, error, flat, gradients, same

SEED = 7
OPTIONS = {"clean_every": 2, "clean_momentum": 0.5}
OTHERS = [name for name in ENTRIES["objective"] if name != "supervised"]


def make(*triple, **options):
    objective, update = triple or ("supervised", "erm")
    return Method(objective, {"reweight": options}, update, tasks=TASKS, seed=SEED)


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


@pytest.mark.parametrize(
    ("objective", "update"),
    [*itertools.product(("supervised",), ENTRIES["update"]), *itertools.product(OTHERS, ("erm", "dotprod"))],
)
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
