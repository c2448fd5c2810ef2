"""`gradworks new` and `gradworks run` on the command line, in a checkout of its own: from Parquet to a report."""

import os
import random
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from gradworks.base import artifacts

pytestmark = pytest.mark.slow("runs a whole pipeline")

ROOT = Path(__file__).parent.parent
GOOD, BAD = ("great", "lovely", "superb", "fine"), ("awful", "dull", "poor", "sad")


def test_scores_to_a_hundred_are_learned_by_the_commands_that_readme_shows(tmp_path):
    """From Parquet: `gradworks new`, `gradworks run`, a report; the error is far below that of a constant."""
    for folder in ("gradworks", "components"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("versions.json", ".dvcignore"):
        shutil.copy(ROOT / name, tmp_path / name)
    environment = os.environ | {
        "PYTHONPATH": str(tmp_path),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    rng = random.Random(0)  # noqa: S311
    goods = [rng.randint(0, 4) for _ in range(300)]
    texts = [
        " ".join([*rng.choices(GOOD, k=n), *rng.choices(BAD, k=4 - n), "says", str(i)]) for i, n in enumerate(goods)
    ]
    (tmp_path / "data").mkdir()
    pq.write_table(pa.table({"critique": texts, "points": [n * 25.0 for n in goods]}), tmp_path / "data/points.parquet")

    def gradworks(*args):
        command = [sys.executable, "-c", "from gradworks.cli import main; main()", *args]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=500)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "-q"], cwd=tmp_path, env=environment, check=True)
    gradworks("new", "points", "--from", "data/points.parquet")
    params = tmp_path / "pipelines/points/params.yaml"
    values = yaml.safe_load(params.read_text())
    assert values["train"]["epochs"] == 20
    values["train"]["epochs"] = 10  # fewer and smaller cells, nothing measured
    values["pretrain"]["gru"] |= {"embedding": 16, "hidden": 16}
    values["cells"] = {"seeds": [0], "grid": [{"condition": ["clean"], "method": ["erm"], "encoder": ["gru"]}]}
    values["report"]["controls"] = {}
    del values["measure"]
    params.write_text(yaml.safe_dump(values))
    said = gradworks("run", "pipelines/points/params.yaml")
    assert "report: pipelines/points/report/report.html" in said
    results = artifacts.read_json(params.parent / "report/results.json")
    (cell,) = results["cells"]
    assert cell["state"] == "ok"
    assert cell["secondary"]["value"] < 0.3 * statistics.pvariance([n * 25.0 for n in goods])  # mean squared error
