"""The ensemble stage on predictions that the tree of runs_tree.py holds."""

import json
import math
import shutil
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components import ensemble
from gradworks.base import artifacts
from gradworks.base.errors import InputError
from tests import runs_tree


@pytest.fixture
def tree(tmp_path, monkeypatch):
    params, _, runs = runs_tree.write(tmp_path, seeds=(0, 1))

    def call(*more):
        out, file = tmp_path / "out", tmp_path / "out.json"
        argv = ["ensemble", "--params", str(params), "--encoders", "gru", "cased"]
        argv += ["--members", str(runs / "evaluate/clean/erm"), "--out", str(out), "--metrics", str(file), *more]
        monkeypatch.setattr(sys, "argv", argv)
        ensemble.main()
        return out, json.loads(file.read_text())

    return runs, call


def test_members_mean_and_oracle(tree):
    runs, call = tree
    out, found = call()
    assert list(found["members"]) == ["cased/0", "cased/1", "gru/0", "gru/1"]
    for name, scores in found["members"].items():
        own = runs_tree.metrics_of(runs, f"clean/erm/{name}")
        assert scores["overall"] == own["overall"] and scores["by"] == own["by"]
    best = max(s["overall"]["accuracy"]["value"] for s in found["members"].values())
    assert found["oracle"]["overall"]["accuracy"]["value"] >= best
    assert found["mean"]["by"]["set"]["challenge"]["accuracy"]["n"] == 40
    assert len(found["disagreement"]) == 6 and 0 < min(found["disagreement"].values()) < 1
    assert artifacts.check(out)["members"] == ["gru/0", "gru/1", "cased/0", "cased/1"]
    table = pq.read_table(out / "predictions.parquet")
    sums = sum(table[f"p_{name}"].to_numpy() for name in runs_tree.CLASSES)
    assert abs(sums - 1).max() < 1e-9 and table.column_names[:3] == ["id", "label", "prediction"]


def test_rows_in_another_order_give_the_same_metrics(tree):
    runs, call = tree
    before = call()[1]
    folder = runs / "evaluate/clean/erm/cased/1"
    table = pq.read_table(folder / "predictions.parquet")
    with artifacts.atomic_folder(folder) as new:
        artifacts.write_parquet(new / "predictions.parquet", table.take(list(range(len(table)))[::-1]))
        shutil.copy(folder / "selection.parquet", new)
        artifacts.write_manifest(new, "evaluate", {}, state="ok", reason="")
    assert call()[1] == before


def test_a_member_without_predictions_is_left_out_and_named(tree, capsys):
    runs, call = tree
    runs_tree.evaluated(runs, "clean/erm/cased/1", 0.5, 1, "OOM", "no memory")
    _, found = call()
    assert found["left_out"] == {"cased/1": "OOM"} and list(found["members"]) == ["cased/0", "gru/0", "gru/1"]
    assert "cased/1: left out, OOM" in capsys.readouterr().out


def test_a_member_that_is_missing_is_left_out_and_named(tree, capsys):
    runs, call = tree
    shutil.rmtree(runs / "evaluate/clean/erm/cased/1")
    for more in ((), ("--seeds", "0", "1")):  # without seeds: another encoder has it
        out, found = call(*more)
        assert found["left_out"] == {"cased/1": "missing"}
        assert list(found["members"]) == ["cased/0", "gru/0", "gru/1"] and found["state"] == "ok"
        assert artifacts.check(out)["left_out"] == {"cased/1": "missing"}
        assert "cased/1: left out, missing" in capsys.readouterr().out
    (runs / "evaluate/clean/erm/cased/1").mkdir()  # what a checkout that was broken off leaves
    assert call()[1]["left_out"] == {"cased/1": "missing"}
    seven = call("--seeds", "0", "7")[1]
    assert seven["left_out"] == {"gru/7": "missing", "cased/7": "missing"}
    assert list(seven["members"]) == ["cased/0", "gru/0"]


def test_a_member_of_other_examples_stops_the_stage(tree):
    runs, call = tree
    file = runs / "evaluate/clean/erm/cased/1/predictions.parquet"
    table = pq.read_table(file)
    ids = pa.array([f"other-{i}" for i in range(len(table))])
    with artifacts.atomic_folder(file.parent) as new:
        artifacts.write_parquet(new / file.name, table.set_column(0, "id", ids))
        artifacts.write_manifest(new, "evaluate", {}, state="ok", reason="")
    with pytest.raises(InputError, match=r"cased/1: id synthetic/test-0 is missing, which gru/0 has \(80 such ids\)"):
        call()


def test_a_member_named_twice_would_count_twice(tree):
    _, call = tree
    with pytest.raises(InputError, match="--seeds: found 1 twice"):
        call("--seeds", "0", "1", "1")
    with pytest.raises(InputError, match="--encoders: found 'gru' twice"):
        call("--encoders", "gru", "gru")


def test_selection_predictions_are_averaged_where_all_members_have_them(tree):
    runs, call = tree
    folder = runs / "evaluate/clean/erm/cased/1"
    with artifacts.atomic_folder(folder) as new:  # another seed's draw: the first ten are others, the order too
        table = pq.read_table(folder / "selection.parquet").take([*range(39, 9, -1)])
        artifacts.write_parquet(new / "selection.parquet", table)
        shutil.copy(folder / "predictions.parquet", new)
        artifacts.write_manifest(new, "evaluate", {}, state="ok", reason="")
    out, _ = call()
    found = pq.read_table(out / "selection.parquet").to_pylist()
    assert [row["id"] for row in found] == [f"synthetic/validation-{i}" for i in range(10, 40)]
    for name in ("gru/0", "gru/1", "cased/0", "cased/1"):
        rows = {r["id"]: r for r in pq.read_table(runs / f"evaluate/clean/erm/{name}/selection.parquet").to_pylist()}
        for row in found:
            row["p_neutral"] -= rows[row["id"]]["p_neutral"] / 4
    assert max(abs(row["p_neutral"]) for row in found) < 1e-9


def test_no_selection_example_in_common(tree):
    runs, call = tree
    folder = runs / "evaluate/clean/erm/cased/1"
    with artifacts.atomic_folder(folder) as new:
        table = pq.read_table(folder / "selection.parquet")
        ids = pa.array([f"other-{i}" for i in range(len(table))])
        artifacts.write_parquet(new / "selection.parquet", table.set_column(0, "id", ids))
        shutil.copy(folder / "predictions.parquet", new)
        artifacts.write_manifest(new, "evaluate", {}, state="ok", reason="")
    out, _ = call()
    table = pq.read_table(out / "selection.parquet")
    assert len(table) == 0 and table.schema == pq.read_table(folder / "selection.parquet").schema


def test_no_member_with_predictions_still_writes_outputs(tree):
    runs, call = tree
    for name in ("gru/0", "gru/1", "cased/0", "cased/1"):
        runs_tree.evaluated(runs, f"clean/erm/{name}", 0.5, 0, "diverged", "nan")
    out, found = call()
    assert found["state"] == "not run" and found["members"] == {} and len(found["left_out"]) == 4
    assert "gru/0 (diverged)" in found["reason"] and "cased/1 (diverged)" in found["reason"]
    assert artifacts.check(out)["rows"] == 0


def test_seeds_choose_members(tree):
    _, call = tree
    assert list(call("--seeds", "1")[1]["members"]) == ["cased/1", "gru/1"]
    with pytest.raises(InputError, match="no member of gru, cased"):
        call("--seeds", "7")


def test_a_damaged_member_stops_the_stage(tree):
    runs, call = tree
    with (runs / "evaluate/clean/erm/gru/0/predictions.parquet").open("ab") as file:
        file.write(b"x")
    with pytest.raises(InputError, match="damaged"):
        call()


def test_an_unknown_encoder(tree):
    runs, call = tree
    (runs / "evaluate/clean/erm/cased").rename(runs / "evaluate/clean/erm/other")
    with pytest.raises(InputError, match=r"cased: no such folder\nfound: gru, other"):
        call()


def test_rules_are_fitted_on_selection_and_scored_on_test(tree):
    runs, call = tree
    found = call()[1]
    assert set(found["rules"]) == {"scaled", "weighted", "greedy"}
    names = ["gru/0", "gru/1", "cased/0", "cased/1"]
    counts, weights = found["rules"]["greedy"]["counts"], found["rules"]["weighted"]["weights"]
    assert set(counts) == set(weights) == set(names) and sum(weights.values()) == pytest.approx(1)
    assert found["rules"]["greedy"]["fitted"] == 40 and found["rules"]["scaled"]["temperatures"].keys() == set(names)
    tables = {name: pq.read_table(runs / f"evaluate/clean/erm/{name}/predictions.parquet") for name in names}
    ids = tables["gru/0"]["id"].to_pylist()
    for rule, given in (("greedy", counts), ("weighted", weights)):
        table = pq.read_table(call("--rule", rule)[0] / "predictions.parquet")
        total = sum(given.values())
        for column in (f"p_{name}" for name in runs_tree.CLASSES):
            own = {n: dict(zip(t["id"].to_pylist(), t[column].to_pylist(), strict=True)) for n, t in tables.items()}
            expected = [sum(given[n] * own[n][i] for n in names) / total for i in ids]
            assert table[column].to_pylist() == pytest.approx(expected)
        right = [a == b for a, b in zip(table["label"].to_pylist(), table["prediction"].to_pylist(), strict=True)]
        assert found["rules"][rule]["overall"]["accuracy"]["value"] == pytest.approx(sum(right) / len(right))


def test_too_few_examples_that_no_member_trained_on(tree):
    runs, call = tree
    folder = runs / "evaluate/clean/erm/cased/1"
    with artifacts.atomic_folder(folder) as new:
        artifacts.write_parquet(new / "selection.parquet", pq.read_table(folder / "selection.parquet").slice(11))
        shutil.copy(folder / "predictions.parquet", new)
        artifacts.write_manifest(new, "evaluate", {}, state="ok", reason="")
    found = call()[1]["rules"]
    assert found["greedy"] == found["weighted"] and found["greedy"]["note"].startswith("not fitted: 29 selection")
    assert "overall" in found["scaled"]  # each member's temperature is of its own split
    with pytest.raises(InputError, match=r"rule greedy: not fitted: 29 selection examples that all members have"):
        call("--rule", "greedy")


def test_what_each_member_adds_and_error_buckets(tree):
    runs, call = tree
    out, found = call()
    assert set(found["adds"]) == set(found["members"])
    for one in found["adds"].values():
        assert one["low"] < one["value"] < one["high"] and one["n"] == 80
    (pair,) = found["pairs"]
    assert (pair["first"], pair["second"]) == ("gru", "cased") and sum(pair["counts"].values()) == pair["n"] == 80
    rows = pq.read_table(out / "pairs.parquet").to_pylist()
    assert [row["id"] for row in rows] == pq.read_table(out / "predictions.parquet")["id"].to_pylist()
    counted = [row["bucket"] for row in rows]
    assert {name: counted.count(name) for name in pair["counts"]} == pair["counts"]
    best = max(found["members"], key=lambda n: selected(runs, n))
    assert found["against"]["member"] == best  # by selection, not by test
    value = found["mean"]["overall"]["accuracy"]["value"] - found["members"][best]["overall"]["accuracy"]["value"]
    assert found["against"]["value"] == pytest.approx(value)


def selected(runs, name):
    rows = pq.read_table(runs / f"evaluate/clean/erm/{name}/selection.parquet").to_pylist()
    losses = [-math.log(max(row[f"p_{row['label']}"], 1e-15)) for row in rows]
    return sum(row["label"] == row["prediction"] for row in rows) / len(rows), -sum(losses) / len(losses)


def test_members_of_several_conditions(tree, tmp_path):
    runs, call = tree
    argv = ["--members", str(runs / "evaluate/clean/erm"), str(runs / "evaluate/noise/erm"), "--encoders", "gru"]
    _, found = call(*argv)
    assert sorted(found["members"]) == [f"{c}/erm/gru/{s}" for c in ("clean", "noise") for s in (0, 1)]
    assert found["pairs"] == []


def test_a_member_of_another_task_stops_the_stage(tree):
    runs, call = tree
    folder = runs / "evaluate/clean/erm/cased/1"
    with artifacts.atomic_folder(folder) as new:
        shutil.copy(runs / "evaluate/clean/erm/cased/0/predictions.parquet", new)
        artifacts.write_manifest(new, "evaluate", {"task": "rte"}, state="ok", reason="")
    with pytest.raises(InputError, match=r"cased/1: predictions of the task rte\nexpected those of nli"):
        call()
