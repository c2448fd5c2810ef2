"""The command says what it can do and starts without torch."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from gradworks import cli
from gradworks.base.errors import InputError
from gradworks.cluster import verbs

ROOT = Path(__file__).parent.parent


def test_help_names_every_verb_with_an_example(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["gradworks", "--help"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0
    said = capsys.readouterr().out
    for verb in ("cells", "run", "report", "readme"):
        assert f"gradworks {verb} " in said


def test_cells_writes_beside_the_params_file(tmp_path, capsys, monkeypatch):
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    monkeypatch.setattr("sys.argv", ["gradworks", "cells", str(tmp_path / "params.yaml")])
    cli.main()
    assert (tmp_path / "cells.yaml").read_text() == (ROOT / "cells.yaml").read_text()
    assert "cells.yaml" in capsys.readouterr().out


def test_a_wrong_file_is_said_without_a_traceback(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["gradworks", "cells", str(tmp_path / "none.yaml")])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"error: {tmp_path / 'none.yaml'}: no such file\n"


@pytest.mark.parametrize("given", ["", "/params.yaml", "/dvc.yaml", "/cells.yaml"])
def test_a_folder_is_the_benchmark_in_it(tmp_path, given):
    args = cli._parser().parse_args(["run", f"{tmp_path}{given}"])
    assert args.params == tmp_path / "params.yaml"


@pytest.mark.parametrize("jobs", ["0", "-1", "two"])
def test_no_jobs_are_refused(capsys, jobs):
    with pytest.raises(SystemExit):
        cli._parser().parse_args(["run", "--jobs", jobs])
    assert f"found {jobs!r}, expected a whole number of at least 1" in capsys.readouterr().err


def test_a_copy_of_a_benchmark_works_where_it_lies(tmp_path, monkeypatch, capsys):
    """README's "Your data": no line of the copy names the folder that it came from."""
    (tmp_path / "components").mkdir()
    (tmp_path / "pipelines").mkdir()
    shutil.copy(ROOT / "dvc.yaml", tmp_path / "dvc.yaml")
    shutil.copytree(ROOT / "pipelines/reweighting", tmp_path / "pipelines/my own")
    monkeypatch.setattr("sys.argv", ["gradworks", "cells", str(tmp_path / "pipelines/my own")])
    cli.main()
    assert "not there yet: data/mnli, of fetch.mnli\n" in capsys.readouterr().out
    made = yaml.safe_load((tmp_path / "pipelines/my own/cells.yaml").read_text())
    assert (made["root"], made["here"], made["at"]) == ("../..", "pipelines/my own/", "'pipelines/my own/'")


def test_it_starts_without_torch():
    code = (
        "import sys; from gradworks import cli; cli._parser(); assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def _killed(*_):
    os._exit(9)


def _refused(there, *_):
    there.send(InputError("params.yaml: a mistake"))


@pytest.mark.parametrize(("beside", "said"), [(_killed, "the check of the parameters was killed"), (_refused, "a mis")])
@pytest.mark.parametrize("asked", [True, False])
def test_what_is_wrong_with_the_parameters_is_said_before_what_follows_from_it(monkeypatch, beside, said, asked):
    def run(_, sure):
        if asked:
            sure()()
        raise InputError("it cannot be compiled")

    monkeypatch.setattr(verbs, "run", run)
    monkeypatch.setattr(cli, "_beside", beside)
    with pytest.raises(InputError, match=said):
        cli._submit(SimpleNamespace(pipeline=Path("dvc.yaml"), set=[]))
