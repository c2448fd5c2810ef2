"""Steps whose batches are of several tasks: every entry, and what updates make of them by their formulas."""

import itertools

import pytest
import torch
from torch.func import functional_call

from gradworks.methods import Method
from tests.methods.shipped import ENTRIES, PAIRWISE, STAR
from tests.methods.toys import KINDS, TASKS, Net, batch, build, error, gradients, same

MIXTURES = {"two": ("three", "reg"), "four": ("one", "seq", "choice", "span")}
INNER = ("fomaml", "maml", "reptile")
CLASSES = ("three", "one", "choice")
RATE = 0.05


def draw(count, kinds, seed=100):
    """Batches of the tasks in turn, and a clean batch of the same task beside each."""
    names = list(itertools.islice(itertools.cycle(kinds), count))
    return [[[batch(name, 4, seed + 1000 * clean + i)] for i, name in enumerate(names)] for clean in (0, 1)]


def options(update, count):
    if update == "erm" or update in INNER:
        return {update: {"batches": count} | ({"inner_lr": RATE} if update in INNER else {})}
    return update


def refused(weighting, kinds):
    return weighting == "class_ratio" and not set(kinds) <= set(CLASSES)


@pytest.mark.parametrize("case", [*(("two", *t) for t in PAIRWISE), *(("four", *t) for t in STAR)], ids="-".join)
def test_a_step_is_finite_and_repeatable_and_reaches_the_heads_of_its_tasks_alone(case):
    kinds, triple = MIXTURES[case[0]], case[1:]

    def step(junk):
        torch.manual_seed(junk)
        random = torch.get_rng_state()
        model, found = build(Net), []
        torch.set_rng_state(random)
        method = Method(*triple[:2], options(triple[2], len(kinds)), tasks={k: TASKS[k] for k in kinds}, seed=3)
        for number in range(2):
            batches, clean = draw(method.batches, kinds[number:] + kinds[:number], 100 + 10 * number)
            report = method.backward(model, batches, clean if method.clean else ())
            assert report.log["finite"] == 1
            reached = {one.task for parts in batches for one in parts}
            none = {name for name, p in model.named_parameters() if p.grad is None}
            others = {f"heads.{k}.{part}" for k in KINDS if k not in reached for part in ("weight", "bias")}
            assert none == others or report.skipped
            found += gradients(model)
        assert torch.equal(torch.get_rng_state(), random)
        return found

    if refused(triple[1], kinds):
        with pytest.raises(ValueError, match=r"^class_ratio: found .*, expected class indices"):
            step(1)
        return
    assert same(step(1), step(2))


@pytest.mark.parametrize("objective", ENTRIES["objective"])
@pytest.mark.parametrize("weighting", ENTRIES["weighting"])
@pytest.mark.parametrize("kinds", MIXTURES.values(), ids=MIXTURES)
def test_a_mixed_step_of_erm_is_the_mean_of_the_steps_of_its_tasks(objective, weighting, kinds):
    if refused(weighting, kinds):
        return
    together = Method(objective, weighting, options("erm", len(kinds)), tasks=TASKS, seed=3)
    alone = Method(objective, weighting, tasks=TASKS, seed=3)
    batches, clean = draw(len(kinds), kinds)
    model, total = build(Net), None
    report = together.backward(model, batches, clean if together.clean else ())
    found = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in model.parameters()]
    assert not report.skipped
    for one, beside in zip(batches, clean, strict=True):
        alone.backward(model, [one], [beside] if alone.clean else ())
        own = [torch.zeros_like(p) if p.grad is None else p.grad / len(kinds) for p in model.parameters()]
        total = own if total is None else [a + b for a, b in zip(total, own, strict=True)]
    assert error(found, total) < 1e-12


def losses(model, batches):
    """L_i as a function of all parameters, none shared with gradworks.methods."""

    def of(one):
        def loss(point):
            def outputs(net, b):
                return TASKS[b.task].outputs(lambda *given: functional_call(net, point, given), b)

            return TASKS[one.task].loss(outputs(model, one), one).mul(one.mass).sum() / one.mass.sum()

        return loss

    return [of(one) for (one,) in batches]


def slope(loss, point, graph=False):
    made = torch.autograd.grad(loss(point), list(point.values()), create_graph=graph, allow_unused=True)
    return {n: torch.zeros_like(p) if g is None else g for (n, p), g in zip(point.items(), made, strict=True)}


def descended(point, gradient):
    return {name: p - RATE * gradient[name] for name, p in point.items()}


def mean(gradients):
    return {name: sum(g[name] for g in gradients) / len(gradients) for name in gradients[0]}


def along(point, every, graph=False):
    """The gradients along inner steps, each at the point that those before it made."""
    found = []
    for loss in every:
        if not graph:
            point = {name: p.detach().requires_grad_() for name, p in point.items()}
        found.append(slope(loss, point, graph))
        point = descended(point, found[-1])
    return found


def maml(point, every):
    at = point
    for loss in every[:-1]:
        at = descended(at, slope(loss, at, graph=True))
    made = torch.autograd.grad(every[-1](at), list(point.values()), allow_unused=True)
    return {n: torch.zeros_like(p) if g is None else g for (n, p), g in zip(point.items(), made, strict=True)}


def dotprod(point, every, weight=0.1):
    """(G1 + G2 - w H2 G1) / 2, the Hessian product by a second derivative."""
    first, second = slope(every[0], point), slope(every[1], point, graph=True)
    inner = sum((second[name] * first[name].detach()).sum() for name in point)
    made = torch.autograd.grad(inner, list(point.values()), allow_unused=True)
    return {
        n: (first[n] + second[n].detach() - weight * (0 if h is None else h)) / 2
        for (n, _), h in zip(point.items(), made, strict=True)
    }


FORMULAS = {
    "erm": (lambda point, every: mean([slope(loss, point) for loss in every]), options("erm", 2), 1e-13),
    "reptile": (lambda point, every: mean(along(point, every)), options("reptile", 2), 1e-13),
    "fomaml": (lambda point, every: along(point, every)[-1], options("fomaml", 2), 1e-13),
    "maml": (maml, options("maml", 2), 1e-12),
    "dotprod-exact": (dotprod, {"dotprod": {"weight": 0.1, "form": "exact"}}, 1e-12),
    "dotprod": (dotprod, {"dotprod": {"weight": 0.1}}, 1e-5),
}


@pytest.mark.parametrize(
    "kinds", [("three", "reg"), ("reg", "three"), ("one", "seq"), ("choice", "span")], ids="-".join
)
@pytest.mark.parametrize("name", FORMULAS)
def test_updates_across_tasks_are_their_formulas(name, kinds):
    formula, update, bound = FORMULAS[name]
    model = build(Net)
    model.drop.p = 0.0
    batches, _ = draw(2, kinds)
    point = {n: p.detach().clone().requires_grad_() for n, p in model.named_parameters()}
    expected = formula(point, losses(model, batches))
    Method(update=update, tasks=TASKS, seed=3).backward(model, batches)
    found = {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in model.named_parameters()}
    assert error([found[n] for n in point], [expected[n] for n in point]) < bound
    for kind in kinds:  # the heads, whose part in the whole is small
        mine = [n for n in point if n.startswith(f"heads.{kind}.")]
        if any(expected[n].any() for n in mine):
            assert error([found[n] for n in mine], [expected[n] for n in mine]) < 10 * bound
        else:
            assert not any(found[n].any() for n in mine)
