"""Entries of dvc.lock, of a revision, the work tree or a run. Their content is untrusted."""

from __future__ import annotations

import posixpath
import re
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from gradworks.base.errors import InputError
from gradworks.store.artifacts.words import plain
from gradworks.store.places import BEFORE, Damaged, Places

AT_ONCE = 8  # requests
_MERGE = re.compile(rb"^(<{7}|>{7})( |$)", re.MULTILINE)
MD5 = re.compile(r"[0-9a-f]{32}(\.dir)?")


@dataclass(frozen=True)
class Out:
    """An output of a stage, as dvc.lock has it.

    Attributes:
        stage: train@noise-erm-gru-0; path: relative to the folder that the stage runs in.
        md5: the object's name in the remote; for a folder it ends in .dir.
        size: bytes, for a folder the sum over its files; files: their number.
    """

    stage: str
    path: str
    md5: str
    size: int | None
    files: int | None

    @property
    def folder(self) -> bool:
        return self.md5.endswith(".dir")


@dataclass(frozen=True)
class Lock:
    """Entries of dvc.lock by stage. `source`: where they were read."""

    source: str
    entries: dict[str, dict[str, Any]]

    def outs(self) -> Iterator[Out]:
        """Every output, in the lock's order. Raises InputError that names the stage of an invalid one."""
        for stage, entry in self.entries.items():
            for one in entry.get("outs") or []:
                try:
                    path, md5 = one["path"], one["md5"]
                    if isinstance(path, str) and MD5.fullmatch(md5):
                        yield Out(stage, path, md5, _count(one.get("size")), _count(one.get("nfiles")))
                        continue
                except (KeyError, TypeError):
                    pass
                raise InputError(
                    f"{self.source}: {plain(stage)}: outs: found {plain(one)[:100]}\n"
                    "expected a path and the md5 of an object"
                )

    def parameters(self, stage: str) -> dict[str, Any]:
        """The parameters of a stage: file -> dotted key -> value."""
        found = self.entries[stage].get("params") or {}
        return found if isinstance(found, dict) else {}


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and value >= 0 else None


def work_tree(pipeline: Path) -> Lock:
    """The dvc.lock beside a dvc.yaml. Raises InputError."""
    file = pipeline.with_name("dvc.lock")
    try:
        return parsed(file.read_bytes(), str(file))
    except FileNotFoundError:
        raise InputError(
            f"{file}: no such file\nexpected the results of a run: gradworks run, gradworks collect, or --rev REV"
        ) from None


def revision(pipeline: Path, rev: str) -> Lock:
    """The dvc.lock beside a dvc.yaml as a git revision has it. Raises InputError."""
    at = commit(pipeline, rev)
    if at is None:
        raise InputError(f"--rev {plain(rev)}: no such revision\nexpected a commit, branch or tag of this checkout")
    done = _git(pipeline, "show", f"{at}:./dvc.lock")
    if done.returncode:
        raise InputError(f"{plain(rev)}: it has no {pipeline.with_name('dvc.lock')}")
    return parsed(done.stdout, f"{plain(rev)}:{pipeline.with_name('dvc.lock')}")


def commit(pipeline: Path, rev: str) -> str | None:
    """The full hash of a revision, or None if there is none of that name."""
    done = _git(pipeline, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{rev}^{{commit}}")
    return done.stdout.decode().strip() if done.returncode == 0 else None


def _git(pipeline: Path, *args: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["git", *args], cwd=pipeline.absolute().parent, capture_output=True, check=False)


def of_run(places: Places, run: str) -> tuple[Lock, list[str]]:
    """The entries of a run in S3, and the keys of damaged ones. Raises InputError if it has none."""
    prefix = places.key("locks", run) + "/"
    keys = [one["Key"] for one in places.list(prefix)]
    if not keys:
        raise InputError(
            f"{places.remote}: run {plain(run)} has no lock entry\ngradworks runs lists what was submitted"
        )

    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = dict(zip(keys, pool.map(lambda key: intact(places, run, key.removeprefix(prefix)), keys), strict=True))
    entries = {stage: entry for one in found.values() for stage, entry in (one or {}).items()}
    return Lock(f"run {plain(run)}", entries), [key for key, one in found.items() if one is None]


def intact(places: Places, run: str, name: str) -> dict[str, dict[str, Any]] | None:
    """The lock entries in an object of a run, or None if it does not match its digest.

    Args:
        name: of the object, below the run's locks.

    Raises:
        InputError: the store does not answer.
    """
    stage = unquote(name.removesuffix(".json"))
    try:
        found = places.before(run) if name == BEFORE else {stage: places.entry(run, stage)}
    except Damaged:
        return None
    return found if all(isinstance(entry, dict) for entry in found.values()) else None


def parsed(body: bytes, source: str) -> Lock:
    """A text of dvc.lock. `source`: where it was read. Raises InputError if it is not valid or has conflict marks."""
    import yaml

    from gradworks.store.artifacts import fast_yaml

    try:
        found = fast_yaml.load(body)
    except yaml.YAMLError as error:
        merged(body, source)
        mark = getattr(error, "problem_mark", None)
        why = f": {error.problem}" if getattr(error, "problem", None) else ""
        raise InputError(f"{source}: line {mark.line + 1 if mark else '?'}: not valid YAML{why}") from None
    entries = found.get("stages", {}) if isinstance(found, dict) else None
    if not isinstance(entries, dict) or not all(isinstance(one, dict) for one in entries.values()):
        raise InputError(f"{source}: found no mapping of stages\nexpected a dvc.lock, schema 2.0")
    return Lock(source, {str(stage): entry for stage, entry in entries.items()})


def merged(body: bytes, source: str) -> None:
    """Raises InputError if a text of dvc.lock has conflict marks."""
    marks = _MERGE.search(body)
    if marks:
        line = body.count(b"\n", 0, marks.start()) + 1
        file = source.rpartition(":")[2]  # REV:FILE is one of a commit
        raise InputError(
            f"{source}: line {line}: found the marks of a merge conflict, expected YAML\n"
            f"keep one side: git checkout --ours {file} (or --theirs) and git add {file};\n"
            "what is then missing: gradworks collect RUN, or gradworks run"
        )


def not_kept(pipeline: Path) -> set[tuple[str, str]]:
    """Stage and path of the outputs that are not pushed: `cache: false` or `push: false` in dvc.yaml.

    dvc.lock lacks these settings. Empty if the dvc.yaml cannot be read.
    """
    from gradworks.store import stages

    try:
        found = stages.load(pipeline)
    except InputError:
        return set()
    return {
        (stage.name, posixpath.relpath(out.path, stage.wdir))
        for stage in found.values()
        for out in stage.outs
        if not (out.cache and out.push)
    }
