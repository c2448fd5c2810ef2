"""What a figure was measured on, without names of hosts or people."""

from __future__ import annotations

import platform
import re
import subprocess
from pathlib import Path

import torch


def processor() -> str:
    """The model name of the CPU, or its architecture where the system does not say."""
    found = ""
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.M).group(1)
    except (OSError, AttributeError):
        if platform.system() == "Darwin":
            command = ["sysctl", "-n", "machdep.cpu.brand_string"]
            found = subprocess.run(command, capture_output=True, text=True).stdout
    return " ".join(found.split()) or platform.machine()


def hardware(device: str) -> str:
    """Accelerator or CPU, threads, release of torch (not the build: that names an index)."""
    release = torch.__version__.partition("+")[0]
    if device == "cuda":
        return f"{torch.cuda.get_device_name()}, torch {release}"
    threads = torch.get_num_threads()
    return f"{processor()}, {threads} {'thread' if threads == 1 else 'threads'}, torch {release}"
