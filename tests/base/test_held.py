"""A stage that DVC runs fails where parameters, code or inputs are edited meanwhile; what it read it keeps."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from gradworks import base
from gradworks.base.errors import InputError
from gradworks.base.held import Definition, Held

ROOT = Path(__file__).parent.parent.parent

PROGRAM = """
import sys, time
from pathlib import Path
from gradworks import base
def main():
    args = base.parser("").parse_known_args()[0]
    print(base.value(args.params, "train.epochs"), flush=True)
    while not Path("go").exists(): time.sleep(0.01)
    print(base.value(args.params, "train.epochs"), flush=True)
    Path("out").write_text(str(base.section(args.params, "train", Train).epochs))
class Train(base.Section):
    epochs: int
base.run(main)
"""
DEFINITION = """
vars: [cells.yaml]
stages:
  train:
    foreach: ${each.train}
    do:
      cmd: python program.py --params ${here}params.yaml
      deps: [program.py, library, "${here}data/${item.condition}"]
      params:
        - ${here}params.yaml: [train, "methods.${item.method}", measure]
      outs: [out]
"""


@pytest.fixture
def project(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "library").mkdir()
    (tmp_path / "library/code.py").write_text("a = 1\n")
    (tmp_path / "data/noise").mkdir(parents=True)
    (tmp_path / "data/noise/train.parquet").write_bytes(b"rows")
    (tmp_path / "dvc.yaml").write_text(DEFINITION)
    values = {"train": {"epochs": 40}, "measure": {}, "methods": {"erm": {}, "sam": {"update": "sam"}}, "title": "a"}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
    each = {"noise-erm": {"condition": "noise", "method": "erm"}}
    cells = {"here": "", "each": {"train": each}}
    (tmp_path / "cells.yaml").write_text(yaml.safe_dump(cells))
    return tmp_path


def params(text):
    return lambda folder: (folder / "params.yaml").write_text(
        (folder / "params.yaml").read_text().replace(*text.split(" -> "))
    )


def write(name, text):
    return lambda folder: (folder / name).write_text(text)


def touched(folder):
    (folder / "library/code.py").write_text("a = 1\n")  # the same again, later and as another file
    (folder / "data/noise/.gitignore").write_text("/x\n")
    (folder / "library/__pycache__").mkdir()
    (folder / "library/__pycache__/code.pyc").write_bytes(b"1")


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (params("epochs: 40 -> epochs: 2"), "params.yaml: train.epochs: changed since the stage began: 40, now 2"),
        (params("erm: {} -> erm: {update: sam}"), "methods.erm.update: changed since the stage began: nothing, now"),
        (params("epochs: 40 -> epochs: '40'"), "train.epochs: changed since the stage began: 40, now '40'"),
        (params("train: -> tain:"), "train: changed since the stage began: {'epochs': 40}, now nothing"),
        (params("epochs: 40 -> epochs: [40"), "params.yaml: line "),
        (write("library/code.py", "a = 2\n"), "library/code.py: changed since the stage began"),
        (write("program.py", PROGRAM + "\n"), "program.py: changed since the stage began"),
        (write("library/new.py", ""), "library/new.py: is new since the stage began"),
        (lambda folder: (folder / "library/code.py").unlink(), "library/code.py: is gone since the stage began"),
        (write("data/noise/train.parquet", "more"), "data/noise/train.parquet: changed since the stage began"),
        (params("title: a -> title: b"), None),
        (params("update: sam -> update: asam"), None),  # of another method
        (touched, None),
    ],
)  # fmt: skip
@pytest.mark.parametrize("prefix", ["", "pipelines/x/dvc.yaml:"])
def test_an_edit_while_a_stage_runs(project, edit, said, prefix):
    env = {**os.environ, "PYTHONPATH": str(ROOT), "DVC_STAGE": f"{prefix}train@noise-erm"}
    process = subprocess.Popen(
        [sys.executable, "program.py"], cwd=project, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout.readline() == "40\n"
    edit(project)
    (project / "go").touch()
    out, error = process.communicate(timeout=60)
    assert out == "40\n"  # it keeps what it read
    assert (project / "out").read_text() == "40"
    if said is None:
        assert (process.returncode, error) == (0, "")
    else:
        assert process.returncode == 2
        assert error.startswith("error: ") and said in error
        assert len(error.splitlines()) <= 3 and "Traceback" not in error


def test_without_dvc_nothing_is_recorded_and_nothing_is_held(project):
    (project / "go").touch()
    env = {name: value for name, value in os.environ.items() if name != "DVC_STAGE"} | {"PYTHONPATH": str(ROOT)}
    code = PROGRAM.replace('print(base.value(args.params, "train.epochs"), flush=True)', "", 1).replace(
        "def main():", "def main():\n    Path('library/code.py').write_text('a = 3')"
    )
    subprocess.run([sys.executable, "-c", code], cwd=project, env=env, check=True)


@pytest.mark.parametrize("folder", [ROOT, *sorted(p.parent for p in (ROOT / "pipelines").glob("*/dvc.yaml"))], ids=str)
def test_what_is_held_is_what_dvc_depends_on(folder):
    """DVC's own resolver is the oracle."""
    from gradworks.dvc_compat import resolved

    made = Definition(folder / "params.yaml")
    for name, entry in resolved(folder / "dvc.yaml", ROOT).items():
        keys = [key for one in entry.get("params", []) for named in one.values() for key in named]
        assert made.declared(name) == (entry.get("deps", []), list(dict.fromkeys(keys))), name


def test_every_stage_program_is_run_by_the_one_that_holds():
    for file in sorted((ROOT / "components").glob("[!_]*.py")):
        assert file.read_text().endswith('if __name__ == "__main__":\n    base.run(main)\n'), file


def test_what_it_costs(monkeypatch):
    """The start and end of `train` in the default benchmark: less than a second, hashing its code and inputs."""
    monkeypatch.chdir(ROOT)
    began = time.process_time()
    Held(Path("params.yaml"), "train@noise-erm-gru-0").check()
    assert time.process_time() - began < 1


def test_a_file_that_is_not_there_is_no_error_of_its_own(project, monkeypatch):
    monkeypatch.chdir(project)
    (project / "data/noise/train.parquet").unlink()
    held = Held(Path("params.yaml"), "train@noise-erm")
    held.check()
    (project / "data/noise/train.parquet").write_text("x")
    with pytest.raises(InputError, match="is new"):
        held.check()
    assert base.read_yaml(Path("params.yaml"))["title"] == "a"


def dvc(project, *args, **more):
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    options = {"cwd": project, "env": env, "text": True, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.Popen([sys.executable, "-m", "dvc", *args], **(options | more))


@pytest.mark.slow("runs of DVC")
def test_dvc_records_nothing_of_an_edited_run_and_all_of_the_next(project):
    assert dvc(project, "init", "--no-scm", "-q").wait() == 0
    process = dvc(project, "repro")
    while process.stdout.readline().strip() != "40":
        assert process.poll() is None
    params("epochs: 40 -> epochs: 2")(project)
    (project / "go").touch()
    said, _ = process.communicate(timeout=60)
    assert process.returncode != 0 and "train.epochs: changed since the stage began: 40, now 2" in said
    assert not (project / "dvc.lock").exists() and not list((project / ".dvc").glob("cache/runs/*"))
    again = dvc(project, "repro")
    assert again.communicate(timeout=60)[0].count("Running stage") == 1
    lock = yaml.safe_load((project / "dvc.lock").read_text())["stages"]["train@noise-erm"]
    assert lock["params"]["params.yaml"]["train"] == {"epochs": 2}
    assert (project / "out").read_text() == "2"
