"""Every metric, confusion matrices and training loss against what the files hold, by scikit-learn or by hand."""

import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gradworks import report
from gradworks.base import artifacts
from gradworks.report import details, form
from tests import runs_tree


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("details")
    params, cells, runs = runs_tree.write(folder, states={"noise/reweight/gru/0": "OOM"})
    results = report.build(params, cells, runs, folder / "report")
    return (params, cells, runs), results, (folder / "report/report.html").read_text()


def row(rows, **keys):
    return next(one for one in rows if keys.items() <= one.items())


def by_hand(matrix, k):
    """Precision, recall and F1 of class k by scikit-learn, from a pair of lists with these counts."""
    from sklearn.metrics import precision_recall_fscore_support

    pairs = [(i, j) for i, row in enumerate(matrix) for j, n in enumerate(row) for _ in range(int(n))]
    truth, predicted = zip(*pairs, strict=True)
    found = precision_recall_fscore_support(truth, predicted, labels=[k], zero_division=np.nan)
    return {name: float(one[0]) for name, one in zip(("precision", "recall", "f1"), found, strict=False)}


def test_a_class_that_is_never_labelled_or_predicted_has_no_score():
    assert details.by_class([[3, 0, 1], [2, 0, 0], [0, 0, 0]]) == [
        {"precision": 0.6, "recall": 0.75, "f1": pytest.approx(2 / 3)},
        {"precision": None, "recall": 0.0, "f1": 0.0},
        {"precision": 0.0, "recall": None, "f1": 0.0},
    ]


def test_confusions_are_those_of_scikit_learn(built):
    from sklearn.metrics import confusion_matrix

    (_, _, runs), results, html = built
    for method, seeds in (("erm", (0, 1, 2)), ("reweight", (1, 2))):
        expected = 0
        for seed in seeds:
            table = pq.read_table(runs / f"evaluate/noise/{method}/gru/{seed}/predictions.parquet")
            given = table["label"].to_pylist(), table["prediction"].to_pylist()
            expected = expected + confusion_matrix(*given, labels=runs_tree.CLASSES)
        found = row(results["confusions"], condition="noise", method=method)
        assert found["counts"] == expected.tolist() and found["seeds"] == len(seeds)
        part = html[html.index(f'aria-label="Confusion matrix noise · gru · {method}"') :]
        cells = re.findall(r"([\d.]+) %<span class=\"verdict\">(\d+)</span>", part[: part.index("</table>")])
        assert [int(n) for _, n in cells] == expected.ravel().tolist()
        for label, one in zip(runs_tree.CLASSES, found["scores"], strict=True):
            assert one == pytest.approx(by_hand(expected, runs_tree.CLASSES.index(label)))
            shown = "</td><td>".join(form.number(one[name]) for name in ("precision", "recall", "f1"))
            assert f"<td>{shown}</td></tr>" in part[: part.index("</table>")]
        shares = 100 * expected / expected.sum(axis=1, keepdims=True)
        assert [float(s) for s, _ in cells] == pytest.approx(shares.ravel(), abs=0.051)


def test_every_metric_that_the_task_declares(built):
    (_, _, runs), results, html = built
    assert results["metrics"]["names"] == {"accuracy": 1, "log_loss": -1}
    found = row(results["metrics"]["rows"], condition="noise", method="reweight")["scores"]
    for name in ("accuracy", "log_loss"):
        files = [runs / f"metrics/noise/reweight/gru/{seed}.json" for seed in (1, 2)]  # seed 0 has none
        values = [json.loads(file.read_text())["overall"][name]["value"] for file in files]
        assert found[name]["values"] == values and found[name]["value"] == pytest.approx(np.mean(values))
        assert f"{values[0]:.3f}, {values[1]:.3f}" in html
    assert '<th scope="col">Log loss</th>' in html


def test_a_metric_that_is_not_defined_says_why(tmp_path):
    params, cells, runs = runs_tree.write(tmp_path, (0,))
    file = runs / "metrics/noise/erm/gru/0.json"
    found = json.loads(file.read_text())
    found["overall"]["log_loss"] |= {"value": None, "note": "2 of 80 outputs are not finite <&>"}
    file.write_text(json.dumps(found))
    report.build(params, cells, runs, tmp_path / "report")
    assert "2 of 80 outputs are not finite &lt;&amp;&gt;" in (tmp_path / "report/report.html").read_text()


def test_a_regression_has_its_metrics_and_no_classes():
    from types import SimpleNamespace

    from gradworks.report import calibration
    from tests.kinds import kind as task

    about = {"condition": "clean", "encoder": "gru", "method": "erm", "path": "p"}
    overall = {
        "pearson": {"value": 0.5, "n": 40},
        "spearman": {"value": None, "n": 40, "note": "every value is the same"},
    }
    inputs = SimpleNamespace(task=task("stsb"), cells={"a": about}, metrics={"a": {"state": "ok", "overall": overall}})
    found = details.every_metric(inputs)
    assert found["names"] == dict.fromkeys(task("stsb").spec.metrics, 1)
    scores = found["rows"][0]["scores"]
    assert scores["pearson"]["value"] == 0.5 and scores["spearman"]["notes"] == ["every value is the same"]
    assert details.confusions(inputs) == calibration.calibrations(inputs) == []


def test_the_training_loss_is_a_mean_of_parts(built):
    from gradworks.report import read

    tree, _, html = built
    inputs = read.read(*tree)
    key = "noise-erm-gru-0"
    file = inputs.runs / "train" / inputs.cells[key]["path"] / "history.parquet"
    before = pq.read_table(file)
    try:
        loss = [float(i // 10) for i in range(240)]  # 24 parts of ten steps
        loss[5] = float("nan")
        table = {"step": list(range(240)), "examples": [4 * (i + 1) for i in range(240)], "loss": loss}
        artifacts.write_parquet(file, pa.table(table))
        found = details.losses(inputs, key)
        assert found["score"][1:23] == pytest.approx([float(i) for i in range(1, 23)], abs=0.11)
        assert found["score"][0] <= 0.1 and found["examples"][-1] == 960 and len(found["score"]) == details.POINTS
    finally:
        artifacts.write_parquet(file, before)
    assert "loss of training batches against examples seen. At the end: erm 0.75" in html


def test_gains_show_what_the_table_says(built, monkeypatch):
    from gradworks.report import forest

    axes = []
    monkeypatch.setattr(forest, "svg_of", lambda a, *_: axes.append(a) or "")
    one = {"values": [0.1, 0.2, 0.3], "mean": 0.2, "low": 0.05, "high": 0.35, "verdict": "gain"}
    rows = [{"method": "a", **one}, {"method": "b", **one, "low": -0.1, "verdict": "undecided"}]
    rows.append({"method": "c", "values": [], "mean": None, "low": None, "high": None, "verdict": "no interval"})
    forest.forest(rows, (-0.2, 0.4), ["erm", "a", "b", "c"], "label", "alt")
    drawn = [(line.get_xdata(), line.get_ydata(), line) for line in axes[0].lines]
    bars = [(list(x), list(y)) for x, y, line in drawn if line.get_linewidth() == 1.6]
    assert bars == [([0.05, 0.35], [0, 0]), ([-0.1, 0.35], [1, 1])]
    means = [line for x, _, line in drawn if list(x) == [0.2]]
    assert [line.get_markerfacecolor() == forest.PAGE for line in means] == [False, True]
    assert [t.get_text() for t in axes[0].texts] == ["no value"]
    _, results, html = built
    for summary in results["summaries"]:
        if gap := summary["difference"]["primary"]:
            assert f"{summary['method']} {form.gap(gap)}" in html  # for those who do not see it


def test_bars_stay_in_the_frame_and_names_off_the_bars(monkeypatch):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    from gradworks.report import plots

    axes = []
    monkeypatch.setattr(plots, "svg_of", lambda a, *_: axes.append(a) or "")
    names = ["erm", "erm-2", "erm+clean", "reweight", "last_layer", "smart", "dotprod"]
    xs, ys = [1.0, 1.02, 1.05, 1.6, 1.3, 3.1, 1.4], [0.5, 0.51, 0.505, 0.66, 0.6, 0.52, 0.5]
    points = [
        {"method": m, "x": x, "low": x - 0.2, "high": x + 0.5, "y": y, "se": 0.09}
        for m, x, y in zip(names, xs, ys, strict=True)
    ]
    plots.scatter(points, names, "accuracy", "alt")
    (low, high), (left, right) = axes[0].get_ylim(), axes[0].get_xlim()
    assert low < 0.5 - 0.09 and high > 0.66 + 0.09 and left < 0.8 and right > 3.6
    FigureCanvasAgg(axes[0].figure)
    boxes = [t.get_window_extent().shrunk(0.8, 0.5) for t in axes[0].texts]
    assert len(boxes) == 7 and not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    place = axes[0].transData.transform
    for p in points:
        for ends in ([(p["low"], p["y"]), (p["high"], p["y"])], [(p["x"], p["y"] - 0.09), (p["x"], p["y"] + 0.09)]):
            for x, y in np.linspace(*place(ends), 200):
                assert not any(b.contains(x, y) for b in boxes), p["method"]
