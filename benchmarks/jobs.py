"""How many examples a second several trainings at once make, by jobs and threads: the rule of `gradworks/jobs.py`.

A job trains a model by gradworks' plain method in a process of its own, as a cell does; the jobs of a row begin
together on the same cores (their affinity) and count their steps for a while. All rows take turns, round after round.
Where other programs use the machine the rate falls for every row, and `cores got` says by how much: compare then by
what a second of a core's time gives, which for several threads leaves out where one waits for another, so that their
true rate is lower still.

    python -m benchmarks.jobs     prints the table and writes benchmarks/JOBS.md; 15 minutes on two cores
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.plain import Case, Data, side
from benchmarks.rows import ROWS
from gradworks.base import light
from gradworks.cost import hardware, pairs

MODELS = ("bow", "gru", "bert-2x128")
CORES = (1, 2, 4, 8, 16)
ROUNDS, SECONDS, WARM_UP = 7, 1.0, 3
FILE = Path(__file__).with_name("JOBS.md")


@dataclass(frozen=True)
class Setting:
    """`jobs` processes of `threads` threads each, on the first `cores` of the cores that there are."""

    cores: int
    jobs: int
    threads: int


@dataclass(frozen=True)
class Found:
    """examples: of all jobs. wall, core: seconds, of the round and of all cores. memory: bytes at a job's peak."""

    examples: int
    wall: float
    core: float
    memory: int

    @property
    def rate(self) -> float:
        return self.examples / self.wall

    @property
    def per_core(self) -> float:
        return self.examples / self.core


def settings(most: int) -> list[Setting]:
    """For 1, 2, 4, ... cores up to `most`: all ways to use them; on 2 also twice as many jobs as cores."""
    made = []
    for cores in (one for one in CORES if one <= most):
        split = [Setting(cores, jobs, cores // jobs) for jobs in CORES if jobs <= cores]
        made += [*reversed(split), *([Setting(cores, 2 * cores, 1)] if cores == 2 else [])]
    return made


def _job(model: str, setting: Setting, seconds: float, begin: Any, results: Any) -> None:
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: setting.cores])
    torch.set_num_threads(setting.threads)
    light.compiler()
    case = Case(next(row for row in ROWS if row.method == "erm"), model, None)
    one, data = side(case, "method", case.sizes)[0], Data(case, case.sizes, 1)
    for step in range(WARM_UP):
        one.step(*data(step))
    begin.wait()
    start, before, steps = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - start < seconds:
        one.step(*data(steps))
        steps += 1
    wall, core = time.perf_counter() - start, time.process_time() - before
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    results.put((steps * case.n, wall, core, peak))


def measure(model: str, setting: Setting, seconds: float = SECONDS) -> Found:
    """One round of a setting."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    begin, results = context.Barrier(setting.jobs), context.Queue()
    arguments = (model, setting, seconds, begin, results)
    jobs = [context.Process(target=_job, args=arguments) for _ in range(setting.jobs)]
    for one in jobs:
        one.start()
    got = [results.get(timeout=600) for _ in jobs]
    for one in jobs:
        one.join()
    examples, walls, core, peaks = zip(*got, strict=True)
    return Found(sum(examples), max(walls), sum(core), max(peaks))


def row(model: str, setting: Setting, found: list[Found], plain: list[Found]) -> str:
    """A row of the table; `plain`: one thread a job, on the same cores in the same rounds."""

    def ratio(name: str) -> str:
        one = pairs.ratio([getattr(a, name) / getattr(b, name) for a, b in zip(found, plain, strict=True)])
        return f"{one.value:.2f} [{one.low:.2f}, {one.high:.2f}]" if one.low is not None else f"{one.value:.2f}"

    rate, got = (statistics.median(v) for v in ([f.rate for f in found], [f.core / f.wall for f in found]))
    memory = max(f.memory for f in found) / 2**20
    same = "–" if found is plain else None
    return (
        f"| {model} | {setting.cores} | {setting.jobs} × {setting.threads} | {rate:.0f} | {same or ratio('rate')} "
        f"| {same or ratio('per_core')} | {got:.2f} | {memory:.0f} |"
    )


def table(found: dict[tuple[str, Setting], list[Found]]) -> str:
    """JOBS.md."""
    rounds = len(next(iter(found.values())))
    machine = f"{hardware.processor()}, {os.cpu_count()} cores, torch {torch.__version__.partition('+')[0]}"
    head = f"""# Jobs and threads

Examples a second of several trainings at once (batches of 32 texts of 64 tokens, plain method), median of
{rounds} rounds that take turns, on {machine}. Ratios are to as
many jobs as cores at one thread each, with 95 % intervals. A second of a core is one that a job got, whoever else was
there; `cores got` is how many it had on average. Written by `python -m benchmarks.jobs`.

| model | cores | jobs × threads | examples/s | ratio | ratio by a second of a core | cores got | MiB of a job |
|---|---|---|---|---|---|---|---|
"""
    rows = [
        row(model, setting, one, found[model, Setting(setting.cores, setting.cores, 1)])
        for (model, setting), one in found.items()
    ]
    return head + "\n".join(rows) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--cores", type=int, default=len(os.sched_getaffinity(0)), help="at most (default: %(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="default: %(default)s")
    args = parser.parse_args()
    found: dict[tuple[str, Setting], list[Found]] = {(m, s): [] for m in MODELS for s in settings(args.cores)}
    for number in range(args.rounds):  # written after each, as a long run may be stopped
        for (model, setting), got in found.items():
            got.append(measure(model, setting))
            print(f"round {number + 1}: {model} {setting}: {got[-1].rate:.0f} examples/s", file=sys.stderr, flush=True)
        FILE.write_text(table(found), encoding="utf-8")
    print(table(found))


if __name__ == "__main__":
    main()
