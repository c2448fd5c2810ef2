"""Pods that are killed, for benchmarks/kills.py."""

from __future__ import annotations

import contextlib
import itertools
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
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
from gradworks.store.places import encoded
from tests.cluster import toy

EPOCHS = 60  # a training of some seconds


def _below(folder: Path) -> Iterator[psutil.Process]:
    """Processes that work in a folder."""
    for process in psutil.process_iter(["cwd"]):
        if (process.info["cwd"] or "").startswith(f"{folder}/"):
            yield process


def _trains(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        command = process.cmdline()  # the module's own process, not a shell that names it
        return len(command) > 2 and command[2] == "components.train"
    return False


def pods(folder: Path, count: int, epochs: float = EPOCHS) -> Iterator[Kill]:
    """Kill the pods of training stages."""
    with toy.served(folder) as (clients, _):
        runs = toy.Runs(checkout(folder / "checkout", epochs), folder, clients)
        stages, whole, seconds = trained(runs.stages), {}, {}

        def forgotten(run: str) -> None:
            """Without the run cache and the pod's disk the next run has to do all by itself."""
            runs.places.delete([one["Key"] for one in runs.places.list("toy/runs/")])
            shutil.rmtree(folder / run)

        def outputs(run: str, stage: str) -> dict[str, bytes]:
            made = contents(folder / run / encoded(stage) / "code", [out.path for out in runs.stages[stage].outs])
            return made | {"dvc.lock": repr(runs.places.entry(run, stage)).encode()}

        def succeed(run: str, stage: str) -> str:
            code, said = runs.pod(run, stage)
            if code:
                raise Wrong(f"{stage}: ended with {code}:\n{said}")
            return said

        early = list(dict.fromkeys(name for stage in stages.values() for name in before(runs.stages, stage)))
        for stage in early:
            succeed("whole", stage)

        def begun(run: str) -> Callable[[subprocess.Popen[str]], float]:
            """Waits until the stage's own program runs in a pod."""

            def trains(process: subprocess.Popen[str]) -> float:
                while process.poll() is None and not any(map(_trains, _below(folder / run))):
                    time.sleep(0.05)
                return time.monotonic()

            return trains

        for method, stage in stages.items():
            process = runs.begin("whole", stage)
            since = begun("whole")(process)
            said, _ = process.communicate(timeout=LIMIT)
            if process.returncode:
                raise Wrong(f"{stage}: ended with {process.returncode}:\n{said}")
            seconds[method], whole[method] = time.monotonic() - since, outputs("whole", stage)
        forgotten("whole")
        for number, method in zip(range(count), itertools.cycle(METHODS)):
            stage, sent, share = stages[method], SIGNALS[number % 2], 0.1 + 0.85 * drawn("pod", number)
            for tried in range(9):
                run = f"kill-{number}-{tried}"
                for name in early:
                    runs.places.put_entry(run, name, runs.places.entry("whole", name))

                def kill(process: subprocess.Popen[str], sent: signal.Signals = sent, run: str = run) -> None:
                    inside = list(_below(folder / run))  # its stage goes with the container
                    process.send_signal(sent)
                    for one in inside if sent == signal.SIGKILL else ():
                        with contextlib.suppress(psutil.NoSuchProcess):
                            one.kill()

                found = broken(lambda run=run, stage=stage: runs.begin(run, stage), kill, begun(run),
                               seconds[method], share * EARLIER**tried)  # fmt: skip
                forgotten(run)
                if found:
                    break
            else:
                raise Wrong(f"{stage}: ended before every moment")
            step, steps = resumed(succeed(run, stage), found[1])
            if runs.record(run, stage)["ran"] is not True:
                raise Wrong(f"{stage}: was restored, not run")
            same = compared(whole[method], outputs(run, stage), f"kill {number} of {stage}, {sent.name}")
            forgotten(run)
            yield Kill("pod", method, sent.name, found[0], step, steps, same)
