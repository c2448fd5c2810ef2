"""Two nodes of a TrainJob train one cell: real pods' programs, a real S3 server, torchrun by Trainer's variables."""

from __future__ import annotations

import configparser
import json
import shutil

import pytest
import yaml

from gradworks.cluster import history
from gradworks.cluster import trainjob as compiled
from gradworks.cluster.profile import Profile
from gradworks.pod import environment, trainjob
from gradworks.store import meta
from tests import small
from tests.cluster import toy
from tests.cluster.trainer.server import Trainer
from tests.components.test_train_ranks import FILES, contents, values

pytestmark = pytest.mark.slow("runs pods against an S3 server")

TRAIN = (
    "python -m components.train --params params.yaml --method dotprod-2 --seed 0 --nodes 2"
    " --data data/0 --start start/gru --out run --model model"
)
DVC_YAML = {
    "train": {
        "cmd": TRAIN, "deps": ["components/train.py", "data/0", "start/gru"], "params": ["train"],
        "outs": ["run", {"model": {"type": "model"}}], "meta": {"resources": {"nodes": 2}},
    },
    "fail": {
        # the second node has its own trouble; the first would wait for it
        "cmd": 'test "$PET_NODE_RANK" = 0 && exec sleep 60; echo "error: node $PET_NODE_RANK has no disk" >&2; exit 2',
        "deps": ["work.py"], "outs": ["never"], "meta": {"resources": {"nodes": 2}},
    },
}  # fmt: skip


def parameters():
    """Of one task, whose batches make two micro-batches."""
    made = values()
    del made["corrupt"]["parts"], made["mixtures"], made["fetch"]["mine"], made["fetch"]["valued"]
    return made


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nodes")
    with toy.served(folder) as (clients, patch), Trainer(folder / "cluster") as cluster:
        root = toy.checkout(folder / "checkout")
        shutil.copytree(toy.ROOT / "components", root / "components", ignore=shutil.ignore_patterns("__pycache__"))
        (root / "params.yaml").write_text(yaml.safe_dump(parameters()))
        (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": DVC_YAML}))
        patch.chdir(root)
        small.run("fetch", "--source", "synthetic", "--out", "fetched/synthetic")
        small.run("corrupt", "--condition", "noise", "--seed", 0, "--data", "fetched", "--out", "data/0")
        small.run("pretrain", "--encoder", "gru", "--data", "fetched", "--out", "start/gru")
        shutil.rmtree(root / "fetched")
        toy.git(root, "add", "--all")
        toy.git(root, "commit", "-q", "-m", "cell")
        keys = configparser.ConfigParser()
        keys.read(clients["AWS_SHARED_CREDENTIALS_FILE"])
        cluster.secrets = {("s3", name.upper()): value for name, value in keys["default"].items()}
        # a node has what the TrainJob says, of the store too
        cluster.runs = {name: value for name, value in clients.items() if not name.startswith("AWS_")}
        profile = Profile.model_validate({
            "images": {"cpu": "r.example/cpu"}, "s3": {"endpoint": clients["AWS_ENDPOINT_URL"], "region": "us-east-1"},
            "secretEnv": {name: {"secret": "s3", "key": name} for _, name in cluster.secrets},
        })  # fmt: skip
        cluster.runs["GRADWORKS_IMAGE"] = environment.digest(root, "cpu")
        request = compiled.request(meta.read({"resources": {"nodes": 2}}, ""), "r.example/cpu:1", profile)
        given = {**clients, **cluster.environment, trainjob.REQUEST: json.dumps(request)}
        yield toy.Runs(root, folder, given), cluster


def test_two_nodes_are_one_process_with_two_micro_batches_byte_for_byte(world):
    runs, cluster = world
    ended, said = runs.pod("first", "train")
    printed = "\n".join(cluster.printed)
    assert ended == 0, said + printed
    assert cluster.jobs == {} and cluster.wrong == []
    assert runs.record("first", "train")["ran"] is True
    nodes = [runs.places.record("first", f"nodes/train/{rank}") for rank in (0, 1)]
    assert [one["state"] for one in nodes] == ["succeeded"] * 2
    assert "objects_written" in nodes[0] and "objects_written" not in nodes[1]  # the first alone pushes
    wrote = [(folder / "run").exists() for folder in sorted((runs.folder / "cluster").glob("gw-train-*/*/code"))]
    assert wrote == [True, False]  # and were they two worlds of one process, both would
    restored = runs.folder / "first/train/code"
    small.run("train", *TRAIN.split()[3:-4], "--out", "alone/run", "--model", "alone/model")
    alone = contents("alone")
    assert {f"run/{name}" for name in FILES} | {"model/model.safetensors"} <= alone.keys()
    assert [name for name, body in alone.items() if (restored / name).read_bytes() != body] == []
    assert json.loads(alone["run/status.json"])["steps"] >= 3
    last = cluster.progress[-1]
    assert last["progressPercentage"] == 100 and last["estimatedRemainingSeconds"] == 0
    assert [one["name"] for one in last["metrics"]] == ["loss", "learning_rate"]
    # another run restores it, and makes no TrainJob
    before = cluster.asked.count("POST trainjobs")
    ended, said = runs.pod("second", "train")
    assert ended == 0 and runs.record("second", "train")["ran"] is False, said
    assert cluster.asked.count("POST trainjobs") == before == 1


def test_a_node_that_fails_ends_the_stage_with_its_own_words(world):
    runs, cluster = world
    ended, said = runs.pod("broken", "fail")
    assert ended == 2 and "error: fail: node 1 has no disk" in said, said
    assert cluster.jobs == {} and runs.record("broken", "fail")["error"] == "fail: node 1 has no disk"
    assert runs.places.entry("broken", "fail") is None
    said = history.log(runs.places, "broken", "fail")
    assert said.index("TrainJob gw-fail-") < said.index("--- node 1 ---\n") < said.rindex("error: node 1 has no disk")
