"""Collect a run's results: merge its lock entries into dvc.lock, then `dvc pull` its files."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path
from typing import Any

from gradworks import dvc_compat
from gradworks.base.artifacts import atomic_file
from gradworks.base.errors import InputError
from gradworks.cost import hardware
from gradworks.store import runs
from gradworks.store.artifacts.lock import parsed
from gradworks.store.stages import load
from gradworks.telemetry import push


def collect(run: str, force: bool = False, some: bool = False) -> None:
    """Merge a run's lock entries into the dvc.lock beside its dvc.yaml, pull its files, forget its live metrics.

    Args:
        run: its name.
        force: replace uncommitted entries of this checkout.
        some: also of a run that has not finished or failed: what there is of it.

    Raises:
        InputError: no such run, it has not finished (or nothing of it, with `some`), its entries contradict each
            other, or uncommitted entries of dvc.lock would be lost.
    """
    places = runs.places()
    record = runs.record(places, run)
    pipeline = Path(record["pipeline"])
    entries = places.entries(run)
    missing = [name for name in record["stages"] if name not in entries]
    if missing and not (some and len(missing) < len(record["stages"])):
        raise InputError(
            f"run {run}: {len(missing)} of {len(record['stages'])} stages have not finished: {', '.join(missing[:3])}\n"
            f"look at it: gradworks runs show {run}"
            + ("" if some else f"\nget what there is all the same: gradworks collect {run} --some")
        )
    entries = {name: entries[name] for name in record["stages"] if name in entries}
    _consistent(run, entries)
    lock = pipeline.with_name("dvc.lock")
    here = _stages(lock.read_bytes(), str(lock)) if lock.is_file() else {}
    if not force:
        _nothing_lost(run, lock, here, entries)
    _write(lock, here | entries)
    if any(dep["path"].endswith(hardware.NAME) for entry in entries.values() for dep in entry.get("deps", [])):
        hardware.write(pipeline)  # beside it; DVC reports it as changed on other hardware than the run's
    print(f"{lock}: {len(entries)} entries of run {run}; pulling their files", flush=True)
    _pull(pipeline, list(entries))
    _say_differences(record)
    if missing:
        print(f"{len(missing)} of {len(record['stages'])} stages have not finished: {', '.join(missing[:3])}")
        print(f"the report of what is there: gradworks report {pipeline.with_name('params.yaml')}")
    else:
        push.forget(run, record["stages"])


def _consistent(run: str, entries: dict[str, Any]) -> None:
    """Each stage read what its upstream wrote; two submissions under one name could mix."""
    made = {out["path"]: (name, out["md5"]) for name, entry in entries.items() for out in entry.get("outs", [])}
    for name, entry in entries.items():
        for dep in entry.get("deps", []):
            maker, md5 = made.get(dep["path"], (None, None))
            if maker and md5 != dep.get("md5"):
                raise InputError(
                    f"run {run}: {name} read {dep['path']} with md5 {dep.get('md5')}\n"
                    f"but {maker} wrote it with md5 {md5}: the run's entries contradict each other; submit it again"
                )


def _nothing_lost(run: str, lock: Path, here: dict[str, Any], entries: dict[str, Any]) -> None:
    """Uncommitted entries of this checkout are not replaced."""
    shown = subprocess.run(["git", "show", f"HEAD:./{lock.name}"], cwd=lock.parent, capture_output=True, check=False)
    committed = {}
    if shown.returncode == 0:
        with contextlib.suppress(InputError):  # committed with conflict marks: it has no entries
            committed = _stages(shown.stdout, f"HEAD:{lock}")
    lost = [n for n in entries if n in here and here[n] != committed.get(n) and here[n] != entries[n]]
    if lost:
        more = f" and {len(lost) - 3} more" if len(lost) > 3 else ""
        raise InputError(
            f"{lock}: {', '.join(lost[:3])}{more}: changed here and not committed, and other than in run {run}\n"
            "git commit dvc.lock, or replace them: gradworks collect --force " + run
        )


def _stages(body: bytes, source: str) -> dict[str, Any]:
    """Read as DVC does, since other entries are written back. Raises InputError."""
    try:
        found = (dvc_compat.parse_yaml(body.decode(), source) or {}).get("stages") or {}
        return {name: dict(entry) for name, entry in found.items()}
    except (AttributeError, TypeError, ValueError) as error:
        parsed(body, source)  # a clearer error where it is not YAML at all
        said = " ".join(str(error).split())[:100]
        raise InputError(f"{source}: found no mapping of stages\nexpected a dvc.lock, schema 2.0: {said}") from None


def _write(lock: Path, entries: dict[str, Any]) -> None:
    with atomic_file(lock) as temporary:
        dvc_compat.write_lock(temporary, entries)


def _pull(pipeline: Path, stages: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "pull", "--force", *_targets(pipeline, stages)], stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()[-1:]
        raise InputError("\n".join(["dvc.lock has the run's entries, but dvc pull failed", *said[:1]]))


def _targets(pipeline: Path, names: list[str]) -> list[str]:
    """What `dvc pull` is to pull: the whole file or groups where it can be, as DVC reads all stages for each target."""
    groups: dict[str, list[str]] = {}
    for stage in load(pipeline).values():
        groups.setdefault(stage.group, []).append(stage.name)
    whole = {group for group, all_of in groups.items() if set(all_of) <= set(names)}
    of = {name: group for group in whole for name in groups[group]}
    if len(whole) == len(groups) and len(of) == len(names):
        return [pipeline.as_posix()]
    return [f"{pipeline.as_posix()}:{name}" for name in dict.fromkeys(of.get(name, name) for name in names)]


def _say_differences(record: dict[str, Any]) -> None:
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    if record["sets"]:
        print(f"the run had {' '.join(record['sets'])}: set it in params.yaml, or dvc status says that stages changed")
    if head != record["base"]:
        print(f"the run is of commit {record['base'][:12]}, this checkout is at {head[:12]}")
