"""Plan a run: the code of one commit, and the pipeline of its stages."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gradworks.cluster import compile, early, sets, trainjob
from gradworks.cluster.profile import Profile
from gradworks.store import cached, code, runs
from gradworks.store.places import Places
from gradworks.store.stages import Stage, checkout
from gradworks.store.standing import RUN


@dataclass(frozen=True)
class Plan:
    """A run before it is submitted.

    Attributes:
        run: its name; pipeline: path of the dvc.yaml in the checkout; remote: URL of the DVC remote.
        code: the archive that it runs; record: what is stored about it.
        stages: their names, upstream first; ir: the Kubeflow pipeline, "" where there is nothing to run.
        restored: entries of dvc.lock of the stages that need no pod, by stage: also of those that `plan` ran.
        ahead: what ran them: `with plan.ahead` until the run has a record of its own, so that a failure leaves nothing.
    """

    run: str
    pipeline: str
    remote: str
    code: code.Code
    stages: tuple[str, ...]
    ir: str
    record: dict[str, Any]
    restored: dict[str, dict[str, Any]]
    ahead: early.Runner

    def keep(self, places: Places) -> None:
        """Write the entries of the restored stages, which others of the run read. Raises InputError."""
        if self.restored:
            places.put_before(self.run, self.restored)

    def drop(self, places: Places) -> None:
        """Remove them, of a run that has not begun. Raises InputError."""
        places.delete([one["Key"] for one in places.list(places.key("locks", self.run) + "/")])


def plan(
    pipeline: Path,
    profile: Profile | None,
    given: Sequence[str] = (),
    dirty: bool = False,
    everything: bool = False,
    standing: bool = False,
    sure: early.Sure = early.unchecked,
) -> Plan:
    """Plan a run of a dvc.yaml.

    Args:
        pipeline: the path of a dvc.yaml.
        profile: of the cluster; none = this machine.
        given: KEY=VALUE each: parameters that this run has instead of the checkout's.
        dirty: take the work tree as it is.
        everything: also the stages that are in the run cache; without a profile, or `store(profile)`, the
            environment's S3 settings are used to ask it.
        standing: the pipeline holds all values; its runs are Kubeflow's, and `run` names what they have in common.
        sure: asked before a stage is run here, and where one has to run in a pod: what the run cache has was checked.

    Raises:
        InputError: from `sure`, changes that are not committed, no DVC remote on S3, or a stage that a
            pod could not run.
    """
    root = checkout(pipeline)
    path, remote = pipeline.absolute().relative_to(root), runs.remote(root)
    run = f"{time.strftime('%Y%m%d-%H%M', time.gmtime())}-{secrets.token_hex(3)}"
    commit = code.bundle(root, dirty, sets.replaced(root, pipeline, given))
    ahead = early.Runner(run, path.as_posix(), commit, Places(remote), sure)
    with code.unpacked(commit), ahead:
        here, stages = compile.checked(path)
        tags = compile.tags(here, stages)
        compile.possible(stages, path.as_posix(), profile)
        if profile is None:
            trainjob.expect_cluster(stages.values(), path.as_posix())
        where = {
            "endpoint": profile.endpoint if profile else "", "namespace": profile.namespace if profile else None,
            "kube_context": profile.auth.kube_context if profile else None, "images": tags,
            "measured": [stage.name for stage in stages.values() if cached.measured(stage)],
            "gpus": {name: stage.meta.gpus for name, stage in stages.items() if stage.meta.gpu},
        }  # fmt: skip
        found = {} if everything else _restored(here, path, stages, ahead, where)
        left = {
            n: replace(s, ups=tuple(up for up in s.ups if up not in found)) for n, s in stages.items() if n not in found
        }
        certain = sure() if left else early.unchecked()
        fixed = _fixed(run, commit, Places(remote)) if standing else None
        planned = compile.plan(left)
        ir = compile.ir(left, path.as_posix(), compile.title(path), profile, tags, fixed) if left else ""
        certain()
    record = {
        "run": run, "pipeline": path.as_posix(), "commit": commit.commit, "base": commit.base,
        "dirty": dirty and bool(code.changes(root)), "sets": list(given), "stages": list(stages),
        "restored": [name for name in found if name not in ahead.ran], "remote": remote, "begun": time.time(),
        "state": "submitting", "ups": {name: list(stage.ups) for name, stage in stages.items()},
        "tasks": {task.name: [stage.name for stage in task.stages] for task in planned},
        "pods": sum(len(task.chains) for task in planned),
        "price_per_gpu_hour": profile.price_per_gpu_hour if profile else {},
    } | where  # fmt: skip
    return Plan(run, path.as_posix(), remote, commit, tuple(stages), ir, record, found, ahead)


def _restored(
    root: Path, path: Path, stages: Mapping[str, Stage], ahead: early.Runner, where: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:  # fmt: skip
    """The entries of the stages that need no pod. `where`: what a run's record says of the nodes it runs on."""

    def like(record: Mapping[str, Any]) -> bool:
        same = all(record.get(key) == where[key] for key in ("endpoint", "namespace", "kube_context", "images"))
        gpus = [{n: of.get(n) for n in where["measured"]} for of in (record.get("gpus") or {}, where["gpus"])]
        return same and gpus[0] == gpus[1]

    known = cached.machines(ahead.places, like) if where["measured"] else []
    return cached.restored(root, path, stages, ahead.places, known, ahead.run)


def _fixed(name: str, commit: code.Code, places: Places) -> dict[str, str]:
    uri = places.uri(places.key("code", commit.name))
    return {"run": RUN, "code": uri, "remote": places.remote, "record": name}


def parameters(made: Plan, uri: str) -> dict[str, str]:
    """The pipeline's parameters for one run. `uri`: of its code."""
    return {"run": made.run, "code": uri, "remote": made.remote}
