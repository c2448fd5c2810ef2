"""`pcgrad`, `cagrad`, `upgrad` against their papers written out: projections one by one, programs by SciPy."""

import copy

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from gradworks.methods import Method
from gradworks.methods.updates.cagrad import solve
from tests.methods.test_reptile import gradient_at, group, start, step
from tests.methods.toys import KINDS, TASKS, Net, batch, build, draw, error, flat

K = 3
MIXED = ("three", "reg", "seq")


def mixed(model):
    """A batch of each of three tasks and its gradient; two of them are made to conflict."""
    batches = [batch(kind, seed=200 + i) for i, kind in enumerate(MIXED)]
    return batches, [list(gradient_at(model, start(model), b, i)) for i, b in enumerate(batches)]


def parts(model, gradients):
    """Which parameters more than one gradient reaches."""
    return [sum(bool(g[p].any()) for g in gradients) > 1 for p in range(len(gradients[0]))]


def written_out(model, gradients, change):
    """`change`: (k, d) gradients on shared parameters -> (d,). All others get the plain mean."""
    shared = parts(model, gradients)
    rows = torch.stack([flat([t for t, s in zip(g, shared, strict=True) if s]) for g in gradients])
    made, expected = change(rows), []
    for p, s in enumerate(shared):
        size = gradients[0][p].numel()
        expected.append(made[:size].view_as(gradients[0][p]) if s else sum(g[p] for g in gradients) / len(gradients))
        made = made[size:] if s else made
    return expected


def pcgrad(rows, number=0):
    """Algorithm 1, on vectors."""
    generator, made = torch.Generator().manual_seed(number), []
    for i, row in enumerate(rows):
        projected = row.clone()
        for j in torch.randperm(len(rows), generator=generator).tolist():
            if j != i and projected @ rows[j] < 0:
                projected = projected - (projected @ rows[j]) / rows[j].square().sum() * rows[j]
        made.append(projected)
    return sum(made) / len(rows)


def dual(rows, c):
    """(value, weights) of the least of g_w . g_0 + c |g_0| |g_w| over the simplex, from many starts."""
    rows = rows.numpy()
    mean = rows.mean(0)
    radius = c * np.linalg.norm(mean)

    def value(w):
        return w @ rows @ mean + radius * np.linalg.norm(w @ rows)

    options = {"method": "SLSQP", "bounds": [(0, 1)] * len(rows), "options": {"ftol": 1e-15, "maxiter": 1000}}
    sums = {"type": "eq", "fun": lambda w: w.sum() - 1}
    starts = [np.full(len(rows), 1 / len(rows)), *np.random.default_rng(0).dirichlet(np.ones(len(rows)), 10)]
    return min(
        ((r.fun, r.x) for r in (minimize(value, s, constraints=sums, **options) for s in starts)), key=lambda r: r[0]
    )


def cagrad(rows, c=0.4):
    weights = torch.from_numpy(dual(rows, c)[1])
    mean, towards = rows.mean(0), weights @ rows
    return mean + c * mean.norm() / towards.norm() * towards


def upgrad(rows):
    """The nearest point of the cone to each row, found in the space of the gradients, not of the weights."""
    made = []
    for row in rows.numpy():
        cone = {"type": "ineq", "fun": lambda x: rows.numpy() @ x, "jac": lambda x: rows.numpy()}
        found = minimize(
            lambda x, row=row: ((x - row) ** 2).sum(), np.zeros_like(row), jac=lambda x, row=row: 2 * (x - row),
            method="SLSQP", constraints=[cone], options={"ftol": 1e-16, "maxiter": 1000},
        )  # fmt: skip
        made.append(torch.from_numpy(found.x))
    return sum(made) / len(rows)


def conflicting(model, gradients):
    rows = torch.stack([flat([t for t, s in zip(g, parts(model, gradients), strict=True) if s]) for g in gradients])
    dots = rows @ rows.T
    return bool((dots < 0).any())


@pytest.mark.parametrize(
    ("name", "change", "bound"), [("pcgrad", pcgrad, 1e-12), ("cagrad", cagrad, 1e-6), ("upgrad", upgrad, 1e-6)]
)
def test_it_is_the_paper_on_what_tasks_share_and_the_mean_elsewhere(name, change, bound):
    model = build(Net, seed=5)
    batches, gradients = mixed(model)
    assert conflicting(model, gradients)  # else there is nothing to see
    expected = written_out(model, gradients, change)
    report, found = step({name: {"batches": K}}, model, batches)
    assert error(found, expected) < bound
    plain = [sum(parts) / K for parts in zip(*gradients, strict=True)]
    assert error(plain, expected) > 1e-2
    assert report.passes == pytest.approx(K)
    shared = parts(model, gradients)
    assert any(shared) and not all(shared)
    heads = [p for p, s in enumerate(shared) if not s]
    assert error([found[p] for p in heads], [plain[p] for p in heads]) < 1e-12


@pytest.mark.parametrize("name", ["pcgrad", "cagrad", "upgrad"])
def test_the_log_has_cosine_and_conflicts(name):
    model = build(Net, seed=5)
    batches, gradients = mixed(model)
    shared = parts(model, gradients)
    rows = torch.stack([flat([t for t, s in zip(g, shared, strict=True) if s]) for g in gradients])
    cosines = torch.nn.functional.cosine_similarity(rows[:, None], rows[None], dim=2)[[0, 0, 1], [1, 2, 2]]
    log = step({name: {"batches": K}}, model, batches)[0].log
    assert log["cosine"] == pytest.approx(float(cosines.mean()), rel=1e-6)
    assert log["conflict"] == pytest.approx(float((cosines < 0).double().mean()))


def test_without_a_conflict_pcgrad_is_erm_and_without_radius_cagrad_is():
    twice = [batch(seed=100)] * 2  # a batch agrees with itself but for its masks
    model = build(Net).eval()
    expected = step({"erm": {"batches": 2}}, model, twice)[1]
    for name in ("pcgrad", "upgrad"):
        assert error(step({name: {"batches": 2}}, build(Net).eval(), twice)[1], expected) < 1e-12
    batches = group(k=K)
    expected = step({"erm": {"batches": K}}, build(Net), batches)[1]
    assert error(step({"cagrad": {"c": 0, "batches": K}}, build(Net), batches)[1], expected) < 1e-12


def test_two_opposite_gradients_leave_what_is_no_conflict():
    """By hand: (1, 1) and (-1, 0). PCGrad: ((0, 1) + (-.5, .5)) / 2. CAGrad, mean (0, .5): the worst gains."""
    rows = torch.tensor([[1.0, 1.0], [-1.0, 0.0]], dtype=torch.float64)
    assert pcgrad(rows).tolist() == [-0.25, 0.75]
    dots = (rows @ rows.T).tolist()
    method = Method(update={"pcgrad": {"batches": 2}}, tasks=TASKS)
    assert (torch.tensor(method.update.shares(dots), dtype=torch.float64) @ rows).tolist() == [-0.25, 0.75]
    made = (
        torch.tensor(Method(update={"cagrad": {"c": 0.5, "batches": 2}}, tasks=TASKS).update.shares(dots)).double()
        @ rows
    )
    assert float((rows @ made).min()) > float((rows @ rows.mean(0)).min())
    assert float((made - rows.mean(0)).norm()) == pytest.approx(0.25)


@pytest.mark.parametrize("k", [2, 3, 8])
@pytest.mark.parametrize("c", [0.1, 0.5, 0.9])
def test_the_dual_is_solved(k, c):
    for seed in range(20):
        generator = torch.Generator().manual_seed(100 * k + seed)
        rows = torch.randn(k, 12, generator=generator, dtype=torch.float64) * torch.rand(k, 1, generator=generator)
        mean = rows.mean(0)
        weights = torch.tensor(solve((rows @ rows.T).tolist(), (rows @ mean).tolist(), c * float(mean.norm())))
        assert float(weights.sum()) == pytest.approx(1) and float(weights.min()) >= 0
        found = weights.double() @ rows
        value = float(found @ mean + c * mean.norm() * found.norm())
        best = dual(rows, c)[0]
        assert value <= best + 1e-7 * abs(best) + 1e-12


@pytest.mark.parametrize("k", [2, 3, 8])
def test_upgrad_hurts_no_task_and_is_the_projection(k):
    for seed in range(4):
        generator = torch.Generator().manual_seed(100 * k + seed)
        rows = torch.randn(k, 12, generator=generator, dtype=torch.float64) * torch.rand(k, 1, generator=generator)
        rows += 0.3 * torch.randn(k, 1, generator=generator, dtype=torch.float64)  # some conflict more than others
        dots = rows @ rows.T
        shares = Method(update={"upgrad": {"batches": k}}, tasks=TASKS).update.shares(dots.tolist())
        made = torch.tensor(shares, dtype=torch.float64) @ rows
        assert float((rows @ made).min()) > -1e-8 * float(dots.diagonal().max())
        assert torch.allclose(made, upgrad(rows), atol=1e-6)


def test_a_pareto_point_and_a_task_without_gradient_are_no_faults():
    for name in ("pcgrad", "cagrad", "upgrad"):
        update = Method(update={name: {"batches": 2}}, tasks=TASKS).update
        assert update.shares([[1.0, -1.0], [-1.0, 1.0]]) == pytest.approx(
            [0.5, 0.5] if name == "cagrad" else [0, 0], abs=1
        )
        assert all(map(np.isfinite, update.shares([[1.0, 0.0], [0.0, 0.0]])))
        assert all(map(np.isfinite, update.shares([[0.0, 0.0], [0.0, 0.0]])))


def test_one_batch_of_each_task_is_taken():
    assert Method(update="pcgrad", tasks=TASKS).batches == len(KINDS)
    assert Method(update={"cagrad": {"batches": 2}}, tasks=TASKS).batches == 2


def test_the_order_of_projections_goes_on_after_a_resume():
    rows = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    dots = (rows @ rows.T).tolist()
    one, again = (Method(update={"pcgrad": {"batches": 5}}, tasks=TASKS) for _ in range(2))
    first = one.update.shares(dots)
    again.load_state_dict(copy.deepcopy(one.state_dict()))
    second = one.update.shares(dots)
    assert second == again.update.shares(dots) != first
    for number, shares in enumerate((first, second)):
        assert error([torch.tensor(shares).double() @ rows], [pcgrad(rows, number)]) < 1e-6


def test_micro_batches_add_up_before_anything_is_compared():
    model = build(Net).eval()
    found = []
    for micro in (None, 3):
        Method(update={"pcgrad": {"batches": 4}}, tasks=TASKS).backward(model, *draw(4, micro=micro))
        found.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    assert error(*found) < 1e-12
