"""The artifacts that a compiled pipeline hands from task to task."""

from __future__ import annotations

from typing import Any

from gradworks.cluster import compile, lineage
from tests.cluster.small_checkout import checkout, grown, parsed


def edges(tasks: dict[str, Any]) -> set[tuple[str, str, str]]:
    """(task, the task that wrote it, artifact) of every input artifact."""
    read = {name: task.get("inputs", {}).get("artifacts", {}) for name, task in tasks.items()}
    found = [(name, one["taskOutputArtifact"]) for name, given in read.items() for one in given.values()]
    return {(name, one["producerTask"], one["outputArtifactKey"]) for name, one in found}


def test_a_task_has_what_it_reads_and_nothing_else(tmp_path):
    two = {"cmd": "c", "deps": ["code.py"], "outs": [{"a/model": {"type": "model"}}, "a/rest"], "metrics": ["a.json"]}
    stages = {
        "two": two,
        "whole": {"cmd": "c", "deps": ["a"], "outs": ["b"]},
        "part": {"cmd": "c", "deps": ["a/rest/one.txt", "a.json"], "outs": ["c"]},
        "none": {"cmd": "c", "deps": ["code.py"], "outs": ["d"]},
    }
    spec, _ = parsed(compile.text(checkout(tmp_path, {"stages": stages})))
    assert edges(spec["root"]["dag"]["tasks"]) == {
        ("whole", "two", "model"), ("whole", "two", "dataset"), ("part", "two", "dataset"), ("part", "two", "metrics"),
    }  # fmt: skip
    inputs = spec["components"]["comp-whole"]["inputDefinitions"]["artifacts"].values()
    assert sorted(one["artifactType"]["schemaTitle"] for one in inputs) == ["system.Dataset", "system.Model"]


def test_the_items_of_a_loop_have_what_one_task_wrote_and_no_item_seems_to_come_from_all(tmp_path):
    spec, _ = parsed(compile.text(checkout(tmp_path, grown(100))))
    tasks = spec["root"]["dag"]["tasks"]
    loops = {name: task["taskInfo"]["name"] for name, task in tasks.items() if "parameterIterator" in task}
    found = {(loops[name], source) for name, source, _ in edges(tasks)}
    assert len(loops) == 2 and len(found) == 1 and found.pop()[1] == "prepare"


def test_the_inputs_of_a_task_fit_into_one_argument(tmp_path, monkeypatch):
    each = {"cmd": "c", "deps": ["code.py"], "outs": ["m/${item}"], "metrics": ["m/${item}.json"]}
    stages = {"one": {"foreach": list(range(30)), "do": each}, "report": {"cmd": "c", "deps": ["m"], "outs": ["r"]}}
    pipeline = checkout(tmp_path, {"stages": stages})
    kinds = [out for _, _, out in edges(parsed(compile.text(pipeline))[0]["root"]["dag"]["tasks"])]
    assert kinds.count("dataset") == 30 and 0 < kinds.count("metrics") < 5
    monkeypatch.setattr(lineage, "INPUTS", 0)
    without = compile.text(pipeline)
    monkeypatch.undo()
    monkeypatch.setattr(compile, "SIZE", len(without))
    assert compile.text(pipeline) == without  # rather no lineage than no run
