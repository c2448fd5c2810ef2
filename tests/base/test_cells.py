"""The grid of params.yaml written out: names, paths, entries, and what is refused."""

import json
from pathlib import Path

import pytest
import yaml

from gradworks.base import cells, grid
from gradworks.base.errors import InputError

PARAMS = {
    "fetch": {"nli": {"from": "synthetic:nli"}, "hans": {"from": "file:data/hans"}, "far": {"from": "hub:x@1"}},
    "corrupt": {"splits": {}, "conditions": {"clean": {}, "noise": {}}},
    "pretrain": {"gru": {"model": "gru"}, "cased": {"model": "transformer"}},
    "methods": {"erm": {}, "dotprod": {"update": {"dotprod": {"weight": 0.1}}}, "reweight": {"weighting": "reweight"}},
    "cells": {
        "seeds": [0, 1],
        "grid": [
            {"condition": ["clean", "noise"], "method": ["erm", "dotprod"], "encoder": ["gru"]},
            {"condition": ["clean"], "method": ["erm"], "encoder": ["cased"], "seed": [7]},
        ],
    },
    "measure": {},
    "ensemble": [{"condition": "clean", "method": "erm", "encoders": ["gru", "cased"]}],
}


def expand(tmp_path, change=None):
    values = yaml.safe_load(yaml.safe_dump(PARAMS))
    if change:
        change(values)
    path = tmp_path / "params.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(values))
    return grid.expand(path)


def test_names_paths_and_entries(tmp_path):
    made = expand(tmp_path)
    assert len(made["train"]) == 2 * 2 * 2 + 1
    assert made["train"]["noise-dotprod-gru-1"] == {
        "condition": "noise", "method": "dotprod", "encoder": "gru", "seed": 1, "path": "noise/dotprod/gru/1",
        "start": "pretrain/gru", "model": "gru", "schedule": "versions.json", "times": "",
        "objective": "supervised", "weighting": "uniform", "update": "dotprod",
    }  # fmt: skip
    assert "clean-erm-cased-7" in made["train"]
    assert set(made["corrupt"]) == {"clean-0", "clean-1", "noise-0", "noise-1", "clean-7"}
    assert made["fetch"]["hans"] == {"dep": "data/hans"}
    assert made["fetch"]["nli"] == {"dep": "gradworks/data/synthetic.py"}
    assert made["fetch"]["far"] == {"dep": "gradworks/data/remote.py"}
    assert set(made["pretrain"]) == {"gru", "cased"}
    assert made["ensemble"]["clean-erm-gru+cased"]== {
        "condition": "clean", "method": "erm", "encoders": "gru cased", "seeds": "0 1 7",
    }  # fmt: skip


def test_a_new_seed_or_method_changes_no_existing_cell(tmp_path):
    before = expand(tmp_path)

    def change(values):
        values["cells"]["seeds"].append(2)
        values["methods"]["random"] = {"weighting": "random"}
        values["cells"]["grid"][0]["method"].append("random")

    after = expand(tmp_path, change)
    assert before["train"].items() <= after["train"].items()
    assert len(after["train"]) > len(before["train"])


def phase(values, before="erm"):
    values["methods"]["last_layer"] = {"from": before, "trainable": "head", "weighting": "reweight"}
    blocks(values)[0]["method"].insert(0, "last_layer")


def test_a_phase_starts_from_the_model_of_its_own_condition_encoder_and_seed(tmp_path):
    made = expand(tmp_path, phase)["train"]
    assert made["noise-last_layer-gru-1"]["start"] == "models/noise/erm/gru/1"
    assert made["noise-last_layer-gru-1"]["weighting"] == "reweight"


def test_files_that_an_encoder_names_are_watched(tmp_path):
    (tmp_path / "bert").mkdir()

    def change(values):
        values["pretrain"]["gru"] |= {"vectors": {"file": "data/glove.txt"}}
        values["pretrain"]["cased"] |= {
            "from": "bert",
            "pretrain": {"corpus": "data/w.txt"},
            "vocabulary_file": "v.txt",
        }

    made = expand(tmp_path, change)["pretrain"]
    none = "versions.json"
    assert made["gru"] == {"model": "gru", "from": none, "text": "data/glove.txt", "vocabulary": none}
    assert made["cased"] == {"model": "transformer", "from": "bert", "text": "data/w.txt", "vocabulary": "v.txt"}
    hub = expand(tmp_path, lambda v: v["pretrain"]["cased"].update({"from": "bert-base-cased"}))
    assert hub["pretrain"]["cased"]["from"] == none


def longer(values, other="dotprod", start=None):
    values["methods"]["erm-long"] = {"as_long_as": other, **({"from": start} if start else {})}
    blocks(values)[0]["method"].append("erm-long")


def test_a_cost_is_measured_once_for_each_encoder_and_method(tmp_path):
    made = expand(tmp_path, lambda values: [longer(values), phase(values)])
    assert list(made["measure"]) == ["gru-last_layer", "gru-erm", "gru-dotprod", "cased-erm"]  # erm-long is plain
    assert made["measure"]["gru-dotprod"] == {
        "condition": "clean", "method": "dotprod", "encoder": "gru", "seed": 0, "start": "pretrain/gru",
        "model": "gru", "objective": "supervised", "weighting": "uniform", "update": "dotprod",
    }  # fmt: skip
    assert made["measure"]["gru-last_layer"]["start"] == "models/clean/erm/gru/0"
    assert made["measure"]["cased-erm"]["seed"] == 7

    def seed(values):
        longer(values), phase(values)
        values["cells"]["seeds"].append(2)

    assert expand(tmp_path, seed)["measure"] == made["measure"]


def test_cells_that_train_for_as_long_depend_on_the_ratio_and_no_others(tmp_path):
    def change(values):
        longer(values)

    (tmp_path / "components").mkdir()
    made = expand(tmp_path / "pipelines/mine", change)["train"]
    named = {key: cell["schedule"] for key, cell in made.items() if cell["schedule"] != "versions.json"}
    assert set(named) == {f"{c}-erm-long-gru-{s}" for c in ("clean", "noise") for s in (0, 1)}
    assert set(named.values()) == {"pipelines/mine/runs/schedule/gru/dotprod.json"}


def blocks(values):
    return values["cells"]["grid"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda v: blocks(v)[0].update(method=["sgd"]), "cells.grid.0.method: found 'sgd'"),
        (lambda v: blocks(v)[0].update(methods=["erm"]), "cells.grid.0.methods: unknown key"),
        (lambda v: blocks(v).append(blocks(v)[0]), "duplicate cell clean-erm-gru-0"),
        (
            lambda v: [
                v["methods"].update({"a-b": {}, "a": {}}),
                v["pretrain"].update({"b-gru": {"model": "gru"}}),
                blocks(v)[0].update(method=["a-b", "a"], encoder=["gru", "b-gru"]),
            ],
            "clean/a/b-gru/0 and clean/a-b/gru/0 are both the cell clean-a-b-gru-0",
        ),
        (
            lambda v: [
                v["methods"].update({"x-a": {}, "a": {}}),
                v["pretrain"].update({"gru-x": {"model": "gru"}}),
                blocks(v)[0].update(method=["x-a", "a"], encoder=["gru", "gru-x"], condition=["clean"]),
                v.update(ensemble=[]),
            ],
            "gru-x/a and gru/x-a are both the measurement gru-x-a",
        ),
        (lambda v: v["ensemble"].append(v["ensemble"][0]), "ensemble.1: duplicate clean-erm-gru+cased"),
        (lambda v: v["ensemble"][0].update(encoders=["gru", "gru"]), "encoders: found ['gru', 'gru']"),
        (lambda v: v["cells"].update(seeds=[-1]), "cells.seeds.0: found -1"),
        (lambda v: v["pretrain"].update({"GRU": {"model": "gru"}}), "differ in more than capitals"),
        (lambda v: v["fetch"].update({"my data": {"from": "file:x"}}), "fetch: found the name 'my data'"),
        (lambda v: v["methods"]["erm"].update(update="a;touch x"), "erm.update: found the name 'a;touch x'"),
        (lambda v: v.pop("methods"), "methods: missing or empty"),
        (lambda v: v["methods"]["erm"].update(train_on=["test"]), "methods.erm.train_on.0: found 'test'"),
        (lambda v: v["methods"]["erm"].update(update={"erm": {}, "sam": {}}), "methods.erm.update: found 2 entries"),
        (lambda v: phase(v, "sgd"), "methods.last_layer.from: found 'sgd'"),
        (
            lambda v: phase(v, "reweight"),
            "methods.last_layer.from: the cell clean-last_layer-gru-0 starts from",
        ),
        (lambda v: v["methods"]["erm"].update({"from_": 1}), "methods.erm.from_: unknown key"),
        (lambda v: longer(v, "sgd"), "methods.erm-long.as_long_as: found 'sgd'"),
        (lambda v: longer(v, "erm-long"), "methods.erm-long.as_long_as: found 'erm-long'"),
        (lambda v: longer(v, "reweight"), "methods.erm-long.as_long_as: no cell of reweight, gru in the grid"),
        (lambda v: longer(v, "dotprod", start="erm"), "methods.erm-long: found both from and as_long_as"),
        (lambda v: v["ensemble"][0].update(condition="noise"), "ensemble.0: no cell of noise, erm, cased"),
        (lambda v: v["corrupt"]["conditions"].update(ensemble={}), "corrupt.conditions.ensemble: the name is taken"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, change, said):
    with pytest.raises(InputError) as error:
        expand(tmp_path, change)
    assert said in str(error.value)


def test_stale_cells_are_noticed(tmp_path):
    expand(tmp_path)
    params = tmp_path / "params.yaml"
    with pytest.raises(InputError, match="gradworks cells"):
        cells.check(params)
    cells.write(params)
    cells.check(params)
    expand(tmp_path, lambda v: v["cells"]["seeds"].append(2))
    with pytest.raises(InputError, match=r"not what .* asks for"):
        cells.check(params)


@pytest.mark.parametrize("params", [Path("params.yaml"), *sorted(Path("pipelines").glob("*/params.yaml"))], ids=str)
def test_committed_cells_are_fresh(params):
    cells.check(params)


def both(values, names=("both",)):
    values["mixtures"] = {name: {"parts": ["nli", "rte"], "schedule": "round_robin"} for name in names}
    for block in blocks(values):
        block["mixture"] = list(names)


def defined(tmp_path, change=None, count=0, **gpu):
    """The stages of dvc.yaml, as DVC resolves them."""
    from gradworks.dvc_compat import resolved

    (tmp_path / "components").mkdir(exist_ok=True)
    expand(tmp_path, change)
    values = yaml.safe_load((tmp_path / "params.yaml").read_text())
    more = {"task": "nli", "threads": 1, "device": "cpu", "train": {}, "gpu": {"kind": "a100", "count": count, **gpu}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values | more))
    cells.write(tmp_path / "params.yaml")
    return resolved(tmp_path / "dvc.yaml", tmp_path)


def test_only_the_stages_that_a_benchmark_has_are_defined(tmp_path):
    groups = {name.partition("@")[0] for name in defined(tmp_path)}
    assert {"measure", "ensemble"} < groups
    made = defined(tmp_path, lambda v: [v.pop("measure"), v.update(ensemble=[])])
    assert {name.partition("@")[0] for name in made} == groups - {"measure", "ensemble"}
    assert not {"runs/measure", "runs/ensemble"} & set(made["report"]["deps"])
    assert "evaluate" not in str(made["evaluate@clean-erm-gru-0"]["params"])  # a section that is not there


def test_a_stage_depends_on_its_mixture_its_schedule_and_tasks_of_ones_own(tmp_path):
    def change(values):
        both(values, ("both", "alone"))
        values["ensemble"][0]["mixture"] = "both"
        values["tasks"] = {"rte": {"kind": "classification"}, "unused": {}}
        values["evaluate"] = {}

    made = defined(tmp_path, change)
    train = made["train@clean-erm-alone-gru-0"]
    assert "--seed 0 --mixture alone --data" in train["cmd"]
    assert "gradworks/schedules/round_robin.py" in train["deps"]
    (keys,) = train["params"][0].values()
    assert {"mixtures.alone", "tasks.rte"} < set(keys) and "tasks.unused" not in keys
    for name in ("fetch@nli", "corrupt@clean-0", "pretrain@gru", "evaluate@clean-erm-both-gru-1", "report"):
        (keys,) = made[name]["params"][0].values()
        assert "tasks.rte" in keys, name
    assert "runs/evaluate/clean/erm/both" in made["ensemble@clean-erm-both-gru+cased"]["deps"]
    assert made["measure@both-gru-erm"]["outs"][0] == "runs/measure/both/gru/erm.json"


@pytest.mark.parametrize("count", [0, 1, 4])
def test_gpus_that_train_together_are_a_parameter_and_other_stages_reserve_one(tmp_path, count):
    made = defined(tmp_path, count=count)
    asked = {name.partition("@")[0]: one["meta"]["resources"]["gpu"]["count"] for name, one in made.items()
             if "resources" in one.get("meta", {})}  # fmt: skip
    assert asked == {"train": count, **dict.fromkeys(("pretrain", "measure", "evaluate"), min(count, 1))}
    for name, stage in made.items():
        keys = {key for one in stage.get("params", []) for key in next(iter(one.values()))}
        together = count > 1 and name.startswith("train@")
        assert ("gpu.count" in keys) == together, name
        # DVC runs a stage again whose command has changed, and not one that has lost a parameter
        assert ("--processes 4" in stage["cmd"]) == together, name


def test_nodes_that_train_together_are_a_parameter_of_training_alone(tmp_path):
    for name, stage in defined(tmp_path, nodes=2).items():
        keys = {key for one in stage.get("params", []) for key in next(iter(one.values()))}
        train = name.startswith("train@")
        assert ("gpu.nodes" in keys) == train, name
        assert ("--nodes 2" in stage["cmd"]) == train == ("nodes" in stage.get("meta", {}).get("resources", {})), name
    assert "gpu.nodes" not in json.dumps(defined(tmp_path))


def test_a_stale_definition_is_noticed(tmp_path):
    expand(tmp_path)
    cells.write(tmp_path / "params.yaml")
    file = tmp_path / "dvc.yaml"
    file.write_text(file.read_text().replace("retries: 2", "retries: 3"))
    with pytest.raises(InputError, match=r"dvc.yaml: not what .* asks for"):
        cells.check(tmp_path / "params.yaml")
