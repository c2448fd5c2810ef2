"""The report of a step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gradworks.methods._shared.passes import Step, StepPasses
from gradworks.methods._shared.tensors import mean_by_name, norm
from gradworks.spec import Drawn, StepReport, Sum


def report(
    step: Step, groups: Sequence[StepPasses], batches: Sequence[Drawn], sums: Sequence[list[Sum]],
    gradient: Sequence[Tensor], skipped: bool, checked: int,
) -> StepReport:  # fmt: skip
    """What is said of a step; of all ranks where each was given whole batches.

    Args:
        groups: the passes of the step.
        batches: this rank's micro-batches of each batch. sums: of them.
        gradient: of the step.
        checked: examples that were evaluated twice.
    """
    ranks, device = step.ranks, step.parameters[0].device
    every = [ranks.gather_sums(some) for some in sums]
    examples = [sum(len(b.mass) for b in drawn) for drawn in batches]
    work = ranks.gather_values([[step.meter.thirds, sum(examples), checked]], device)
    thirds, count, twice = (sum(column) for column in zip(*work, strict=True))
    of = 3 * (count / len(batches))
    size = norm(gradient)
    return StepReport(skipped, thirds / of, every, _log(groups, every, size), 2 * twice / of, size)


def plain_report(sums: list[Sum], gradient: Sequence[Tensor], weight: Tensor) -> StepReport:
    """Of a step of one plain pass, in one process, over labels of this number."""
    size = norm(gradient)
    log = _log((), (sums,), size)
    return StepReport(not weight, 1.0, [sums], log, 0.0, size)  # `weight` is read when the device is done


def _log(groups: Sequence[StepPasses], sums: Sequence[Sequence[Sum]], size: Tensor) -> dict[str, float]:
    """The figures of a step whose gradient has this norm, read from the device at once."""
    every = sums[0] if len(sums) == 1 else [one for some in sums for one in some]
    weights = _joined([one.weights for one in every])
    known = len(every) == 1 and every[0].weight.dtype is torch.float32
    figures: dict[str, Any] = {
        "loss": _joined([one.losses for one in every]).mean(),
        "gradient_norm": size,
        "effective_share": every[0].weight if known else weights.sum(),
    }
    if groups:
        figures |= mean_by_name([passes.figures() for passes in groups])
    tensors = [_float(value, weights.device) for value in figures.values()]
    tensors.append(torch.dot(weights, weights))
    *values, squared = [t.item() for t in tensors] if weights.is_cpu else torch.stack(tensors).tolist()
    log = dict(zip(figures, values, strict=True))
    # (sum of w)^2 / (n * sum of w^2), 1 for equal weights; 0 when all are zero
    log["effective_share"] = log["effective_share"] ** 2 / max(squared * weights.numel(), 1e-30)
    # an update that found a term out of all bounds has said 0
    log["finite"] = float(math.isfinite(log["gradient_norm"]) and log.get("finite", 1.0) == 1)
    return log


def _float(value: float | Tensor, device: torch.device) -> Tensor:
    """`value` itself where it is of this kind: `to` takes longer to see that there is nothing to do."""
    if isinstance(value, Tensor) and value.dtype is torch.float32 and value.device == device:
        return value
    return torch.as_tensor(value, dtype=torch.float32, device=device)


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return (torch.cat(list(parts)) if len(parts) > 1 else parts[0]).float()
