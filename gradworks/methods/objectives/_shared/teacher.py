"""A momentum teacher: a copy of a model whose parameters are a running mean of the model's."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from gradworks.methods._shared.tensors import lerp_


class _Graphless(TorchFunctionMode):
    """Inside, `copy.deepcopy` copies the value of a tensor that has a graph, which torch refuses to copy.

    Modules keep such tensors from one forward pass to the next: the `weight` of the old `weight_norm` and
    `spectral_norm`, caches. A forward pass recomputes them.
    """

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        if func is Tensor.__deepcopy__ and not args[0].is_leaf:
            tensor, memo = args
            return memo.setdefault(id(tensor), tensor.detach().clone())
        return func(*args, **(kwargs or {}))


class Teacher:
    """Copied from the model at the first step; shares its frozen parameters, follows its buffers and its modes.

    Attributes:
        model: a module of the model's class, without gradient; None before the first step.
    """

    def __init__(self) -> None:
        self.model: nn.Module | None = None
        self._means: dict[str, Tensor] = {}  # by name, of the parameters that are trained

    @torch.no_grad()
    def follow(self, model: nn.Module, share: float) -> None:
        """Move by `share` of the way to `model`; the first time, become a copy of it."""
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        fresh = self.model is None and not self._means
        if self.model is None or self._means.keys() != trained.keys():  # a phase may train other parameters
            self._copy(model, trained)
        for mine, its in zip(self.model.modules(), model.modules(), strict=True):
            mine.training = its.training
        for mine, its in zip(self.model.buffers(), model.buffers(), strict=True):
            mine.copy_(its)
        if not fresh:
            lerp_(list(self._means.values()), list(trained.values()), share)

    def _copy(self, model: nn.Module, trained: dict[str, nn.Parameter]) -> None:
        shared = {id(p): p for p in model.parameters() if not p.requires_grad}
        with _Graphless():
            self.model = copy.deepcopy(model, shared)
        known, mine = self._means, dict(self.model.named_parameters())
        self._means = {name: mine[name].requires_grad_(False) for name in trained}
        for name in known.keys() & trained.keys():
            self._means[name].copy_(known[name])

    def state_dict(self) -> dict[str, Tensor]:
        return {name: mean.detach().clone() for name, mean in self._means.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """The module itself is made at the next step, from the model."""
        self.model, self._means = None, dict(state)
