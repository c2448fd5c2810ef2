"""The command says what it can do and starts without torch."""

import subprocess
import sys
from pathlib import Path

import pytest

from gradworks import cli

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


def test_it_starts_without_torch():
    code = (
        "import sys; from gradworks import cli; cli._parser(); assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
