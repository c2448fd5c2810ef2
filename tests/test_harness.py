"""The tests' own machinery: which skips CI allows (conftest.py), and planted defects (mutants.py)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
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
        ("true", ["-n1"], ["flaky"], ["flaky", "a whole module"]),
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


@pytest.mark.parametrize("mutant", mutants.MUTANTS, ids=lambda mutant: f"{mutant.file}: {mutant.old[:30]!r}")
def test_mutants_still_fit_the_tree(mutant: mutants.Mutant):
    assert (ROOT / mutant.file).read_text().count(mutant.old) == 1
    assert mutant.old != mutant.new
    file, _, name = mutant.test.partition("::")
    assert f"def {name.partition('[')[0]}(" in (ROOT / file).read_text()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository with a function of two lines, one of them tested."""
    (tmp_path / "sums.py").write_text("def add(a, b):\n    c = a + b\n    return c + 0\n")
    (tmp_path / "test_sums.py").write_text("from sums import add\ndef test_add():\n    assert add(2, 2) == 4\n")
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    return tmp_path


def plant(project: Path, *changes: tuple[str, str]) -> bool:
    return mutants.run(project, [mutants.Mutant("sums.py", old, new, "test_sums.py::test_add") for old, new in changes])


def test_every_defect_is_caught(project: Path, capsys: pytest.CaptureFixture):
    assert plant(project, ("a + b", "a - b"))
    assert "1 of 1 mutants killed" in capsys.readouterr().out
    assert "a + b" in (project / "sums.py").read_text()


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
