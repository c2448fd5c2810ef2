"""Stages that are run before the run starts: those with `meta: {pod: submit}` that the run cache does not have.

What is below a stage that has to run is not known before it has: one that takes seconds is therefore run where the run
is planned, by the program that a pod would start, in a checkout of the run's code. It is recorded, logged and pushed as
in a pod.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from gradworks.base.errors import InputError
from gradworks.store import code
from gradworks.store.places import Places
from gradworks.store.stages import Stage

# begins to check the parameters; what it returns waits for the answer, and raises InputError where they have a mistake
Sure = Callable[[], Callable[[], None]]

_PROGRAM = "from gradworks.cli import main; main()"  # of the run's code, which is the current folder


def unchecked() -> Callable[[], None]:
    """A `Sure` that checks nothing."""
    return lambda: None


class Runner:
    """Runs stages of one run before it starts. As a context manager: an exception removes what it wrote.

    Args:
        name: the run's.
        pipeline: path of the dvc.yaml in the checkout.
        commit: the run's code.
        places: the DVC remote.
        sure: asked before a stage is run.

    Attributes:
        ran: the stages that were run.
    """

    def __init__(self, name: str, pipeline: str, commit: code.Code, places: Places, sure: Sure) -> None:
        self._sure = sure
        self._name, self._pipeline, self._commit, self.places = name, pipeline, commit, places
        self.ran: list[str] = []

    def __enter__(self) -> Runner:
        return self

    def __exit__(
        self, failed: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        if failed is not None and self.ran:
            for kept in ("locks", "logs", "runs"):
                prefix = self.places.key(kept, self._name) + "/"
                self.places.delete([one["Key"] for one in self.places.list(prefix)])

    def run(self, stage: Stage, above: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
        """Run a stage; its entry of dvc.lock.

        Args:
            stage: whose upstreams all have an entry in `above`.

        Raises:
            InputError: it failed, with its own words.
        """
        self._sure()()
        print(f"{stage.name}: runs here, before the run starts", flush=True)
        self.ran.append(stage.name)
        for up in stage.ups:
            self.places.put_entry(self._name, up, above[up])
        given = ["--run", self._name, "--stage", stage.name, "--remote", self.places.remote, self._pipeline]
        with code.unpacked(self._commit):  # apart: the program removes what the stage does not need
            done = subprocess.run(
                [sys.executable, "-c", _PROGRAM, "run-stage", "--here", *given], text=True, check=False,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ, "PYTHONPATH": str(Path.cwd())},
            )  # fmt: skip
        entry = self.places.entry(self._name, stage.name) if done.returncode == 0 else None
        if entry is None:
            said = done.stdout.strip().splitlines()
            at = max((n for n, line in enumerate(said) if line.startswith("error: ")), default=max(len(said) - 1, 0))
            raise InputError("\n".join(said[at : at + 3]).removeprefix("error: ") or f"{stage.name}: it failed")
        return entry
