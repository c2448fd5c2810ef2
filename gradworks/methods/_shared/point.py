"""A model at another point than its own parameters."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from gradworks.methods._shared.recompute import Run, noted
from gradworks.methods._shared.twice import Twice
from gradworks.spec import Params


@contextlib.contextmanager
def at_point(parameters: Sequence[nn.Parameter], point: Params | None) -> Iterator[None]:
    """Inside, the parameters hold `point`; afterwards, also after an error, their own memory: not one bit is written.

    A graph made inside must be used inside. For graphs through the point itself see `differentiable`.
    """
    if point is None:
        yield
        return
    own = [p.data for p in parameters]
    try:
        for p, t in zip(parameters, point, strict=True):
            p.data = t
        yield
    finally:
        for p, t in zip(parameters, own, strict=True):
            p.data = t


class _Call(nn.Module):
    """Lets `functional_call` run any function of a model."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, run: Callable[[], Any]) -> Any:
        return run()


def differentiable(model: nn.Module, point: Params, run: Callable[[], Any]) -> Any:
    """`run()` with the trainable parameters of `model` replaced by `point`, differentiable in it to any order."""
    names = [f"model.{name}" for name, p in model.named_parameters() if p.requires_grad]
    parameters = dict(zip(names, point, strict=True))

    def there(run: Run) -> Any:
        with Twice():
            return functional_call(_Call(model), parameters, (lambda: noted(lambda: there, run),))

    return there(run)


@contextlib.contextmanager
def one_path() -> Iterator[None]:
    """Inside, attention takes one path with and without a graph: in eval, torch's fast one drops what is padded."""
    own = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(own)


def cuda_devices(tensors: Sequence[Tensor]) -> list[int]:
    """Indices of the CUDA devices that hold some of the tensors."""
    return sorted({t.device.index for t in tensors if t.is_cuda})


def fresh_autocast() -> None:
    """Forget autocast's casts of the parameters: they are kept by parameter, blind to its data and to no_grad."""
    torch.clear_autocast_cache()
