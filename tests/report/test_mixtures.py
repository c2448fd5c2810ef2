"""The report of a benchmark of two mixtures: no table, cost or ensemble takes one for the other."""

import pytest

from gradworks import report
from gradworks.base import artifacts, grid
from gradworks.report import read
from tests import runs_tree

MIXTURES = """
mixtures:
  both: {parts: [nli, rte], schedule: round_robin}
  alone: {parts: [nli]}
"""


@pytest.fixture
def tree(tmp_path, monkeypatch):
    text = runs_tree.PARAMS.replace(
        "method: [erm, erm+clean, reweight],", "method: [erm, reweight], mixture: [both, alone],"
    )
    text = text.replace("    - {condition: [noise], method: [random], encoder: [gru]}\n", "")
    text = text.replace("method: [erm], encoder: [cased]}", "method: [erm], mixture: [both], encoder: [cased]}")
    text = text.replace("{condition: clean, method: erm,", "{condition: clean, method: erm, mixture: both,")
    monkeypatch.setattr(runs_tree, "PARAMS", text + MIXTURES)
    return runs_tree.write(tmp_path, (0, 1))


@pytest.mark.slow("a whole report")
def test_no_table_mixes_two_mixtures(tree, tmp_path):
    results = report.build(*tree, tmp_path / "report")
    cells = grid.expand(tree[0])["train"].values()
    assert len({cell["path"] for cell in cells}) == len(cells) == 2 * 2 * 2 * 2 + 2
    rows = {(s["condition"], s["encoder"], s["method"]): s for s in results["summaries"]}
    for mixture in ("both", "alone"):
        found = rows["noise", f"gru · {mixture}", "erm"]
        own = [runs_tree.metrics_of(tree[2], f"noise/erm/{mixture}/gru/{seed}") for seed in (0, 1)]
        expected = [one["by"]["set"]["challenge"]["accuracy"]["value"] for one in own]
        assert found["primary"]["values"] == expected  # of two seeds, not of four
    assert "gru · both" in (tmp_path / "report/report.html").read_text()


def test_a_cost_is_that_of_its_mixture(tree, tmp_path):
    for mixture, ratio in (("both", 2.0), ("alone", 1.0)):
        file = tmp_path / f"runs/measure/{mixture}/gru/erm.json"
        file.parent.mkdir(parents=True)
        made = {"state": "ok", "time": {"ratio": ratio, "method_seconds": 0.1}, "run": {"ratio": ratio}, "hardware": {}}
        artifacts.write_json(file, made)
    found = read.read(*tree).costs
    assert {key: one["time"]["ratio"] for key, one in found.items()} == {
        ("gru · both", "erm"): 2.0, ("gru · alone", "erm"): 1.0,
    }  # fmt: skip


def _score(value, low, high, n=64):
    return {"value": value, "n": n, "low": low, "high": high}


def test_each_task_of_a_mixture_has_its_scores(tree, tmp_path):
    pearson = {0: _score(0.5, 0.25, 0.625), 1: _score(0.75, 0.6875, 0.875)}
    for seed, one in pearson.items():
        file = tree[2] / f"metrics/noise/reweight/both/gru/{seed}.json"
        found = artifacts.read_json(file) | {"parts": {"rte <b>": {"overall": {"pearson": one}, "by": {}}}}
        artifacts.write_json(file, found)
    report.build(*tree, tmp_path / "report")
    rows = artifacts.read_json(tmp_path / "report/results.json")["parts"]
    assert {(row["condition"], row["encoder"], row["method"]) for row in rows} == {("noise", "gru · both", "reweight")}
    assert [(row["task"], row["metric"]) for row in rows] == [
        ("nli", "accuracy"), ("nli", "log_loss"), ("rte <b>", "pearson"),
    ]  # fmt: skip
    main, last = rows[0], rows[-1]
    own = [runs_tree.metrics_of(tree[2], f"noise/reweight/both/gru/{seed}") for seed in (0, 1)]
    assert main["values"] == [one["overall"]["accuracy"]["value"] for one in own]
    assert (last["values"], last["value"], last["n"], last["seeds"]) == ([0.5, 0.75], 0.625, 64, 2)
    assert last["scores"] == list(pearson.values())
    about = "| reweight | noise | gru · both | rte \\<b\\> | pearson | 0.500, 0.750 |"
    assert (
        about + " \\[0.250, 0.625\\], \\[0.688, 0.875\\] | 64 |"
        in (tmp_path / "report/report.md").read_text().splitlines()
    )
    page = (tmp_path / "report/report.html").read_text()
    assert "<td>rte &lt;b&gt;</td><td>pearson</td>" in page and "[0.250, 0.625], [0.688, 0.875]" in page
    assert "Of log loss lower is better." in page.split("Tasks of a mixture")[1]


def test_with_one_task_there_is_no_such_table(tree, tmp_path):
    assert "parts" not in report.build(*tree, tmp_path / "report")
    for name in ("report.html", "report.md"):
        assert "Tasks of a mixture" not in (tmp_path / "report" / name).read_text()
