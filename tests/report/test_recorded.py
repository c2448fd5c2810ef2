"""Cells of other parameters than params.yaml's are marked; an ensemble names what it was not made of."""

import json
import sys

import pytest

from gradworks import report
from gradworks.base import artifacts
from gradworks.report import recorded
from tests import runs_tree

pytestmark = [pytest.mark.slow("builds many reports"), pytest.mark.usefixtures("undrawn")]

TRAIN = {"epochs": 1.0, "batch": 4, "max_length": 16, "learning_rate": 0.001, "clip": 1.0, "optimizer": "AdamW"}
HELD = {"from": "synthetic/validation", "size": 10, "where": {}}
SPLITS = {"train": {"from": "synthetic/train", "where": {}}, "clean": HELD, "selection": HELD}
SPLITS["test"] = {"from": "synthetic/test", "where": {}}
POINT = {"objective": "supervised", "update": "erm", "train_on": ["train"], "from": None, "trainable": "all",
         "reinitialise": False, "as_long_as": None}  # fmt: skip
CELL = "noise/reweight/gru/0"


def record(runs, path, method, **changed):
    """What `evaluate` records of a cell: the defaults of every section filled in."""
    run = {"train": TRAIN, "method": POINT | method, "seed": 0, "task": "nli"}
    data = {
        "task": "nli",
        "condition": {"noise": {"share": 0.5, "to": "any"}} if "noise" in path else {},
        "splits": SPLITS,
    }
    made = {"task": "nli", "by": ["set", "heuristic"], "run": run, "data": data} | changed
    file = runs / "evaluate" / path / artifacts.MANIFEST
    file.write_text(json.dumps(json.loads(file.read_text()) | {"parameters": made}))
    return made


@pytest.fixture
def tree(tmp_path):
    """A benchmark whose cells record their parameters; `call()` gives the results and the page."""
    params, cells, runs = runs_tree.write(tmp_path, (0, 1))
    weights = {"erm": "uniform", "erm+clean": "uniform", "random": "random", "reweight": "reweight"}
    for item in runs_tree.items(params).values():
        more = {"train_on": ["train", "clean"]} if item["method"] == "erm+clean" else {}
        record(runs, item["path"], {"weighting": weights[item["method"]]} | more)

    def call():
        results = report.build(params, cells, runs, tmp_path / "report")
        return results, (tmp_path / "report/report.html").read_text()

    call.params, call.runs, call.cells = params, runs, cells
    return call


def outdated(results):
    return {cell["path"]: cell["outdated"] for cell in results["cells"] if cell["outdated"]}


def test_nothing_is_marked_where_nothing_differs(tree):
    results, html = tree()
    assert outdated(results) == {} and recorded.MARK not in html and "§" not in " ".join(results["answer"])


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("epochs: 1,", "epochs: 40,", "train.epochs: 1.0, now 40"),
        ("learning_rate: 0.001", 'learning_rate: "2e-3"', "train.learning_rate: 0.001, now 2e-3"),
        ("{noise: {share: 0.5}}", "{noise: {share: 0.25}}", "corrupt.conditions.noise.noise.share: 0.5, now 0.25"),
        ("{noise: {share: 0.5}}", "{leak: {count: 3}}", "noise.noise: {'share': 0.5, 'to': 'any'}, now not set"),
        ("clean: {from: synthetic/validation, size: 10}", "clean: {from: synthetic/validation, size: 5}",
         "corrupt.splits.clean.size: 10, now 5"),
        ("test: {from: synthetic/test}", "test: {from: synthetic/test, where: {set: challenge}}",
         "corrupt.splits.test.where.set: not set, now challenge"),
        ("    test: {from: synthetic/test}", "    test: {from: synthetic/test}\n    duplicates: drop",
         "corrupt.splits.duplicates: not set, now drop"),
        ("{weighting: reweight}", "{weighting: {reweight: {backend: jvp}}}",
         "methods.reweight.weighting: reweight, now {'reweight': {'backend': 'jvp'}}"),
        ("by: [set, heuristic]", "by: [set]", "evaluate.by: ['set', 'heuristic'], now ['set']"),
    ],
)  # fmt: skip
def test_what_differs_is_named(tree, old, new, said):
    text = tree.params.read_text()
    assert text.count(old) == 1
    tree.params.write_text(text.replace(old, new))
    results, html = tree()
    found = outdated(results)
    assert any(said in one for one in found[CELL]), found[CELL]
    assert "of other parameters§" in html and "§" in results["answer"][-1]
    if "methods." in said:
        assert set(found) == {p for p in found if "/reweight/" in p}
    if "conditions" in said:
        assert set(found) == {p for p in found if p.startswith("noise/")}


def test_data_that_were_made_anew_since(tree):
    """Of a source that params.yaml names otherwise now, say: the parameters of the cell itself are the same."""
    import pyarrow.parquet as pq

    file = tree.runs / "corrupt/noise/1/manifest.json"
    digests = {name: entry["sha256"] for name, entry in json.loads(file.read_text())["files"].items()}
    for path in ("noise/reweight/gru/1", "noise/erm/gru/1"):
        record(tree.runs, path, {"weighting": path.split("/")[1].replace("erm", "uniform")}, digests=digests)
    assert outdated(tree()[0]) == {}
    with artifacts.atomic_folder(file.parent) as folder:
        table = runs_tree.test_split()
        for name in digests:
            artifacts.write_parquet(folder / name, table.slice(0, 70) if name == "train.parquet" else table)
        artifacts.write_parquet(folder / "corruptions.parquet", pq.read_table(file.parent / "corruptions.parquet"))
        artifacts.write_manifest(folder, "corrupt", {"task": "nli"}, seed=1)
    said = ["data: other rows now in train.parquet"]
    assert outdated(tree()[0]) == {"noise/erm/gru/1": said, "noise/reweight/gru/1": said}


def test_the_same_number_written_otherwise_is_the_same(tree):
    tree.params.write_text(tree.params.read_text().replace("learning_rate: 0.001", 'learning_rate: "1e-3"'))
    assert outdated(tree()[0]) == {}


def test_a_run_that_was_broken_off_mixes_old_and_new(tree):
    """Trained anew and not yet scored: the score is of the old model, whatever the run's own folder says now."""
    tree.params.write_text(tree.params.read_text().replace("epochs: 1,", "epochs: 2,"))
    new = TRAIN | {"epochs": 2.0}
    run = {"train": new, "method": POINT | {"weighting": "reweight"}, "seed": 0, "task": "nli"}
    record(tree.runs, CELL, {"weighting": "reweight"}, run=run)
    other = "noise/reweight/gru/1"
    file = tree.runs / "train" / other / artifacts.MANIFEST
    file.write_text(json.dumps(json.loads(file.read_text()) | {"parameters": run}))
    results, html = tree()
    found = outdated(results)
    assert CELL not in found and found[other] == ["train.epochs: 1.0, now 2"]
    assert f"§ {len(found)} of 16 cells were made with other parameters" in results["answer"][-1]
    row = next(s for s in results["summaries"] if (s["condition"], s["method"]) == ("noise", "reweight"))
    assert row["outdated"] == 1 and "2, 1 of other parameters§" in html
    assert report.collect(tree.params, tree.cells, tree.runs)["answer"] == results["answer"]


def ensemble(tree, *more):
    from components import ensemble as stage

    name, runs = "clean-erm-gru+cased", tree.runs
    argv = ["e", "--params", tree.params, "--encoders", "gru", "cased", "--members", runs / "evaluate/clean/erm", *more]
    argv += ["--out", runs / "ensemble" / name, "--metrics", runs / "metrics/ensemble" / f"{name}.json"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(a) for a in argv])
        stage.main()
    return runs / "metrics/ensemble" / f"{name}.json"


def test_a_missing_member_is_named_in_the_report(tree):
    import shutil

    shutil.rmtree(tree.runs / "evaluate/clean/erm/cased/1")
    ensemble(tree, "--seeds", "0", "1")
    results, html = tree()
    one = results["ensembles"][0]
    assert one["left_out"] == {"cased/1": "missing"} and "Left out: cased/1 (missing)." in one["said"]
    assert '<th scope="row">cased/1</th><td>left out: missing</td>' in html


def test_a_member_that_the_result_does_not_account_for_is_missing(tree):
    file = ensemble(tree, "--seeds", "0")
    results, html = tree()
    one = results["ensembles"][0]
    assert one["left_out"] == {"gru/1": "missing", "cased/1": "missing"}
    assert "Missing, though params.yaml asks for it: gru/1, cased/1." in html
    assert list(json.loads(file.read_text())["members"]) == ["cased/0", "gru/0"]


def test_a_member_that_was_scored_anew_marks_the_ensemble(tree):
    ensemble(tree)
    assert tree()[0]["ensembles"][0]["outdated"] == []
    runs_tree.evaluated(tree.runs, "clean/erm/cased/1", 0.1, 5)
    results, html = tree()
    assert results["ensembles"][0]["outdated"] == ["cased/1 has been evaluated again since"]
    assert "§ 1 of its members have other scores now: cased/1." in html


def test_an_ensemble_that_waits_names_whom_for(tree):
    (tree.runs / "metrics/clean/erm/cased/1.json").unlink()
    one = tree()[0]["ensembles"][0]
    assert one["state"] == "not run" and one["reason"] == "no result yet; not run: cased/1"


def test_the_recorded_point_is_that_of_the_train_stage():
    """POINT is what `train` writes, so that these tests compare what the report compares."""
    from gradworks.base.points import MethodPoint

    assert (POINT | {"weighting": "uniform"}).items() <= MethodPoint().model_dump(by_alias=True).items()


def test_a_run_without_the_projects_task_records_the_first_of_its_mixture():
    now = {"task": "sst5", "mixtures": {"one": {"parts": ["qqp", "sts"]}, "all": {"parts": ["qqp", "sst5"]}}}
    found = [recorded._trained(now, {"mixture": name}) for name in ("one", "all")]
    assert [*found, recorded._trained(now, {})] == ["qqp", "sst5", "sst5"]
