"""The report stage: its three outputs, and what it does not import."""

import json
import subprocess
import sys

from components import report as stage
from tests import runs_tree


def test_outputs(tmp_path, monkeypatch):
    params, cells, runs = runs_tree.write(tmp_path, seeds=(0,))
    argv = ["report", "--params", params, "--cells", cells, "--runs", runs, "--out", tmp_path / "report"]
    monkeypatch.setattr(sys, "argv", [str(a) for a in argv])
    stage.main()
    assert sorted(p.name for p in (tmp_path / "report").iterdir()) == [
        "curves.json",
        "metrics",
        "report.html",
        "report.md",
        "results.json",
    ]
    results = json.loads((tmp_path / "report/results.json").read_text())
    assert len(results["cells"]) == len(runs_tree.items(params)) and len(results["summaries"]) == 8


def test_help_with_an_example_and_without_heavy_imports():
    code = (
        "import sys; from components import report\n"
        "sys.argv = ['report', '--help']\n"
        "try: report.main()\n"
        "except SystemExit: print([m for m in ('torch', 'matplotlib', 'pyarrow', 'scipy') if m in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "examples:" in said and said.rstrip().endswith("[]")


def test_bad_input_in_three_lines_and_no_output(tmp_path):
    params, cells, runs = runs_tree.write(tmp_path, seeds=(0,))
    params.write_text(params.read_text().replace("baseline: erm", "baseline: emr"))
    argv = ["--params", params, "--cells", cells, "--runs", runs, "--out", tmp_path / "report"]
    done = subprocess.run(
        [sys.executable, "-m", "components.report", *map(str, argv)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and len(done.stderr.splitlines()) <= 3 and "report.baseline" in done.stderr
    assert not (tmp_path / "report").exists()
