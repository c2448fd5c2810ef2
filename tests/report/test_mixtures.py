"""The report of a benchmark of two mixtures: no table, cost or ensemble takes one for the other."""

import pytest

from gradworks import report
from gradworks.base import artifacts, grid
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
        artifacts.write_json(
            file,
            {"state": "ok", "time": {"ratio": ratio, "method_seconds": 0.1}, "run": {"ratio": ratio}, "hardware": {}},
        )
    from gradworks.report import read

    found = read._costs(tree[2], read.by_mixture(grid.expand(tree[0])["train"]))
    assert {key: one["time"]["ratio"] for key, one in found.items()} == {
        ("gru · both", "erm"): 2.0, ("gru · alone", "erm"): 1.0,
    }  # fmt: skip
