"""The code of a run: the checkout of one commit as an archive in S3, so that a pod needs no Git server.

With uncommitted changes, or parameters set for this run, a commit object of exactly that state is made outside the
history; no branch, index or file of the user is touched.
"""

from __future__ import annotations

import contextlib
import functools
import gzip
import hashlib
import io
import os
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from gradworks.base.errors import InputError
from gradworks.store.places import Places

# results of runs: they differ between checkouts, and no stage reads them
_RESULTS = ("dvc.lock", "README.md")


@dataclass(frozen=True)
class Code:
    """An archive of a checkout.

    Attributes:
        commit: that it is a checkout of; base: the user's commit (the same if nothing was changed or set).
        archive: the bytes of the .tar, the same for the same commit; body: of the .tar.gz.
        objects: the folder of the git objects that the commit consists of.
    """

    commit: str
    base: str
    archive: bytes
    objects: Path

    @functools.cached_property
    def body(self) -> bytes:
        return gzip.compress(self.archive, 6, mtime=0)

    @property
    def name(self) -> str:
        return f"{self.commit}-{hashlib.sha256(self.body).hexdigest()}.tar.gz"


def changes(root: Path) -> list[str]:
    """Changed and new files, except for ignored ones and results of runs."""
    lines = _git(root, "status", "--porcelain=v1", "-z", "--no-renames").split("\0")
    return [line[3:] for line in lines if line and Path(line[3:]).name not in _RESULTS]


def bundle(root: Path, dirty: bool = False, replaced: Mapping[str, bytes] | None = None) -> Code:
    """The archive of the checkout.

    Args:
        root: the checkout.
        dirty: take the work tree as it is, with new files; otherwise changes are refused.
        replaced: contents of files that this run has instead of the checkout's (parameters that are set).

    Raises:
        InputError: no git checkout, no commit yet, or uncommitted changes.
    """
    base = _git(root, "rev-parse", "--verify", "--quiet", "HEAD").strip()
    found = changes(root)
    if found and not dirty:
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        raise InputError(
            f"{', '.join(found[:3])}{more}: changed, but not committed\n"
            "a run takes the code of one commit: git commit them, or add --dirty to send the work tree as it is"
        )
    commit = _commit(root, base, bool(found), replaced or {}) if found or replaced else base
    archive = _git_bytes(root, "archive", "--format=tar", commit)
    objects = Path(root, _git(root, "rev-parse", "--git-path", "objects").strip()).resolve()
    return Code(commit, base, archive, objects)


def upload(code: Code, places: Places) -> str:
    """Upload the archive unless it exists; returns its URI. Raises InputError."""
    key = places.key("code", code.name)
    there = places.head(key)
    return places.uri(key) if there and there["ContentLength"] == len(code.body) else places.put(key, code.body)


@contextlib.contextmanager
def unpacked(code: Code) -> Iterator[None]:
    """Unpack an archive into a temporary git checkout and make it the current folder."""
    safe: Mapping[str, str] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(fileobj=io.BytesIO(code.archive)) as tar:
            tar.extractall(folder, **safe)  # type: ignore[arg-type]
        for command in (["init", "-q", "--template="], ["add", "--all", "--force"]):
            done = subprocess.run(
                ["git", *command], cwd=folder, capture_output=True, text=True, check=False,
                # nothing is written that the user's repository has: writing each file once more takes a second
                env={**os.environ, "GIT_ALTERNATE_OBJECT_DIRECTORIES": str(code.objects)},
            )  # fmt: skip
            if done.returncode:
                raise InputError(f"git {command[0]} of the run's code failed: {done.stderr.strip()[:200]}")
        with contextlib.chdir(folder):
            yield


def _commit(root: Path, base: str, dirty: bool, replaced: Mapping[str, bytes]) -> str:
    """Commit the work tree (or HEAD) with some files replaced, through a temporary index."""
    with tempfile.TemporaryDirectory() as folder:
        # the date is the parent's, so that the same state is the same commit
        when = _git(root, "show", "-s", "--format=%ct +0000", base).strip()
        who = (("NAME", "gradworks"), ("EMAIL", "gradworks@localhost"), ("DATE", when))
        names = {f"GIT_{role}_{what}": value for role in ("AUTHOR", "COMMITTER") for what, value in who}
        env = {**os.environ, **names, "GIT_INDEX_FILE": str(Path(folder) / "index")}
        _git(root, "read-tree", base, env=env)
        if dirty:
            _git(root, "add", "--all", env=env)
        for name, body in replaced.items():
            blob = _git_bytes(root, "hash-object", "-w", "--stdin", stdin=body).decode().strip()
            _git(root, "update-index", "--add", "--cacheinfo", f"100644,{blob},{name}", env=env)
        tree = _git(root, "write-tree", env=env).strip()
        if tree == _git(root, "rev-parse", f"{base}^{{tree}}").strip():
            return base
        return _git(root, "commit-tree", tree, "-p", base, "-m", "work tree of a gradworks run", env=env).strip()


def _git(root: Path, *args: str, env: Mapping[str, str] | None = None) -> str:
    return _git_bytes(root, *args, env=env).decode()


def _git_bytes(root: Path, *args: str, env: Mapping[str, str] | None = None, stdin: bytes | None = None) -> bytes:
    done = subprocess.run(["git", "-C", str(root), *args], capture_output=True, env=env, input=stdin, check=False)
    if done.returncode:
        said = done.stderr.decode().strip().splitlines()
        raise InputError(f"{root}: git {args[0]} failed: {said[0] if said else 'no commit yet'}")
    return done.stdout
