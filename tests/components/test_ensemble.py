"""The ensemble stage on predictions that the tree of runs_tree.py holds."""

import json
import sys

import pyarrow.parquet as pq
import pytest

from components import ensemble
from gradworks.stage import artefacts
from gradworks.stage.errors import InputError
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
    assert artefacts.check(out)["members"] == ["gru/0", "gru/1", "cased/0", "cased/1"]
    table = pq.read_table(out / "predictions.parquet")
    sums = sum(table[f"p_{name}"].to_numpy() for name in runs_tree.CLASSES)
    assert abs(sums - 1).max() < 1e-9 and table.column_names[:3] == ["id", "label", "prediction"]


def test_rows_in_another_order_give_the_same_metrics(tree):
    runs, call = tree
    before = call()[1]
    folder = runs / "evaluate/clean/erm/cased/1"
    table = pq.read_table(folder / "predictions.parquet")
    with artefacts.atomic_folder(folder) as new:
        artefacts.write_parquet(new / "predictions.parquet", table.take(list(range(len(table)))[::-1]))
        artefacts.write_manifest(new, "evaluate", {}, state="ok", reason="")
    assert call()[1] == before


def test_a_member_without_predictions_is_left_out_and_named(tree, capsys):
    runs, call = tree
    runs_tree.evaluated(runs, "clean/erm/cased/1", 0.5, 1, "OOM", "no memory")
    _, found = call()
    assert found["left_out"] == {"cased/1": "OOM"} and list(found["members"]) == ["cased/0", "gru/0", "gru/1"]
    assert "cased/1: left out, OOM" in capsys.readouterr().out


def test_no_member_with_predictions_still_writes_outputs(tree):
    runs, call = tree
    for name in ("gru/0", "gru/1", "cased/0", "cased/1"):
        runs_tree.evaluated(runs, f"clean/erm/{name}", 0.5, 0, "diverged", "nan")
    out, found = call()
    assert found["state"] == "not run" and found["members"] == {} and len(found["left_out"]) == 4
    assert artefacts.check(out)["rows"] == 0


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
