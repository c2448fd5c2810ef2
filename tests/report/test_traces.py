"""Dot products, scores of corrupted examples and calibration against what stands in the files, by hand or sklearn."""

import numpy as np
import pyarrow as pa
import pytest

from gradworks import report
from gradworks.base import artifacts
from gradworks.report import calibration, traces
from tests import runs_tree
from tests.report import full_tree
from tests.test_calibration import sure

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    folder = tmp_path_factory.mktemp("traces")
    tree = full_tree.write(folder)
    return tree, report.build(*tree, folder / "report"), (folder / "report/report.html").read_text()


def row(rows, **keys):
    return next(one for one in rows if keys.items() <= one.items())


def test_auroc_is_that_of_scikit_learn():
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(0)
    found, positive = rng.integers(5, size=200).astype(float), rng.random(200) < 0.3  # with ties
    assert traces.auroc(found, positive) == pytest.approx(roc_auc_score(positive, found))


def test_corrupted_examples_are_those_whose_label_changed(full):
    (_, _, runs), results, html = full
    found = row(results["detection"], method="reweight", kind="noise")
    assert (found["corrupted"], found["others"]) == (3 * 30, 3 * 50)  # every fourth draw gave the old label back
    for seed, value in enumerate(found["auroc_score"]["values"]):
        table = artifacts.read_parquet(runs / f"train/noise/reweight/gru/{seed}/weights.parquet").to_pydict()
        bad = np.array([int(i[1:]) < 40 and int(i[1:]) % 4 > 0 for i in table["id"]])
        assert value == pytest.approx(traces.auroc(-np.array(table["score"]), bad)) and value > 0.6
    assert sum(found["histogram"]["corrupted"]) == pytest.approx(1) and found["shown"] == "score"
    assert f"AUROC {found['auroc_score']['value']:.3f}" in html and "label changed" in html


def test_a_leaked_example_should_weigh_more(tmp_path):
    _, _, runs = tree = full_tree.write(tmp_path, (0,))
    full_tree.changes(runs, "noise", 0, [(f"t{i}", "leak", None, None) for i in range(10)])
    full_tree.traces(runs, "noise/reweight/gru/0", scores={f"t{i}": float(i < 10) + i / 100 for i in range(40)})
    found = report.build(*tree, tmp_path / "report")["detection"]
    assert row(found, kind="leak")["auroc_score"]["value"] == 1 and len(found) == 1


def test_scores_of_several_visits_are_averaged(tmp_path):
    _, _, runs = tree = full_tree.write(tmp_path, (0,))
    file = runs / "train/noise/reweight/gru/0/weights.parquet"
    visits = {"step": [1, 1, 2, 3], "id": ["a", "t1", "t1", "t1"], "weight": [1.0] * 4, "score": [1.0, 0.5, 0.5, 0.5]}
    table = pa.table(visits)
    artifacts.write_parquet(file, table)
    found = row(report.build(*tree, tmp_path / "report")["detection"], kind="noise")
    assert found["auroc_score"]["value"] == 1 and found["auroc_weight"]["value"] == 0.5


def test_weights_without_scores_are_judged_by_weight(tmp_path):
    _, _, runs = tree = full_tree.write(tmp_path, (0,))
    scores = pa.array([None, None], pa.float32())
    table = pa.table({"step": [1, 1], "id": ["a", "t1"], "weight": [2.0, 0.5], "score": scores})
    artifacts.write_parquet(runs / "train/noise/reweight/gru/0/weights.parquet", table)
    found = row(report.build(*tree, tmp_path / "report")["detection"], kind="noise")
    assert (found["shown"], found["auroc_weight"]["value"], found["auroc_score"]["value"]) == ("weight", 1, None)


def test_the_dot_product_is_a_moving_mean_without_outliers(tmp_path):
    _, _, runs = tree = full_tree.write(tmp_path, (0,))
    dots = [1.0, 2.0] * 200
    full_tree.traces(runs, "noise/erm+clean/gru/0", dots=[*dots[:250], 1e6, *dots[250:]], each=2)
    found = row(report.build(*tree, tmp_path / "report")["gradients"], condition="noise", method="erm+clean")
    line = found["lines"][0]
    assert line["batches"] == 100 and len(line["dot"]) == traces.POINTS  # two batches a step, 50 steps
    assert line["dot"] == pytest.approx([1.5] * traces.POINTS, abs=0.02) and found["dot"]["value"] == pytest.approx(1.5)
    assert line["examples"][0] == 4 * 2 * 50 and line["examples"][-1] == 4 * 2 * 401
    assert found["conflict"]["value"] == 0


def test_cosines_of_tasks_are_drawn_where_no_dot_product_is_logged(tmp_path):
    _, _, runs = tree = full_tree.write(tmp_path, (0,))
    file, steps = runs / "train/noise/reweight/gru/0/statistics.parquet", [5, 10, 15, 20]
    columns = {"step": steps * 2, "name": ["cosine"] * 4 + ["conflict"] * 4}
    artifacts.write_parquet(file, pa.table(columns | {"value": [0.5, -0.5, 0.5, 0.3, 0.0, 1.0, 0.0, 0.0]}))
    history = {"step": list(range(1, 21)), "examples": [4 * i for i in range(1, 21)]}
    scores = {"selection_accuracy": [None] * 19 + [0.5]}
    artifacts.write_parquet(file.with_name("history.parquet"), pa.table(history | scores))
    results = report.build(*tree, tmp_path / "report")
    (found,) = results["agreement"]
    assert found["method"] == "reweight" and found["cosine"]["value"] == pytest.approx(0.2)
    assert found["conflict"]["value"] == 0.25 and found["lines"][0]["examples"] == [20, 40, 60, 80]
    assert found["lines"][0]["cosine"] == [0.5, -0.5, 0.5, 0.3]
    assert all(one["method"] != "reweight" for one in results["gradients"])
    assert "Cosine of task gradients over training" in (tmp_path / "report/report.html").read_text()
    other = full_tree.write(tmp_path / "without", (0,))
    assert "agreement" not in report.build(*other, tmp_path / "other")


def test_the_dot_product_over_its_controls(tmp_path):
    _, _, runs = tree = full_tree.write(tmp_path, (0,))
    full_tree.traces(runs, "noise/reweight/gru/0", dots=[3.0] * 20)
    full_tree.traces(runs, "noise/erm+clean/gru/0", dots=[2.0] * 20)
    found = report.build(*tree, tmp_path / "report")["gradients"]
    assert row(found, method="reweight")["against"] == {"to": "erm+clean", "ratio": pytest.approx(1.5)}


def predicted(runs, path, **splits):
    """predictions.parquet (`test`) and selection.parquet of a cell from probabilities and labels."""
    for split, (given, labels) in splits.items():
        names = [runs_tree.CLASSES[i] for i in labels]
        table = {"id": [f"{split}-{i}" for i in range(len(labels))], "label": names}
        table["prediction"] = [runs_tree.CLASSES[i] for i in given.argmax(1)]
        table |= {f"p_{name}": given[:, i] for i, name in enumerate(runs_tree.CLASSES)}
        file = {"test": "predictions", "selection": "selection"}[split]
        artifacts.write_parquet(runs / f"evaluate/{path}/{file}.parquet", pa.table(table))


def test_the_temperature_is_fitted_on_the_selection_split(tmp_path):
    params, cells, runs = runs_tree.write(tmp_path, (0,))
    given, labels, true = sure()
    # the test predictions are too unsure: the temperature of the selection split makes them worse
    predicted(
        runs, "noise/erm/gru/0", selection=(given, labels), test=(calibration.scaled(true, 2.5)[:500], labels[:500])
    )
    results = report.build(params, cells, runs, tmp_path / "report")
    found = row(results["calibration"], condition="noise", method="erm")
    assert found["temperature"]["value"] == pytest.approx(2.5, rel=0.1) and found["notes"] == []
    assert found["ece_scaled"]["value"] > found["ece"]["value"] + 0.05
    assert found["log_loss_scaled"]["value"] > found["log_loss"]["value"]
    assert found["brier_scaled"]["value"] > found["brier"]["value"]
    assert (found["fitted"], found["judged"]) == (4000, 500) and sum(found["before"]["n"]) == 500
    html = (tmp_path / "report/report.html").read_text()
    assert "fitted on the predictions of the selection split" in html
    assert f"by chance {found['ece_chance']['value']:.3f}" in html and f"n = {found['before']['n'][0]:.0f}" in html


def test_a_temperature_at_its_bound_is_named_and_not_averaged(tmp_path):
    params, cells, runs = runs_tree.write(tmp_path)
    given, labels, _ = sure(400)
    for seed in (0, 1):
        predicted(runs, f"noise/erm/gru/{seed}", selection=(given, labels), test=(given, labels))
    right = np.eye(3)[labels] * 0.9 + 0.1 / 3  # never wrong: the surer the better, without end
    predicted(runs, "noise/erm/gru/2", selection=(right, labels), test=(given, labels))
    results = report.build(params, cells, runs, tmp_path / "report")
    found = row(results["calibration"], condition="noise", method="erm")
    assert found["temperature"]["n"] == found["log_loss_scaled"]["n"] == 2 and found["ece"]["n"] == 3
    assert min(found["temperature"]["values"]) > 2
    note = "1 of 3 not scaled: the temperature is at its bound, the smallest one tried"
    assert found["notes"] == [note] and note in (tmp_path / "report/report.html").read_text()


def test_the_bound_itself():
    labels = np.zeros(50, dtype=int)
    wrong, flat = np.eye(3)[[1] * 50] * 0.9 + 0.1 / 3, np.full((50, 3), 1 / 3)
    for given in (wrong, flat, np.eye(3)[labels]):
        assert calibration.at_bound(given, labels, calibration.temperature(given, labels))
    given, labels, _ = sure(400)
    assert not calibration.at_bound(given, labels, calibration.temperature(given, labels))


def test_too_few_selection_examples_fit_no_temperature(tmp_path):
    params, cells, runs = runs_tree.write(tmp_path, (0,))
    given, labels, _ = sure(100)
    predicted(runs, "noise/erm/gru/0", selection=(given[:29], labels[:29]), test=(given, labels))
    (runs / "evaluate/noise/reweight/gru/0/selection.parquet").unlink()
    found = report.build(params, cells, runs, tmp_path / "report")["calibration"]
    one = row(found, condition="noise", method="erm")
    assert one["notes"] == ["1 of 1 not scaled: 29 selection examples, 30 are needed"] and one["ece"]["n"] == 1
    assert one["temperature"]["value"] is None and one["after"]["n"] == []
    assert "0 selection examples" in row(found, condition="noise", method="reweight")["notes"][0]


def test_half_of_it_there(tmp_path):
    _, _, runs = tree = full_tree.write(tmp_path, skip=("noise/reweight/gru/2", "noise/erm/gru/0"))
    for path in ("noise/reweight/gru/1", "noise/erm+clean/gru/1"):
        for name in ("weights", "statistics", "history"):
            (runs / "train" / path / f"{name}.parquet").unlink(missing_ok=True)
    (runs / "evaluate/noise/random/gru/0/predictions.parquet").unlink()
    results = report.build(*tree, tmp_path / "report")
    assert len(row(results["detection"], method="reweight")["auroc_score"]["values"]) == 2
    assert len(row(results["gradients"], method="erm+clean")["lines"]) == 2
    assert len(row(results["calibration"], method="random")["ece"]["values"]) == 2


def test_an_empty_page_has_its_sections(tmp_path):
    params = runs_tree.params(tmp_path)
    results = report.build(params, tmp_path / "cells.yaml", tmp_path / "runs", tmp_path / "report")
    assert results["gradients"] == results["detection"] == results["calibration"] == results["headline"] == []
    html = (tmp_path / "report/report.html").read_text()
    assert "Quality against cost" in html and "0 of " in html
