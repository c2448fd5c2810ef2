"""Which stages share a pod, and what a pipeline has of them."""

from __future__ import annotations

import json

import pytest

from gradworks.base.errors import InputError
from gradworks.cluster import chains, compile
from gradworks.store import chains as words
from gradworks.store import stages
from gradworks.store.meta import Meta
from gradworks.store.stages import Stage
from tests.cluster.small_checkout import ROOT, checkout, grown, parsed


def found(given: str, **metas: dict) -> list[str]:
    """The chains of stages, each written as `name: what it reads`. `metas`: by the name before @."""
    made = {}
    for line in given.split(";"):
        name, _, ups = (part.strip() for part in line.partition(":"))
        group = name.partition("@")[0]
        made[name] = Stage(
            name, group, "c", ".", (), (), (), tuple(ups.split()), Meta.model_validate(metas.get(group, {}))
        )
    return [" ".join(stage.name for stage in chain) for chain in chains.chains(made)]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("a:; b: a; c: b", ["a b c"]),
        ("a:; b: a; c: a", ["a", "b", "c"]),  # side by side
        ("a:; b: a; c: a b", ["a b c"]),  # c waits for b anyway
        ("a:; x:; b: a; c: a x", ["a", "x", "b", "c"]),  # c may begin before b has ended
        ("a:; x:; b: a x", ["a", "x", "b"]),  # b would hold the pod until x has ended
        ("d:; t@1: d; t@2: d; e@1: t@1 d; e@2: t@2 d; r: t@1 t@2 e@1 e@2", ["d", "t@1 e@1", "t@2 e@2", "r"]),
        ("t@1:; e@1: t@1; s: t@1; r: e@1 s", ["t@1 e@1", "s", "r"]),  # others read the model as well
        ("t@1:; e@1: t@1; f@1: t@1", ["t@1", "e@1", "f@1"]),
        ("t@1:; e@2: t@1; f@3: t@1", ["t@1", "e@2", "f@3"]),
    ],
)
def test_who_shares_a_pod(given, expected):
    assert found(given) == expected


@pytest.mark.parametrize(
    ("a", "b", "share"),
    [
        ({}, {}, True),
        ({}, {"pod": "own"}, False),
        ({"pod": "own"}, {}, False),
        ({"resources": {"cpu": 2}}, {"resources": {"cpu": 2}}, True),
        ({"resources": {"cpu": 2}}, {"resources": {"cpu": 1}}, False),
        ({"resources": {"nodes": 2}}, {"resources": {"nodes": 2}}, False),  # TrainJobs
        ({"image": "gpu"}, {}, False),
        ({"retries": 1}, {}, False),
        ({"timeout": 60}, {"timeout": "2m"}, True),
        ({"timeout": 60}, {}, False),  # would end the other one too
    ],
)
def test_stages_of_a_pod_ask_for_the_same(a, b, share):
    assert found("a:; b: a", a=a, b=b) == (["a b"] if share else ["a", "b"])


def test_the_default_benchmark_has_at_most_60_percent_of_its_stages_as_pods():
    known = stages.load(ROOT / "dvc.yaml")
    tasks = compile.plan(known)
    pods = [chain for task in tasks for chain in task.chains]
    assert len(known) == 129 and len(pods) <= 77
    assert sorted(stage.name for chain in pods for stage in chain) == sorted(known)
    seen: set[str] = set()
    for task in tasks:  # a pod has what it reads, whichever others of its loop have ended
        for chain in task.chains:
            here = set(seen)
            for stage in chain:
                assert here.issuperset(stage.ups), stage.name
                here.add(stage.name)
        seen |= {stage.name for stage in task.stages}
    of = {chain[0].name: [stage.name for stage in chain] for chain in pods}
    trained = [name for name in known if name.startswith("train@")]
    assert all(of[name] == [name, name.replace("train", "evaluate", 1)] for name in trained) and len(trained) == 52


def test_a_loop_of_chains(tmp_path):
    spec, _ = parsed(compile.text(checkout(tmp_path, grown(100, pod="shared"))))
    tasks = spec["root"]["dag"]["tasks"]
    (loop,) = (task for task in tasks.values() if "parameterIterator" in task)
    items = json.loads(loop["parameterIterator"]["items"]["raw"])
    assert items == [f"train@cell-{n} -> again@cell-{n}" for n in range(100)] and len(tasks) == 3
    made = spec["components"]["comp-train-again"]["outputDefinitions"]
    assert {name: one["artifactType"]["schemaTitle"] for name, one in made["artifacts"].items()} == {
        "dataset": "system.Dataset", "dataset_of_again": "system.Dataset", "metrics_of_again": "system.Metrics",
    }  # fmt: skip
    assert set(made["parameters"]) == {"lock", "lock_of_again"}


def test_a_cell_that_others_start_from_is_in_no_loop_or_in_one_of_its_kind(tmp_path, monkeypatch):
    asked = grown(60, pod="shared")
    more = {"cmd": "c", "deps": ["train/${item}"], "outs": ["more/${item}"]}
    asked["stages"]["more"] = {"foreach": ["cell-0", "cell-1"], "do": {**more, "meta": {"pod": "own"}}}
    known = stages.load(checkout(tmp_path, asked))
    assert {task.name: len(task.chains) for task in compile.plan(known)} == {
        "prepare": 1, "train-cell-0-again": 1, "train-cell-1-again": 1, "train-again": 58, "more-cell-0": 1,
        "more-cell-1": 1, "end": 1,
    }  # fmt: skip
    monkeypatch.setattr(compile, "TASKS", 6)
    assert {task.name: len(task.chains) for task in compile.plan(known)} == {
        "prepare": 1, "train-again": 2, "train-again-2": 58, "more": 2, "end": 1,
    }  # fmt: skip


def test_a_chain_as_one_task(tmp_path):
    asked = {
        "first": {"cmd": "c", "deps": ["code.py"], "outs": [{"a": {"type": "model"}}], "meta": {"timeout": "1h"}},
        "then": {"cmd": "c", "deps": ["a"], "outs": [{"b": {"type": "model"}}], "meta": {"timeout": "90s"}},
        "left": {"cmd": "c", "deps": ["b"], "outs": ["c"]},
        "right": {"cmd": "c", "deps": ["a"], "outs": ["d"], "meta": {"pod": "own"}},
        "last": {"cmd": "c", "deps": ["b", "d"], "outs": ["e"]},
    }
    asked["then"]["deps"].append("code.py")
    asked["right"]["deps"] = ["b"]
    spec, kubernetes = parsed(compile.text(checkout(tmp_path, {"stages": asked})))
    tasks = spec["root"]["dag"]["tasks"]
    assert {name: task["taskInfo"]["name"] for name, task in tasks.items()} == {
        "first-then": "first -> then", "left": "left", "right": "right", "last": "last",
    }  # fmt: skip
    assert kubernetes["exec-first-then"]["activeDeadlineSeconds"] == "3690"
    (read,) = tasks["left"]["inputs"]["artifacts"].values()
    assert read["taskOutputArtifact"] == {"producerTask": "first-then", "outputArtifactKey": "model_of_then"}
    assert tasks["left"]["dependentTasks"] == ["first-then"]


def test_names_of_outputs_come_back(tmp_path):
    ends = words.owners(["a@1", "Train_It@x", "train-it@y", "b_of_c", "-"])
    assert ends == ["", "train_it", "train_it_2", "b_of_c", "stage"]
    outs = ["model", "dataset_2", "lock"]
    made = {words.output(out, end): (out, end) for end in ends for out in outs}
    assert len(made) == 15 and all(words.owned(name) == one for name, one in made.items())
    asked = {"stages": {"s": {"foreach": ["a -> b"], "do": {"cmd": "c", "deps": ["code.py"], "outs": ["x"]}}}}
    with pytest.raises(InputError, match="stage s@a -> b: expected a name without ' -> '"):
        compile.text(checkout(tmp_path, asked))
