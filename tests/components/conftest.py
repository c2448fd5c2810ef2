"""A project with data files of its own, for the tests of the stage fetch."""

from pathlib import Path

import pytest
import yaml

from components import fetch

HEADER = "premise\thypothesis\tlabel\n"
ROWS = [f"P{i}\tH{i}\t{('entailment', 'neutral', 'contradiction')[i % 3]}\n" for i in range(30)]


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with data and a params.yaml; `run(source)` runs the stage there, in this process."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data/mine").mkdir(parents=True)
    (tmp_path / "data/mine/train.tsv").write_text(HEADER + "".join(ROWS))
    (tmp_path / "data/mine/dev.tsv").write_text(HEADER + "".join(ROWS[:6]))

    def run(source, name="mine", task="nli"):
        Path("params.yaml").write_text(yaml.safe_dump({"task": task, "fetch": {name: source}}))
        monkeypatch.setattr("sys.argv", ["fetch", "--source", name, "--out", f"runs/fetch/{name}"])
        fetch.main()
        return Path("runs/fetch") / name

    return run
