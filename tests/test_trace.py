"""What a run leaves behind survives a checkpoint and becomes Parquet."""

from types import SimpleNamespace

import pytest
import torch

from gradworks.base import artifacts
from gradworks.trace import Trace


def batch(ids, task="nli"):
    return SimpleNamespace(task=task, ids=ids, mass=torch.ones(len(ids)))


def report(weights, scores):
    sums = [[SimpleNamespace(weights=torch.tensor(weights), score=None if scores is None else torch.tensor(scores))]]
    return SimpleNamespace(skipped=sum(weights) == 0, passes=1.5, sums=sums, log={"cosine": torch.tensor(0.25)})


def test_rows_weights_and_counts(tmp_path):
    rows = {("nli", "a"): 0, ("nli", "b"): 1, ("nli", "c"): 2}
    trace = Trace()
    trace.note(report([2.0, 0.0], [0.5, -0.5]), [[batch(["c", "a"])]], rows, loss=1.0)
    trace.note(report([0.0, 0.0], [-1.0, -2.0]), [[batch(["b", "a"])]], rows, loss=0.5, selection_accuracy=0.7)
    trace.note(report([1.0, 1.0], None), [[batch(["b", "c"])]], rows, loss=0.25)
    assert (trace.step, trace.examples, trace.skipped, trace.passes) == (3, 6, 1, 4.5)
    Trace(**trace.state_dict()).write(tmp_path, list(rows))
    history = artifacts.read_parquet(tmp_path / "history.parquet").to_pylist()
    assert history[1] == {"step": 2, "examples": 4, "loss": 0.5, "selection_accuracy": 0.7}
    assert history[0]["selection_accuracy"] is None
    assert artifacts.read_parquet(tmp_path / "weights.parquet").to_pylist() == [
        {"step": 1, "id": "c", "weight": 2.0, "score": 0.5},  # relative to the batch: 1 = as in plain training
        {"step": 1, "id": "a", "weight": 0.0, "score": -0.5},
        {"step": 2, "id": "b", "weight": 0.0, "score": -1.0},
        {"step": 2, "id": "a", "weight": 0.0, "score": -2.0},
    ]
    assert artifacts.read_parquet(tmp_path / "statistics.parquet").to_pylist()[0] == {
        "step": 1, "name": "cosine", "value": 0.25,
    }  # fmt: skip


def test_a_weight_is_relative_to_what_the_labels_of_an_example_count_in_plain_training(tmp_path):
    rows, trace = {("t", "a"): 0, ("t", "b"): 1, ("t", "c"): 2}, Trace()
    drawn = batch(["a", "b", "c"], "t")
    drawn.mass = torch.tensor([1.0, 4.0, 5.0])
    trace.note(report([1.0, 4.0, 5.0], [1.0, 1.0, 1.0]), [[drawn]], rows)  # score times mass
    trace.note(report([2.0, 0.0, 5.0], [2.0, -1.0, 1.0]), [[drawn]], rows)
    trace.write(tmp_path, list(rows))
    found = artifacts.read_parquet(tmp_path / "weights.parquet")["weight"].to_pylist()
    assert found == pytest.approx([1, 1, 1, 2 * 10 / 7, 0, 10 / 7])
    trace.note(report([1.0, 4.0, 5.0], None), [[drawn]], rows)
    assert len(trace.weights) == 2  # as in plain training: nothing to tell


def test_examples_of_several_tasks_may_share_an_id(tmp_path):
    rows = {("nli", "a"): 0, ("nli", "b"): 1, ("near", "a"): 2}
    trace = Trace()
    trace.note(report([2.0, 0.0], None), [[batch(["b", "a"])]], rows)
    trace.note(report([3.0], None), [[batch(["a"], "near")]], rows)
    Trace(**trace.state_dict()).write(tmp_path, list(rows))
    assert artifacts.read_parquet(tmp_path / "weights.parquet").select(["step", "task", "id"]).to_pylist() == [
        {"step": 1, "task": "nli", "id": "b"}, {"step": 1, "task": "nli", "id": "a"},
        {"step": 2, "task": "near", "id": "a"},
    ]  # fmt: skip


def test_figures_are_means_over_the_steps_that_have_them():
    trace, rows = Trace(), {("nli", "a"): 0}
    for conflict, weight in ((1.0, 1.0), (0.0, 0.0), (0.0, 1.0), (float("nan"), 1.0)):
        one = report([weight], None)
        one.log = {"conflict": conflict} | ({"inner": 0.5} if conflict else {})
        trace.note(one, [[batch(["a"])]], rows)
    assert Trace(**trace.state_dict()).figures() == {
        "skipped_share": 0.25, "conflict": pytest.approx(1 / 3), "inner": 0.5,
    }  # fmt: skip
    assert Trace().figures() == {"skipped_share": 0.0}


def test_a_run_of_no_steps_writes_empty_tables(tmp_path):
    Trace().write(tmp_path, [])
    assert [
        artifacts.read_parquet(tmp_path / f"{n}.parquet").num_rows for n in ("history", "statistics", "weights")
    ] == [0] * 3
