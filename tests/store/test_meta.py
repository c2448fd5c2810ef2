"""What a stage may ask of a cluster."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from gradworks.base.errors import InputError
from gradworks.cluster import schemas
from gradworks.store import meta

ROOT = Path(__file__).parents[2]


def test_nothing_asked_and_everything_asked():
    least = meta.read(None, "dvc.yaml: stage s")
    assert (least.kind, least.gpu, least.seconds, least.retries) == ("cpu", None, None, 0)
    gpu = {"kind": "a100", "count": 2}
    asked = {"image": "gpu", "resources": {"cpu": "500m", "memory": "16Gi", "gpu": gpu}, "timeout": "90m", "retries": 3}
    most = meta.read(asked, "dvc.yaml: stage s")
    assert (most.gpu.kind, most.gpu.count, most.seconds, most.resources.cpu) == ("a100", 2, 5400, "500m")
    assert meta.read({"timeout": 60}, "").seconds == 60
    assert meta.read({"resources": {"gpu": {"kind": "a100", "count": 0}}}, "").gpu is None


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"imgae": "cpu"}, "meta.imgae: unknown key\nexpected one of: image, pod, resources, retries, timeout"),
        ({"resources": {"gpu": {"kind": "a", "number": 1}}}, "meta.resources.gpu.number: unknown key\n.*: count, kind"),
        ({"resources": {"gpu": 1}}, "meta.resources.gpu: found 1"),
        ({"resources": {"gpu": {"kind": "a", "count": -1}}}, "meta.resources.gpu.count: found -1"),
        ({"resources": {"memory": "16GB"}}, "memory: found '16GB'\nexpected bytes with a unit, as 16Gi or 800M"),
        ({"resources": {"memory": "16K"}}, "memory: found '16K'\nexpected bytes with a unit, as 16Gi or 800M"),
        ({"resources": {"cpu": 0.0005}}, "cpu: found 0.0005\nexpected cores to a thousandth"),
        ({"resources": {"cpu": float("inf")}}, "cpu: found inf\nexpected a whole number or a finite number or text"),
        ({"timeout": "24856d"}, "timeout: found '24856d'\nexpected at most 2147483647 seconds"),
        ({"resources": {"memory": 16}}, "meta.resources.memory: found 16"),
        ({"resources": {"cpu": 0}}, "cpu: found 0\nexpected cores to a thousandth, as 4, 0.5 or 500m"),
        ({"resources": {"cpu": "0.5x"}}, "cpu: found '0.5x'"),
        ({"timeout": "1 day"}, "timeout: found '1 day'\nexpected seconds, or a number with its unit"),
        ({"image": "tpu"}, "meta.image: found 'tpu'; did you mean gpu.\nexpected one of: cpu, gpu"),
        ({"retries": 100}, "meta.retries: found 100"),
        ({"resources": {"nodes": 0}}, "meta.resources.nodes: found 0"),
        (["gpu"], r"meta: found \['gpu'\]\nexpected keys with values"),
    ],
)
def test_a_wrong_wish_is_refused_with_file_stage_and_key(asked, said):
    with pytest.raises(InputError, match=rf"^dvc.yaml: stage train@x: (.|\n)*{said}"):
        meta.read(asked, "dvc.yaml: stage train@x")


@pytest.mark.parametrize("name", sorted(schemas.schemas()))
def test_the_schema_files_are_fresh(name):
    there = json.loads((schemas.HERE / name).read_text())
    assert there == schemas.schemas()[name], "write them anew: python -m gradworks.cluster.schemas"


def test_the_schema_takes_and_refuses_what_the_model_does():
    import jsonschema

    schema = json.loads((schemas.HERE / "meta.schema.json").read_text())
    good = [{}, {"resources": {"cpu": 0.5, "memory": "1Gi"}}, {"timeout": "2h"}, {"resources": {"cpu": "1.5"}}]
    bad = [{"x": 1}, {"resources": {"cpu": "x"}}, {"resources": {"memory": "1GB"}}, {"timeout": 0}, {"timeout": 1.5}]
    for one in (*good, *bad):
        if one in good:
            meta.read(one, "")
            jsonschema.validate(one, schema)
        else:
            with pytest.raises(InputError):
                meta.read(one, "")
            with pytest.raises(jsonschema.ValidationError):
                jsonschema.validate(one, schema)


def test_every_meta_of_the_tree_is_valid():
    from gradworks.store import stages

    asked = {name for name, stage in yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].items()
             if "meta" in stage.get("do", stage)}  # fmt: skip
    assert "train" in asked
    assert {s.group for s in stages.load(ROOT / "dvc.yaml").values() if s.meta != meta.Meta()} == asked
