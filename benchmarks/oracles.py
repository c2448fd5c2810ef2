"""What methods should compute, in float64 by plain autograd. Nothing here imports gradworks.methods.

`masks` rebuilds the documented keys of dropout, so that both sides see the same masks without sharing code.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from gradworks.spec import Batch, Outputs, Task


@contextlib.contextmanager
def masks(seed: int, split: str, index: int, micro: int = 0, stream: int = 0) -> Iterator[None]:
    """Dropout on the CPU as its key says: 63 bits of blake2b of 'seed/split/batch/micro/stream'."""
    digest = hashlib.blake2b(f"{seed}/{split}/{index}/{micro}/{stream}".encode(), digest_size=8).digest()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int.from_bytes(digest, "big") >> 1)
        yield


def scores(model: nn.Module, task: Task, train: Batch, clean: Batch, index: int, seed: int = 0) -> Tensor:
    """(n,) inner products of each example's gradient with the mean gradient of the clean batch.

    The sum over parameters of <v, d/d theta sum of eps_i * loss_i> is linear in eps, and its derivative is u.
    """
    parameters = list(model.parameters())
    with masks(seed, "clean", index):
        direction = torch.autograd.grad(task.loss(task.outputs(model, clean), clean).mean(), parameters)
    eps = torch.ones(len(train.ids), dtype=parameters[0].dtype, device=parameters[0].device, requires_grad=True)
    with masks(seed, "train", index):
        losses = task.loss(task.outputs(model, train), train)
    gradient = torch.autograd.grad((eps * losses).sum(), parameters, create_graph=True)
    return torch.autograd.grad(gradient, eps, grad_outputs=direction)[0]


def second_term(
    model: nn.Module, task: Task, first: Batch, second: Batch, index: int, seed: int = 0
) -> tuple[list[Tensor], list[Tensor]]:
    """G1 + G2, and H2 G1 by double backward; `first` and `second` are batches `index` and `index + 1` of the stream."""
    parameters = list(model.parameters())
    with masks(seed, "train", index):
        g1 = torch.autograd.grad(task.loss(task.outputs(model, first), first).mean(), parameters)
    with masks(seed, "train", index + 1):
        loss = task.loss(task.outputs(model, second), second).mean()
    g2 = torch.autograd.grad(loss, parameters, create_graph=True)
    product = torch.autograd.grad(g2, parameters, grad_outputs=g1, allow_unused=True)
    product = [torch.zeros_like(p) if h is None else h for p, h in zip(parameters, product, strict=True)]
    return [a + b.detach() for a, b in zip(g1, g2, strict=True)], product


def smooth_gradient(
    model: nn.Module, task: Task, train: Batch, delta: Tensor, taught: Outputs, index: int, seed: int = 0
) -> list[Tensor]:
    """Of loss + divergence(f(e + delta), f(e)) + divergence(f(e), taught), its mean over the batch; delta is given."""
    with masks(seed, "train", index):
        z = task.outputs(model, train, task.embed(model, train))
    with masks(seed, "train", index):
        moved = task.outputs(model, train, task.embed(model, train) + delta)
    total = task.loss(z, train) + task.divergence(moved, z) + task.divergence(z, taught)
    return list(torch.autograd.grad(total.mean(), list(model.parameters())))


def relative(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Euclidean norm of the difference over that of `expected`, over all tensors."""
    pairs = [(f.detach().double(), e.detach().double()) for f, e in zip(found, expected, strict=True)]
    difference = sum(float((f - e).square().sum()) for f, e in pairs)
    return (difference / sum(float(e.square().sum()) for _, e in pairs)) ** 0.5


def up_to_scale(found: Tensor, expected: Tensor) -> float:
    """The same after the best positive factor: weights do not depend on the scale of the scores."""
    found, expected = found.detach().double(), expected.detach().double()
    factor = max(float(found @ expected), 0.0) / float(found @ found) if float(found @ found) > 0 else 0.0
    return relative([factor * found], [expected])


def signs_agree(found: Tensor, expected: Tensor) -> float:
    """Share of the examples whose score is on the same side of zero."""
    return float(((found > 0) == (expected > 0)).double().mean())
