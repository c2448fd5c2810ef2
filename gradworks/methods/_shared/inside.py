"""The precision in which a model computes inside: its own autocast, a norm in float32 within float64 parameters.

Where that is lower than the precision of its parameters, a difference of two passes must be as wide as it asks for: at
the distance that suits the parameters it is rounding. So the check that a batch gives the same twice also looks at the
types of what is computed on the way from the parameters (see `replay.py`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_KINDS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)  # from fine to coarse
_lowest: ContextVar[torch.dtype | None] = ContextVar("lowest precision inside the model", default=None)


def coarsest(kinds: Iterable[torch.dtype | None]) -> torch.dtype | None:
    """The one that rounds most; None where there is none."""
    return max((kind for kind in kinds if kind in _KINDS), key=_KINDS.index, default=None)


def lowest() -> torch.dtype | None:
    """The precision that the model of this step was seen to compute in; None where nobody looked."""
    return _lowest.get()


@contextlib.contextmanager
def computing_in(kind: torch.dtype | None) -> Iterator[None]:
    """Inside, `lowest()` is `kind`."""
    token = _lowest.set(kind)
    try:
        yield
    finally:
        _lowest.reset(token)


def is_compiled(model: nn.Module) -> bool:
    """Whether torch.compile made a part of it, which traces the calls that a mode would see."""
    return any(m._compiled_call_impl is not None or hasattr(m, "_orig_mod") for m in model.modules())


class Seen(TorchFunctionMode):
    """Inside, the coarsest type of what is computed with a graph is noted in `kind`."""

    def __init__(self) -> None:
        super().__init__()
        self.kind: torch.dtype | None = None

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for t in made if isinstance(made, tuple | list) else (made,):
            if isinstance(t, Tensor) and t.requires_grad:
                self.kind = coarsest((self.kind, t.dtype))
        return made


def shared(kind: torch.dtype | None, total: Any, like: Tensor) -> torch.dtype | None:
    """The coarsest over ranks; `total` sums a list of tensors over them, in place."""
    flags = [torch.tensor([float(kind is one) for one in _KINDS], device=like.device)]
    total(flags)
    return coarsest(one for one, flag in zip(_KINDS, flags[0].tolist(), strict=True) if flag > 0)
