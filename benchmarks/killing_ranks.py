"""Ranks that are killed, for benchmarks/kills.py."""

from __future__ import annotations

import contextlib
import itertools
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from benchmarks.killing import (
    EARLIER,
    LIMIT,
    METHODS,
    SIGNALS,
    Kill,
    Wrong,
    before,
    broken,
    checkout,
    compared,
    contents,
    drawn,
    resumed,
    trained,
)
from gradworks.store import stages as read

EPOCHS = 8  # a training of some seconds


def _ranks(process: subprocess.Popen[str]) -> dict[int, psutil.Process]:
    """torchrun's processes, by rank."""
    found = {}
    with contextlib.suppress(psutil.Error):
        for one in psutil.Process(process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if rank := one.environ().get("RANK"):  # none before the process has become the program
                    found[int(rank)] = one
    return found


def ranks(folder: Path, count: int, epochs: float = EPOCHS) -> Iterator[Kill]:
    """Kill one of two processes that train together."""
    root = checkout(folder / "ranks", epochs)
    found = read.load(root / "dvc.yaml")
    stages, whole, seconds = trained(found), {}, {}
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}

    def begin(stage: str) -> subprocess.Popen[str]:
        _, _, program, *args = shlex.split(found[stage].cmd)
        start = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "--", program, *args]
        return subprocess.Popen([sys.executable, "-m", *start], cwd=root, env=environment, text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip

    def begun(process: subprocess.Popen[str]) -> float:
        while process.poll() is None and len(_ranks(process)) < 2:
            time.sleep(0.02)
        return time.monotonic()

    def ended(stage: str) -> tuple[dict[str, bytes], float, str]:
        process = begin(stage)
        since = begun(process)
        said, _ = process.communicate(timeout=LIMIT)
        if process.returncode:
            raise Wrong(f"{stage}: two processes ended with {process.returncode}:\n{said}")
        took, outs = time.monotonic() - since, [out.path for out in found[stage].outs]
        made = contents(root, outs)
        for out in outs:  # as of a new pod
            shutil.rmtree(root / out) if (root / out).is_dir() else (root / out).unlink()
        return made, took, said

    for name in dict.fromkeys(name for stage in stages.values() for name in before(found, stage)):
        _, _, program, *args = shlex.split(found[name].cmd)
        subprocess.run([sys.executable, "-m", program, *args], cwd=root, env=environment, check=True,
                       stdout=subprocess.DEVNULL)  # fmt: skip
    for method, stage in stages.items():
        whole[method], seconds[method], _ = ended(stage)
    for number, method in zip(range(count), itertools.cycle(METHODS)):
        stage, sent, rank = stages[method], SIGNALS[number % 2], int(2 * drawn("which", number))
        share = 0.1 + 0.85 * drawn("rank", number)
        for tried in range(9):
            killed = broken(lambda stage=stage: begin(stage),
                            lambda process, rank=rank, sent=sent: _ranks(process)[rank].send_signal(sent),
                            begun, seconds[method], share * EARLIER**tried)  # fmt: skip
            if killed:
                break
        else:
            raise Wrong(f"{stage}: ended before every moment")
        made, _, said = ended(stage)
        same = compared(whole[method], made, f"kill {number} of {stage}, {sent.name} to rank {rank}")
        yield Kill(f"rank {rank} of 2", method, sent.name, killed[0], *resumed(said, killed[1]), same)
