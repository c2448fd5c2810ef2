"""`reweight` with `backend: head`, against a loop over examples that differentiates by the last layer alone."""

import copy

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from gradworks.methods import Method
from tests.methods.shipped import ENTRIES
from tests.methods.toys import KINDS, MODELS, TASKS, Net, Tied, batch, build, draw, error, gradients, masks, same, split

SEED = 7
LAST = {"bow": "mlp.5", "gru": "out", "transformer": "out"}


def make(objective="supervised", update="erm", **options):
    return Method(objective, {"reweight": {"backend": "head"} | options}, update, tasks=TASKS, seed=SEED)


def by_layer(model, name, b, of, number=0):
    """(n, size) the gradient of each example by the parameters of one module."""
    inner = {n: p for n, p in model.named_parameters() if n.rpartition(".")[0] == name}
    assert inner
    theta = {n: p.detach().clone().requires_grad_(n in inner) for n, p in model.named_parameters()}
    task = TASKS[b.task]

    class At(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self):
            return task.loss(task.outputs(self.model, b), b)

    with masks(SEED, of, number):
        losses = functional_call(At(), {f"model.{n}": p for n, p in theta.items()})
    some = [theta[n] for n in inner]
    made = [torch.autograd.grad(one, some, retain_graph=True) for one in losses]
    return torch.stack([torch.cat([g.flatten() for g in row]) for row in made])


def oracle(model, name, train, clean):
    v = (clean.mass[:, None] * by_layer(model, name, clean, "clean")).sum(0) / clean.mass.sum()
    return by_layer(model, name, train, "train") @ v


def weighted(model, train, u):
    """The gradient of the weighted mean of the losses by all parameters."""
    plain = copy.deepcopy(model)
    w = u.clamp_min(0) * train.mass
    with masks(SEED, "train", 0):
        losses = TASKS[train.task].loss(TASKS[train.task].outputs(plain, train), train)
    (w / w.sum() * losses).sum().backward()
    return [torch.zeros_like(p) if p.grad is None else p.grad for p in plain.parameters()]


def filled(model):
    return [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]


class Shared(Net):
    """A layer makes one row for all examples, which the model repeats itself (positions of DeBERTa)."""

    def __init__(self):
        super().__init__()
        self.positions = nn.Linear(self.emb.embedding_dim, self.emb.embedding_dim)

    def forward(self, inputs, kind="three", **more):
        made = self.positions(self.emb.weight[None, :1]).repeat(len(inputs), 1, 1)
        return super().forward(inputs, kind, **more) + made.mean(2)


def test_a_row_that_all_examples_share_may_be_repeated_by_the_model():
    model, train, clean = build(Shared), batch("three", 8), batch("three", 5, 900)
    report = make().backward(model, [[train]], [[clean]])
    assert error([report.sums[0][0].score], [oracle(model, "heads.three", train, clean)]) < 1e-10


@pytest.mark.parametrize("kind", KINDS)
def test_scores_and_gradient_of_every_kind_of_head(kind):
    model = build(Net)
    train, clean = batch(kind, 8), batch(kind, 5, 900)
    u = oracle(model, f"heads.{kind}", train, clean)
    assert (u > 0).any()
    report = make().backward(model, [[train]], [[clean]])
    assert error([report.sums[0][0].score], [u]) < 1e-10
    assert error(filled(model), weighted(model, train, u)) < 1e-10


@pytest.mark.parametrize("name", MODELS)
def test_scores_of_every_encoder_after_training_and_from_the_second_step_on(name):
    model, plain = build(MODELS[name]), Method(tasks=TASKS)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for s in range(20):
        plain.backward(model, draw(1, n=16, seed=1000 + s)[0])
        optimizer.step()
    method = make()
    for number in range(2):  # the first finds the layer, the second makes no graph before it
        train, clean = batch(n=8, seed=100 + number), batch(n=6, seed=900 + number)
        v = by_layer(model, LAST[name], clean, "clean", number).mean(0)
        u = by_layer(model, LAST[name], train, "train", number) @ v
        assert error([method.backward(model, [[train]], [[clean]]).sums[0][0].score], [u]) < 1e-9


@pytest.mark.parametrize("objective", ENTRIES["objective"])
def test_where_the_head_alone_is_trained_it_is_exact(objective):
    found = []
    for backend in ("head", "per_example"):
        model = build(Net)
        for n, p in model.named_parameters():
            p.requires_grad_(n.startswith("heads.three"))
        method = make(objective, backend=backend)
        reports = [method.backward(model, *draw(1, n=8, seed=100 + s, clean_n=5)) for s in range(2)]
        found.append([r.sums[0][0].score for r in reports] + gradients(model))
    assert error(*found) < 1e-10


def test_a_layer_that_shares_its_weights_counts_as_the_head_alone():
    model, apart = build(Tied), build(Tied)
    apart.out.weight = nn.Parameter(apart.emb.weight.detach().clone())
    train, clean = batch("seq", 6), batch("seq", 4, 900)
    report = make().backward(model, [[train]], [[clean]])
    assert error([report.sums[0][0].score], [oracle(apart, "out", train, clean)]) < 1e-10


def test_micro_batches_and_clean_micro_batches_are_the_whole():
    model = build(Net).eval()
    batches, ((clean,),) = draw(1, n=8)
    parts = [split(batches[0][0], 4)]
    whole = make().backward(model, batches, [[clean]])
    expected, u = gradients(model), whole.sums[0][0].score
    report = make().backward(model, parts, [split(clean, 3)])
    torch.testing.assert_close(torch.cat([one.score for one in report.sums[0]]), u, rtol=1e-9, atol=1e-12)
    assert error(gradients(model), expected) < 1e-12


def test_what_is_kept_serves_it_too():
    model, steps = build(Net), [(batch(seed=100 + s), batch(seed=900 + s)) for s in range(3)]
    v = [by_layer(model, "heads.three", clean, "clean", s).mean(0) for s, (_, clean) in enumerate(steps)]
    of = [v[0], v[0], (0.5 * v[0] + v[2]) / 1.5]
    method = make(clean_every=2, clean_momentum=0.5)
    for s, (train, clean) in enumerate(steps):
        report = method.backward(model, [[train]], [[clean] if s % 2 == 0 else []])
        u = by_layer(model, "heads.three", train, "train", s) @ of[s]
        assert error([report.sums[0][0].score], [u]) < 1e-10


# cost


def test_a_clean_batch_costs_a_forward_pass_and_scores_nothing():
    model, method = build(MODELS["gru"], width=32), make()
    first = method.backward(model, *draw(1, n=8, clean_n=4)).passes
    report = method.backward(model, *draw(1, n=8, seed=300, clean_n=4))
    assert report.passes == pytest.approx((3 + 1 / 2) / 3)
    assert first == report.passes  # what finds the layer is not counted
    plain, flops = Method(tasks=TASKS), []
    for one, clean in ((plain, ()), (method, draw(1, n=8, clean_n=4)[1])):
        with FlopCounterMode(display=False) as counter:
            one.backward(model, draw(1, n=8)[0], clean)
        flops.append(counter.get_total_flops())
    assert flops[1] / flops[0] < 1.25  # a GRU's are not all counted; the head's own few are


def test_no_graph_is_made_before_the_head_of_a_clean_batch():
    model, seen = build(Net), []
    model.a.register_forward_hook(lambda _, args, output: seen.append(output.requires_grad))
    method = make()
    for s in range(2):
        seen.clear()
        method.backward(model, *draw(1, seed=100 + s))
    assert seen == [False, True]
    assert torch.is_grad_enabled()


# state


@pytest.mark.parametrize("cut", [1, 2])
def test_a_resumed_run_is_the_same_to_the_bit(cut):
    def run(cut):
        model, method, passes = build(Net), make(), []
        for s in range(4):
            if s == cut:
                state, method = copy.deepcopy(method.state_dict()), make()
                method.load_state_dict(state)
            passes.append(method.backward(model, *draw(1, seed=100 + s)).passes)
            with torch.no_grad():
                for p in model.parameters():
                    p -= 0 if p.grad is None else 0.1 * p.grad
        return passes, list(model.parameters())

    (passes, whole), (again, resumed) = run(None), run(cut)
    assert same(whole, resumed) and passes == again


def test_the_layer_is_looked_for_again_where_others_are_trained():
    model, method = build(MODELS["bow"]), make()
    model.mlp[5].requires_grad_(False)
    for number, name in enumerate(("mlp.3", "mlp.5")):
        train, clean = batch(seed=100 + number), batch(seed=900 + number)
        v = by_layer(model, name, clean, "clean", number).mean(0)
        u = by_layer(model, name, train, "train", number) @ v
        assert error([method.backward(model, [[train]], [[clean]]).sums[0][0].score], [u]) < 1e-10
        model.mlp[5].requires_grad_(True)


def test_bf16_autocast_stays_near_float32():
    found = []
    for enabled in (False, True):
        model, method = build(Net, dtype=torch.float32).eval(), make()
        for s in range(2):
            with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
                report = method.backward(model, *draw(1, n=16, seed=100 + s))
        found.append([report.sums[0][0].score.double(), *(g.double() for g in gradients(model) if g is not None)])
    assert error(found[1], found[0]) < 0.1


# what it refuses


class Turned(Net):
    """The rows of its last layer come in the order of positions."""

    def forward(self, ids, kind, embedded=None):
        h = self.a(self.emb(ids)).transpose(0, 1)  # (L, n, D)
        return self.heads[kind](h.flatten(0, 1)).unflatten(0, h.shape[:2]).mean(0)


class Coupled:
    """A loss relative to the mean of the batch."""

    def outputs(self, model, b, embedded=None):
        return TASKS["three"].outputs(model, b)

    def loss(self, outputs, b):
        losses = TASKS["three"].loss(outputs, b)
        return (losses - losses.mean()) ** 2


class NoLinear(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(30, 3, dtype=torch.float64))

    def forward(self, ids, kind):
        return self.weight[ids].mean(1)


def refused(model, task):
    method = Method(weighting={"reweight": {"backend": "head"}}, task=task, seed=SEED)
    with pytest.raises(ValueError, match=r"^reweight: backend head: ") as error:
        method.backward(model, *draw(1))
    assert all(p.grad is None for p in model.parameters())
    assert len(str(error.value).splitlines()) <= 3 and "expected backend: auto or logit_fd" in str(error.value)
    return str(error.value)


def test_rows_that_are_not_examples_are_refused():
    assert "the rows of module heads.three are not examples" in refused(build(Turned), TASKS["three"])


def test_a_loss_that_reads_other_examples_is_refused():
    assert "or a loss reads another example" in refused(build(Net), Coupled())


def test_a_model_without_a_linear_layer_is_refused():
    assert "found no trained nn.Linear that the losses of task 'three' depend on" in refused(NoLinear(), TASKS["three"])
