"""What benchmarks/kills.py has of both kinds: a small real pipeline, a kill at a moment, files compared."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import yaml

from gradworks.base import cells
from gradworks.cost import hardware
from gradworks.store.stages import Stage
from tests.cluster import toy
from tests.small import SMALL

METHODS = {
    "erm": {},
    "dotprod": {"update": {"dotprod": {"weight": 0.1}}},
    "reweight": {"weighting": "reweight"},
}
SIGNALS = (signal.SIGKILL, signal.SIGTERM)
EARLIER = 0.75  # a moment that came when all had ended is tried again at this share of it
_STOPPED = re.compile(r"stopped after step (\d+) of")
_RESUMED = re.compile(r"resumed from step (\d+) of (\d+)")
LIMIT = 600.0  # seconds that any one process may take


class Wrong(Exception):
    """A file differs from that of the unbroken run, or a process did not end as it should."""


@dataclass(frozen=True)
class Kill:
    """One kill.

    Attributes:
        kind: pod or rank 0, rank 1. cell: method of the cell. signal: its name.
        moment: when it came, as a share of the seconds of the unbroken run.
        resumed: step that the next run went on from, 0 = it began again. files: compared.
    """

    kind: str
    cell: str
    signal: str
    moment: float
    resumed: int
    steps: int
    files: int


def drawn(*key: object) -> float:
    """A number in [0, 1) that belongs to this key."""
    text = "/".join(map(str, ("kills", *key))).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest()) / 2**64


def contents(root: Path, outs: list[str]) -> dict[str, bytes]:
    """Every file of the outputs, by its path. Raises Wrong where an output is missing."""
    found: dict[str, bytes] = {}
    for out in outs:
        files = [root / out] if (root / out).is_file() else sorted(p for p in (root / out).rglob("*") if p.is_file())
        if not files:
            raise Wrong(f"{out}: was not written")
        found |= {file.relative_to(root).as_posix(): file.read_bytes() for file in files}
    return found


def compared(whole: dict[str, bytes], found: dict[str, bytes], where: str) -> int:
    """The number of files. Raises Wrong where any differs from the unbroken run's, is missing or is one more."""
    wrong = sorted(name for name in whole.keys() | found.keys() if whole.get(name) != found.get(name))
    if wrong:
        raise Wrong(f"{where}: found other bytes than in the unbroken run\nin {', '.join(wrong)}")
    return len(whole)


def broken(
    begin: Callable[[], subprocess.Popen[str]],
    kill: Callable[[subprocess.Popen[str]], None],
    begun: Callable[[subprocess.Popen[str]], float],
    seconds: float,
    share: float,
) -> tuple[float, str] | None:
    """Start something, kill it when `share` of its seconds have passed.

    Args:
        begin: starts it. kill: sends the signal. begun: waits until it runs, and says since when (time.monotonic).
        seconds: that it takes unbroken.

    Returns:
        The share at which the signal came, and what was printed; None where all had ended before.

    Raises:
        Wrong: it ended with 0 though it got the signal.
    """
    process = begin()
    since = begun(process)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(max(0.0, since + share * seconds - time.monotonic()))
    if process.poll() is not None:
        process.communicate()
        return None
    at = (time.monotonic() - since) / seconds
    kill(process)
    said, _ = process.communicate(timeout=LIMIT)
    return (at, said) if process.returncode else None  # it was at its very end


def checkout(root: Path, epochs: float) -> Path:
    """A checkout with a small real pipeline: a fetch, a corrupt, a pretrain, and a training of each of METHODS."""
    toy.checkout(root)
    shutil.copytree(toy.ROOT / "components", root / "components", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(toy.ROOT / "versions.json", root / "versions.json")
    values = copy.deepcopy(SMALL)
    values["methods"] = METHODS
    values["train"] |= {"epochs": epochs, "select": {"every": 0.05}}
    values["cells"]["grid"][0]["method"] = list(METHODS)
    (root / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    (root / "work.py").unlink()
    (root / ".gitignore").write_text("/runs\n/report\n.gradworks\n.dvc/*\n!.dvc/config\n__pycache__\n")
    cells.write(root / "params.yaml")
    hardware.write(root / "params.yaml")
    toy.git(root, "add", "--all")
    toy.git(root, "commit", "-q", "-m", "small")
    return root


def trained(stages: dict[str, Stage]) -> dict[str, str]:
    """The training stage of each method."""
    return {m: next(s for s in stages if s.startswith("train@") and m in s.split("@")[1].split("-")) for m in METHODS}


def before(stages: dict[str, Stage], stage: str) -> list[str]:
    """What has to run before a stage, upstream first."""
    needed, names = {stage}, list(stages)
    for name in reversed(names):
        if name in needed:
            needed |= set(stages[name].ups)
    return [name for name in names if name in needed and name != stage]


def resumed(said: str, killed: str = "") -> tuple[int, int]:
    """The step that a run went on from, and how many there are; 0, 0 where it began again.

    Args:
        said: what it printed. killed: what the run before printed.

    Raises:
        Wrong: the run before had stopped after another step, and said so.
    """
    found, stopped = _RESUMED.search(said), _STOPPED.search(killed)
    step, steps = (int(found[1]), int(found[2])) if found else (0, 0)
    if stopped and int(stopped[1]) != step:
        raise Wrong(f"stopped after step {stopped[1]}, and the next run began at step {step}")
    return step, steps
