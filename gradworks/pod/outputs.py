"""What a pod reports to Kubeflow: executor_output.json and the artifacts in its UI.

The URI of an artifact is never changed: Kubeflow's launcher fails a task whose artifact lies outside the pipeline
root. HTML, Markdown and Metrics are written there in full. A Dataset and a Model stay in the DVC remote; a small
pointer file is written instead. Predictions have their confusion matrix beside them, which Kubeflow draws.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

from gradworks.base import artifacts
from gradworks.store.artifacts.words import figures
from gradworks.store.places import Places
from gradworks.store.stages import Out, Stage

_SCHEMES = ("s3", "gs", "minio")  # Kubeflow mounts SCHEME://BUCKET/KEY as /SCHEME/BUCKET/KEY (gs as /gcs)
_CLASSES = 20  # of a confusion matrix that is drawn
_FIGURES = 800  # characters of the metrics shown in the run's view; a reader's pod gets them as an argument, too


def write(
    given: dict[str, Any], stage: Stage, places: Places, entry: dict[str, Any], lock: dict[str, str]
) -> None:  # fmt: skip
    """Write every artifact, the parameter `lock` and executor_output.json, in this order.

    Args:
        given: the executor input.
        entry: the stage's entry of dvc.lock; lock: URI and digest of its object in S3.
    """
    asked, outs = given["outputs"], {out.name: out for out in stage.outs}
    predicted = {out.confusion: out for out in stage.outs if out.confusion}
    hashes = {one["path"]: one for one in entry.get("outs", [])}
    told = {}
    for name, listed in asked.get("artifacts", {}).items():
        if name not in {**outs, **predicted}:  # Kubeflow's own, as executor-logs where it publishes logs
            continue
        artifact = listed["artifacts"][0]
        path = local_path(artifact["uri"])
        if name in predicted:
            file = Path(predicted[name].path, "predictions.parquet")
            metadata = confusion(file) if file.is_file() else {}
            _text(path, json.dumps(metadata))
        else:
            metadata = _artifact(outs[name], path, places, stage, hashes)
        told[name] = {"artifacts": [{**artifact, "metadata": {**artifact.get("metadata", {}), **metadata}}]}
    for name, parameter in asked.get("parameters", {}).items():
        if name == "lock":
            _text(Path(parameter["outputFile"]), json.dumps(lock, sort_keys=True))
    _text(Path(asked["outputFile"]), json.dumps({"artifacts": told}))


def local_path(uri: str) -> Path:
    """The local path of an artifact: the mount of its URI."""
    scheme, found, rest = uri.partition("://")
    if not found:
        return Path(uri)
    return Path("/gcs" if scheme == "gs" else f"/{scheme}", rest)


def _artifact(out: Out, path: Path, places: Places, stage: Stage, hashes: dict[str, Any]) -> dict[str, Any]:
    """Write one artifact; returns its metadata."""
    path.parent.mkdir(parents=True, exist_ok=True)
    source = Path(out.path)
    if out.kind in ("HTML", "Markdown"):
        shutil.copyfile(source, path)
        return {}
    if out.kind == "Metrics":
        shutil.copyfile(source, path)
        return _first(figures(json.loads(source.read_text())))
    found = next(one for one in hashes.values() if _same(one["path"], out.path))
    pointer = {"stage": stage.name, "path": out.path, "md5": found["md5"], "bytes": found.get("size", 0),
               "files": found.get("nfiles", 1), "data": places.uri(places.data_key(found["md5"]))}  # fmt: skip
    _text(path, json.dumps(pointer, indent=1, sort_keys=True))
    return pointer


def confusion(file: Path) -> dict[str, Any]:
    """The confusion matrix of predictions, as Kubeflow's ClassificationMetrics have it: a row a true class.

    Args:
        file: with the columns `label` and `prediction`, and one `p_CLASS` of each class.

    Returns:
        {"confusionMatrix": ...}; {} of what is no classification, and of more than `_CLASSES` classes.

    Raises:
        InputError: no such file, or it cannot be read.
    """
    table = artifacts.read_parquet(file)
    classes = [name.removeprefix("p_") for name in table.column_names if name.startswith("p_")]
    if not {"label", "prediction"} <= set(table.column_names) or not 2 <= len(classes) <= _CLASSES:
        return {}
    pairs = table.select(["label", "prediction"]).to_pydict()
    counted = Counter(zip(pairs["label"], pairs["prediction"], strict=True))
    if not {name for pair in counted for name in pair} <= set(classes):
        return {}
    rows = [{"row": [counted[true, said] for said in classes]} for true in classes]
    return {"confusionMatrix": {"annotationSpecs": [{"displayName": one} for one in classes], "rows": rows}}


def _first(found: dict[str, Any]) -> dict[str, Any]:
    """As many figures as fit, those over all test examples first."""
    made: dict[str, Any] = {}
    left = _FIGURES
    for name in sorted(found, key=lambda name: (not name.startswith("overall."), name.count("."))):
        left -= len(json.dumps({name: found[name]}))
        if left < 0:
            break
        made[name] = found[name]
    return made


def _same(locked: str, path: str) -> bool:
    """A path of dvc.lock is relative to the stage's wdir."""
    return locked == path or path.endswith(f"/{locked.removeprefix('./')}")


def _text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
