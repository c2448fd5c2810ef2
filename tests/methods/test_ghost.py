"""The back-end `ghost` against a loop over examples and against derivatives by example weights.

Neither oracle imports gradworks.methods. Where ghost may be used and what it refuses: test_ghost_limits.py.
"""

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from gradworks.methods import Method
from tests.methods.own_entries import RDrop, Smart
from tests.methods.toys import TASKS, Bow, Gru, Net, Tied, build, draw, flat, gradients, masks

SEED, V, L = 7, 30, 6


class Words(nn.Module):
    """Embeddings of words, positions and types, then whatever, then a mean over positions and a head."""

    def __init__(self, inside=None, width=8, pad=None, **_):
        super().__init__()
        self.word, self.position = nn.Embedding(V, width, padding_idx=pad), nn.Embedding(L, width)
        self.inside = inside or nn.Identity()
        self.drop, self.out = nn.Dropout(0.2), nn.Linear(width, 3)

    def forward(self, ids, kind="three"):
        h = self.word(ids) + self.position(torch.arange(L)[None])  # (1, L): one row of positions for all examples
        return self.out(self.drop(self.inside(self.drop(h))).mean(1))


class Attention(nn.Module):
    """Heads of attention from linear layers: query, key and value share their input."""

    def __init__(self, width=8):
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))
        self.norm = nn.LayerNorm(width)

    def forward(self, h):
        return self.norm(h + self.o(F.scaled_dot_product_attention(self.q(h), self.k(h), self.v(h))))


class Twice(nn.Module):
    """One module called twice, in place after it."""

    def __init__(self, width=8):
        super().__init__()
        self.a = nn.Linear(width, width)

    def forward(self, h):
        return torch.relu_(self.a(torch.tanh(self.a(h))))


class Pictures(nn.Module):
    """Convolutions: strides, groups, padding modes; positions as a picture."""

    def __init__(self, width=8):
        super().__init__()
        self.one = nn.Conv1d(width, width, 3, padding=1, groups=2)
        self.two = nn.Conv2d(1, 4, 3, stride=2, padding="valid", bias=False)
        self.three = nn.Conv2d(4, width, 2, padding=1, padding_mode="circular")
        self.four = nn.Conv2d(width, width, 2, padding="same", dilation=1)

    def forward(self, h):
        h = self.one(h.transpose(1, 2))
        return self.four(torch.tanh(self.three(torch.tanh(self.two(h[:, None]))))).flatten(2).transpose(1, 2)


class Recurrent(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.gru = nn.GRU(8, 8 // (1 + options.get("bidirectional", False)), **options)

    def forward(self, h):
        first = self.gru.batch_first
        states, last = self.gru(h if first else h.transpose(0, 1))
        states.mul_(2)  # in place
        return (states if first else states.transpose(0, 1)) + last.mean(0).repeat(1, 8 // last.shape[2])[:, None]


class Rms(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(8, 8, bias=False), nn.RMSNorm(8), nn.LayerNorm((L, 8)), nn.LayerNorm(8, bias=False))


class SequenceFirst(nn.Module):
    """Dimension 1 is the example."""

    def __init__(self):
        super().__init__()
        self.a, self.norm = nn.Linear(8, 5), nn.LayerNorm(5)
        self.b = nn.Linear(5, 8)

    def forward(self, h):
        return self.b(torch.tanh(self.norm(self.a(h.transpose(0, 1))))).transpose(0, 1)


class Stacked(nn.Module):
    """Two texts of an example are rows i and i + n."""

    def __init__(self):
        super().__init__()
        self.a, self.gru = nn.Linear(8, 8), nn.GRU(8, 8, batch_first=True)

    def forward(self, h):
        p, q = self.gru(torch.tanh(self.a(torch.cat([h[:, :3], h[:, 3:]]))))[0].chunk(2)
        return torch.cat([p, q * p], 1)


def bert(attention, **_):
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=V, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=L,
    )  # fmt: skip
    config._attn_implementation = attention

    class Bert(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder, self.head = transformers.BertModel(config), nn.Linear(8, 3)
            nn.init.normal_(self.encoder.embeddings.token_type_embeddings.weight)

        def forward(self, ids, kind="three"):
            inside = (ids > 3) | (torch.arange(L) == 0)
            return self.head(self.encoder(input_ids=ids, attention_mask=inside.long()).pooler_output)

    return Bert()


MODELS = {
    "bow": Bow,
    "gru": Gru,
    "every head": Net,
    "positions": Words,
    "padding": lambda: Words(pad=3),
    "attention": lambda: Words(Attention()),
    "twice": lambda: Words(Twice()),
    "convolutions": lambda: Words(Pictures()),
    "norms": lambda: Words(Rms()),
    "gru, both ways": lambda: Words(Recurrent(num_layers=2, bidirectional=True, batch_first=True)),
    "gru, no bias": lambda: Words(Recurrent(bias=False)),
    "sequence first": lambda: Words(SequenceFirst()),
    "stacked": lambda: Words(Stacked()),
    "bert eager": lambda: bert("eager"),
    "bert sdpa": lambda: bert("sdpa"),
}


def method(backend="ghost", objective="supervised", update="erm", **options):
    return Method(objective, {"reweight": {"backend": backend}}, update, seed=SEED, **({"tasks": TASKS} | options))


def trained(model):
    return {n: p for n, p in model.named_parameters() if p.requires_grad}


class Losses(nn.Module):
    """(n,) losses of a batch under the documented masks, at any parameters."""

    def __init__(self, model, task):
        super().__init__()
        self.model, self.task = model, task

    def forward(self, b, side, micro):
        with masks(SEED, side, 0, micro):
            return self.task.loss(self.task.outputs(self.model, b), b)


def losses_at(model, theta, parts, side, task=None):
    run = Losses(model, task or TASKS[parts[0].task])
    named = {f"model.{n}": p for n, p in theta.items()}
    return torch.cat([functional_call(run, named, (b, side, k)) for k, b in enumerate(parts)])


def leaves(model):
    return {n: p.detach().clone().requires_grad_() for n, p in trained(model).items()}


def mass(parts):
    return torch.cat([b.mass for b in parts])


def loop_oracle(model, train, clean, task=None):
    """u, and the gradient under weights max(u, 0): one backward pass per example."""
    theta = leaves(model)
    every = list(theta.values())
    m = mass(clean)
    mean = (m * losses_at(model, theta, clean, "clean", task)).sum() / m.sum()
    v = torch.autograd.grad(mean, every, materialize_grads=True)
    rows = [
        torch.autograd.grad(one, every, retain_graph=True, materialize_grads=True)
        for one in losses_at(model, theta, train, "train", task)
    ]
    u = torch.stack([sum((a * b).sum() for a, b in zip(v, row, strict=True)) for row in rows])
    w = u.clamp_min(0) * mass(train)
    return u, [sum(k * g for k, g in zip(w, column, strict=True)) / w.sum() for column in zip(*rows, strict=True)]


def epsilon_oracle(model, train, clean):
    """u: the derivative of the clean loss after an inner step by the example weights, at 0 (Ren et al., eq. 4)."""
    theta = leaves(model)
    eps = torch.zeros(len(mass(train)), dtype=torch.float64, requires_grad=True)
    inner = (eps * losses_at(model, theta, train, "train")).sum()
    grads = torch.autograd.grad(inner, list(theta.values()), create_graph=True, materialize_grads=True)
    moved = {n: p - g for (n, p), g in zip(theta.items(), grads, strict=True)}
    m = mass(clean)
    return -torch.autograd.grad((m * losses_at(model, moved, clean, "clean")).sum() / m.sum(), eps)[0]


def off(found, expected):
    return float((flat(found) - flat(expected)).norm() / flat(expected).norm())


def filled(model):
    return [torch.zeros_like(p) if p.grad is None else p.grad for p in trained(model).values()]


def scores(report):
    return torch.cat([one.score for parts in report.sums for one in parts])


def agrees(model, batches, clean, bound=1e-10, one=None, task=None):
    """A step of `ghost` against the loop; returns its report."""
    u, gradient = loop_oracle(model, batches[0], clean[0], task)
    assert 0 < (u > 0).sum() < len(u)  # both signs, else nothing is told apart
    report = (one or method()).backward(model, batches, clean)
    assert off([scores(report)], [u]) <= bound
    assert off(filled(model), gradient) <= bound
    return report


@pytest.mark.parametrize("name", MODELS)
def test_scores_and_gradient_agree_with_the_loop_with_dropout_on(name):
    model = build(MODELS[name])
    batches, clean = draw(1, n=12, clean_n=5)
    batches[0][0].inputs[:, -1] = clean[0][0].inputs[:, 0] = 3  # padding
    report = agrees(model, batches, clean)
    plain = build(MODELS[name])
    Method(tasks=TASKS, seed=SEED).backward(plain, batches)
    assert [p.grad is None for p in model.parameters()] == [p.grad is None for p in plain.parameters()]
    torch.testing.assert_close(report.sums[0][0].losses, losses_at(plain, trained(plain), batches[0], "train").detach())
    again = method()
    again.backward(model, batches, clean)
    again.backward(model, batches, clean)  # not the first batch any more: the floor, nothing checked
    assert again.backward(model, batches, clean).passes == pytest.approx((4 + 3 * 5 / 12) / 3)


@pytest.mark.parametrize("name", ["bow", "gru", "attention", "convolutions", "bert eager"])
def test_scores_agree_with_derivatives_by_example_weights(name):
    model, (batches, clean) = build(MODELS[name]), draw(1, n=8)
    with sdpa_kernel(SDPBackend.MATH):
        u = epsilon_oracle(model, batches[0], clean[0])
        report = method().backward(model, batches, clean)
    assert off([scores(report)], [u]) <= 1e-10


@pytest.mark.parametrize("name", ["bow", "gru", "attention", "norms", "bert sdpa"])
def test_float32_is_exact_to_rounding(name):
    batches, clean = draw(1, n=16)
    u, gradient = loop_oracle(build(MODELS[name]), batches[0], clean[0])
    model = build(MODELS[name], dtype=torch.float32)
    report = method().backward(model, batches, clean)
    assert off([scores(report)], [u]) < 1e-6
    assert off(filled(model), gradient) < 1e-6


def test_bf16_autocast_stays_near_float32():
    for make in (MODELS["attention"], Gru):
        model, plain = build(make, dtype=torch.float32), build(make, dtype=torch.float32)
        batches, clean = draw(1, n=32)
        plain_scores = scores(method().backward(plain, batches, clean))
        with torch.autocast("cpu", torch.bfloat16):
            found = scores(method().backward(model, batches, clean))
        assert float(F.cosine_similarity(found, plain_scores, dim=0)) > 0.99
        assert float(F.cosine_similarity(flat(filled(model)), flat(filled(plain)), dim=0)) > 0.98
        assert [p.grad.dtype for p in model.parameters()] == [p.dtype for p in model.parameters()]


def test_shared_weights_sum_over_their_uses():
    agrees(build(Tied), *draw(1, "seq", n=8))


def test_shared_weights_with_a_row_for_padding():
    model = build(Tied)
    model.emb.padding_idx = 3  # no gradient through the embedding, some through the output
    batches, clean = draw(1, "seq", n=8)
    batches[0][0].inputs[:, 2] = clean[0][0].inputs[:, 1] = 3
    agrees(model, batches, clean)
    assert model.emb.weight.grad[3].norm() > 0


@pytest.mark.parametrize(
    "frozen", [["word.", "position."], ["inside."], ["inside.q.weight", "inside.norm.weight"], ["inside.norm.bias"]]
)
def test_frozen_parameters(frozen):
    model = build(MODELS["attention"])
    for name, p in model.named_parameters():
        p.requires_grad_(not name.startswith(tuple(frozen)))
    agrees(model, *draw(1, n=12))


def test_a_frozen_embedding_before_a_gru_and_a_head_alone():
    model, (batches, clean) = build(Gru), draw(1, n=12)
    model.emb.requires_grad_(False)
    agrees(model, batches, clean)
    model.gru.requires_grad_(False)
    agrees(model, batches, clean)


@pytest.mark.parametrize("name", ["every head", "gru", "attention"])
def test_micro_batches(name):
    model = build(MODELS[name])
    batches, clean = draw(1, n=12, micro=5)  # the last one is smaller
    report = agrees(model, batches, clean)
    assert [len(one.score) for one in report.sums[0]] == [5, 5, 2]


@pytest.mark.parametrize("objective", [RDrop, Smart])
def test_objectives_with_several_passes(objective):
    """Against logit_fd, which needs no rule."""
    batches, clean = draw(1, n=8)
    found = {}
    for backend in ("ghost", "logit_fd"):
        model = build(Net)
        one = method(backend, objective())
        report = one.backward(model, batches, clean)
        found[backend] = (scores(report), filled(model))
    assert off([found["ghost"][0]], [found["logit_fd"][0]]) < 1e-6
    assert off(found["ghost"][1], found["logit_fd"][1]) < 1e-6


def test_weights_are_held_on_later_visits():
    found = {}
    for form in ("one_sided", "exact"):
        model = build(Net)
        one = method(update={"dotprod": {"form": form}})
        one.backward(model, *draw(2, n=8, seed=104))
        found[form] = gradients(model)
    assert off(found["one_sided"], found["exact"]) < 1e-6
