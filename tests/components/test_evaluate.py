"""The evaluate stage with a small GRU: its numbers against the model called by hand, slices, leaks, states."""

import json
import subprocess
import sys

import pyarrow.parquet as pq
import pytest

from components import evaluate
from gradworks.base import artifacts
from gradworks.base.errors import InputError
from tests import kinds, runs_tree

PATH = "noise/erm/gru/0"


def small_model(folder, test):
    from gradworks import models
    from gradworks.data import tokenizer
    from gradworks.models import gru

    texts = list(zip(test["premise"].to_pylist(), test["hypothesis"].to_pylist(), strict=True))
    words = tokenizer.train([one for pair in texts for one in pair], 80, True)
    (folder / "encoder").mkdir()
    options = gru.Options(model="gru", lowercase=True, vocabulary=80, embedding=8, hidden=8, mlp=8)
    gru.prepare(options, words, folder / "encoder", texts=2, vectors=None)
    model = models.create(folder / "encoder", 3, seed=0)
    return model, texts


@pytest.fixture
def cell(tmp_path, monkeypatch):
    """`call()` evaluates one cell; `call.edit(old, new)` changes params.yaml first."""
    from gradworks import models

    params, runs = runs_tree.params(tmp_path, seeds=(0,)), tmp_path / "runs"
    runs_tree.corrupt(runs, "noise", 0)
    runs_tree.run(runs, PATH)
    model, texts = small_model(tmp_path, runs_tree.test_split())
    with artifacts.atomic_folder(runs / "models" / PATH) as folder:
        models.save(model, folder)
        artifacts.write_manifest(folder, "train", {})

    def call():
        argv = ["evaluate", "--params", params, "--run", runs / "train" / PATH, "--model", runs / "models" / PATH]
        argv += ["--data", runs / "corrupt/noise/0", "--out", runs / "evaluate" / PATH]
        argv += ["--metrics", runs / "metrics" / f"{PATH}.json"]
        call.argv = [str(a) for a in argv]
        monkeypatch.setattr(sys, "argv", call.argv)
        evaluate.main()
        found = json.loads((runs / "metrics" / f"{PATH}.json").read_text())
        return pq.read_table(runs / "evaluate" / PATH / "predictions.parquet"), found

    call.runs, call.model, call.texts, call.params = runs, model, texts, params
    call.edit = lambda old, new: params.write_text(params.read_text().replace(old, new))
    return call


def test_predictions_are_those_of_the_model(cell):
    import torch

    table, found = cell()
    test = runs_tree.test_split()
    assert table["id"].to_pylist() == test["id"].to_pylist() and table["label"] == test["label"]
    cell.model.eval()
    with torch.no_grad():  # one by one: nothing that padding or order could hide
        encoded = [cell.model.encode([pair], 16) for pair in cell.texts]
        expected = torch.cat([cell.model(cell.model.collate(one)) for one in encoded]).softmax(-1)
    for i, name in enumerate(runs_tree.CLASSES):
        assert table[f"p_{name}"].to_numpy() == pytest.approx(expected[:, i].numpy(), abs=1e-6)
    assert table["prediction"].to_pylist() == [runs_tree.CLASSES[i] for i in expected.argmax(1)]
    score = kinds.kind("nli").score("accuracy", test["label"].to_pylist(), expected)
    assert found["overall"]["accuracy"] == score.as_dict()
    assert (found["state"], found["steps"], found["examples"], found["skipped"]) == ("ok", 15, 60, 1)


def test_the_selection_split_is_predicted_too(cell):
    import torch

    test = runs_tree.test_split()
    folder = cell.runs / "corrupt/noise/0"
    artifacts.write_parquet(folder / "selection.parquet", test.slice(20, 30).drop_columns(["set", "heuristic", "rule"]))
    artifacts.write_manifest(folder, "corrupt", {"task": "nli", "condition": {"noise": {"share": 0.5}}})
    cell()
    table = pq.read_table(cell.runs / "evaluate" / PATH / "selection.parquet")
    assert table["id"].to_pylist() == test["id"].to_pylist()[20:50] and table["label"] == test["label"].slice(20, 30)
    cell.model.eval()
    with torch.no_grad():
        encoded = [cell.model.encode([pair], 16) for pair in cell.texts[20:50]]
        expected = torch.cat([cell.model(cell.model.collate(one)) for one in encoded]).softmax(-1)
    for i, name in enumerate(runs_tree.CLASSES):
        assert table[f"p_{name}"].to_numpy() == pytest.approx(expected[:, i].numpy(), abs=1e-6)
    recorded = artifacts.check(cell.runs / "evaluate" / PATH)["parameters"]
    assert recorded["run"]["train"]["max_length"] == 16 and recorded["data"]["condition"] == {"noise": {"share": 0.5}}
    assert recorded["digests"]["selection.parquet"] == artifacts.digest(folder / "selection.parquet")


def test_by_every_column_with_small_slices_marked(cell):
    table, found = cell()
    challenge = [s == "challenge" for s in table["set"].to_pylist()]
    right = [p == y for p, y in zip(table["prediction"].to_pylist(), table["label"].to_pylist(), strict=True)]
    expected = sum(r for r, c in zip(right, challenge, strict=True) if c) / 40
    assert found["by"]["set"]["challenge"]["accuracy"]["value"] == pytest.approx(expected)
    assert set(found["by"]["heuristic"]) == {"none", "lexical_overlap", "subsequence", "constituent"}
    assert found["by"]["heuristic"]["subsequence"]["accuracy"]["small"] is True
    assert "small" not in found["by"]["heuristic"]["none"]["accuracy"]


def test_scored_with_and_without_leaked_examples(cell):
    rows = cell()[0].to_pylist()
    wrong = [row["id"] for row in rows if row["prediction"] != row["label"]]
    runs_tree.corrupt(cell.runs, "noise", 0, wrong[:5])  # so that another five would give another score
    _, found = cell()
    without = found["without_leaked"]
    assert without["leaked"] == 5 and without["overall"]["accuracy"]["n"] == 75
    assert without["overall"]["accuracy"]["value"] == pytest.approx((80 - len(wrong)) / 75)
    assert found["overall"]["accuracy"]["value"] == pytest.approx((80 - len(wrong)) / 80)
    assert without["by"]["set"].keys() == found["by"]["set"].keys()


def test_no_leak_no_second_score(cell):
    assert "without_leaked" not in cell()[1]


def test_a_leaked_id_that_is_no_test_example(cell):
    runs_tree.corrupt(cell.runs, "noise", 0, ["elsewhere-1"])
    with pytest.raises(InputError, match="leaked id elsewhere-1 is not in test"):
        cell()


@pytest.mark.parametrize("state", ["OOM", "diverged"])
def test_a_cell_without_a_model_writes_every_output(cell, state):
    filled = cell()[0]
    runs_tree.run(cell.runs, PATH, state, "no memory for 3 GiB")
    table, found = cell()
    assert len(table) == 0 and table.schema == filled.schema
    assert (found["state"], found["reason"], found["overall"]) == (state, "no memory for 3 GiB", {})
    assert artifacts.check(cell.runs / "evaluate" / PATH)["rows"] == 0


def test_not_converged_is_scored_and_marked(cell):
    from gradworks import models

    runs_tree.run(cell.runs, PATH, "not converged", "no better than a constant")
    with artifacts.atomic_folder(cell.runs / "models" / PATH) as folder:
        models.save(cell.model, folder)
        artifacts.write_manifest(folder, "train", {})
    table, found = cell()
    assert len(table) == 80 and found["state"] == "not converged" and found["overall"]["accuracy"]["n"] == 80


def test_twice_gives_the_same_bytes(cell):
    cell()
    first = artifacts.digest(cell.runs / "evaluate" / PATH / "predictions.parquet")
    cell()
    assert artifacts.digest(cell.runs / "evaluate" / PATH / "predictions.parquet") == first


def test_a_column_that_no_row_has(cell):
    cell.edit("by: [set, heuristic]", "by: [set, subcase]")
    with pytest.raises(InputError, match=r"no row has 'subcase'.*\nfound: id, premise, hypothesis, label, set"):
        cell()


def test_an_unknown_key(cell):
    cell.edit("evaluate: {by:", "evaluate: {bye: 1, by:")
    with pytest.raises(InputError, match=r"params.yaml: evaluate.bye: unknown key"):
        cell()


@pytest.mark.parametrize(
    "file", ["corrupt/noise/0/test.parquet", f"models/{PATH}/model.safetensors", f"train/{PATH}/status.json"]
)
def test_a_damaged_input_stops_the_stage_and_writes_nothing(cell, file):
    assert (cell.runs / file).exists()
    with (cell.runs / file).open("a") as stream:
        stream.write(" ")
    with pytest.raises(InputError, match="damaged"):
        cell()
    assert not (cell.runs / "evaluate").exists() and not (cell.runs / "metrics").exists()


def test_an_empty_test_split(cell):
    folder = cell.runs / "corrupt/noise/0"
    artifacts.write_parquet(folder / "test.parquet", runs_tree.test_split().slice(0, 0))
    artifacts.write_manifest(folder, "corrupt", {})
    with pytest.raises(InputError, match=r"test\.parquet: no rows"):
        cell()


def test_a_cell_without_a_model_needs_no_torch(cell):
    runs_tree.run(cell.runs, PATH, "OOM", "no memory")
    code = (
        "import sys; from components import evaluate\n"
        "sys.argv = sys.argv[1:]; evaluate.main(); print('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    cell()
    said = subprocess.run([sys.executable, "-c", code, *cell.argv], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "False"
