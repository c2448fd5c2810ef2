"""The artifacts that a compiled pipeline hands from task to task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gradworks.cluster import compile, lineage
from gradworks.store import chains
from gradworks.store.stages import load
from tests.cluster.small_checkout import ROOT, checkout, grown, parsed


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


def test_a_loop_hands_on_the_list_of_what_its_items_wrote(tmp_path, monkeypatch):
    monkeypatch.setattr(compile, "TASKS", 5)
    cells = [f"cell-{n}" for n in range(12)]
    train = {
        "foreach": cells,
        "do": {"cmd": "t", "deps": ["data.csv"], "outs": ["t/${item}"], "metrics": ["m/${item}.json"]},
    }
    stages = {
        "prepare": {"cmd": "p", "deps": ["code.py"], "outs": ["data.csv"]},
        "train": train,
        "end": {"cmd": "e", "deps": ["t", "m"], "outs": ["end.md"]},
    }  # fmt: skip
    spec, _ = parsed(compile.text(checkout(tmp_path, {"stages": stages})))
    tasks, inputs = spec["root"]["dag"]["tasks"], spec["components"]["comp-end"]["inputDefinitions"]["artifacts"]
    ((loop, _),) = [(name, task) for name, task in tasks.items() if "parameterIterator" in task]
    assert edges(tasks) >= {(loop, "prepare", "dataset")} and {one for _, one, _ in edges(tasks)} == {"prepare", loop}
    kinds = {(one["isArtifactList"], one["artifactType"]["schemaTitle"]) for one in inputs.values()}
    assert kinds == {(True, "system.Dataset"), (True, "system.Metrics")} and len(inputs) == 2


def test_what_not_all_items_read_is_left_out_and_a_list_of_which_a_reader_reads_a_part(tmp_path, monkeypatch):
    monkeypatch.setattr(compile, "TASKS", 5)
    pipeline = checkout(tmp_path, grown(20))
    spec, _ = parsed(compile.text(pipeline))
    tasks = spec["root"]["dag"]["tasks"]
    loops = {name: task["taskInfo"]["name"] for name, task in tasks.items() if "parameterIterator" in task}
    found = {(loops.get(name, name), loops.get(source, source)) for name, source, _ in edges(tasks)}
    assert len(loops) == 2 and found == {("train", "prepare"), ("end", "train"), ("end", "again")}
    text = pipeline.read_text()
    pipeline.write_text(text.replace("    - train\n", "    - train/cell-1\n"))
    assert text != pipeline.read_text()
    monkeypatch.setattr(compile, "TASKS", 4)  # cell-1 in a loop with the others
    spec, _ = parsed(compile.text(pipeline))
    tasks = spec["root"]["dag"]["tasks"]
    loops = {name: task["taskInfo"]["name"] for name, task in tasks.items() if "parameterIterator" in task}
    assert ("end", "train") not in {
        (loops.get(name, name), loops.get(source, source)) for name, source, _ in edges(tasks)
    }


def test_a_loop_is_linked_by_what_all_of_its_items_read_and_to_who_reads_all_of_them(tmp_path):
    asked = {name: {"cmd": "c", "deps": ["code.py"], "outs": [name]} for name in ("one", "two", "both")}
    asked |= {f"item-{n}": {"cmd": "c", "deps": ["both", n], "outs": [f"made/{n}"]} for n in ("one", "two")}
    asked |= {
        "part": {"cmd": "c", "deps": ["made/one"], "outs": ["p"]},
        "all": {"cmd": "c", "deps": ["made"], "outs": ["q"]},
    }
    found = load(checkout(tmp_path, {"stages": asked}))
    alone = {name: [(found[name],)] for name in ("one", "two", "both", "part", "all")}
    made = lineage.edges(alone | {"loop": [(found["item-one"],), (found["item-two"],)]})
    assert [one.source for one in made["loop"]] == ["both"] and made["part"] == []
    assert [(one.source, one.items) for one in made["all"]] == [("item-one", 2)]


def test_each_item_of_the_default_benchmark_has_every_artifact_that_it_reads_and_no_other():
    stages_of = load(ROOT / "dvc.yaml")
    planned = compile.plan(stages_of)
    found = lineage.edges({task.name: task.chains for task in planned})
    at = {stage.name: task for task in planned for stage in task.stages}
    for task in planned:
        handed = {(at[one.source].name, one.output) for one in found[task.name]}
        for chain in task.chains:
            inside, read = {stage.name for stage in chain}, set()
            for stage in chain:
                for up in set(stage.ups) - inside:
                    owner = dict(zip(*names(at[up], up), strict=True))[up]
                    read |= {(at[up].name, chains.output(out.name, owner)) for out in stages_of[up].outs
                             if any(Path(dep).is_relative_to(out.path) or Path(out.path).is_relative_to(dep)
                                    for dep in (*stage.deps, *stage.params))}  # fmt: skip
            if task.name != "report":
                assert handed == read, (task.name, chain[0].name)
    report = {at[one.source].name for one in found["report"]}  # not every artifact fits, but one of each task
    assert report == {at[up].name for up in stages_of["report"].ups} - {at["cells"].name}


def names(task, stage):
    """The stages of the chain that has a stage, and what the names of their outputs end in."""
    (chain,) = (c for c in task.chains if stage in {one.name for one in c})
    own = [one.name for one in chain]
    return own, chains.owners(own)


def test_the_inputs_of_a_task_fit_into_one_argument(tmp_path, monkeypatch):
    each = {"cmd": "c", "deps": ["code.py"], "outs": ["m/${item}"], "metrics": ["m/${item}.json"]}
    stages = {"one": {"foreach": list(range(30)), "do": each}, "report": {"cmd": "c", "deps": ["m"], "outs": ["r"]}}
    pipeline = checkout(tmp_path, {"stages": stages})
    monkeypatch.setattr(lineage, "INPUTS", 50_000)
    kinds = [out for _, _, out in edges(parsed(compile.text(pipeline))[0]["root"]["dag"]["tasks"])]
    assert kinds.count("metrics") == 30 and 0 < kinds.count("dataset") < 10
    monkeypatch.setattr(lineage, "INPUTS", 0)
    without = compile.text(pipeline)
    monkeypatch.undo()
    monkeypatch.setattr(compile, "SIZE", len(without))
    assert compile.text(pipeline) == without  # rather no lineage than no run
