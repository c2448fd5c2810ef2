"""The example runs as a person would run it, and reweighting does what it says there."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

FILE = Path(__file__).parents[2] / "examples" / "plain_loop.py"


def test_it_runs_from_the_command_line_and_is_short():
    assert len(FILE.read_text().splitlines()) < 60
    shown = subprocess.run([sys.executable, FILE, "--help"], capture_output=True, text=True, check=True).stdout
    assert "--weighting" in shown


@pytest.mark.slow("trains to the end")
def test_clean_examples_recover_what_overwritten_labels_destroy():
    spec = importlib.util.spec_from_file_location("plain_loop", FILE)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    points = (("uniform", "erm"), ("reweight", "erm"), ("reweight", "dotprod"))
    plain, reweighted, both = (example.train(*point, epochs=8) for point in points)
    assert plain < 0.6
    assert reweighted > plain + 0.15
    assert both > plain + 0.15
