"""Few shots through the stages train and evaluate: what a cell hands from training to evaluation."""

from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest
import torch
import yaml

from gradworks import models
from gradworks.base import artifacts
from gradworks.models import conv4
from gradworks.report import read
from tests.small import PROGRAMS, SMALL, run
from tests.tasks.test_episodes import SHAPE, kind, table

INNER = {"optimizer": "adam", "learning_rate": 0.01, "steps": 2, "batch": 3}
FEW = {
    "kind": "episodes", "texts": ["image"], "metrics": ["accuracy", "transductive_accuracy"], "shape": [*SHAPE],
    "ways": 3, "train_shots": 4, "select": 4, "test": 5, "inner": INNER,
}  # fmt: skip
ADAM = {"batches": 2, "inner_lr": 0.01, "inner_optimizer": "adam", "tasks": "same", "groups": 2}


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "components").symlink_to(PROGRAMS)
    values = {key: value for key, value in SMALL.items() if key not in ("evaluate", "measure", "ensemble")}
    train = {"epochs": 1, "batch": 6, "learning_rate": 0.1, "optimizer": "SGD", "warmup": 0.0, "weight_decay": 0.0}
    values |= {"task": "few", "tasks": {"few": FEW}, "train": {**train, "select": {"every": 0.5}}}
    reset = {"update": {"reptile": {**ADAM, "inner_state": "reset"}}}
    values["methods"] = {"reptile": {"update": {"reptile": ADAM}}, "reset": reset, "erm": {}}
    Path("params.yaml").write_text(yaml.safe_dump(values))
    made = kind(**{key: FEW[key] for key in ("select", "test")})
    whole = table(made)
    with artifacts.atomic_folder(Path("data")) as folder:
        for split in ("train", "selection", "test"):
            artifacts.write_parquet(folder / f"{split}.parquet", made.arrange(split, whole, 0, "f"))
        changes = {name: pa.array([], pa.string()) for name in ("id", "kind", "old_label", "new_label")}
        artifacts.write_parquet(folder / "corruptions.parquet", pa.table(changes))
        artifacts.write_manifest(folder, "corrupt", {})
    options = conv4.Options(model="conv4", channels=4, blocks=2, statistics="batch")
    with artifacts.atomic_folder(Path("start")) as folder:
        conv4.prepare(options, folder, SHAPE)
        artifacts.write_manifest(folder, "pretrain", {})


def train(method):
    where = ("--data", "data", "--start", "start", "--out", f"train/{method}", "--model", f"m/{method}")
    run("train", "--method", method, "--seed", "0", *where)
    return models.load(Path(f"m/{method}"))


def test_the_moments_of_the_inner_optimizer_are_in_the_model_where_evaluation_goes_on_with_them(project):
    model = train("reptile")
    best = artifacts.read_json(Path("train/reptile/status.json"))["best"]["step"]
    assert int(model.moments.count) == 4 * best  # two groups of two inner steps
    assert all(torch.isfinite(v).all() and (v >= 0).all() for v in model.moments.buffers())
    assert bool(model.moments.second_0.any())
    for method in ("reset", "erm"):
        assert not hasattr(train(method), "moments")
    where = ("--run", "train/reptile", "--model", "m/reptile", "--data", "data")
    run("evaluate", *where, "--out", "e", "--metrics", "m.json")
    found = artifacts.read_json(Path("m.json"))["overall"]
    assert {name: score["n"] for name, score in found.items()} == {"accuracy": 5, "transductive_accuracy": 5}
    columns = artifacts.read_parquet(Path("e/predictions.parquet")).column_names
    assert columns == ["id", "label", "right", "right_transductive"]


def test_learning_curves_of_episodes_count_meta_steps(project):
    train("reptile")
    steps = artifacts.read_json(Path("train/reptile/status.json"))["steps"]
    inputs = SimpleNamespace(task=kind(), runs=Path(), cells={"one": {"path": "reptile"}})
    found = read.history(inputs, "one")
    assert list(found) == ["step", "score"] and found["step"] == [steps // 2 + steps % 2, steps]
