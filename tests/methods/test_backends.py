"""The exact back-ends of `reweight` against a loop over examples that shares no code with them."""

import hashlib

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from gradworks.methods import Method
from gradworks.methods.objectives.rdrop import RDrop
from gradworks.methods.objectives.smart import Smart
from gradworks.methods.weightings._shared.jvp import refusal
from gradworks.spec import Batch
from tests.methods.toys import KINDS, MODELS, TASKS, Net, Tied, build, draw, flat, gradients, masks

SEED = 7
BACKENDS = ("jvp", "per_example", "second_order")
every_backend = pytest.mark.parametrize("backend", BACKENDS)


def method(backend, objective="supervised", update="erm", **options):
    return Method(objective, {"reweight": {"backend": backend}}, update, seed=SEED, **(options or {"tasks": TASKS}))


def scores(report):
    return torch.cat([part.score for parts in report.sums for part in parts])


class Masks:
    """The documented keys of one micro-batch."""

    def __init__(self, side, micro):
        self.side, self.micro = side, micro

    def __call__(self, stream):
        return masks(SEED, self.side, 0, self.micro, stream)

    def noise(self, like, batch):
        rows = []
        for i in batch.ids:
            digest = hashlib.blake2b(f"{SEED}/noise/0/{i}".encode(), digest_size=8).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)
            rows.append(torch.randn((like.shape[0] // len(batch.ids), *like.shape[1:]), generator=generator))
        return torch.cat(rows).to(like)


def loop_oracle(model, train, clean, objective=None, task=None):
    """u: one inner product per example, one backward pass each, micro-batch by micro-batch."""
    every = [p for p in model.parameters() if p.requires_grad]
    task = task or TASKS[train[0].task]
    total, mass = 0.0, 0.0
    for k, b in enumerate(clean):
        with masks(SEED, "clean", 0, k):
            total, mass = total + (b.mass * task.loss(task.outputs(model, b), b)).sum(), mass + b.mass.sum()
    v = torch.autograd.grad(total / mass, every, materialize_grads=True)
    found = []
    for k, b in enumerate(train):
        if objective is None:
            with masks(SEED, "train", 0, k):
                losses = task.loss(task.outputs(model, b), b)
        else:
            held = {"log": {}}
            losses = objective.loss(task, objective.outputs(task, model, b, Masks("train", k), held), b, held)
        for l in losses:
            row = torch.autograd.grad(l, every, retain_graph=True, materialize_grads=True)
            found.append(sum((a * g).sum() for a, g in zip(v, row, strict=True)))
    return torch.stack(found)


def distance(found, expected):
    return float((found.double() - expected).norm() / expected.norm())


@every_backend
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_every_model_with_dropout_on(backend, name, dtype):
    model = build(MODELS[name])
    (train,), (clean,) = draw(1, n=16, clean_n=8)
    with sdpa_kernel(SDPBackend.MATH):
        expected = loop_oracle(model, train, clean)
        found = scores(method(backend).backward(model.to(dtype), [train], [clean]))
    assert 0 < (expected > 0).sum() < len(expected)  # both signs, else nothing is told apart
    assert distance(found, expected) < (1e-10 if dtype == torch.float64 else 1e-4)


@every_backend
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_head(backend, kind):
    model = build(Net)
    (train,), (clean,) = draw(1, kind, n=8, seed=140)
    found = scores(method(backend).backward(model, [train], [clean]))
    assert distance(found, loop_oracle(model, train, clean)) < 1e-10


@every_backend
@pytest.mark.parametrize("objective", [RDrop, Smart])
@pytest.mark.parametrize("kind", ["three", "span", "reg"])
def test_objectives_of_several_forward_passes_and_micro_batches(backend, objective, kind):
    model, own = build(Net), objective()
    (train,), (clean,) = draw(1, kind, n=8, seed=140, micro=4)
    own.begin(model)
    expected = loop_oracle(model, train, clean, own)
    found = scores(method(backend, objective()).backward(model, [train], [clean]))
    assert distance(found, expected) < 1e-10


@every_backend
def test_tied_and_frozen_parameters(backend):
    tied, frozen = build(Tied), build(Net)
    frozen.emb.weight.requires_grad_(False)
    for model, kind in ((tied, "seq"), (frozen, "three")):
        (train,), (clean,) = draw(1, kind, n=8, seed=140)
        found = scores(method(backend).backward(model, [train], [clean]))
        assert distance(found, loop_oracle(model, train, clean)) < 1e-10


PINNED = [2.2443045, -0.9864773, -1.1422256, -1.0231160]  # of the epsilon oracle in test_reweight.py


@every_backend
def test_pinned_scores_and_the_weighted_gradient(backend):
    model, plain = build(Net), build(Net)
    ((train,),), ((clean,),) = draw(1, n=4)
    report = method(backend).backward(model, [[train]], [[clean]])
    torch.testing.assert_close(scores(report), torch.tensor(PINNED, dtype=torch.float64), rtol=1e-6, atol=1e-7)
    with masks(SEED, "train", 0):  # only the first example has a positive score
        TASKS["three"].loss(TASKS["three"].outputs(plain, train), train)[0].backward()
    torch.testing.assert_close(flat(gradients(model)), flat(gradients(plain)))


@every_backend
@pytest.mark.parametrize("objective", ["supervised", RDrop, Smart])
def test_accumulated_equals_unaccumulated_without_dropout(backend, objective):
    found = []
    for micro in (None, 2):
        model = build(Net).eval()
        made = method(backend, objective if isinstance(objective, str) else objective())
        made.backward(model, *draw(1, n=8, micro=micro))
        found.append(flat(gradients(model)))
    # smart's ascent direction of 1e-3 differs in rounding, and its normalisation makes that visible
    assert float((found[0] - found[1]).norm() / found[0].norm()) < (1e-9 if objective is Smart else 1e-12)


@every_backend
def test_hold_law_dotprod_differences_one_function(backend):
    found = {}
    for form in ("central", "one_sided", "exact"):
        model = build(Net)
        made = method(backend, Smart(), {"dotprod": {"form": form}})
        made.backward(model, *draw(2, n=8, seed=104))
        found[form] = flat(gradients(model))
    for form in ("central", "one_sided"):
        assert float((found[form] - found["exact"]).norm() / found["exact"].norm()) < 1e-6


# cost


def passes(backend, objective, n, clean_n):
    made, model = method(backend, objective), build(Net)
    for seed in (100, 300):  # the first step measures shares of gradient too
        report = made.backward(model, *draw(1, n=n, clean_n=clean_n, seed=seed))
    assert not report.skipped
    return report.passes


@pytest.mark.parametrize(
    ("backend", "thirds"),
    [("jvp", lambda r, n: 6 + 3 * r), ("per_example", lambda r, n: 3 + 3 * r + 2 * n),
     ("second_order", lambda r, n: 7 + 3 * r)],
)  # fmt: skip
def test_the_stated_cost_is_counted_and_is_the_arithmetic_that_is_done(backend, thirds):
    n, clean_n = 8, 4
    counted = passes(backend, "supervised", n, clean_n)
    assert counted == pytest.approx(thirds(clean_n / n, n) / 3)

    def products(run):
        with FlopCounterMode(display=False) as counter:
            run()
        return counter.get_total_flops()

    drawn = draw(1, n=n, clean_n=clean_n, seed=300)
    plain = products(lambda: Method(tasks=TASKS).backward(build(Net), drawn[0]))
    made, model = method(backend), build(Net)
    made.backward(model, *drawn)  # checks that a batch gives the same twice
    assert products(lambda: made.backward(model, *drawn)) / plain == pytest.approx(counted)


@pytest.mark.parametrize(("objective", "reached", "first"), [(RDrop, 2, 0), (Smart, 2, 1)])
def test_every_forward_pass_of_an_objective_is_counted(objective, reached, first):
    """`reached`: passes that the loss differentiates; `first`: whether delta and the teacher's outputs are made."""
    n = 8
    extra = 2 * first  # the backward pass to the embeddings, the teacher
    for backend, forward, backward in (("jvp", 2, 1), ("per_example", 1, 1 + n), ("second_order", 1, 3)):
        expected = forward * reached + 2 * backward * reached + extra + 3
        if backend == "jvp":
            expected += 2 * reached
        assert passes(backend, objective(), n, n) == pytest.approx(expected / 3), backend


@every_backend
def test_nothing_is_kept_after_a_step_and_nothing_is_state(backend):
    made = method(backend)
    made.backward(build(Net), *draw(1))
    assert made.weighting._backend._direction == []
    assert made.state_dict()["weighting"]["backend"] == {}


# refusals


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 12)

    def forward(self, x):
        q, k, v = self.inner(x).view(-1, 1, 2, 6).transpose(1, 2).chunk(3, -1)
        return F.scaled_dot_product_attention(q, k, v).flatten(1)


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.sin()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        return g * ctx.saved_tensors[0].cos()


class Cut(Once):
    @staticmethod
    def backward(ctx, g):
        return (g * ctx.saved_tensors[0].cos()).detach()


class Custom(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function.apply(x)


class Bag(nn.Module):
    def __init__(self):
        super().__init__()
        self.bag = nn.EmbeddingBag(9, 4)

    def forward(self, x):
        return self.bag((4 * x).long() % 9)


def part(name):
    torch.manual_seed(0)
    lower = {"attention": Attention, "bag": Bag, "once": lambda: Custom(Once), "cut": lambda: Custom(Cut)}[name]()
    first = nn.Identity() if name == "bag" else nn.Linear(4, 4)
    return nn.Sequential(first, lower, nn.Linear(4, 3)).double()


class Own:
    def outputs(self, model, batch):
        return (model(batch.inputs),)

    def loss(self, out, batch):
        return F.cross_entropy(out[0], batch.labels, reduction="none")


def own_batches():
    g = torch.Generator().manual_seed(3)
    made = []
    for name in ("train", "clean"):
        x, y = torch.randn(8, 4, generator=g, dtype=torch.float64), torch.randint(0, 3, (8,), generator=g)
        made.append([Batch("own", [f"{name}{i}" for i in range(8)], x, y, torch.ones(8, dtype=torch.float64))])
    return made


JVP, SECOND = "reweight: backend jvp: ", "reweight: backend second_order: "


@pytest.mark.parametrize(
    ("backend", "name", "words"),
    [
        ("jvp", "attention", (JVP + "_scaled_dot_product_flash_attention_for_cpu in 1 (Attention) has no forward-mode",
                              'or attn_implementation="eager"')),
        ("jvp", "bag", (JVP + "_embedding_bag in 1.bag (EmbeddingBag) has no forward-mode derivative",)),
        ("jvp", "once", (JVP + "custom autograd.Function in 1 (Custom) has no forward-mode derivative",)),
        ("second_order", "attention", (SECOND + "aten::_scaled_dot_product_flash_attention_for_cpu_backward has no",
                                       'or attn_implementation="eager"')),
        ("second_order", "bag", (SECOND + "_embedding_bag_backward has no double backward",)),
        ("second_order", "once", (SECOND + "an operation of the model can be differentiated only once",)),
        ("second_order", "cut", (SECOND + "an operation of the model can be differentiated only once",)),
    ],
)  # fmt: skip
def test_a_model_that_a_backend_cannot_serve_is_refused_on_the_first_batch(backend, name, words):
    train, clean = own_batches()
    model = part(name)
    before = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(ValueError) as caught:
        method(backend, task=Own()).backward(model, [train], [clean])
    said = str(caught.value)
    assert all(w in said for w in (*words, "expected backend: auto or logit_fd")), said
    assert len(said.splitlines()) <= 3
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    # what works everywhere
    found = scores(method("per_example", task=Own()).backward(model, [train], [clean]))
    assert distance(found, loop_oracle(model, train, clean, task=Own())) < 1e-10


def test_the_words_of_cudnn_are_known():
    said = RuntimeError("the derivative for '_cudnn_rnn_backward' is not implemented. Double backwards is not")
    found = str(refusal(said, "second_order", "double backward", nn.GRU(2, 2)))
    assert found.startswith(SECOND + "_cudnn_rnn_backward has no double backward\nexpected backend: auto")


def test_an_error_of_the_model_itself_stays_what_it_is():
    class Broken(Own):
        calls = 0

        def outputs(self, model, batch):
            self.calls += 1
            if self.calls == 5:  # after the two of the check, the clean pass and the first one: in that of the back-end
                raise RuntimeError("out of paper")
            return super().outputs(model, batch)

    with pytest.raises(RuntimeError, match="out of paper"):
        method("jvp", task=Broken()).backward(part("cut"), *([b] for b in own_batches()))


def test_a_refusal_leaves_the_parameters_their_memory():
    model = part("attention")
    memory = [p.data_ptr() for p in model.parameters()]
    train, clean = own_batches()
    with pytest.raises(ValueError):
        method("jvp", task=Own()).backward(model, [[train[0], train[0]]], [clean])
    assert memory == [p.data_ptr() for p in model.parameters()]
