"""What DVC's own views show: one row a method, learning curves by a template of ours."""

import json

import pyarrow as pa
import pytest

from gradworks.base import artifacts
from gradworks.report import views


class Inputs:
    def __init__(self, runs, cells):
        self.runs, self.cells = runs, cells


def summary(condition, encoder, method, values):
    return {"condition": condition, "encoder": encoder, "method": method, "primary": {"values": values}}


def test_metrics_are_means_over_the_seeds_that_have_a_value():
    rows = [
        summary("noise", "gru", "erm", [0.5, 0.6]),
        summary("noise", "bow", "erm", [0.25]),
        summary("clean", "gru", "erm", [1 / 3]),
        summary("noise", "gru", "sam", []),
    ]
    assert views.metrics({"summaries": rows}) == {
        "erm": {"noise": {"gru": 0.55, "bow": 0.25}, "clean": {"gru": 0.3333}},
    }


@pytest.fixture
def inputs(tmp_path):
    def history(path, losses, looks):
        steps = len(losses)
        table = {"step": list(range(1, steps + 1)), "examples": [8 * (i + 1) for i in range(steps)], "loss": losses}
        table["selection_accuracy"] = [looks.get(i) for i in range(steps)]
        artifacts.write_parquet(tmp_path / "train" / path / "history.parquet", pa.table(table))

    history("noise/erm/gru/0", [float(i) for i in range(80)], {38: 0.5, 79: 0.75})
    history("noise/erm/gru/1", [float(i) + 2 for i in range(80)], {39: 0.25, 79: 0.25})
    history("noise/sam/gru/0", [1.0, 3.0], {})
    paths = ["noise/erm/gru/0", "noise/erm/gru/1", "noise/sam/gru/0", "noise/gone/gru/0"]
    cells = {
        path: dict(zip(("condition", "method", "encoder", "seed"), path.split("/"), strict=True)) | {"path": path}
        for path in paths
    }
    return Inputs(tmp_path, cells)


def test_curves_by_hand(inputs):
    rows = views.curves(inputs)
    erm = [row for row in rows if row["method"] == "erm"]
    assert len(erm) == 40
    # two steps a part, the mean of two seeds; the score of the last look
    assert erm[0] == {
        "condition": "noise", "encoder": "gru", "method": "erm", "examples": 16, "loss": 1.5, "score": None,
    }  # fmt: skip
    assert (erm[19]["examples"], erm[19]["loss"], erm[19]["score"]) == (320, 39.5, 0.375)
    assert erm[30]["score"] == 0.375
    assert (erm[-1]["examples"], erm[-1]["loss"], erm[-1]["score"]) == (640, 79.5, 0.5)
    assert [(row["examples"], row["loss"]) for row in rows if row["method"] == "sam"] == [(8, 1.0), (16, 3.0)]
    assert len({tuple(row) for row in rows}) == 1  # else DVC takes none of them


def test_dvc_draws_them_with_our_template(inputs, tmp_path):
    from dvc_render.vega import VegaRenderer

    views.write(tmp_path / "report", {"summaries": [summary("noise", "gru", "erm", [0.5])]}, inputs)
    assert json.loads((tmp_path / "report/metrics/erm.json").read_text()) == {"noise": {"gru": 0.5}}
    points = [{**row, "rev": "workspace"} for row in json.loads((tmp_path / "report/curves.json").read_text())]
    options = {"template": "curves", "template_dir": ".dvc/plots", "x": "examples", "y": "loss", "title": "loss"}
    made = VegaRenderer(points, "loss", **options).get_filled_template()
    assert made["data"]["values"] == points
    encoding = made["spec"]["encoding"]
    assert [encoding[name]["field"] for name in ("x", "y", "color", "strokeDash")] == [
        "examples", "loss", "method", "rev",
    ]  # fmt: skip


def test_a_method_that_is_gone_leaves_no_file(inputs, tmp_path):
    for method in ("erm", "sam"):
        views.write(tmp_path / "report", {"summaries": [summary("noise", "gru", method, [0.5])]}, inputs)
    assert [file.name for file in (tmp_path / "report/metrics").iterdir()] == ["sam.json"]
