"""Other people's ways to compute the same, written from their documented interfaces, as peers of the cost table.

Each has a `gradient(batch, clean)` that fills `.grad` of `self.model` and, for reweighting, returns the scores (n,).
`higher` and `opacus` come with `pip install gradworks[benchmarks]`.
"""

from __future__ import annotations

import copy
import warnings

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

from benchmarks.models import Bert, Classification
from gradworks.spec import Batch


def _weights(score: Tensor) -> Tensor:
    weights = score.clamp_min(0)
    return weights / weights.sum().clamp_min(1e-30)


class Peer:
    """What they share: a model and a task."""

    def __init__(self, model: nn.Module, task: Classification):
        self.model, self.task = model, task

    @classmethod
    def check(cls) -> None:
        """Raises ModuleNotFoundError where what it needs is not installed."""

    def losses(self, batch: Batch, model: nn.Module | None = None) -> Tensor:
        return self.task.loss(self.task.outputs(model or self.model, batch), batch)


class Higher(Peer):
    """Ren et al. (2018), algorithm 1, as published: an inner step with example weights, differentiated by them.

    Grefenstette et al. (2019): the inner loop of `higher`, which keeps the graph of the step.
    """

    @classmethod
    def check(cls) -> None:
        _import("higher")

    def gradient(self, batch: Batch, clean: Batch) -> Tensor:
        higher = _import("higher")
        inner = torch.optim.SGD(self.model.parameters(), lr=1e-3)
        with higher.innerloop_ctx(self.model, inner) as (copied, steps):
            eps = torch.zeros(len(batch.ids), device=batch.labels.device, requires_grad=True)
            steps.step((eps * self.losses(batch, copied)).sum())
            (slope,) = torch.autograd.grad(self.losses(clean, copied).mean(), eps)
        score = -slope.detach()
        (_weights(score) * self.losses(batch)).sum().backward()
        return score


class TorchFunc(Peer):
    """Per-example gradients of every parameter by `torch.func`, reused for the weighted step."""

    def gradient(self, batch: Batch, clean: Batch) -> Tensor:
        parameters = dict(self.model.named_parameters())
        mean = torch.autograd.grad(self.losses(clean).mean(), list(parameters.values()))

        def loss(values: dict[str, Tensor], ids: Tensor, label: Tensor) -> Tensor:
            return F.cross_entropy(functional_call(self.model, values, (ids[None],)), label[None])

        values = {name: p.detach() for name, p in parameters.items()}
        each = vmap(grad(loss), in_dims=(None, 0, 0), randomness="different")(values, batch.inputs, batch.labels)
        score = sum((each[name].flatten(1) @ v.flatten()) for name, v in zip(parameters, mean, strict=True))
        weights = _weights(score)
        for name, p in parameters.items():
            p.grad = torch.tensordot(weights, each[name], 1)
        return score


class Opacus(Peer):
    """The same by opacus (Yousefpour et al. 2021): hooks keep each layer's inputs and output gradients."""

    def __init__(self, model: nn.Module, task: Classification):
        module = _import("opacus").GradSampleModule
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            super().__init__(module(model, loss_reduction="sum"), task)

    @classmethod
    def check(cls) -> None:
        _import("opacus")

    def losses(self, batch: Batch, model: nn.Module | None = None) -> Tensor:
        n, length = batch.inputs.shape
        # positions per example: its layers need the batch in dim 0 of every input
        extra = {}
        if isinstance(self.model._module, Bert):
            extra = {"positions": torch.arange(length, device=batch.inputs.device).expand(n, length)}
        return F.cross_entropy(self.model(batch.inputs, **extra), batch.labels, reduction="none")

    def gradient(self, batch: Batch, clean: Batch) -> Tensor:
        parameters = list(self.model.parameters())
        self.model.disable_hooks()
        mean = torch.autograd.grad(self.losses(clean).mean(), parameters)
        self.model.enable_hooks()
        self.losses(batch).sum().backward()
        score = sum(p.grad_sample.flatten(1) @ v.flatten() for p, v in zip(parameters, mean, strict=True))
        weights = _weights(score)
        for p in parameters:
            p.grad = torch.tensordot(weights, p.grad_sample, 1)
            p.grad_sample = None
        return score


class Smart(Peer):
    """SMART with the Bregman term (Jiang et al. 2020) in the order of the published code.

    The adversarial part runs in evaluation mode, with a clean pass of its own; the ascent calls `.backward()`, which
    forms weight gradients that nobody needs; the teacher's divergence has passes of its own: 16 thirds of a pass.
    """

    NOISE, STEP, WEIGHT, MOMENTUM = 1e-5, 1e-3, 1.0, 0.99

    def __init__(self, model: nn.Module, task: Classification):
        super().__init__(model, task)
        self.teacher = copy.deepcopy(model).requires_grad_(False)

    def gradient(self, batch: Batch, clean: Batch | None = None) -> None:
        model, task = self.model, self.task
        model.eval()
        still, embedded = task.outputs(model, batch), model.embed(batch.inputs)
        delta = (self.NOISE * torch.randn_like(embedded)).requires_grad_()
        detached = tuple(z.detach() for z in still)
        task.divergence(task.outputs(model, batch, embedded.detach() + delta), detached).mean().backward()
        model.zero_grad()
        step = delta.grad / delta.grad.abs().amax((1, 2), keepdim=True).clamp_min(1e-30)
        delta = (delta.detach() + self.STEP * step).clamp(-self.STEP, self.STEP)
        smooth = task.divergence(task.outputs(model, batch, embedded + delta), still)
        model.train()
        loss = self.losses(batch)
        with torch.no_grad():
            taught = task.outputs(self.teacher, batch)
        near = task.divergence(task.outputs(model, batch), taught)
        (loss + self.WEIGHT * (smooth + near)).mean().backward()
        torch._foreach_lerp_(list(self.teacher.parameters()), list(model.parameters()), 1 - self.MOMENTUM)


def _import(name: str):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return __import__(name)
