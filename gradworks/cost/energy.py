"""Energy consumed, from counters of NVIDIA GPUs (NVML) and Intel or AMD CPUs (RAPL).

Both count the whole GPU or CPU, including other processes. Without a counter: None, never zero.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_POWERCAP = Path("/sys/class/powercap")


@dataclass(frozen=True)
class Counter:
    """`read()`: joules since an arbitrary moment; `source`: "NVML" or "RAPL"."""

    source: str
    read: Callable[[], float]


def counter(device: str, powercap: Path = _POWERCAP) -> Counter | None:
    """The energy counter of a device, or None if none is readable.

    Args:
        device: "cpu" or "cuda".
        powercap: the folder of Linux' counters of CPUs.
    """
    return _nvml() if device == "cuda" else _rapl(powercap)


def _nvml() -> Counter | None:
    try:
        import pynvml
        import torch

        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties().uuid}")
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except Exception:  # not installed, no driver, a GPU without a counter: errors of different types
        return None
    return Counter("NVML", lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3)


def _rapl(powercap: Path) -> Counter | None:
    """The sum over packages; counters wrap around to zero."""
    files = sorted(powercap.glob("intel-rapl:[0-9]*/energy_uj"))
    files = [file for file in files if file.parent.name.count(":") == 1]  # a package includes its parts
    try:
        last = [int(file.read_text()) for file in files]
        ends = [int((file.parent / "max_energy_range_uj").read_text()) for file in files]
    except (OSError, ValueError):  # readable by root only, since 2020
        return None
    if not files:
        return None
    total = 0

    def read() -> float:
        nonlocal total
        for i, file in enumerate(files):
            now = int(file.read_text())
            total += now - last[i] if now >= last[i] else now + ends[i] - last[i]
            last[i] = now
        return total / 1e6

    return Counter("RAPL", read)
