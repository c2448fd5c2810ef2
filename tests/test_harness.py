"""The tests' own machinery: skips that CI allows and the fast tier (conftest.py), and planted defects (mutants.py)."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from multiprocessing import forkserver
from pathlib import Path

import pytest

from tests import mutants

ROOT = Path(__file__).parent.parent

SKIPPING = """
import pytest
@pytest.mark.parametrize("reason", {reasons})
def test_skips(reason): pytest.skip(reason)
def test_runs(): pass
"""


@pytest.mark.parametrize(
    ("ci", "options", "reasons", "refused"),
    [
        ("true", [], ["no GPU", "no GPU: 2 are needed", "no real data"], []),
        ("true", [], ["no GPU", "no GPUs", "flaky"], ["no GPUs", "flaky", "a whole module"]),
        pytest.param("true", ["-n1"], ["flaky"], ["flaky", "a whole module"], marks=pytest.mark.slow("more processes")),
        ("", [], ["flaky"], []),
    ],
)
def test_skips_in_ci(tmp_path: Path, ci: str, options: list[str], reasons: list[str], refused: list[str]):
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path)
    (tmp_path / "test_skipping.py").write_text(SKIPPING.format(reasons=reasons))
    if "flaky" in reasons:
        (tmp_path / "test_module.py").write_text(
            "import pytest\npytest.skip('a whole module', allow_module_level=True)"
        )
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", ".", *options, "."],
        cwd=tmp_path,
        env=os.environ | {"CI": ci},
        capture_output=True,
        text=True,
    )
    assert run.returncode == (1 if refused else 0), run.stdout
    section = run.stdout.partition("skips that CI does not allow")[2]
    lines = [line for line in section.splitlines() if ".py" in line and ": " in line]
    assert sorted(line.rpartition(": ")[2] for line in lines) == sorted(refused)


def is_slow(node: ast.expr) -> bool:
    """Whether it is `pytest.mark.slow("why")`."""
    if not (isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.slow"):
        return False
    (reason,) = node.args
    return isinstance(reason, ast.Constant) and bool(reason.value)


def fast_or_reason(text: str) -> bool:
    """Whether a file has a test of the fast tier, or says in its `pytestmark` why not."""
    body = ast.parse(text).body
    own = [n.value for n in body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "pytestmark"]
    marks = [mark for one in own for mark in (one.elts if isinstance(one, ast.List) else [one])]
    tests = [n for n in body if isinstance(n, ast.FunctionDef) and n.name.startswith("test_")]
    return any(map(is_slow, marks)) or any(not any(map(is_slow, n.decorator_list)) for n in tests)


def test_every_file_has_a_fast_test_or_says_why_not():
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    assert [file.name for file in files if not fast_or_reason(file.read_text())] == []


def test_a_file_of_slow_tests_alone_is_found():
    test = "def test_a(): pass\n"
    assert fast_or_reason(test)
    assert fast_or_reason(f"pytestmark = pytest.mark.slow('runs containers')\n{test}")
    assert not fast_or_reason(f"@pytest.mark.slow('runs containers')\n{test}")


CASES = """
import itertools, pytest
@pytest.mark.parametrize("names", list(itertools.product("ab", "cde")), ids="".join)
def test_names(names): pass
@pytest.mark.parametrize(("x", "y"), [(1, 1), (1, 2), (2, 1), (2, 2)])
def test_rows(x, y): pass
@pytest.mark.parametrize("x", [{}, {"a": 1}, {"b": 2}], ids="abc")
@pytest.mark.parametrize(("y", "z"), [(1, 1), (1, 2)])
def test_stacked(x, y, z): pass
@pytest.mark.slow("runs containers")
def test_marked(): pass
"""


def collected(folder: Path, *options: str) -> list[str]:
    """Ids of the tests of a folder, as its conftest.py orders and marks them."""
    shutil.copy(ROOT / "tests" / "conftest.py", folder)
    (folder / "pyproject.toml").write_text("[tool.pytest.ini_options]\nmarkers = ['slow(reason): slow']")
    command = ["-m", "pytest", "-c", "pyproject.toml", "--rootdir", ".", "-p", "no:cacheprovider", "--collect-only"]
    found = subprocess.run(
        [sys.executable, *command, "--verbosity=-1", *options], cwd=folder, capture_output=True, text=True
    )
    return [line for line in found.stdout.splitlines() if "::" in line]


def test_the_fast_tier_has_every_value_and_every_row(tmp_path: Path):
    (tmp_path / "test_cases.py").write_text(CASES)
    names = [line.partition("::")[2] for line in collected(tmp_path, "-m", "not slow")]
    rows = [f"test_rows[{x}-{y}]" for x in (1, 2) for y in (1, 2)]
    stacked = [f"test_stacked[1-1-{x}]" for x in "abc"] + ["test_stacked[1-2-a]"]
    assert sorted(names) == sorted([*(f"test_names[{n}]" for n in ("ac", "ad", "ae", "bc")), *rows, *stacked]), names


def test_slow_files_begin_first(tmp_path: Path):
    for name, mark in (("a", ""), ("b", "pytestmark = pytest.mark.slow('x')\n"), ("c", "")):
        (tmp_path / f"test_{name}.py").write_text(f"import pytest\n{mark}def test_1(): pass\ndef test_2(): pass\n")
    assert collected(tmp_path) == [f"test_{name}.py::test_{i}" for name in "bac" for i in (1, 2)]


def fits(mutant: mutants.Mutant) -> bool:
    """Whether its text occurs once, something else that can be read comes in its place, and its test is there."""
    file, _, name = mutant.test.partition("::")
    text = (ROOT / mutant.file).read_text()
    if text.count(mutant.old) != 1 or mutant.old == mutant.new:
        return False
    if mutant.file.endswith(".py"):
        try:
            ast.parse(text.replace(mutant.old, mutant.new))
        except SyntaxError:
            return False
    return f"def {name.partition('[')[0]}(" in (ROOT / file).read_text()


def test_mutants_still_fit_the_tree():
    assert [mutant for mutant in mutants.MUTANTS if not fits(mutant)] == []


@pytest.mark.parametrize("change", [{"old": "no such text"}, {"new": ""}, {"test": "tests/test_harness.py::test_no"}])
def test_a_mutant_that_does_not_fit_is_found(change: dict[str, str]):
    one = mutants.MUTANTS[0]
    assert fits(one) and not fits(one._replace(**({"new": one.old} if "new" in change else change)))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository with a function of two lines, one of them tested."""
    (tmp_path / "sums.py").write_text("def add(a, b):\n    c = a + b\n    return c + 0\n")
    (tmp_path / "test_sums.py").write_text("from sums import add\ndef test_add():\n    assert add(2, 2) == 4\n")
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    return tmp_path


def plant(project: Path, *changes: tuple[str, str]) -> bool:
    return mutants.run(project, [mutants.Mutant("sums.py", old, new, "test_sums.py::test_add") for old, new in changes])


@pytest.mark.slow("processes")
def test_every_defect_is_caught(project: Path, capsys: pytest.CaptureFixture):
    assert plant(project, ("a + b", "a - b"))
    assert "1 of 1 mutants killed" in capsys.readouterr().out
    assert "a + b" in (project / "sums.py").read_text()


@pytest.mark.slow("processes")
def test_a_defect_that_is_not_caught_or_is_none(project: Path, capsys: pytest.CaptureFixture):
    assert not plant(
        project, ("a + b", "a * b"), ("a + c", "a - c"), ("c", "d"), ("return c", "return ("), ("c + 0", "c + 1")
    )
    said = capsys.readouterr().out
    for expected in ("SURVIVED", "stands 0 times", "stands 2 times", "did not run", "1 of 5 mutants killed"):
        assert expected in said


def test_a_test_that_is_red_anyway_kills_nothing(project: Path, capsys: pytest.CaptureFixture):
    (project / "test_sums.py").write_text("def test_add():\n    assert False\n")
    assert not plant(project, ("a + b", "a - b"))
    assert "not green before" in capsys.readouterr().out


@pytest.mark.slow("processes")
def test_a_status_that_another_thread_has_read_is_not_lost(project: Path, monkeypatch: pytest.MonkeyPatch):
    """Starting a process asks for the status of all others, and each can be read once: whoever is second gets 255."""
    (project / "test_sums.py").write_text("def test_add():\n    assert False\n")
    plain, seen = forkserver.read_signed, set()

    def read(file: int) -> int:
        if file in seen:
            raise EOFError
        seen.add(file)  # what is read first is the number of the process
        return plain(file)

    monkeypatch.setattr(forkserver, "read_signed", read)
    assert mutants.pytest(project, ["test_sums.py"])[0] == 1
