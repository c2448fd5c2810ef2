"""Checks before anything runs: every input must be available to a pod, and no output may be lost."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from gradworks.base import read_yaml
from gradworks.base.errors import InputError
from gradworks.cluster.profile import Profile
from gradworks.cost import hardware
from gradworks.store import chains
from gradworks.store.stages import Stage


def outputs(stages: Iterable[Stage], pipeline: Path) -> None:
    """Raises InputError when DVC would not push an output; names the command that fixes it. Or a name is impossible."""
    for stage in stages:
        if chains.BETWEEN in stage.name:
            raise InputError(f"{pipeline}: stage {stage.name}: expected a name without {chains.BETWEEN!r}")
        for out in stage.outs:
            if out.cache and out.push:
                continue
            found = "push: false" if out.cache else "cache: false"
            fix = f"dvc commit -f {pipeline}:{stage.name}"
            if not out.cache:
                fix = f"git rm -q --cached --ignore-unmatch {out.path} && {fix}"
            raise InputError(
                f"{pipeline}: stage {stage.name}: {out.path}: found {found}\n"
                "it would stay in the pod, as DVC pushes what is in its cache and nothing else\n"
                f"remove `{found}` there, then: {fix}"
            )


def inputs(stages: Mapping[str, Stage], pipeline: Path, root: Path) -> None:
    """Raises InputError when no stage makes an input and neither git nor DVC tracks it.

    Args:
        stages: of one dvc.yaml.
        pipeline: its path, for error messages.
        root: of the checkout.
    """
    there = _tracked(root)
    there.update(_with_parents(out.path for stage in stages.values() for out in stage.outs))
    whole = {out.path for stage in stages.values() for out in stage.outs} | _in_dvc_files(root, there)
    for stage in stages.values():
        for path in dict.fromkeys((*stage.deps, *stage.params)):
            above = (parent.as_posix() for parent in PurePosixPath(path).parents)
            if PurePosixPath(path).name == hardware.NAME:  # the pod writes its own
                continue
            if "://" in path or path in there or path in whole or not whole.isdisjoint(above):
                continue
            raise InputError(
                f"{pipeline}: stage {stage.name}: {path}: no stage makes it and neither git nor DVC tracks it\n"
                f"so a pod would not get it\n{_mended(path, root)}"
            )


def images(stages: Iterable[Stage], pipeline: str, profile: Profile | None) -> None:
    """Raises InputError when a stage needs an image that the cluster's profile does not name."""
    for stage in stages:
        kind = stage.meta.kind
        if profile and getattr(profile.images, kind) is None:
            raise InputError(
                f"{pipeline}: stage {stage.name}: it runs in the {kind} image, and `images` of the cluster's profile "
                f"has no {kind}\nadd it there: where `make images KIND={kind} REGISTRY=... PUSH=1` put it"
            )


def gpus(stages: Iterable[Stage], pipeline: str, profile: Profile | None) -> None:
    """Raises InputError when a stage asks for a kind of GPU that the cluster's profile does not name."""
    for stage in stages:
        if profile and stage.meta.gpu and stage.meta.gpu.kind not in profile.gpus:
            raise InputError(
                f"{pipeline}: stage {stage.name}: meta.resources.gpu.kind: found {stage.meta.gpu.kind!r}\n"
                f"`gpus` of the cluster's profile has: {', '.join(profile.gpus) or 'none'}\n"
                "add it there, with the resource's name: kubectl describe nodes | grep -A9 Allocatable"
            )


def _git(root: Path, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", *args], cwd=root, capture_output=True, text=True, check=False)


def _with_parents(paths: Iterable[str]) -> set[str]:
    found: set[str] = set()
    for path in paths:
        found.add(path)
        found.update(parent.as_posix() for parent in PurePosixPath(path).parents)
    return found


def _tracked(root: Path) -> set[str]:
    """Files in git and their parent folders."""
    listed = _git(root, "ls-files", "-z")
    if listed.returncode:
        raise InputError(
            f"{root}: {listed.stderr.strip()}\nexpected a git checkout: a run takes its code from a commit"
        )
    return _with_parents(listed.stdout.split("\0")[:-1])


def _in_dvc_files(root: Path, tracked: Iterable[str]) -> set[str]:
    """Paths tracked by .dvc files in git."""
    found = set()
    for name in tracked:
        if name.endswith(".dvc") and (root / name).is_file():
            content = read_yaml(root / name)
            folder = PurePosixPath(name).parent / content.get("wdir", ".")
            found |= {(folder / out["path"]).as_posix() for out in content.get("outs", [])}
    return found


def _mended(path: str, root: Path) -> str:
    if path.startswith(("/", "../")):
        return f"expected a path in the checkout: cp -RL {path} . && dvc add {PurePosixPath(path).name}"
    name = PurePosixPath(path).name
    if _git(root, "check-ignore", "-q", f"{path}.dvc").returncode == 0:  # DVC would not write it there either
        return f"git ignores {path}.dvc, so: cp -RL {path} {name} && dvc add {name}, and name {name} in params.yaml"
    if _git(root, "check-ignore", "-q", path).returncode == 0:
        return f"fix: dvc add {path} && git add {path}.dvc"
    return f"fix: dvc add {path} && git add {path}.dvc (data), or git add {path} (code)"
