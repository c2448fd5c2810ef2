"""A small checkout, and what its pipeline is once Kubeflow's own messages have taken it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "pipelines" / "cluster.example.yaml"
PIPELINE = {
    "stages": {
        "prepare": {"cmd": "p", "deps": ["data/raw", "code.py", "s3://bucket/x"], "outs": ["out/data"]},
        "train": {
            "matrix": {"size": ["small", "big+er"]},
            "cmd": "t ${item.size}",
            "deps": ["out/data", "code.py"],
            "outs": [{"out/model/${key}": {"type": "model"}}, "out/log/${key}"],
            "metrics": ["out/m/${key}.json"],
            "meta": {
                "image": "gpu",
                "resources": {"cpu": "500m", "memory": "8Gi", "gpu": {"kind": "a100", "count": 2}},
                "timeout": "90m",
                "retries": 2,
            },
        },
        "report": {"cmd": "r", "deps": ["out/m"], "outs": ["page.html", "page.md"]},
    }
}


def git(folder: Path, *args: str) -> None:
    subprocess.run(["git", *args], cwd=folder, check=True, capture_output=True)


def checkout(folder: Path, pipeline: dict, *, track: bool = True) -> Path:
    """A checkout with a dvc.yaml, and all that it reads, in git and DVC."""
    for name in (".dvc/config", "code.py", "params.yaml", "images/Dockerfile"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("")
    (folder / "constraints.txt").write_text("torch==2.13.0\n")
    (folder / "dvc.yaml").write_text(yaml.safe_dump(pipeline, sort_keys=False))
    (folder / "data").mkdir()
    (folder / "data.dvc").write_text("outs: [{path: data, md5: 0123.dir}]\n")
    (folder / ".gitignore").write_text("/data\n")
    git(folder, "init", "-q")
    if track:
        git(folder, "add", ".")
    return folder / "dvc.yaml"


def parsed(text: str):
    """Both documents, once they are what the protobufs of Kubeflow say."""
    from google.protobuf import json_format
    from kfp.kubernetes import kubernetes_executor_config_pb2
    from kfp.pipeline_spec import pipeline_spec_pb2

    documents = list(yaml.safe_load_all(text))
    json_format.ParseDict(documents[0], pipeline_spec_pb2.PipelineSpec())
    if len(documents) == 1:
        return documents[0], {}
    assert len(documents) == 2
    json_format.ParseDict(documents[1], pipeline_spec_pb2.PlatformSpec())
    executors = documents[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    for one in executors.values():
        json_format.ParseDict(one, kubernetes_executor_config_pb2.KubernetesExecutorConfig())
    return documents[0], executors


def grown(count: int, name: str = "cell", pod: str = "own") -> dict:
    """Stages in a matrix: half of them start from what the others made, and differ in what they write or ask for.

    Args:
        pod: shared = each goes on in the pod of the one that it starts from.
    """
    long = [f"{name}-{number}" for number in range(count)]
    return {
        "stages": {
            "prepare": {"cmd": "p", "deps": ["code.py"], "outs": ["data.csv"]},
            "train": {"foreach": long, "do": {"cmd": "t", "deps": ["data.csv"], "outs": ["train/${item}"]}},
            "again": {
                "foreach": long,
                "do": {
                    "cmd": "a",
                    "deps": ["train/${item}"],
                    "outs": ["again/${item}"],
                    "metrics": ["m/${item}.json"],
                    "meta": {"pod": pod},
                },
            },
            "end": {"cmd": "e", "deps": ["m", "train"], "outs": ["end.md"]},
        }
    }
