"""Operations whose second derivative torch forms wrong, replaced where a pass is differentiated twice.

The fused `torch._weight_norm`, which both `torch.nn.utils.weight_norm` and its parametrization call, takes the norms
that it saved for constants in its double backward: Hessian products are 30 to 50 % off, without a word.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


class Twice(TorchFunctionMode):
    """Inside, `torch._weight_norm` is made of operations that can be differentiated to any order."""

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        if func is torch._weight_norm:
            return _weight_norm(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    return v * (g / torch.norm_except_dim(v, 2, dim))
