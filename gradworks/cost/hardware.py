"""What a figure was measured on, without names of hosts or people: hardware.yaml beside a params.yaml.

The costs of a method belong to a machine. So the stage `measure` depends on hardware.yaml, and DVC's run cache gives
what was measured on one machine to no other. The file is not in git: whatever may be the first on a machine writes it
(the stage `cells`, `gradworks cells`, `gradworks run`, the task of a cluster), and `measure` stops where it is wrong.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

from gradworks.base import read_yaml
from gradworks.base.artifacts import atomic_file
from gradworks.base.errors import InputError

NAME = "hardware.yaml"
_HEAD = "# This machine, written by `gradworks cells`; what `measure` found belongs to it.\n"


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
    import torch

    release = torch.__version__.partition("+")[0]
    if device == "cuda":
        return f"{torch.cuda.get_device_name()}, torch {release}"
    threads = torch.get_num_threads()
    return f"{processor()}, {threads} {'thread' if threads == 1 else 'threads'}, torch {release}"


def facts() -> dict[str, Any]:
    """What the cost of a step depends on beside the parameters: processor, cores, accelerator and build of torch."""
    build = importlib.metadata.version("torch")
    accelerator = None
    if build.partition("+")[2] != "cpu":  # else importing torch would cost two seconds and find nothing
        import torch

        accelerator = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"processor": processor(), "cores": os.cpu_count(), "accelerator": accelerator, "torch": build}


def write(params: Path) -> Path:
    """Write hardware.yaml beside a params file where it is not there or says something else; returns its path."""
    import yaml

    path, text = params.parent / NAME, _HEAD + yaml.safe_dump(facts(), sort_keys=False, allow_unicode=True)
    if not path.exists() or path.read_text() != text:
        with atomic_file(path) as temporary:
            temporary.write_text(text)
    return path


def check(params: Path) -> dict[str, Any]:
    """What hardware.yaml says. Raises InputError when this machine is another one."""
    path = params.parent / NAME
    said, found = read_yaml(path), facts()
    for key in {**found, **said}:
        if said.get(key) != found.get(key):
            raise InputError(
                f"{path}: {key}: {said.get(key)!r}, but this machine has {found.get(key)!r}\n"
                f"write it anew: gradworks cells {params}"
            )
    return found
