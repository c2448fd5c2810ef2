"""`dvc exp run -S` rewrites a params file: afterwards DVC reads it, and only the given value differs."""

import shutil
from pathlib import Path

import pytest
from dvc.utils.hydra import apply_overrides
from dvc.utils.serialize import load_yaml

ROOT = Path(__file__).parent.parent
PARAMS = ["params.yaml", *sorted(p.relative_to(ROOT).as_posix() for p in ROOT.glob("pipelines/*/params.yaml"))]


@pytest.mark.parametrize("params", PARAMS)
def test_shipped_files_stay_valid_when_dvc_writes_them_anew(params, tmp_path):
    expected, copy = load_yaml(str(ROOT / params)), tmp_path / "params.yaml"
    shutil.copy(ROOT / params, copy)
    apply_overrides(copy, ["train.epochs=2"])
    expected["train"]["epochs"] = 2
    assert load_yaml(str(copy)) == expected
