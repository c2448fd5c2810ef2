"""What the machine is, in words without names of hosts; the file that says so."""

from __future__ import annotations

import re

import pytest
import torch
import yaml

from gradworks.base.errors import InputError
from gradworks.cost import hardware


def test_hardware_names_processor_threads_and_release():
    words = hardware.hardware("cpu")
    release = torch.__version__.partition("+")[0]
    assert re.fullmatch(rf".+, {torch.get_num_threads()} threads?, torch {re.escape(release)}", words)
    assert "+" not in words.rpartition("torch")[2] and "\n" not in words


def test_the_file_is_written_once_and_again_where_it_is_wrong(tmp_path):
    params = tmp_path / "params.yaml"
    path = hardware.write(params)
    assert path == tmp_path / "hardware.yaml"
    assert yaml.safe_load(path.read_text()) == hardware.facts() == hardware.check(params)
    assert hardware.facts()["torch"] == torch.__version__
    stamp = path.stat().st_mtime_ns
    hardware.write(params)
    assert path.stat().st_mtime_ns == stamp  # DVC need not look at it again
    path.write_text(path.read_text().replace(torch.__version__, "1.0"))
    with pytest.raises(InputError, match=r"hardware\.yaml: torch: 1.0, but(.|\n)*gradworks cells"):
        hardware.check(params)
    hardware.write(params)
    hardware.check(params)
    path.unlink()
    with pytest.raises(InputError, match=r"hardware\.yaml: no such file"):
        hardware.check(params)
