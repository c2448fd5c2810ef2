"""What a method cannot work with, refused in words before the first pass."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch
from torch import nn

from gradworks.methods._shared.watched import FLOAT16, FunctionTask
from gradworks.spec import Objective, Task, offers


def check_task(objective: Objective, task: Task, name: str) -> None:
    lacks = [part for part in objective.requires if not offers(task, part)]
    if not lacks:
        return
    needs = f"objective {type(objective).__module__.rpartition('.')[2]}: needs {lacks[0]}(...)"
    if not isinstance(task, FunctionTask):
        which = f"task {name!r}" if name else type(task).__name__
        raise ValueError(f"{needs} of a task, and {which} does not offer it")
    if set(lacks) <= set(FunctionTask.PARTS):
        raise ValueError(f"{needs}; give Method(..., {', '.join(f'{part}=...' for part in lacks)})")
    raise ValueError(f"{needs}; give Method(..., task=...): no function serves it")


def check_model(model: nn.Module, parameters: Sequence[nn.Parameter]) -> None:
    if isinstance(model, nn.parallel.DistributedDataParallel):
        raise ValueError(
            "model: found DistributedDataParallel, expected the module in it, model.module; "
            "the sums over ranks are those of Method(..., reduce=..., rank=...)"
        )
    sharded = sys.modules.get("torch.distributed.fsdp")  # slow to import, and there where a model is of it
    if sharded and isinstance(model, sharded.FullyShardedDataParallel | sharded.FSDPModule):
        raise ValueError(
            "model: found FSDP, which gives each rank a shard of the parameters; expected the bare module: "
            "each rank holds all of it, and sums over ranks with Method(..., reduce=..., rank=...)"
        )
    if not parameters:
        raise ValueError("model: no parameter requires a gradient")
    kinds = {(p.dtype, p.is_cpu): p for p in parameters}  # of one dtype on one kind of device one is enough
    for (own, on_cpu), p in kinds.items():
        device = "cpu" if on_cpu else p.device.type
        if (torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else own) is torch.float16:
            raise ValueError(f"model: {FLOAT16}")
