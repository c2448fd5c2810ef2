"""What test_train_ranks.py runs: cells through `components.train`, in one process or as one of several gloo ranks.

`python -m tests.components.ranks RANK SIZE STORE CELLS.json` trains the cells of a JSON list, one after the other, in
the working directory, and ends with one line of JSON: a list of `Ended` as dicts.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch.distributed as dist

from components import train
from gradworks import loop
from tests.small import run

MEMORY = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"


@dataclasses.dataclass(frozen=True)
class Cell:
    """Arguments of components.train, and what goes wrong: after `steps` steps, on rank `rank`."""

    arguments: Sequence[str]
    fault: str = ""  # SIGTERM, OOM
    rank: int = 0
    steps: int = 0


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a cell ended on a rank.

    Attributes:
        refused: the error in words. code: of SystemExit.
        written: how often it wrote the outputs. printed: to stdout.
    """

    refused: str = ""
    code: int = 0
    written: int = 0
    printed: str = ""


@contextlib.contextmanager
def _faulty(cell: Cell, rank: int) -> Iterator[None]:
    step, made = loop.step, []

    def instead(*args, **more):
        if len(made) == cell.steps and rank == cell.rank:
            if cell.fault == "OOM":
                raise RuntimeError(MEMORY)
            os.kill(os.getpid(), signal.Signals[cell.fault])
        made.append(1)
        return step(*args, **more)

    loop.step = instead if cell.fault else step
    try:
        yield
    finally:
        loop.step = step


def ended(cell: Cell, rank: int = 0) -> Ended:
    """Train a cell in this process."""
    refused, code, written, write, said = "", 0, [], train._write, io.StringIO()

    def counted(*args):
        written.append(1)
        write(*args)

    train._write = counted
    try:
        with _faulty(cell, rank), contextlib.redirect_stdout(said):
            run("train", *cell.arguments)
    except ValueError as error:  # InputError too
        refused = str(error)
    except SystemExit as error:
        code = error.code
    finally:
        train._write = write
        if dist.is_initialized():  # as the end of a process would
            dist.destroy_process_group()
    return Ended(refused, code, len(written), said.getvalue())


def as_rank(rank: int, size: int, file: Path, cells: Sequence[Cell]) -> list[Ended]:
    """Under torchrun's environment; the ranks of each cell meet under a prefix of its own in one store."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size), "LOCAL_RANK": str(rank)}
    store, found = dist.FileStore(str(file), size), []
    for number, cell in enumerate(cells):
        prefix = dist.PrefixStore(str(number), store)
        dist.rendezvous = lambda *_, prefix=prefix, **__: iter([(prefix, rank, size)])
        found.append(ended(cell, rank))
    return found


if __name__ == "__main__":
    rank, size, file, listed = sys.argv[1:]
    cells = [Cell(**one) for one in json.loads(Path(listed).read_text())]
    print("\n" + json.dumps([dataclasses.asdict(one) for one in as_rank(int(rank), int(size), Path(file), cells)]))
