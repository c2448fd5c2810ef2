"""The laws of a step, for the entries that are there and for entries written on the contract alone."""

import copy

import pytest
import torch

from gradworks.methods import Method
from gradworks.methods._shared.bases import BaseWeighting, Stateless
from gradworks.methods.updates.reptile import Reptile
from gradworks.spec import Needs
from tests.methods.own_entries import GroupDro
from tests.methods.shipped import ENTRIES
from tests.methods.toys import TASKS, Net, batch, build, draw, error, flat, gradients, masks, same, split

SEED = 7
OBJECTIVES = ENTRIES["objective"]
WEIGHTINGS = [*ENTRIES["weighting"], "group_dro"]
UPDATES = [*ENTRIES["update"], "erm2", "dotprod_exact"]
OPTIONS = {"erm2": {"erm": {"batches": 2}}, "dotprod_exact": {"dotprod": {"form": "exact"}}}


def make(o="supervised", w="uniform", u="erm", **options):
    weighting = GroupDro() if w == "group_dro" else w
    return Method(o, weighting, OPTIONS.get(u, u) if isinstance(u, str) else u, tasks=TASKS, seed=SEED, **options)


def step(method, model=None, seed=100, **options):
    model = model or build(Net)
    report = method.backward(model, *draw(method.batches, seed=seed, **options))
    return report, gradients(model)


# limits


def erm(k):
    return step(Method(update={"erm": {"batches": k}}, tasks=TASKS, seed=SEED))[1]


@pytest.mark.parametrize(
    ("update", "k", "bound"),
    [
        ({"reptile": {"batches": 1}}, 1, 0), ({"fomaml": {"batches": 1}}, 1, 0), ({"maml": {"batches": 1}}, 1, 1e-14),
        ({"reptile": {"inner_lr": 1e-12}}, 4, 1e-10), ({"dotprod": {"weight": 0.0}}, 2, 0),
        ({"sam": {"rho": 0.0}}, 1, 0), ({"asam": {"rho": 0.0}}, 1, 0), ({"grad_norm_penalty": {"weight": 0.0}}, 1, 0),
    ],
    ids=str,
)  # fmt: skip
def test_limit_laws_of_updates(update, k, bound):
    assert error(step(Method(update=update, tasks=TASKS, seed=SEED))[1], erm(k)) <= bound


@pytest.mark.parametrize(
    "objective",
    [{"smart": {"smoothness": 0, "proximal": 0}}, {"r3f": {"smoothness": 0}}, {"label_smoothing": {"share": 0}}],
    ids=str,
)
def test_limit_laws_of_objectives_all_terms_off(objective):
    assert error(step(make(objective))[1], erm(1)) < 1e-14


def test_erm_is_the_plain_loop():
    model, plain = build(Net), build(Net)
    (b,), (c,) = draw(2, "seq")[0]
    Method(update={"erm": {"batches": 2}}, tasks=TASKS, seed=SEED).backward(model, [[b], [c]])
    for number, one in enumerate((b, c)):
        with masks(SEED, "train", number):
            losses = TASKS["seq"].loss(TASKS["seq"].outputs(plain, one), one)
        ((one.mass * losses).sum() / one.mass.sum() / 2).backward()
    assert error(gradients(model), gradients(plain)) < 1e-14
    assert [p.grad is None for p in model.parameters()] == [p.grad is None for p in plain.parameters()]


# masks


def test_mask_law_methods_that_consume_one_or_two_batches_share_masks_on_the_same_batch():
    stream = [batch(seed=100 + i) for i in range(4)]

    def losses(method):
        model, seen, k = build(Net), [], method.batches
        for s in range(4 // k):
            group = [[b] for b in stream[s * k : (s + 1) * k]]
            report = method.backward(model, group, [[batch(seed=900 + s)]] * k if method.clean else ())
            seen += [part.losses for parts in report.sums for part in parts]
        return seen

    one = losses(make())  # the parameters do not move, so only masks can differ
    for u in ("erm2", "dotprod"):
        two = losses(make(u=u))
        assert same(one, two) if u == "erm2" else same(one[::2], two[::2])
    assert same(one, losses(make(w="reweight")))
    assert same(one, losses(make(w="random")))
    assert not same(one[:1], losses(Method(tasks=TASKS, seed=SEED + 1))[:1])
    assert not same([one[0]], [losses(make())[1]])


def test_mask_law_dropout_draws_the_documented_key():
    model = build(Net)
    parts = split(batch(), 3)
    method = make()
    method.backward(model, [[batch(seed=1)]])
    report = method.backward(model, [parts])
    for micro, b in enumerate(parts):
        with masks(SEED, "train", 1, micro), torch.no_grad():
            expected = TASKS["three"].loss(TASKS["three"].outputs(model, b), b)
        assert torch.equal(report.sums[0][micro].losses, expected)


def test_random_weights_follow_the_example_not_its_place():
    b = batch()
    order = [3, 1, 5, 0, 4, 2]
    shuffled = copy.copy(b)
    shuffled.ids = [b.ids[i] for i in order]
    shuffled.inputs, shuffled.labels, shuffled.mass = b.inputs[order], b.labels[order], b.mass[order]
    draws = [make(w="random").backward(build(Net), [[x]]).sums[0][0].score for x in (b, shuffled)]
    assert torch.equal(draws[0][order], draws[1])
    method, model = make(w="random"), build(Net)
    again = [method.backward(model, [[b]]).sums[0][0].score for _ in range(2)]
    assert not torch.equal(*again)  # another step, other weights


# hold


def test_hold_law_reptile_weighs_at_the_moved_parameters():
    model = build(Net)
    method = Method(weighting="reweight", update={"reptile": {"batches": 3, "inner_lr": 0.05}}, tasks=TASKS, seed=SEED)
    batches, clean = draw(3, n=8)
    method.backward(model, batches, clean)
    at, seen = [p.detach().clone() for p in model.parameters()], []
    for i in range(3):

        class Only:
            """A plain reweighted step on batch i, alone, under its own masks and clean batch."""

            needs = Needs(3)

            def __init__(self, i):
                self.i = i

            def gradient(self, passes):
                return passes.gradient(self.i)

            def state_dict(self):
                return {}

        moved = build(Net)
        for p, a in zip(moved.parameters(), at, strict=True):
            p.data.copy_(a)
        Method(weighting="reweight", update=Only(i), tasks=TASKS, seed=SEED).backward(moved, batches, clean)
        seen.append([torch.zeros_like(p) if p.grad is None else p.grad for p in moved.parameters()])
        at = [a - 0.05 * g for a, g in zip(at, seen[-1], strict=True)]
    expected = [sum(g) / 3 for g in zip(*seen, strict=True)]
    found = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]
    assert error(found, expected) < 1e-6


@pytest.mark.parametrize("o", OBJECTIVES)
@pytest.mark.parametrize("w", WEIGHTINGS)
def test_hold_law_dotprod_differences_one_function(o, w):
    """Central, one-sided and exact forms agree for every objective and weighting: held quantities are held."""
    found = {}
    for form in (None, "central", "exact"):
        method = make(o, w, {"dotprod": {"form": form}})
        found[form] = step(method, n=8, seed=104)[1]
    assert error(found[None], found["exact"]) < 1e-6
    assert error(found["central"], found["exact"]) < 1e-6


# skip


class NoWeight(BaseWeighting):
    def weights(self, here, outputs, losses):
        return torch.zeros_like(losses), None


@pytest.mark.parametrize("u", UPDATES)
def test_skip_law_an_optimizer_leaves_parameters_and_its_state_alone(u):
    model = build(Net)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    step(make(), model)
    optimizer.step()
    before, state = [p.detach().clone() for p in model.parameters()], copy.deepcopy(optimizer.state_dict())
    report, _ = step(make(w=NoWeight(), u=u), model)
    optimizer.step()
    assert report.skipped
    assert all(p.grad is None for p in model.parameters())
    assert same(before, list(model.parameters()))
    after = optimizer.state_dict()["state"]
    assert all(torch.equal(v, after[i][k]) for i, slot in state["state"].items() for k, v in slot.items())


def test_a_batch_without_weight_counts_as_zero_in_the_mean():
    class First(BaseWeighting):
        def weights(self, here, outputs, losses):
            return torch.full_like(losses, float(here.index == 0)), None

    report, found = step(Method(weighting=First(), update={"erm": {"batches": 2}}, tasks=TASKS, seed=SEED))
    assert not report.skipped
    assert error(found, [None if g is None else g / 2 for g in erm(1)]) < 1e-14


def test_a_gradient_that_is_not_finite_is_reported_and_not_hidden():
    model = build(Net)
    model.a.bias.data[0] = float("nan")
    for w in WEIGHTINGS:
        report, found = step(make(w=w), model)
        assert report.log["finite"] == 0
        assert not report.skipped
        assert not torch.isfinite(flat(found)).all()


# accumulation and resuming


@pytest.mark.parametrize("u", UPDATES)
def test_accumulated_equals_unaccumulated_without_dropout(u):
    """Of the entry whose state is a sum over micro-batches; the shipped ones: test_every_entry.py."""
    found = []
    for micro in (None, 2):
        method, model = make(w="group_dro", u=u), build(Net).eval()
        found.append([g for s in range(2) for g in step(method, model, seed=100 + 9 * s, kind="seq", micro=micro)[1]])
    assert error(*found) < (1e-8 if u in ("dotprod", "grad_norm_penalty") else 1e-12)


def test_a_resumed_run_ends_bit_identical():
    triple = ("smart", "group_dro", "dotprod")

    def run(cut):
        method, model = make(*triple), build(Net)
        optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
        for s in range(6):
            if s == cut:
                state, method = method.state_dict(), make(*triple)
                method.load_state_dict(state)
                torch.manual_seed(999)
            step(method, model, seed=100 + 7 * s)
            optimizer.step()
        return [p.detach() for p in model.parameters()]

    assert same(run(None), run(3))


def test_groups_of_batches_are_averaged():
    class Two(Reptile):
        def __init__(self):
            super().__init__(2, inner_lr=0.05)
            self.needs = Needs(2, groups=2)

    model = build(Net)
    batches = draw(4)[0]
    Method(update=Two(), tasks=TASKS, seed=SEED).backward(model, batches)
    halves = []
    for start in (0, 2):
        part, method = build(Net), Method(update=Reptile(2, 0.05), tasks=TASKS, seed=SEED)
        for s in range(start // 2):
            method.backward(build(Net), draw(2, seed=s)[0])  # so that the masks are those of batch `start`
        method.backward(part, batches[start : start + 2])
        halves.append(gradients(part))
    expected = [None if a is None else (a + b) / 2 for a, b in zip(*halves, strict=True)]
    assert error(gradients(model), expected) < 1e-14


# precision


@pytest.mark.parametrize("triple", [("supervised", "reweight", "erm"), ("supervised", "uniform", "dotprod")])
def test_bf16_autocast_reaches_every_parameter_and_stays_near_float32(triple):
    plain, mixed = build(Net, dtype=torch.float32), build(Net, dtype=torch.float32)
    batches, clean = draw(2, n=32)
    k = make(*triple).batches
    make(*triple).backward(plain, batches[:k], clean[:k])
    with torch.autocast("cpu", torch.bfloat16):
        make(*triple).backward(mixed, batches[:k], clean[:k])
    assert [p.grad is None for p in plain.parameters()] == [p.grad is None for p in mixed.parameters()]
    a, b = flat(gradients(plain)), flat(gradients(mixed))
    assert float(a @ b / a.norm() / b.norm()) > 0.98


def test_autocast_moved_passes_see_the_moved_parameters():
    """Autocast keeps casts of parameters by identity: without care a pass at another point reads the old ones."""
    model, there, seen = build(Net, dtype=torch.float32), build(Net, dtype=torch.float32), []

    class Spy(Stateless):
        needs = Needs(1)

        def gradient(self, passes):
            seen.append(passes.gradient(0))
            seen.append(passes.gradient(0, [t * 1.5 for t in passes.theta]))
            return seen[0]

    for p in there.parameters():
        p.data.mul_(1.5)
    with torch.autocast("cpu", torch.bfloat16):
        Method(update=Spy(), tasks=TASKS, seed=SEED).backward(model, draw(1)[0])
        make().backward(there, draw(1)[0])
    expected = [torch.zeros_like(p) if p.grad is None else p.grad for p in there.parameters()]
    assert same(seen[1], expected)
