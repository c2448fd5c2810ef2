"""Plan a run: the code of one commit, and the pipeline of its stages."""

from __future__ import annotations

import contextlib
import io
import secrets
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradworks.base.errors import InputError
from gradworks.cluster import compile, sets
from gradworks.cluster.profile import Profile
from gradworks.store import code, runs
from gradworks.store.stages import checkout


@dataclass(frozen=True)
class Plan:
    """A run before it is submitted.

    Attributes:
        run: its name; pipeline: path of the dvc.yaml in the checkout; remote: URL of the DVC remote.
        code: the archive that it runs; record: what is stored about it.
        stages: their names, upstream first; ir: the Kubeflow pipeline.
    """

    run: str
    pipeline: str
    remote: str
    code: code.Code
    stages: tuple[str, ...]
    ir: str
    record: dict[str, Any]


def plan(pipeline: Path, profile: Profile | None, given: Sequence[str] = (), dirty: bool = False) -> Plan:
    """Plan a run of a dvc.yaml.

    Args:
        pipeline: the path of a dvc.yaml.
        profile: of the cluster; none = this machine.
        given: KEY=VALUE each: parameters that this run has instead of the checkout's.
        dirty: take the work tree as it is.

    Raises:
        InputError: changes that are not committed, a key that is unknown, no DVC remote on S3, or a stage that a pod
            could not run.
    """
    root = checkout(pipeline)
    path, remote = pipeline.absolute().relative_to(root), runs.remote(root)
    commit = code.bundle(root, dirty, sets.replaced(root, pipeline, given))
    with _unpacked(commit):
        here, stages = compile.checked(path)
        tags = compile.tags(here, stages)
        ir = compile.ir(stages, path.as_posix(), compile.title(path), profile, tags)
    run = f"{time.strftime('%Y%m%d-%H%M', time.gmtime())}-{secrets.token_hex(3)}"
    record = {
        "run": run, "pipeline": path.as_posix(), "commit": commit.commit, "base": commit.base,
        "dirty": dirty and bool(code.changes(root)), "sets": list(given), "stages": list(stages), "images": tags,
        "remote": remote, "begun": time.time(), "state": "submitting",
        "ups": {name: list(stage.ups) for name, stage in stages.items()},
        "tasks": {task.name: [stage.name for stage in task.stages] for task in compile.plan(stages)},
        "gpus": {name: stage.meta.gpu.model_dump() for name, stage in stages.items() if stage.meta.gpu},
        "price_per_gpu_hour": profile.price_per_gpu_hour if profile else {},
    }  # fmt: skip
    return Plan(run, path.as_posix(), remote, commit, tuple(stages), ir, record)


def parameters(made: Plan, uri: str) -> dict[str, str]:
    """The pipeline's parameters for one run. `uri`: of its code."""
    return {"run": made.run, "code": uri, "remote": made.remote}


@contextlib.contextmanager
def _unpacked(commit: code.Code) -> Iterator[None]:
    """Unpack a commit into a temporary git checkout and make it the current folder."""
    safe: Mapping[str, str] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(fileobj=io.BytesIO(commit.body)) as tar:
            tar.extractall(folder, **safe)  # type: ignore[arg-type]
        for command in (["init", "-q"], ["add", "--all", "--force"]):
            done = subprocess.run(["git", *command], cwd=folder, capture_output=True, text=True, check=False)
            if done.returncode:
                raise InputError(f"git {command[0]} of the run's code failed: {done.stderr.strip()[:200]}")
        with contextlib.chdir(folder):
            yield
