"""results.json: paired differences, references, states and slices against what stands in the files; purity."""

import json
import shutil

import numpy as np
import pytest

from gradworks import report, statistics
from gradworks.base import artifacts
from gradworks.base.errors import InputError
from gradworks.report.differences import differences
from tests import runs_tree

pytestmark = pytest.mark.usefixtures("undrawn")


def summary(results, condition, method, encoder="gru"):
    keys = {"condition": condition, "method": method, "encoder": encoder}
    return next(s for s in results["summaries"] if keys.items() <= s.items())


def challenge(runs, path):
    return runs_tree.metrics_of(runs, path)["by"]["set"]["challenge"]["accuracy"]["value"]


@pytest.fixture(scope="module")
def five(tmp_path_factory):
    tree = runs_tree.write(tmp_path_factory.mktemp("five"), seeds=range(5))
    return tree, report.collect(*tree)


def test_differences_are_paired_by_seed(five):
    (_, _, runs), results = five
    ours = {s: challenge(runs, f"noise/reweight/gru/{s}") for s in range(5)}
    erm = {s: challenge(runs, f"noise/erm/gru/{s}") for s in range(5)}
    clean = {s: challenge(runs, f"noise/erm+clean/gru/{s}") for s in range(5)}
    found = summary(results, "noise", "reweight")
    assert found["primary"]["value"] == pytest.approx(np.mean(list(ours.values())))
    expected = statistics.paired(ours, erm)
    assert found["difference"]["primary"]["values"] == expected.values
    one = found["difference"]["primary"]
    assert (one["low"] + one["high"]) / 2 == pytest.approx(expected.mean) and one["high"] > expected.mean
    assert (one["value"], one["base"]) == pytest.approx((np.mean(list(ours.values())), np.mean(list(erm.values()))))
    assert found["control"]["primary"]["mean"] == pytest.approx(statistics.paired(ours, clean).mean)
    assert found["control"]["primary"]["to"] == "erm+clean" and found["steps"] == 15 and found["examples"] == 60


def test_table_interval_p_value_and_verdict_say_the_same(five):
    rows = [d for s in five[1]["summaries"] for by in ("difference", "control") for d in s[by].values() if d]
    assert {d["methods"] for d in rows} == {1, 2, 3}  # controls; methods of clean and of noise
    for one in rows:
        assert one["p"] <= one["corrected_p"] <= 1 and one["examples"] == 40
        assert (one["corrected_p"] < 0.05) is one["certain"] is (not one["low"] <= 0 <= one["high"])
        assert (one["verdict"] in ("gain", "loss")) is one["certain"] and one["detectable"] > 0


def test_a_difference_that_does_not_stand_the_correction_is_undecided():
    erm = {s: 0.5 + 0.02 * (-1) ** s for s in range(5)}
    values = {"erm": erm} | {m: {s: v + 0.03 * (-1) ** (s // 2) for s, v in erm.items()} for m in "bcd"}
    values["a"] = {s: erm[s] + d for s, d in enumerate((0.063, 0.033, 0.093, 0.073, 0.033))}
    found = differences(values, {}, [(m, "erm") for m in "abcd"], 1, {})["a", "erm"]
    assert found["p"] < 0.05 < found["corrected_p"] and found["verdict"] == "undecided"
    assert found["note"] == "not beyond chance among 4 methods compared"


def test_the_interval_holds_the_test_examples_where_predictions_are_there(tmp_path):
    """By hand, from the files: the variance between examples of the mean difference less what chance of seeds adds."""
    _, _, runs = tree = runs_tree.write(tmp_path)
    gaps = []
    for seed in range(3):
        right = {}
        for method in ("reweight", "erm"):
            table = artifacts.read_parquet(runs / f"evaluate/noise/{method}/gru/{seed}/predictions.parquet", ["id"])
            rows = table.to_pylist()
            right[method] = {r["id"]: r["label"] == r["prediction"] for r in rows if r["set"] == "challenge"}
        gaps.append([right["reweight"][i] - float(right["erm"][i]) for i in sorted(right["erm"])])
    gaps = np.array(gaps)
    rest = gaps - gaps.mean(0) - gaps.mean(1, keepdims=True) + gaps.mean()
    expected = gaps.mean(0).var(ddof=1) / 40 - (rest**2).sum() / (2 * 39) / 3 / 40
    from gradworks.report import examples, read

    inputs = read.read(*tree)
    cells = [c for c in report.collect(*tree)["cells"] if (c["condition"], c["encoder"]) == ("noise", "gru")]
    family = {m: [c for c in cells if c["method"] == m] for m in ("reweight", "erm")}
    pair = ("reweight", "erm")
    found = examples.spread(inputs, family, inputs.settings.primary, [pair])
    assert found[pair] == (pytest.approx(max(0.0, expected) ** 0.5), 40)
    (runs / "evaluate/noise/erm/gru/1/predictions.parquet").unlink()
    assert examples.spread(inputs, family, inputs.settings.primary, [pair]) == {}
    without = summary(report.collect(*tree), "noise", "reweight")["difference"]["primary"]
    assert without["examples"] is None and without["low"] is not None


def test_references_by_hand(five):
    table = runs_tree.test_split()
    chosen = [
        label for label, s in zip(table["label"].to_pylist(), table["set"].to_pylist(), strict=True) if s == "challenge"
    ]
    found = {r["name"]: r["primary"] for r in five[1]["references"] if r["condition"] == "noise"}
    assert found["chance"]["value"] == pytest.approx(1 / 3)
    assert found["majority class"]["value"] == pytest.approx(max(map(chosen.count, chosen)) / len(chosen))
    assert found["true rule"]["value"] == 1 and found["true rule"]["n"] == 40


def test_slices_are_means_over_seeds(five):
    (_, _, runs), results = five
    values = [
        runs_tree.metrics_of(runs, f"clean/erm/gru/{s}")["by"]["heuristic"]["none"]["accuracy"]["value"]
        for s in range(5)
    ]
    found = summary(results, "clean", "erm")["by"]["heuristic"]
    assert found["none"]["mean"] == pytest.approx(np.mean(values)) and found["none"]["small"] is False
    assert found["subsequence"]["small"] is True


@pytest.mark.parametrize(("metric", "better", "verdict"), [("accuracy", 1, "gain"), ("mean_squared_error", -1, "loss")])
def test_a_gain_is_what_is_better(metric, better, verdict):
    from gradworks.metrics import better as sign

    values = {"a": {0: 0.9, 1: 0.8, 2: 0.85}, "erm": {0: 0.5, 1: 0.41, 2: 0.44}}
    found = differences(values, {}, [("a", "erm")], better, {})["a", "erm"]
    assert sign(metric) == better and found["verdict"] == verdict


def test_every_state_has_a_place(tmp_path):
    states = {"noise/reweight/gru/0": "OOM", "noise/reweight/gru/1": "diverged", "noise/random/gru/2": "not converged"}
    tree = runs_tree.write(tmp_path, states=states, skip=("clean/erm/gru/1", "clean/reweight/gru/0"))
    results = report.collect(*tree)
    assert summary(results, "noise", "reweight")["states"] == {"OOM": 1, "diverged": 1, "ok": 1}
    assert summary(results, "noise", "reweight")["primary"]["n"] == 1
    random = summary(results, "noise", "random")  # scored though not converged, and marked
    assert random["states"] == {"ok": 2, "not converged": 1} and random["primary"]["n"] == 3
    assert summary(results, "clean", "reweight")["difference"]["primary"]["seeds"] == [2]  # erm lacks 1, it lacks 0
    cell = next(c for c in results["cells"] if c["path"] == "noise/reweight/gru/0")
    assert (cell["state"], cell["reason"], cell["primary"]) == ("OOM", "it was OOM", None)


def test_trained_but_not_evaluated(tmp_path):
    _, _, runs = tree = runs_tree.write(tmp_path, seeds=(0,))
    (runs / "metrics/noise/erm/gru/0.json").unlink()
    cell = next(c for c in report.collect(*tree)["cells"] if c["path"] == "noise/erm/gru/0")
    assert (cell["state"], cell["reason"]) == ("not run", "trained, not evaluated")


def test_nothing_has_run(tmp_path):
    params = runs_tree.params(tmp_path)
    results = report.build(params, tmp_path / "cells.yaml", tmp_path / "runs", tmp_path / "report")
    assert "nothing to compare with erm yet" in report.answer(results)
    assert {cell["state"] for cell in results["cells"]} == {"not run"}
    assert all((tmp_path / "report" / name).exists() for name in ("report.html", "report.md", "results.json"))


@pytest.mark.slow("a whole report")
def test_outputs_depend_on_the_inputs_alone(tmp_path, drawn):
    one, two = tmp_path / "one", tmp_path / "elsewhere" / "two"
    one.mkdir()
    params, cells, runs = runs_tree.write(one, seeds=(0, 1))
    report.build(params, cells, runs, one / "report")
    shutil.copytree(one, two)
    shutil.rmtree(two / "report")
    report.build(two / "params.yaml", two / "cells.yaml", two / "runs", two / "report")
    for name in ("report.html", "report.md", "results.json"):
        assert artifacts.digest(one / "report" / name) == artifacts.digest(two / "report" / name), name


def test_stale_files_are_counted_and_change_no_result(tmp_path):
    params, cells, runs = runs_tree.write(tmp_path, seeds=(0,))
    report.build(params, cells, runs, tmp_path / "report")
    before = (tmp_path / "report/results.json").read_bytes()
    runs_tree.run(runs, "noise/dropped/gru/0")
    runs_tree.evaluated(runs, "noise/dropped/gru/0", 0.99)
    report.build(params, cells, runs, tmp_path / "report")
    assert (tmp_path / "report/results.json").read_bytes() == before
    page = (tmp_path / "report/report.html").read_text()
    assert "Ignored: 1 metrics file of no cell." in page and "dropped" not in page


def test_leaks_are_scored_apart(tmp_path):
    _, _, runs = tree = runs_tree.write(tmp_path, seeds=(0,))
    file = runs / "metrics/noise/erm/gru/0.json"
    found = json.loads(file.read_text())
    one = {"accuracy": {"value": 0.25, "n": 35, "low": 0.1, "high": 0.4}}
    artifacts.write_json(
        file, {**found, "without_leaked": {"overall": one, "by": {"set": {"challenge": one}}, "leaked": 5}}
    )
    assert summary(report.collect(*tree), "noise", "erm")["without_leaked"]["values"] == [0.25]
    report.build(*tree, tmp_path / "report")
    assert "Without leaked examples" in (tmp_path / "report/report.html").read_text()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("baseline: erm", "baseline: emr", r"report.baseline: found 'emr'\nexpected one of: erm, erm\+clean"),
        ("controls: {reweight: erm+clean}", "controls: {reweight: none}", r"report.controls.reweight: found 'none'"),
        ("controls: {reweight: erm+clean}", "controls: {rewait: erm}", r"report.controls.rewait: found 'rewait'"),
        ("where: {set: challenge}", "where: {subcase: x}", r"no scores by 'subcase'.*\nfound: heuristic, set; see"),
        ("where: {set: challenge}", "where: {set: hard}", r"no test example has set = hard\nfound: challenge, in_dist"),
        ("primary: {metric: accuracy,", "primary: {metric: acuracy,", r"(?s)report.primary: .*'acuracy' is unknown"),
        ("primary: {metric: accuracy,", "primary: {metric: macro_f1,", r"no metric 'macro_f1'.*\nfound: accuracy"),
        ("title:", "titel:", r"report.titel: unknown key"),
    ],
)
def test_bad_parameters_in_words(tmp_path, old, new, said):
    params, cells, runs = runs_tree.write(tmp_path, seeds=(0,))
    params.write_text(params.read_text().replace(old, new))
    with pytest.raises(InputError, match=said) as error:
        report.collect(params, cells, runs)
    assert len(str(error.value).splitlines()) <= 3


def test_a_damaged_metrics_file(tmp_path):
    _, _, runs = tree = runs_tree.write(tmp_path, seeds=(0,))
    (runs / "metrics/noise/erm/gru/0.json").write_text('{"state": ')
    with pytest.raises(InputError, match=r"noise/erm/gru/0\.json: not valid JSON"):
        report.collect(*tree)


def measured(runs, path, shares):
    """statistics.parquet of a cell, as training leaves it."""
    import pyarrow as pa

    rows = [(step, "loss", 1.0) for step in range(4)] + [(2 * k, "smoothness_share", v) for k, v in enumerate(shares)]
    columns = dict(zip(("step", "name", "value"), map(list, zip(*rows, strict=True)), strict=True))
    artifacts.write_parquet(runs / "train" / path / "statistics.parquet", pa.table(columns))


@pytest.mark.parametrize(("shares", "inactive"), [([0.0, 0.0017], True), ([0.0, 0.0023], False), ([], False)])
def test_a_method_whose_smoothness_term_has_no_gradient_is_labelled_inactive(tmp_path, shares, inactive):
    _, _, runs = tree = runs_tree.write(tmp_path)
    for seed in range(3):
        measured(runs, f"noise/reweight/gru/{seed}", shares)
    results = report.collect(*tree)
    found = summary(results, "noise", "reweight")
    assert found["inactive"] is inactive
    assert found["adversarial_share"] == (pytest.approx(sum(shares) / 2) if shares else None)
    assert not any(s["inactive"] for s in results["summaries"] if s["method"] != "reweight")
    note = "its smoothness term has below 0.1 % of the loss's gradient: in effect plain training"
    assert (f"° inactive: {note}" in report.table(results)) is inactive
    built = report.build(*tree, tmp_path / "report")
    assert built["summaries"] == results["summaries"]
    for name in ("report.md", "report.html"):
        text = (tmp_path / "report" / name).read_text()
        assert ("3, inactive°" in text) is inactive and ("in effect plain training" in text) is inactive
