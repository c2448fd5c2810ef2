"""A run on a cluster: `gradworks submit`.

The code of one commit goes to S3, the stages of exactly that state become a pipeline, and the cluster gets that with
the addresses of both. What was submitted is written down beside it, for `gradworks runs` and `gradworks collect`.
"""

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
from gradworks.cluster import compile, follow, sets
from gradworks.cluster.client import connect, quiet
from gradworks.cluster.profile import Profile, read, store
from gradworks.store import code, runs
from gradworks.store.places import Places
from gradworks.store.stages import checkout


@dataclass(frozen=True)
class Plan:
    """What a run consists of, before anything of it is anywhere else.

    Attributes:
        run: its name; pipeline: path of the dvc.yaml in the checkout; remote: URL of the DVC remote.
        code: of the state that it runs; record: what is written down of it.
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
    """Make a run of a dvc.yaml ready.

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


def submit(
    pipeline: Path,
    profile_path: Path,
    given: Sequence[str] = (),
    dirty: bool = False,
    wait: bool = False,
    patience: float = follow.PATIENCE,
) -> str:
    """Run a dvc.yaml on a cluster; returns the run's name.

    Args:
        pipeline: the path of a dvc.yaml.
        profile_path: the cluster's profile.
        given: KEY=VALUE each: parameters that this run has instead of the checkout's.
        dirty: take the work tree as it is.
        wait: follow the run to its end.
        patience: seconds that a run may be followed in which no pod of it can start.

    Raises:
        InputError: as `plan`; the cluster or S3 did not take it; with `wait`, the run failed or cannot go on.
    """
    profile = read(profile_path)
    made = plan(pipeline, profile, given, dirty)
    client = connect(profile, profile_path)
    experiment = _experiment(client, profile, profile_path)  # first: is the login one that works?
    with store(profile):
        places = Places(made.remote)
        uri = code.upload(made.code, places)
        record = made.record | {
            "code": uri, "namespace": profile.namespace, "experiment": profile.experiment, "endpoint": profile.endpoint,
            "kube_context": profile.auth.kube_context,
        }  # fmt: skip
        places.put_record(made.run, "run", record)
        try:
            run_id = _begin(client, experiment, made, uri, profile)
        except InputError as error:
            places.put_record(made.run, "run", record | {"state": "refused", "error": str(error)})
            raise
        url = f"{profile.endpoint.rstrip('/')}/#/runs/details/{run_id}" if profile.endpoint else ""
        record |= {"run_id": run_id, "url": url, "state": "submitted"}
        places.put_record(made.run, "run", record)
        print(f"run {made.run}: {len(made.stages)} stages of {made.pipeline} at {made.code.base[:12]}")
        print(f"{url or 'Kubeflow calls it ' + run_id}", flush=True)
        if wait:
            _wait(client, places, record, patience)
        else:
            print(f"how it fares: gradworks runs show {made.run}", flush=True)
    print(f"its results, when it has ended: gradworks collect {made.run}", flush=True)
    return made.run


def parameters(made: Plan, uri: str) -> dict[str, str]:
    """Of the pipeline, for one run. `uri`: where its code lies."""
    return {"run": made.run, "code": uri, "remote": made.remote}


def _experiment(client: Any, profile: Profile, file: Path) -> str:
    """Kubeflow's id of the experiment, which is made where there is none. Raises InputError."""
    try:
        with quiet():
            return client.create_experiment(profile.experiment, namespace=profile.namespace).experiment_id
    except InputError:
        raise
    except ValueError as error:  # kfp's, of two that are called so
        raise InputError(f"{file}: experiment: found {profile.experiment!r}: {error}") from None


def _begin(client: Any, experiment: str, made: Plan, uri: str, profile: Profile) -> str:
    """Kubeflow's id of the run. Raises InputError."""
    with tempfile.TemporaryDirectory() as folder, quiet():
        file = Path(folder, "pipeline.yaml")
        file.write_text(made.ir, encoding="utf-8")
        return client.run_pipeline(
            experiment, made.run, str(file), params=parameters(made, uri), enable_caching=False,
            pipeline_root=profile.pipeline_root, service_account=profile.service_account,
        ).run_id  # fmt: skip


def _wait(client: Any, places: Places, record: dict[str, Any], patience: float) -> None:
    try:
        follow.follow(client, places, record, patience)
    except KeyboardInterrupt:
        print(f"\nno longer followed; the run goes on: gradworks runs show {record['run']}", flush=True)
        raise SystemExit(130) from None


@contextlib.contextmanager
def _unpacked(commit: code.Code) -> Iterator[None]:
    """The tree of a commit in a folder, which is the current one meanwhile; its files count as tracked by git."""
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
