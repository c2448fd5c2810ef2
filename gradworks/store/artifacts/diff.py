"""`gradworks artifacts diff A B`: parameters and metrics that differ between two revisions or runs."""

from __future__ import annotations

import json
import posixpath
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from gradworks.base.errors import InputError
from gradworks.store.artifacts import lock as locks
from gradworks.store.artifacts import words
from gradworks.store.artifacts.listing import flat_parameters
from gradworks.store.artifacts.lock import AT_ONCE, Lock, Out
from gradworks.store.artifacts.previews import bounded
from gradworks.store.artifacts.store import Fault, Store


def either(store: Store, pipeline: Path, name: str, runs: bool = False) -> Lock:
    """The lock of a revision, else of a run of that name; `runs`: of a run only. Raises InputError."""
    if not runs and locks.commit(pipeline, name):
        return locks.revision(pipeline, name)
    try:
        found, damaged = locks.of_run(store.places, name)
    except InputError as error:
        if ": run " not in str(error) or runs:
            raise
        raise InputError(f"{words.plain(name)}: neither a revision of this checkout nor a run in the remote") from None
    if damaged:
        raise InputError(f"{store.places.uri(damaged[0])}: damaged\nname the faults: gradworks artifacts verify")
    return found


def compare(a: Lock, b: Lock, store: Store, pipeline: Path) -> dict[str, Any]:
    """Stages that only one has; by stage, the parameters and metrics that differ.

    Args:
        pipeline: the dvc.yaml that declares the metrics; for a stage it lacks, every JSON file.

    Raises:
        InputError: a lock or the store cannot be read. Missing or damaged metrics are listed in `not_compared`.
    """
    known = _metrics(pipeline)
    stages: dict[str, dict[str, Any]] = {}
    for stage in (name for name in a.entries if name in b.entries):
        old, new = flat_parameters(a, stage), flat_parameters(b, stage)
        changed = {k: [old.get(k), new.get(k)] for k in {**old, **new} if _differ(old, new, k)}
        if changed:
            stages.setdefault(stage, {})["parameters"] = changed
    pairs, faults = _pairs(a, b, known), []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for (old, new), found in zip(pairs, pool.map(lambda pair: _differences(store, *pair), pairs), strict=True):
            if isinstance(found, str):
                faults.append({"stage": new.stage, "path": new.path, "said": found})
            elif found:
                at = stages.setdefault(new.stage, {}).setdefault("metrics", {})
                at[new.path if new.path == old.path else f"{old.path} -> {new.path}"] = found
    order = {name: i for i, name in enumerate(b.entries)}
    return {
        "a": a.source, "b": b.source,
        "only_a": [name for name in a.entries if name not in b.entries],
        "only_b": [name for name in b.entries if name not in a.entries],
        "stages": dict(sorted(stages.items(), key=lambda item: order[item[0]])),
        "not_compared": faults,
    }  # fmt: skip


def _differ(old: dict[str, Any], new: dict[str, Any], key: str) -> bool:
    # 1 and true are equal in Python
    return (key in old) != (key in new) or words.short(old[key], 10**6) != words.short(new[key], 10**6)


def _metrics(pipeline: Path) -> dict[str, set[str]]:
    """The metrics files of each stage, as in the lock; none if the dvc.yaml cannot be read."""
    from gradworks.store import stages

    try:
        found = stages.load(pipeline)
    except InputError:
        return {}
    return {
        stage.name: {posixpath.relpath(out.path, stage.wdir) for out in stage.outs if out.kind == "Metrics"}
        for stage in found.values()
    }


def _pairs(a: Lock, b: Lock, known: dict[str, set[str]]) -> list[tuple[Out, Out]]:
    """Metrics files of the same stage and path that differ."""

    def of(lock: Lock) -> dict[tuple[str, str], Out]:
        return {
            (out.stage, out.path): out
            for out in lock.outs()
            if not out.folder and out.path in known.get(out.stage, {out.path} if out.path.endswith(".json") else ())
        }

    old = of(a)
    return [(old[at], out) for at, out in of(b).items() if at in old and old[at].md5 != out.md5]


def _differences(store: Store, old: Out, new: Out) -> dict[str, list[float | None]] | str:
    """By dotted name, both numbers and their difference, or why they cannot be compared."""
    try:
        a, b = (_figures(store, out) for out in (old, new))
    except Fault as fault:
        return f"{fault.state} in the store"
    except (ValueError, OverflowError, RecursionError):
        return "not valid JSON"
    made = {}
    for name in {**a, **b}:
        x, y = a.get(name), b.get(name)
        if x != y:
            made[name] = [x, y, None if x is None or y is None else y - x]
    return made


def _figures(store: Store, out: Out) -> dict[str, float]:
    return words.figures(json.loads(store.read(out.md5)))


def shown(found: dict[str, Any], lines: int) -> str:
    """The result of `compare` as text, in at most `lines` lines."""
    made = [f"a: {found['a']}   b: {found['b']}"]
    for side in "ab":
        names = [words.plain(name) for name in found[f"only_{side}"]]
        if names:
            made.append(
                f"only in {side}: {len(names)} stages: {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}"
            )
    for stage, changed in found["stages"].items():
        made += ["", words.plain(stage)]
        rows = [(f"  {words.plain(k)}", words.short(x, 30), words.short(y, 30), "")
                for k, (x, y) in changed.get("parameters", {}).items()]  # fmt: skip
        for path, figures in changed.get("metrics", {}).items():
            rows += [(f"  {words.plain(path)}", "", "", "")] if rows or len(changed["metrics"]) > 1 else []
            rows += [
                (f"  {words.plain(name)}", *map(_number, (x, y)), _number(d, "+"))
                for name, (x, y, d) in figures.items()
            ]
        made += words.columns([("  ", "a", "b", "b - a"), *rows], right=(1, 2, 3)).split("\n")
    for one in found["not_compared"]:
        made.append(f"not compared: {words.plain(one['stage'])}: {words.plain(one['path'])}: {one['said']}")
    if len(made) == 1:
        made.append("no difference in parameters or metrics")
    return bounded("\n".join(made), lines)


def _number(value: float | None, sign: str = "") -> str:
    return "" if value is None else f"{value:{sign}.6g}"
