"""Several `dvc repro` at once, in processes that stay: DVC starts once in each, and reads dvc.lock once.

DVC runs one stage at a time, but lets several `dvc repro` of single stages work in one project: it has the project
locked while it reads and writes, not while a stage runs.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from gradworks.base.errors import InputError

LOG = Path(".gradworks/run.log")


@dataclass(frozen=True)
class Unit:
    """What one `dvc repro` is asked for.

    Attributes:
        name: of it. args: of `dvc repro`.
        needs: names of the units that have to be done before; one that is not asked for is done.
    """

    name: str
    args: tuple[str, ...]
    needs: frozenset[str] = frozenset()


class Worker:
    """A process that runs one `dvc repro` after another; what it prints goes to the log, and the end is kept.

    Attributes:
        said: the last lines of the last one.
    """

    def __init__(self, log: IO[str]) -> None:
        # the stages say `python`: it must be this one, whether or not the environment is activated
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        self._mark = f"dvc repro ended {secrets.token_hex(8)}"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gradworks.dvc_compat", "--serve", self._mark],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", errors="replace",
            env={**os.environ, "PATH": path},
            start_new_session=True,  # so that Ctrl-C does not reach DVC: see `stop`
        )  # fmt: skip
        self.said: deque[str] = deque(maxlen=1000)
        self._code: int | None = 0
        self._reader = threading.Thread(target=self._read, args=(log,), daemon=True)
        self._reader.start()

    def begin(self, args: Sequence[str]) -> None:
        """Start `dvc repro` with these arguments."""
        self.said.clear()
        self._code = None
        with contextlib.suppress(BrokenPipeError):  # it was killed: `code` says so
            self.process.stdin.write(json.dumps(["--wait-for-lock", "repro", *args]) + "\n")
            self.process.stdin.flush()

    @property
    def code(self) -> int | None:
        """The exit code of the last one; None while it runs."""
        if self._code is None and self.process.poll() is not None:
            self._reader.join(1)  # longer where a stage has outlived DVC and holds the pipe
            if self._code is None:
                self._code = self.process.returncode or 1
        return self._code

    def _read(self, log: IO[str]) -> None:
        for line in self.process.stdout:
            if line.startswith(self._mark):
                while self.said and not self.said[-1]:
                    self.said.pop()
                self._code = int(line.split()[-1])
                continue
            self.said.append(line.rstrip("\n"))
            with contextlib.suppress(ValueError):  # the log is closed: a stage has outlived DVC
                log.write(line)
                log.flush()

    def close(self) -> None:
        """End the process, which has nothing to do."""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait()


class Workers:
    """`with Workers(jobs, log, look) as workers: workers.run(units)`.

    Args:
        jobs: how many run at once.
        log: what they print.
        look: called now and then while they run.
    """

    def __init__(self, jobs: int, log: IO[str], look: Callable[[], None]) -> None:
        self._jobs, self._log, self._look = jobs, log, look
        self._idle: list[Worker] = []

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        for one in self._idle:
            one.close()

    def run(self, units: Iterable[Unit]) -> None:
        """Run the units, of those that can begin the first ones first; after a failure nothing new is begun.

        Raises:
            InputError: one failed; says why in three lines at most.
        """
        waiting, running, failed = list(units), dict[str, Worker](), None
        try:
            while running or (waiting and not failed):
                if not failed:
                    self._begin(waiting, running)
                time.sleep(0.05)
                self._look()
                for name, one in list(running.items()):
                    if one.code is not None:
                        failed = failed or (one if one.code else None)
                        self._idle.append(running.pop(name))
        finally:
            stop(list(running.values()))
            self._idle += running.values()
        if failed:
            raise InputError("\n".join(reason(failed.said)))

    def _begin(self, waiting: list[Unit], running: dict[str, Worker]) -> None:
        for unit in list(waiting):
            if len(running) >= self._jobs:
                return
            if unit.needs & ({one.name for one in waiting} | running.keys()):
                continue
            waiting.remove(unit)
            running[unit.name] = self._idle.pop() if self._idle else Worker(self._log)
            running[unit.name].begin(unit.args)


def stop(running: Sequence[Worker]) -> None:
    """End the stages that are running; DVC itself sees them fail and ends too.

    DVC is not interrupted: it writes dvc.lock in place and would leave half of it. And it is waited for: a stage that
    is still writing must not meet the next run.
    """
    import psutil

    asked: set[int] = set()
    while any(one.code is None for one in running):
        for one in running:
            with contextlib.suppress(psutil.NoSuchProcess):
                for child in psutil.Process(one.process.pid).children(recursive=True):
                    if child.pid not in asked and any(part.startswith("components.") for part in child.cmdline()):
                        asked.add(child.pid)
                        child.terminate()
        time.sleep(0.05)


def reason(said: Sequence[str]) -> list[str]:
    """Three lines at most of what a failed `dvc repro` printed: what is wrong, and in which stage.

    A stage's own words where it has any, else the last line of a traceback, else DVC's words.
    """
    lines = list(said)
    running = [found[1] for line in lines if (found := re.match(r"Running stage '(?:.*:)?([^':]+)'", line))]
    begin = max((n for n, line in enumerate(lines) if line.startswith("Running stage ")), default=0)
    errors = [n for n, line in enumerate(lines) if line.startswith("error: ") and n >= begin]
    traces = [n for n, line in enumerate(lines) if line.startswith("Traceback (most recent") and n >= begin]
    dvc = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    code = next((int(found[1]) for line in dvc if (found := re.search(r"exited with (-?\d+)", line))), 0)
    if errors:
        found = [lines[errors[-1]].removeprefix("error: ")]
        after = lines[errors[-1] + 1 :]
        found += after[: next((n for n, line in enumerate(after) if not line or line.startswith("ERROR: ")), None)][:1]
    elif traces:
        after = [line for line in lines[traces[-1] + 1 :] if line and not line.startswith((" ", "ERROR: "))]
        found = [f"an error of the program, not of its parameters: {after[0] if after else 'see the log'}"]
    elif code in (-9, 137):
        found = ["it was killed: out of memory, as a rule"]
    else:
        found = dvc[:2] or lines[-2:] or ["dvc repro ended without a word"]
    where = f"stage {running[-1]}: " if running and (errors or traces or code) else ""
    return [line[:400] for line in found] + [f"{where}all that it printed: {LOG}; the same command goes on from here"]
