"""The stages of one dvc.yaml, as DVC resolves them, without indexing every dvc.yaml in the checkout.

DVC's own resolver expands `foreach`, `matrix` and `${...}`; what is left is a graph of names, dependencies and outputs.
Pods use this too: nothing here needs Kubeflow.
"""

from __future__ import annotations

import graphlib
import posixpath
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from gradworks import dvc_compat
from gradworks.base.errors import InputError
from gradworks.store.meta import Meta
from gradworks.store.meta import read as read_meta


@dataclass(frozen=True)
class Out:
    """An output of a stage.

    Attributes:
        path: posix, from the checkout's root.
        kind: Dataset, Model, Metrics, HTML or Markdown.
        name: of the artifact, one per stage: model, dataset, dataset_2.
        cache: whether DVC keeps it in its cache; push: and in the remote.
        confusion: the name of the artifact that shows its confusion matrix: of `{type: predictions}`; "" = none.
    """

    path: str
    kind: str
    name: str
    cache: bool = True
    push: bool = True
    confusion: str = ""


@dataclass(frozen=True)
class Stage:
    """A stage with everything resolved.

    Attributes:
        name: as in dvc.lock, train@noise-erm-gru-0; group: train.
        wdir, deps, params: posix, from the checkout's root; params are the files that parameters are read from.
        ups: the stages of the same dvc.yaml whose outputs it reads.
        entry: what dvc.yaml says of it, as DVC reads it.
    """

    name: str
    group: str
    cmd: str
    wdir: str
    deps: tuple[str, ...]
    params: tuple[str, ...]
    outs: tuple[Out, ...]
    ups: tuple[str, ...]
    meta: Meta
    entry: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)


def checkout(pipeline: Path) -> Path:
    """The root of the checkout that a dvc.yaml lies in: the nearest folder above with .dvc.

    Raises:
        InputError: there is none.
    """
    # not resolved: where pipelines/NAME/dvc.yaml is a link, NAME is what matters
    for folder in pipeline.absolute().parents:
        if (folder / ".dvc").is_dir():
            return folder
    raise InputError(f"{pipeline}: lies in no DVC project\nexpected a folder .dvc beside or above it: dvc init")


def load(pipeline: Path) -> dict[str, Stage]:
    """Every stage of a dvc.yaml, upstream first; in the file's order where the graph leaves it open.

    Args:
        pipeline: the path of a dvc.yaml.

    Raises:
        InputError: no such file, it is not valid, a parameter is missing, stages form a circle, a `meta` is wrong.
    """
    root = checkout(pipeline)
    folder = pipeline.absolute().parent.relative_to(root).as_posix()
    found = {name: _stage(name, entry, folder, pipeline) for name, entry in dvc_compat.resolved(pipeline, root).items()}
    ups = _ups(found.values())
    try:
        order = list(graphlib.TopologicalSorter(ups).static_order())
    except graphlib.CycleError as error:
        raise InputError(f"{pipeline}: stages depend on each other in a circle\n{' <- '.join(error.args[1])}") from None
    return {name: replace(found[name], ups=tuple(ups[name])) for name in order}


def _stage(name: str, entry: dict[str, Any], folder: str, pipeline: Path) -> Stage:
    """An entry as a Stage, its upstreams not known yet."""
    wdir = posixpath.normpath(posixpath.join(folder, entry.get("wdir") or "."))
    where = f"{pipeline}: stage {name}"

    def placed(path: str) -> str:
        return path if "://" in path else posixpath.normpath(posixpath.join(wdir, path))

    outs: list[tuple[str, str, dict[str, Any]]] = []
    for section in ("outs", "metrics", "plots"):
        for one in entry.get(section) or []:
            for given, options in (one if isinstance(one, dict) else {one: {}}).items():
                path = placed(given)
                if path.startswith(("../", "/")) or "://" in path:
                    raise InputError(f"{where}: {section}: found {path}\nexpected a path in the checkout")
                outs.append((section, path, options if isinstance(options, dict) else {}))
    files = [file for one in entry.get("params") or [] for file in (one if isinstance(one, dict) else ["params.yaml"])]
    return Stage(
        name=name,
        group=name.rpartition("@")[0] or name,
        cmd=entry["cmd"] if isinstance(entry["cmd"], str) else "\n".join(entry["cmd"]),
        wdir=wdir,
        deps=tuple(map(placed, entry.get("deps") or [])),
        params=tuple(map(placed, dict.fromkeys(files))),
        outs=tuple(_typed(outs)),
        ups=(),
        meta=read_meta(entry.get("meta"), where),
        entry=entry,
    )


def _typed(outs: list[tuple[str, str, dict[str, Any]]]) -> Iterator[Out]:
    kinds: Counter[str] = Counter()
    for section, path, options in outs:
        kind = {".html": "HTML", ".md": "Markdown"}.get(PurePosixPath(path).suffix, "Dataset")
        if section == "metrics" or options.get("type") == "metrics":
            kind = "Metrics"
        elif options.get("type") == "model":
            kind = "Model"
        kinds[kind] += 1
        name = kind.lower() + (f"_{kinds[kind]}" if kinds[kind] > 1 else "")
        shown = name.replace(kind.lower(), "confusion", 1) if options.get("type") == "predictions" else ""
        yield Out(path, kind, name, options.get("cache", True), options.get("push", True), shown)


def _ups(stages: Iterable[Stage]) -> dict[str, list[str]]:
    """For each stage, the stages that write its inputs: an input itself, a part of it, or a folder above it."""
    stages = list(stages)
    whole, part = defaultdict(set), defaultdict(set)
    for stage in stages:
        for out in stage.outs:
            whole[out.path].add(stage.name)
            for parent in PurePosixPath(out.path).parents:
                part[parent.as_posix()].add(stage.name)
    found = {}
    for stage in stages:
        above: set[str] = set()
        for path in (*stage.deps, *stage.params):
            above |= part[path]
            for one in (path, *(parent.as_posix() for parent in PurePosixPath(path).parents)):
                above |= whole[one]
        found[stage.name] = [one.name for one in stages if one.name in above]
    return found
