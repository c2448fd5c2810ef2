"""The confusion matrix of predictions, as Kubeflow draws it."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest
from kfp import dsl

from gradworks.base import artifacts
from gradworks.cluster import compile
from gradworks.pod import outputs
from gradworks.store import stages
from gradworks.store.places import Places
from tests.cluster.small_checkout import checkout, parsed

LABELS = ["a", "a", "b", "c", "c", "c"]
SAID = ["a", "b", "b", "c", "a", "a"]


def predictions(folder: Path, classes: str = "abc", **columns: list) -> Path:
    given = {"label": LABELS, "prediction": SAID, **{f"p_{name}": [0.3] * 6 for name in classes}, **columns}
    folder.mkdir(parents=True, exist_ok=True)
    artifacts.write_parquet(folder / "predictions.parquet", pa.table(given))
    return folder / "predictions.parquet"


def test_it_is_what_kfp_would_log(tmp_path):
    metrics = dsl.ClassificationMetrics(metadata={})
    metrics.log_confusion_matrix(["a", "b", "c"], [[1, 1, 0], [0, 1, 0], [2, 0, 1]])
    assert outputs.confusion(predictions(tmp_path)) == metrics.metadata


@pytest.mark.parametrize(
    ("classes", "columns"),
    [
        ("", {}),
        ("a", {}),
        ("abcdefghijklmnopqrstu", {}),
        ("abc", {"label": ["z"] * 6}),
        ("abc", {"prediction": [1.5] * 6}),
    ],
)
def test_what_is_no_classification_of_few_classes_has_none(tmp_path, classes, columns):
    assert outputs.confusion(predictions(tmp_path, classes, **columns)) == {}


def test_a_task_declares_it_and_its_pod_reports_it(tmp_path, monkeypatch):
    asked = {
        "train": {"cmd": "c", "deps": ["code.py"], "outs": [{"m": {"type": "model"}}]},
        "evaluate": {"cmd": "c", "deps": ["m"], "outs": ["log", {"p": {"type": "predictions"}}], "metrics": ["m.json"]},
    }
    pipeline = checkout(tmp_path, {"stages": asked})
    spec, _ = parsed(compile.text(pipeline))
    made = spec["components"]["comp-train-evaluate"]["outputDefinitions"]["artifacts"]
    assert made["confusion_2_of_evaluate"]["artifactType"]["schemaTitle"] == "system.ClassificationMetrics"
    assert made["dataset_2_of_evaluate"]["artifactType"]["schemaTitle"] == "system.Dataset"
    monkeypatch.chdir(tmp_path)
    predictions(tmp_path / "p")
    stage, at = stages.load(pipeline)["evaluate"], tmp_path / "told"
    given = {"outputs": {"outputFile": str(at / "executor.json"), "artifacts": {
        "confusion_2": {"artifacts": [{"name": "confusion_2", "uri": str(at / "confusion_2")}]}}}}  # fmt: skip
    outputs.write(given, stage, Places("s3://bucket/x"), {"outs": []}, {})
    (told,) = json.loads((at / "executor.json").read_text())["artifacts"]["confusion_2"]["artifacts"]
    assert told["metadata"]["confusionMatrix"]["rows"][2] == {"row": [2, 0, 1]}
    assert json.loads((at / "confusion_2").read_text()) == told["metadata"]
