"""Plants known defects, one at a time, in a copy of the tree: each must turn its test red. `make mutants`

python -m tests.mutants [-k WORD] [--green]
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from tests.defects import ROWS

ROOT = Path(__file__).resolve().parent.parent
AT_ONCE = 2
SECONDS = 300  # a defect that makes its test hang is found as well
EXIT = "\nexit code "
OURS = ("gradworks", "components", "benchmarks", "tests")
# where there is no fork server every process imports anew, which takes seconds
FORKS = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")


class Mutant(NamedTuple):
    """`old`, which stands exactly once in `file`, becomes `new`; then `test` has to fail."""

    file: str
    old: str
    new: str
    test: str


MUTANTS = [Mutant(*row) for row in ROWS]


def copy_tree(root: Path, to: Path) -> None:
    """The files that git tracks or would track, as a repository of their own."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        capture_output=True,
        check=True,
    ).stdout.decode()
    for name in filter(None, listed.split("\0")):
        if (root / name).is_file():  # not one that was deleted and not yet committed
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, to / name, follow_symlinks=False)
    for command in (["git", "init", "-q"], ["git", "add", "-A"]):
        subprocess.run(command, cwd=to, check=True)


def pytest(tree: Path, tests: Sequence[str], seconds: float = SECONDS) -> tuple[int, str]:
    """Exit code (1: a test failed) and the last lines, of a process that has the large libraries already."""
    with tempfile.NamedTemporaryFile() as said:
        process = FORKS.Process(target=_pytest, args=(tree, list(tests), said.name))
        process.start()
        process.join(seconds)
        if process.exitcode is None:
            process.kill()
            process.join()
            return 1, f"still running after {seconds} s"
        text, _, code = Path(said.name).read_text(errors="replace").rpartition(EXIT)
        return int(code) if text and code.isdecimal() else -1, (text or code)[-2000:]


def _pytest(tree: Path, tests: list[str], said: str) -> None:
    out = os.open(said, os.O_WRONLY | os.O_APPEND)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.chdir(tree)
    sys.dont_write_bytecode = True  # a .pyc of the same second and size would hide the change
    os.environ |= {
        "PYTHONPATH": str(tree),  # before the editable install of the checkout, here and in what tests start
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
        "GRADWORKS_DATA": str((ROOT / os.environ.get("GRADWORKS_DATA", "data")).resolve()),
    }
    sys.path.insert(0, str(tree))
    for name in list(sys.modules):  # ours are those of the tree, not of the checkout
        if name.partition(".")[0] in OURS:
            del sys.modules[name]
    import pytest
    import torch

    torch.set_num_threads(1)
    code = int(pytest.main(["-x", "-p", "no:xdist", *tests]))
    sys.stdout.flush()
    # not as the exit status: starting a process polls all others, in a race with the thread that waits for this one
    os.write(out, f"{EXIT}{code}".encode())
    os._exit(code)


def verdict(tree: Path, mutant: Mutant) -> str:
    """What became of one mutant: killed, survived, or the reason why it is none."""
    path = tree / mutant.file
    text = path.read_text() if path.exists() else ""
    if text.count(mutant.old) != 1:
        return f"no mutant: the text stands {text.count(mutant.old)} times in {mutant.file}"
    path.write_text(text.replace(mutant.old, mutant.new))
    try:
        code, said = pytest(tree, [mutant.test])
    finally:
        path.write_text(text)
    if code == 1:
        return "killed"
    return "SURVIVED" if code == 0 else f"no mutant: the test did not run ({code})\n{said}"


def run(root: Path, mutants: Sequence[Mutant], green: bool = False) -> bool:
    """Plants every mutant, prints a table, and says whether all were killed; `green`: as they are, the tests pass."""
    if hasattr(FORKS, "set_forkserver_preload"):
        FORKS.set_forkserver_preload(["tests.large"])
    with tempfile.TemporaryDirectory(prefix="mutants.") as folder:
        trees: queue.Queue[Path] = queue.Queue()
        for number in range(min(AT_ONCE, len(mutants))):
            tree = Path(folder, str(number))
            copy_tree(root, tree)
            trees.put(tree)

        def one(mutant: Mutant) -> bool:
            tree, start = trees.get(), time.monotonic()
            try:
                result = verdict(tree, mutant)
            finally:
                trees.put(tree)
            print(f"{time.monotonic() - start:5.1f} s  {mutant.file:40}  {mutant.test}  {result}", flush=True)
            return result == "killed"

        # a test that is red anyway kills nothing
        tree = trees.get()
        tests = [] if green else sorted({mutant.test for mutant in mutants})
        code, said = pytest(tree, tests, SECONDS * AT_ONCE * 3) if tests else (0, "")
        trees.put(tree)
        if code != 0:
            print(f"the tests are not green before any defect is planted:\n{said}")
            return False
        with ThreadPoolExecutor(AT_ONCE) as pool:
            killed = list(pool.map(one, mutants))
    print(f"{sum(killed)} of {len(killed)} mutants killed")
    return all(killed)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-k", metavar="WORD", default="", help="only rows whose file or test contains WORD")
    said = "`make test` says whether the tests pass as they are: no look at that first"
    parser.add_argument("--green", action="store_true", help=said)
    args = parser.parse_args()
    word = args.k
    chosen = [mutant for mutant in MUTANTS if word in mutant.file or word in mutant.test]
    if not chosen:
        print(f"no mutant's file or test contains {word!r}")
        return 2
    return 0 if run(ROOT, chosen, args.green) else 1


if __name__ == "__main__":
    sys.exit(main())
