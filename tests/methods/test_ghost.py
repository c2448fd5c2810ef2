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
from gradworks.methods.objectives.rdrop import RDrop
from gradworks.methods.objectives.smart import Smart
from gradworks.methods.weightings._shared import layers
from gradworks.methods.weightings._shared.ghost import Ghost
from tests.methods.ghost_models import MODELS
from tests.methods.toys import TASKS, Gru, Net, Tied, build, draw, flat, gradients, masks

SEED = 7


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


@pytest.mark.parametrize("name", ["bow", "padding", "stacked", "bert sdpa"])
def test_of_a_table_only_the_rows_that_the_clean_batch_reads_are_kept(name, monkeypatch):
    made, of = [], layers.Few.of
    monkeypatch.setattr(layers.Few, "of", lambda full: made.append(of(full)) or made[-1])
    batches, clean = draw(1, n=12, clean_n=1)  # at most 6 of 30 words
    clean[0][0].inputs[:, -1] = 3  # padding
    model = build(MODELS[name])
    agrees(model, batches, clean)
    few = [one for one in made if one is not None]
    words = model.get_submodule({"bow": "emb", "bert sdpa": "encoder.embeddings.word_embeddings"}.get(name, "word"))
    assert words.weight.shape in {one.full().shape for one in few}
    assert all(len(one.values) <= 1 + 6 for one in few)


def test_a_table_that_another_layer_reads_too_is_kept_whole():
    class Short(nn.Module):
        """Classes are the first words."""

        def __init__(self):
            super().__init__()
            self.emb, self.out = nn.Embedding(30, 8), nn.Linear(8, 30, bias=False)
            self.out.weight = self.emb.weight

        def forward(self, ids, kind="three"):
            return self.out(torch.tanh(self.emb(ids)).mean(1))[:, :3]

    agrees(build(Short), *draw(1, n=12, clean_n=1))  # few rows of its gradient are not zero


def test_what_was_recorded_is_used_up_last_layer_first(monkeypatch):
    left, add = [], layers.Gradients.memory
    record = Ghost.record

    def recorded(self, here):
        found.append(record(self, here))
        return found[-1]

    def memory(self, parameter):
        left.append([use.name for use in found[-1].uses if use is not None])
        return add(self, parameter)

    found, (batches, clean) = [], draw(1, n=12)
    model, one = build(MODELS["attention"]), method()
    one.backward(model, batches, clean)
    monkeypatch.setattr(Ghost, "record", recorded)
    monkeypatch.setattr(layers.Gradients, "memory", memory)
    one.backward(model, batches, clean)
    assert left[0] == ["word", "position", *(f"inside.{n}" for n in ("q", "k", "v", "o", "norm"))]
    assert left[-1] == []


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
        of_bias = model.out.bias.grad
        assert not torch.equal(of_bias, of_bias.bfloat16().float())  # sums over examples are not rounded to bf16


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


@pytest.mark.parametrize(("objective", "k"), [("supervised", 1), (RDrop(), 2)])
def test_the_cost_in_passes_is_the_floor_and_what_module_hooks_see(objective, k):
    one, model = method(objective=objective), build(Net)
    one.backward(model, *draw(1, n=12, clean_n=4))
    seen = {"forward": 0, "backward": 0}

    def forward(module, args, out):
        seen["forward"] += len(args[0])
        if out.requires_grad:
            out.register_hook(lambda g: seen.__setitem__("backward", seen["backward"] + len(g)))

    handle = model.heads["three"].register_forward_hook(forward)
    report = one.backward(model, *draw(1, n=12, clean_n=4))
    handle.remove()
    assert seen == {"forward": 12 * k + 4, "backward": 12 * k + 4}
    # of the clean batch also the weight gradients, of the batch also the inner products and the weight gradients
    assert report.passes == pytest.approx((sum(seen.values()) + 4 + 2 * 12 * k) / 3 / 12)
    assert report.passes == pytest.approx((4 * k + 3 * 4 / 12) / 3)


def test_weights_are_held_on_later_visits():
    found = {}
    for form in ("one_sided", "exact"):
        model = build(Net)
        one = method(update={"dotprod": {"form": form}})
        one.backward(model, *draw(2, n=8, seed=104))
        found[form] = gradients(model)
    assert off(found["one_sided"], found["exact"]) < 1e-6
