"""How many stages `gradworks run` runs at once: as many as there are cores for, at `threads` each.

Results are promised bit for bit at the `threads` of params.yaml, so that number is kept, and the cores that are left
are for other jobs; `python -m benchmarks.jobs` measures what they give. Where stages use a GPU there is one job, as
several were not measured. Jobs that do not fit into memory together would fail, so there are no more than it has room
for.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradworks.base import read_yaml
from gradworks.base.place import place
from gradworks.cost import hardware

_GIB = 1024**3
A_JOB = _GIB  # bytes: a stage that trains a small BERT had 635 MiB at its peak, and the DVC that runs it 90
A_WEIGHT = 6  # copies of the weights: they, gradient, two moments of AdamW, best ones, checkpoint
_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Machine:
    """What this process may use. `cores`: whole ones. `memory`: bytes that are free."""

    cores: int
    memory: int
    accelerator: str | None = None


def _number(file: Path, part: int = 0) -> int | None:
    try:
        return int(file.read_text().split()[part])
    except (OSError, ValueError, IndexError):  # no such group, or "max"
        return None


def cores(group: Path = _CGROUP) -> int:
    """Cores that this process may use: its affinity (taskset), and its share of time (cgroup, as in a container)."""
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for quota, period in (
        (_number(group / "cpu.max"), _number(group / "cpu.max", 1)),
        (_number(group / "cpu/cpu.cfs_quota_us"), _number(group / "cpu/cpu.cfs_period_us")),
    ):
        if quota and period and quota > 0:
            there = min(there, max(1, quota // period))
    return there


def memory(group: Path = _CGROUP) -> int:
    """Bytes that are free, here and in the cgroup."""
    import psutil

    free = psutil.virtual_memory().available
    for limit, used in (
        (_number(group / "memory.max"), _number(group / "memory.current")),
        (_number(group / "memory/memory.limit_in_bytes"), _number(group / "memory/memory.usage_in_bytes")),
    ):
        if limit and used is not None:
            free = min(free, max(0, limit - used))
    return free


def a_job(params: Path, values: Mapping[str, Any]) -> int:
    """Bytes that a stage needs, by the largest weights that an encoder begins from."""
    top = place(params, values)[0]
    folders = [top / one["from"] for one in values["pretrain"].values() if one.get("from")]
    files = [file for folder in folders for pattern in ("*.safetensors", "*.bin") for file in folder.glob(pattern)]
    return int(A_JOB + A_WEIGHT * max((file.stat().st_size for file in files), default=0))


def choose(threads: int, need: int, machine: Machine) -> tuple[int, str]:
    """The number of jobs, and why, in one line.

    Args:
        threads: of each. need: bytes of each.
        machine: with an accelerator only if the stages use it.
    """
    if machine.accelerator:
        return 1, f"1 job, on {machine.accelerator}"
    by_cores, by_memory = max(1, machine.cores // threads), max(1, machine.memory // need)
    found = min(by_cores, by_memory)
    why = f"{_count(machine.cores, 'core')}, {_count(threads, 'thread')} each"
    if by_memory < by_cores:
        why = f"{machine.memory / _GIB:.1f} GiB of memory free, about {need / _GIB:.1f} each"
    return found, f"{_count(found, 'job')} at once: {why}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def of(params: Path) -> tuple[int, str]:
    """`choose` for a params file on this machine."""
    values = read_yaml(params)
    accelerator = hardware.facts()["accelerator"] if values["device"] != "cpu" else None
    found, why = choose(values["threads"], a_job(params, values), Machine(cores(), memory(), accelerator))
    return found, f"{why} (--jobs N: another number)"
