"""Energy that some work took, where a counter can be read: of an NVIDIA GPU (NVML), of an Intel or AMD CPU (RAPL).

Both count the whole GPU or CPU, whoever used it. Absent is None, never zero.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_POWERCAP = Path("/sys/class/powercap")


@dataclass(frozen=True)
class Counter:
    """`read()`: joules since some moment; `source`: "NVML" or "RAPL"."""

    source: str
    read: Callable[[], float]


def counter(device: str, powercap: Path = _POWERCAP) -> Counter | None:
    """The counter of what a device takes, or None where none can be read.

    Args:
        device: "cpu" or "cuda".
        powercap: where Linux has the counters of CPUs.
    """
    return _nvml() if device == "cuda" else _rapl(powercap)


def _nvml() -> Counter | None:
    try:
        import pynvml
        import torch

        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties().uuid}")
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except Exception:  # not installed, no driver, a GPU without the counter: each has an error of its own
        return None
    return Counter("NVML", lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3)


def _rapl(powercap: Path) -> Counter | None:
    """The sum over packages; a counter that has come to its end begins at zero again."""
    files = sorted(powercap.glob("intel-rapl:[0-9]*/energy_uj"))
    files = [file for file in files if file.parent.name.count(":") == 1]  # the parts of a package are in it already
    try:
        last = [int(file.read_text()) for file in files]
        ends = [int((file.parent / "max_energy_range_uj").read_text()) for file in files]
    except (OSError, ValueError):  # since 2020 root alone may read them
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
