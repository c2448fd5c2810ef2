"""How far two evaluations are apart."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def difference(first: Sequence[Tensor], second: Sequence[Tensor]) -> float:
    """The largest difference over the largest entry; what is not finite in both alike does not count."""
    worst = 0.0
    if len(first) != len(second) or any(a.shape != b.shape for a, b in zip(first, second, strict=True)):
        return float("inf")
    for a, b in zip(first, second, strict=True):
        if not a.numel() or torch.equal(a, b):
            continue
        a, b = a.double(), b.double()
        alike = (a == b) | (a.isnan() & b.isnan())
        size = torch.where(a.isfinite(), a.abs(), 0).max().clamp_min(1e-30)
        worst = max(worst, float(torch.where(alike, 0, (a - b).abs()).nan_to_num(nan=torch.inf).max() / size))
    return worst
