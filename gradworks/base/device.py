"""Threads and device of a stage: the same numbers bit for bit on one kind of machine."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

from gradworks.base.errors import InputError

if TYPE_CHECKING:
    import torch

ASKED = "GRADWORKS_GPUS"  # in a pod: the number of GPUs requested; unset if none
Device = Literal["cpu", "cuda", "auto"]


def set_up(threads: int, device: Device) -> torch.device:
    """Set torch's threads and deterministic kernels; returns the device (`auto` never takes MPS).

    Raises:
        InputError: there is no GPU though cuda, or a GPU of the cluster, was requested.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is repeatable only with a fixed workspace
    import torch

    from gradworks.base import light

    light.compiler()
    light.pandas()
    torch.set_num_threads(threads)
    # as use_deterministic_algorithms(True, warn_only=True), which also imports the compiler: four seconds
    torch.set_deterministic_debug_mode("warn")
    asked = os.environ.get(ASKED)
    if asked and device != "cpu" and not torch.cuda.is_available():
        raise InputError(
            f"the stage asked for {asked} GPU, but torch sees none: is it a node with a driver, and the gpu image?\n"
            "expected a GPU, or gpu.count: 0 in params.yaml (meta.resources.gpu in dvc.yaml) for a CPU"
        )
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("params.yaml: device: found cuda, but torch sees no GPU\nexpected: cpu or auto")
    return torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")
