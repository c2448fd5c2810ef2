"""The program of a pod: its stage; or the stages of its chain one after the other, each as in a pod of its own.

Each stage of a chain is a process that boot.py begins, with its own checkout, log, record, checkpoint and lock entry,
and with the executor input that its own pod would have. What they share is the cache of DVC, so that nothing which one
stage made is downloaded for the next. This process passes SIGTERM on, ends with the exit code of the stage that failed,
and merges what the stages report to Kubeflow. A retry begins with the first stage: those that ended are restored.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from gradworks.store import chains

_BOOT = Path(__file__).with_name("boot.py")
_STOPPED = 143  # the exit code after SIGTERM


def main(text: str, begun: float) -> None:
    """Run the stage or the chain that Kubeflow's executor input names; ends the process.

    Args:
        text: the executor input, JSON: the value of `{{$}}`.
        begun: when the pod's program began (seconds since 1970).
    """
    given = json.loads(text)
    names = chains.split(str(given["inputs"]["parameterValues"]["stage"]))
    if len(names) == 1:
        from gradworks.pod import run  # what a chain's own process has no use for

        run.main(text, begun)
    sys.exit(_all(names, given))


def _all(names: list[str], given: dict[str, Any]) -> int:
    """Run the stages of a chain in the current checkout; the exit code."""
    folder, artifacts = Path(".gradworks/chain").absolute(), {}
    with _Child() as child:
        for at, (name, owner) in enumerate(zip(names, chains.owners(names), strict=True)):
            work = folder / str(at)
            work.mkdir(parents=True)
            own = _given(given, names[0], name, owner, work.with_suffix(".json"))
            if code := child.run(name, own, work, folder / "cache"):
                return code
            told = json.loads(work.with_suffix(".json").read_text()).get("artifacts", {})
            artifacts |= {chains.output(artifact, owner): one for artifact, one in told.items()}
            shutil.rmtree(work)
    out = Path(given["outputs"]["outputFile"])
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"artifacts": artifacts}))
    return 0


def _given(given: dict[str, Any], head: str, name: str, owner: str, out: Path) -> dict[str, Any]:
    """The executor input of one stage. `head`: the chain's first; `out`: for what it reports."""
    outputs = given["outputs"]

    def own(asked: str) -> dict[str, Any]:
        found = {chains.owned(key): value for key, value in outputs.get(asked, {}).items()}
        return {key: value for (key, whose), value in found.items() if whose == owner}

    values = {**given["inputs"]["parameterValues"], "stage": name, "head": head}
    return {
        "inputs": {"parameterValues": values},
        "outputs": {"outputFile": str(out), "parameters": own("parameters"), "artifacts": own("artifacts")},
    }


class _Child:
    """The process of the stage that runs, which gets the SIGTERM of this one; none is begun after that."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False

    def __enter__(self) -> _Child:
        self._before = signal.signal(signal.SIGTERM, self._stop)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGTERM, self._before)

    def _stop(self, *_: object) -> None:
        self._stopped = True
        if self._process is not None:
            self._process.terminate()

    def run(self, name: str, given: dict[str, Any], work: Path, cache: Path) -> int:
        """Run one stage to its end; the exit code, as a shell has it where a signal ended it."""
        if self._stopped:
            print(f"error: {name}: stopped by SIGTERM before it began", file=sys.stderr, flush=True)
            return _STOPPED
        environment = {**os.environ, "GRADWORKS_WORK": str(work / "code"), "GRADWORKS_CACHE": str(cache)}
        environment.pop("PYTHONPATH", None)  # boot.py sets it
        command = [sys.executable, "-c", _BOOT.read_text(), json.dumps(given)]
        # a group of its own: Argo sends SIGTERM to all of this one's, and a program that gets it twice may end at once
        self._process = subprocess.Popen(command, cwd=work, env=environment, process_group=0)
        if self._stopped:  # between the two lines
            self._process.terminate()
        code = self._process.wait()
        self._process = None
        if code < 0:
            said = signal.Signals(-code).name
            print(f"error: {name}: its program was ended by {said}", file=sys.stderr, flush=True)
            return 128 - code
        return code
