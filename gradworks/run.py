"""A benchmark through `dvc repro`, with a table that grows as cells finish; `make demo` runs the default one.

DVC runs one stage at a time, but lets several `dvc repro` of single stages work in one project. So the shared stages
run first, then the cells, `jobs` at a time. DVC runs everything and knows what is done: after Ctrl-C the next call goes
on where this one was.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from gradworks import done, parameters, report
from gradworks.base import cells, grid, read_yaml
from gradworks.base.errors import InputError
from gradworks.base.place import place
from gradworks.cost import hardware
from gradworks.store import storage
from gradworks.store.artifacts.lock import merged

_LOG = Path(".gradworks/run.log")
_CELL = ("train", "evaluate")
_REPORT_EVERY, _REPORT_SHARE = 20.0, 0.03  # seconds between drawings at least; of the time, at most
_NEXT = """next:
  your data       gradworks new mine --from FILE.csv && gradworks run pipelines/mine
  your own loop   python examples/plain_loop.py
  other machines  dvc remote modify --local store url s3://BUCKET/PREFIX && dvc push --run-cache
                  (a store on this machine: gradworks storage up)"""


class _Screen:
    """On a terminal the table is drawn over itself; elsewhere each finished cell is one line."""

    def __init__(self) -> None:
        self._live, self._drawn = sys.stdout.isatty(), 0

    def show(self, table: str, status: str, finished: Sequence[str]) -> None:
        if not self._live:
            for line in finished:
                print(line, flush=True)
            return
        width, height = shutil.get_terminal_size()
        lines = [line[: width - 1] for line in [*table.splitlines(), "", status]][-(height - 1) :]
        back = f"\x1b[{self._drawn}A" if self._drawn else ""
        sys.stdout.write(back + "".join(f"\x1b[2K{line}\n" for line in lines) + "\x1b[J")
        sys.stdout.flush()
        self._drawn = len(lines)

    def clear(self) -> None:
        if self._live and self._drawn:
            sys.stdout.write(f"\x1b[{self._drawn}A\x1b[J")
            self._drawn = 0


class _Watch:
    """What has been finished since it was last asked."""

    def __init__(self, params: Path) -> None:
        here = params.parent
        self._args = (params, here / "cells.yaml", here / "runs", here / "report")
        self._paths = [cell["path"] for cell in read_yaml(self._args[1])["each"]["train"].values()]
        self._seen = self._stamps()
        self._old = done.outdated(params) & self._seen.keys()
        self._first = len(self._seen) - len(self._old)
        self._begun, self._again = time.monotonic(), 0.0
        self.screen = _Screen()

    def _stamps(self) -> dict[str, bytes]:
        # the contents, as DVC touches a file again when it puts it into its cache
        files = {path: self._args[2] / "metrics" / f"{path}.json" for path in self._paths}
        return {path: file.read_bytes() for path, file in files.items() if file.exists()}

    def complete(self) -> bool:
        """Whether every cell has a result (DVC knows whether it is up to date)."""
        return len(self._stamps()) == len(self._paths)

    def collect(self) -> Any:
        """The results of the cells that are there and of these parameters."""
        return report.collect(*self._args[:3], outdated=self._old)

    def look(self) -> None:
        """Refresh the table, and now and then the report, when a cell has finished."""
        now = self._stamps()
        new = [path for path, stamp in now.items() if self._seen.get(path) != stamp]
        if not new:
            return
        self._seen = now
        self._old -= set(new)
        results = self.collect()
        ready, seconds = len(now.keys() - self._old), time.monotonic() - self._begun
        left = (len(self._paths) - ready) * seconds / max(1, ready - self._first)
        status = f"{ready} of {len(self._paths)} cells, about {left / 60:.0f} min left; Ctrl-C keeps what is there"
        lines = [f"{report.cell_line(results, path)}   [{ready}/{len(self._paths)}, {seconds:.0f} s]" for path in new]
        self.screen.show(report.table(results), status, lines)
        began = time.monotonic()
        if began > self._again:
            report.build(*self._args, outdated=self._old)
            took = time.monotonic() - began
            self._again = began + took + max(_REPORT_EVERY, took / _REPORT_SHARE)

    @property
    def left_out(self) -> int:
        """How many results of other parameters or code there are."""
        return len(self._old)

    def finish(self) -> Any:
        """The report of what is there; returns the results."""
        self.screen.clear()
        return report.build(*self._args, outdated=self._old) if any(self._seen) else None


class _Dvc:
    """One `dvc repro`; what it prints goes to the log, and its end is kept."""

    def __init__(self, targets: Sequence[str], log: IO[str]) -> None:
        # the stages say `python`: it must be this one, whether or not the environment is activated
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        command = [sys.executable, "-m", "gradworks.dvc_compat", "--wait-for-lock", "repro", *targets]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", errors="replace",
            env={**os.environ, "PATH": path},
            start_new_session=True,  # so that Ctrl-C does not reach DVC: see `_stop`
        )  # fmt: skip
        self.said: deque[str] = deque(maxlen=1000)
        self._reader = threading.Thread(target=self._read, args=(log,), daemon=True)
        self._reader.start()

    def _read(self, log: IO[str]) -> None:
        for line in self.process.stdout or ():
            log.write(line)
            log.flush()
            self.said.append(line.rstrip("\n"))

    def finish(self) -> int:
        """The exit code of a process that has ended, all that it printed being in the log."""
        self._reader.join(5)
        return self.process.wait()


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
    return [line[:400] for line in found] + [f"{where}all that it printed: {_LOG}; the same command goes on from here"]


def _stop(running: Sequence[_Dvc]) -> None:
    """End the stages that are running; DVC itself sees them fail and ends too.

    DVC is not interrupted: it writes dvc.lock in place and would leave half of it. And it is waited for: a stage that
    is still writing must not meet the next run.
    """
    import psutil

    asked: set[int] = set()
    while any(one.process.poll() is None for one in running):
        for one in running:
            with contextlib.suppress(psutil.NoSuchProcess):
                for child in psutil.Process(one.process.pid).children(recursive=True):
                    if child.pid not in asked and any(part.startswith("components.") for part in child.cmdline()):
                        asked.add(child.pid)
                        child.terminate()
        time.sleep(0.05)


def _together(todo: Sequence[Sequence[str]], jobs: int, log: IO[str], watch: _Watch) -> None:
    """Run `dvc repro` with each list of arguments, `jobs` at a time; after a failure nothing new is begun."""
    waiting, running, failed = list(todo), [], None
    try:
        while (waiting and not failed) or running:
            while waiting and len(running) < jobs and not failed:
                running.append(_Dvc(waiting.pop(0), log))
            time.sleep(0.1)
            watch.look()
            failed = failed or next((one for one in running if one.process.poll()), None)
            running = [one for one in running if one.process.poll() is None]
    finally:
        _stop(running)
    if failed:
        failed.finish()
        watch.screen.clear()
        raise InputError("\n".join(reason(failed.said)))


def _parts(units: Sequence[Sequence[str]], jobs: int) -> list[list[str]]:
    """What one `dvc repro` is asked for at a time.

    Many units at first, as DVC takes seconds to begin, then ever fewer, so that all sides end together.
    """
    parts, left = [], list(units)
    while left:
        many = max(1, len(left) // (2 * jobs))
        parts.append([stage for unit in left[:many] for stage in unit])
        left = left[many:]
    return parts


def _repro(params: Path, jobs: int, log: IO[str], watch: _Watch) -> None:
    each = read_yaml(params.parent / "cells.yaml")["each"]
    pipeline = params.with_name("dvc.yaml").as_posix()

    def alone(*stages: str) -> list[str]:
        # -s: these stages alone. Looking at a stage above them would lock it against the other processes
        return ["-s", *(f"{pipeline}:{stage}" for stage in stages)]

    if not watch.complete():
        names = list(each["train"])
        print(f"first cell: {names[0]}   (log: {_LOG})", flush=True)
        _together([[f"{pipeline}:evaluate@{names[0]}"]], 1, log, watch)
        shared = [alone(f"{stage}@{key}") for stage in ("pretrain", "corrupt") for key in each[stage]]
        _together(shared, jobs, log, watch)
        # what starts from another cell's model comes after all that do not; one that trains for as long as was measured
        # comes last
        plain = [name for name in names if each["train"][name]["schedule"] == grid.ALWAYS_PRESENT]
        first = [name for name in plain if not each["train"][name]["start"].startswith("models/")]
        then = [name for name in plain if name not in first]
        for some, measured in ((first, []), (then, each["measure"])):
            units = [[f"{stage}@{name}" for stage in _CELL] for name in some] + [[f"measure@{key}"] for key in measured]
            _together([alone(*part) for part in _parts(units, jobs)], jobs, log, watch)
    _together([[pipeline]], 1, log, watch)


def _expect_git(params: Path) -> None:
    """Raises InputError where DVC would say in its own words that there is no git, as in a zip download."""
    top = place(params, read_yaml(params))[0]
    if not (top / ".dvc").is_dir():
        raise InputError(f"{top}: no .dvc in it\nexpected the checkout of the project, or: git init && dvc init")
    configured = [file.read_text() for file in (top / ".dvc/config", top / ".dvc/config.local") if file.is_file()]
    if not any((one / ".git").exists() for one in (top, *top.parents)) and "no_scm" not in "".join(configured):
        raise InputError(
            f"{top}: no git repository, as in a zip download, and DVC expects one\n"
            "make one: git init -q && git add -A && git commit -qm start; or: dvc config --local core.no_scm true"
        )


def run(params: Path, jobs: int) -> None:
    """Run the benchmark of a params file; ends with the table, the answer in words and what to do next.

    Args:
        params: its folder holds the dvc.yaml.
        jobs: how many `dvc repro` work at once.

    Raises:
        InputError: params.yaml has a mistake, or a stage failed; names the log. Or the storage that is up took nothing.
    """
    parameters.check(params, data=True)
    _expect_git(params)
    cells.write(params)
    hardware.write(params)
    _LOG.parent.mkdir(parents=True, exist_ok=True)
    lock = params.with_name("dvc.lock")
    if lock.is_file():  # DVC's own word for it names no line and nothing to do
        merged(lock.read_bytes(), str(lock))
    page = params.parent / "report" / "report.html"
    watch = _Watch(params)
    with _LOG.open("w") as log:
        try:
            _repro(params, jobs, log, watch)
        except KeyboardInterrupt:
            results = watch.finish()
            if results:
                print(report.table(results), "", f"report so far: {page}", sep="\n")
            if watch.left_out:
                print(f"left out: {watch.left_out} cells of other parameters or code, not run again yet")
            print("stopped; the same command goes on from here")
            raise SystemExit(130) from None
    watch.screen.clear()
    results = watch.collect()
    print(report.table(results), report.answer(results), f"report: {page}", _NEXT, sep="\n\n", flush=True)
    if storage.push([params.with_name("dvc.yaml").as_posix()]):  # last: what was found is not lost where it fails
        print("\npushed to the storage that is up: results, models and the run cache")
