"""The hardware that costs were measured on, without names of hosts or people: hardware.yaml beside a params.yaml.

Costs depend on the machine. So the stage `measure` depends on hardware.yaml, and DVC's run cache never restores figures
of another machine. The file is not in git: the stage `cells`, `gradworks cells`, `gradworks run` and a cluster's pods
write it, and `measure` stops if it does not match.
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
    """The model name of the CPU, or else its architecture."""
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
    """What costs depend on besides the parameters: processor, cores, accelerator and build of torch."""
    build = importlib.metadata.version("torch")
    accelerator = None
    if build.partition("+")[2] != "cpu":  # without a GPU, do not spend two seconds on importing torch
        import torch

        accelerator = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"processor": processor(), "cores": os.cpu_count(), "accelerator": accelerator, "torch": build}


def write(params: Path) -> Path:
    """Write hardware.yaml beside a params file if it is missing or different; returns its path."""
    import yaml

    path, text = params.parent / NAME, _HEAD + yaml.safe_dump(facts(), sort_keys=False, allow_unicode=True)
    if not path.exists() or path.read_text() != text:
        with atomic_file(path) as temporary:
            temporary.write_text(text)
    return path


def check(params: Path) -> dict[str, Any]:
    """The facts of this machine. Raises InputError if hardware.yaml has others."""
    path = params.parent / NAME
    said, found = read_yaml(path), facts()
    for key in {**found, **said}:
        if said.get(key) != found.get(key):
            raise InputError(
                f"{path}: {key}: {said.get(key)!r}, but this machine has {found.get(key)!r}\n"
                f"rewrite it: gradworks cells {params}"
            )
    return found
