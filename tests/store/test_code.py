"""The code of a run: one commit, exactly, and the user's repository untouched."""

from __future__ import annotations

import io
import subprocess
import tarfile
import time
from dataclasses import replace
from pathlib import Path

import pytest

from gradworks.base.errors import InputError
from gradworks.store import code
from tests.cluster.toy import git

BEGUN = {"a.py": "one\n", "params.yaml": "x: 1\n", "dvc.lock": "old\n", ".gitignore": "/ignored\n"}


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "of mine"
    root.mkdir()
    for name, text in {
        "a.py": "one\n",
        "params.yaml": "x: 1\n",
        "dvc.lock": "old\n",
        ".gitignore": "/ignored\n",
    }.items():
        (root / name).write_text(text)
    (root / "link").symlink_to("a.py")
    git(root, "init", "-q")
    git(root, "add", "--all")
    git(root, "commit", "-q", "-m", "first")
    return root


def files(made: code.Code) -> dict[str, str]:
    with tarfile.open(fileobj=io.BytesIO(made.body)) as tar:
        return {m.name: tar.extractfile(m).read().decode() if m.isfile() else f"-> {m.linkname}" for m in tar}


def test_it_is_the_commit_and_always_the_same_bytes(root):
    made = code.bundle(root)
    assert made.commit == made.base == git(root, "rev-parse", "HEAD").strip()
    assert files(made) == {**BEGUN, "link": "-> a.py"}
    time.sleep(1.1)  # archives know seconds
    assert code.bundle(root).name == made.name and made.name.startswith(made.commit)


def test_changes_are_refused_but_for_results(root):
    (root / "dvc.lock").write_text("new\n")
    (root / "ignored").write_text("x")
    assert code.changes(root) == [] and files(code.bundle(root))["dvc.lock"] == "old\n"
    (root / "a.py").write_text("two\n")
    (root / "b.py").write_text("new\n")
    with pytest.raises(InputError, match=r"a.py, b.py: changed, but not committed\n.*--dirty"):
        code.bundle(root)


def test_the_work_tree_as_it_is(root):
    (root / "a.py").write_text("two\n")
    git(root, "add", "a.py")
    (root / "a.py").write_text("three\n")
    (root / "b.py").write_text("new\n")
    (root / "link").unlink()
    (root / "ignored").write_text("x")
    before = git(root, "status", "--porcelain"), git(root, "log", "--all", "--format=%H")
    made = code.bundle(root, dirty=True)
    assert files(made) == {**BEGUN, "a.py": "three\n", "b.py": "new\n"}
    assert made.commit != made.base and code.bundle(root, dirty=True).commit == made.commit
    assert (git(root, "status", "--porcelain"), git(root, "log", "--all", "--format=%H")) == before


def test_files_that_are_set_for_a_run(root):
    made = code.bundle(root, replaced={"params.yaml": b"x: 2\n"})
    assert files(made)["params.yaml"] == "x: 2\n" and files(made)["link"] == "-> a.py"
    assert git(root, "show", f"{made.commit}:params.yaml") == "x: 2\n"
    assert code.bundle(root, replaced={"params.yaml": b"x: 1\n"}).commit == made.base  # the same as what is there


def test_a_run_of_the_code_writes_nothing_twice_and_nothing_of_the_users(root, monkeypatch):
    made = code.bundle(root, replaced={"params.yaml": b"x: 2\n"})
    before = {path: path.stat().st_size for path in root.rglob("*")}
    monkeypatch.chdir(root)
    with code.unpacked(made):
        assert {*git(Path(), "ls-files").split()} == {*BEGUN, "link"} and Path("params.yaml").read_text() == "x: 2\n"
        assert not [path for path in Path(".git/objects").rglob("*") if path.is_file()]  # all are in the user's
        assert not any(Path(".git/hooks").glob("*"))
    assert {path: path.stat().st_size for path in root.rglob("*")} == before


def test_a_run_of_the_code_needs_nothing_of_the_users_objects(root, tmp_path, monkeypatch):
    made = replace(code.bundle(root), objects=tmp_path / "gone")
    monkeypatch.chdir(root)
    with code.unpacked(made):
        assert {*git(Path(), "ls-files").split()} == {*BEGUN, "link"}


def test_no_checkout_and_no_commit(tmp_path):
    with pytest.raises(InputError, match="git rev-parse failed: fatal: not a git repository"):
        code.bundle(tmp_path)
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    with pytest.raises(InputError, match="no commit yet"):
        code.bundle(tmp_path)
