"""A benchmark through `dvc repro`, with a table that grows as cells finish; `make demo` runs the default one.

The stages run one by one, several at once, in the order of `_units`; then `dvc repro` of all looks whether anything is
left. DVC runs everything and knows what is done: after Ctrl-C the next call goes on where this one was.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from gradworks import done, jobs, parameters, report
from gradworks.base import cells, grid, read_yaml
from gradworks.base.errors import InputError
from gradworks.base.place import place
from gradworks.cost import hardware
from gradworks.engine import LOG, Unit, Workers
from gradworks.store import storage
from gradworks.store.artifacts.lock import merged

_SHARED, _CELL = ("pretrain", "corrupt"), ("train", "evaluate")
_REPORT_EVERY, _REPORT_SHARE = 20.0, 0.03  # seconds between drawings at least; of the time, at most
_TABLE_SHARE = 0.1  # of the time, at most
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
        self._begun, self._again, self._soon = time.monotonic(), 0.0, 0.0
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

    def look(self, last: bool = False) -> None:
        """Refresh the table, and now and then the report, when a cell has finished. `last`: though it was just done."""
        began = time.monotonic()
        if began < self._soon and not last:
            return
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
        shown = time.monotonic()
        self._soon = shown + (shown - began) / _TABLE_SHARE
        if shown > self._again:
            report.build(*self._args, outdated=self._old)
            took = time.monotonic() - shown
            self._again = shown + took + max(_REPORT_EVERY, took / _REPORT_SHARE)

    @property
    def left_out(self) -> int:
        """How many results of other parameters or code there are."""
        return len(self._old)

    def finish(self) -> Any:
        """The report of what is there; returns the results."""
        self.screen.clear()
        return report.build(*self._args, outdated=self._old) if any(self._seen) else None


def _units(each: Mapping[str, Mapping[str, Mapping[str, Any]]], pipeline: str) -> list[Unit]:
    """Every stage up to the cells and the costs, a cell's two together: what the first cell needs comes first.

    What trains for as long as was measured comes last.
    """

    def unit(name: str, *stages: str, needs: Iterable[str] = ()) -> Unit:
        # -s: these stages alone. Looking at a stage above them would lock it against the other processes
        return Unit(name, ("-s", *(f"{pipeline}:{stage}" for stage in stages)), frozenset(needs))

    def inputs(item: Mapping[str, Any]) -> list[str]:
        kind, _, start = item["start"].partition("/")
        before = f"pretrain@{start}" if kind == "pretrain" else f"train@{start.replace('/', '-')}"
        times = item.get("schedule", grid.ALWAYS_PRESENT).partition("runs/schedule/")[2].removesuffix(".json")
        draw = f"{item['condition']}-{item['seed']}"
        sliced = [f"slice@{draw}"] if "slices" in item else []  # a cell without heads is scored by slice, too
        return [f"corrupt@{draw}", *sliced, before, f"measure@{times.replace('/', '-')}"]

    fetched = [f"fetch@{key}" for key in each["fetch"]]
    labels = {f"label@{key}": unit(f"label@{key}", f"label@{key}", needs=fetched) for key in each.get("label", ())}
    sources = [*fetched, *labels]
    shared = [unit(f"{stage}@{key}", f"{stage}@{key}", needs=sources) for stage in _SHARED for key in each[stage]]
    if any("slices" in item for item in each["train"].values()):
        shared += [unit(f"slice@{key}", f"slice@{key}", needs=[f"corrupt@{key}"]) for key in each["corrupt"]]
    plain, long = [], []
    for key, item in each["train"].items():
        made = unit(f"train@{key}", *(f"{stage}@{key}" for stage in _CELL), needs=inputs(item))
        (plain if item["schedule"] == grid.ALWAYS_PRESENT else long).append(made)
    costs = [unit(f"measure@{key}", f"measure@{key}", needs=inputs(item)) for key, item in each["measure"].items()]
    begin = [unit("cells", "cells"), *(unit(name, name, needs=["cells"]) for name in fetched)]
    soon = [one for one in shared if plain and one.name in plain[0].needs]
    late = [one for one in shared if one not in soon]
    return [*begin, *labels.values(), *soon, *plain[:1], *late, *plain[1:], *costs, *long]


def _repro(params: Path, at_once: int, log: IO[str], watch: _Watch) -> None:
    each = read_yaml(params.parent / "cells.yaml")["each"]
    pipeline = params.with_name("dvc.yaml").as_posix()
    with Workers(at_once, log, watch.look) as workers:
        if not watch.complete():
            units = _units(each, pipeline)
            first = next(one.name for one in units if one.name.startswith("train@"))
            print(f"first cell: {first.removeprefix('train@')}   (log: {LOG})", flush=True)
            workers.run(units)
            watch.look(last=True)
        workers.run([Unit(pipeline, (pipeline,))])


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


def run(params: Path, at_once: int | None = None) -> None:
    """Run the benchmark of a params file; ends with the table, the answer in words and what to do next.

    Args:
        params: its folder holds the dvc.yaml.
        at_once: how many stages run at once; None: as `jobs.of` chooses, and says.

    Raises:
        InputError: params.yaml has a mistake, or a stage failed; names the log. Or the storage that is up took nothing.
    """
    parameters.check(params, data=True)
    _expect_git(params)
    cells.write(params)
    hardware.write(params)
    LOG.parent.mkdir(parents=True, exist_ok=True)
    lock = params.with_name("dvc.lock")
    if lock.is_file():  # DVC's own word for it names no line and nothing to do
        merged(lock.read_bytes(), str(lock))
    if at_once is None:
        at_once, why = jobs.of(params)
        print(why, flush=True)
    page = params.parent / "report" / "report.html"
    watch = _Watch(params)
    with LOG.open("w") as log:
        try:
            _repro(params, at_once, log, watch)
        except InputError:
            watch.screen.clear()
            raise
        except (KeyboardInterrupt, SystemExit) as ended:  # Ctrl-C, SIGTERM
            results = watch.finish()
            if results:
                print(report.table(results), "", f"report so far: {page}", sep="\n")
            if watch.left_out:
                print(f"left out: {watch.left_out} cells of other parameters or code, not run again yet")
            print("stopped; the same command goes on from here")
            raise SystemExit(130 if isinstance(ended, KeyboardInterrupt) else ended.code) from None
    watch.screen.clear()
    results = watch.collect()
    print(report.table(results), report.answer(results), f"report: {page}", _NEXT, sep="\n\n", flush=True)
    if storage.push([params.with_name("dvc.yaml").as_posix()]):  # last: what was found is not lost where it fails
        print("\npushed to the storage that is up: results, models and the run cache")
