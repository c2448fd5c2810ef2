"""The first stage: a stale cells.yaml stops the run."""

from pathlib import Path

import pytest

from components import cells as stage
from gradworks.base import cells
from gradworks.base.errors import InputError
from gradworks.cost import hardware

ROOT = Path(__file__).parent.parent.parent


def run(monkeypatch, folder):
    args = ["--params", str(folder / "params.yaml"), "--out", str(folder / "out.json")]
    monkeypatch.setattr("sys.argv", ["cells", *args])
    stage.main()


def test_fresh_passes_and_stale_stops(tmp_path, monkeypatch):
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    with pytest.raises(InputError, match="rewrite it: gradworks cells"):
        run(monkeypatch, tmp_path)
    assert not (tmp_path / "out.json").exists()
    assert not (tmp_path / "hardware.yaml").exists()
    cells.write(tmp_path / "params.yaml")
    run(monkeypatch, tmp_path)
    assert (tmp_path / "out.json").exists()
    hardware.check(tmp_path / "params.yaml")
