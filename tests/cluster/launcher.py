"""The rules by which Kubeflow's launcher (backend/src/v2/component/launcher_v2.go) judges what a task wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.cluster import backend

MAX_PARAMETER = 10_000  # characters


def violations(given: dict[str, Any], pipeline_root: str) -> list[str]:
    """What a launcher would refuse.

    Args:
        given: the executor input of the task, which has ended.
        pipeline_root: URI or folder that every artifact has to lie under.
    """
    outputs, found = given["outputs"], []
    file = Path(outputs["outputFile"])
    told = json.loads(file.read_text()) if file.exists() else {}
    asked = outputs.get("artifacts", {})
    for name, listed in told.get("artifacts", {}).items():
        if name == backend.LOGS:
            found.append(f"{name}: written by the launcher, not by the program")
        elif name not in asked:
            found.append(f"{name}: an artifact that the component does not have")
        if name == backend.LOGS or name not in asked:
            continue
        for artifact, wanted in zip(listed["artifacts"], asked[name]["artifacts"], strict=True):
            if not artifact["uri"].startswith(pipeline_root.rstrip("/") + "/"):
                found.append(f"{name}: {artifact['uri']} lies outside the pipeline root")
            elif artifact["uri"] != wanted["uri"]:
                found.append(f"{name}: its URI was changed to {artifact['uri']}")
    for name, listed in asked.items():
        if name == backend.LOGS:
            continue
        for artifact in listed["artifacts"]:
            if not mount(artifact["uri"]).exists():
                found.append(f"{name}: nothing was written to {mount(artifact['uri'])}")
    parameters = {name: Path(one["outputFile"]) for name, one in outputs.get("parameters", {}).items()}
    values = {name: path.read_text() for name, path in parameters.items() if path.exists()}
    for name, value in told.get("parameterValues", {}).items():
        values[name] = value if isinstance(value, str) else json.dumps(value)
    for name in parameters.keys() - values.keys():
        found.append(f"{name}: a parameter that was not written")
    for name, value in values.items():
        if name not in parameters:
            found.append(f"{name}: a parameter that the component does not have")
        if len(value) > MAX_PARAMETER:
            found.append(f"{name}: {len(value)} characters")
    return found


def mount(uri: str) -> Path:
    scheme, found, rest = uri.partition("://")
    return Path({"gs": "/gcs"}.get(scheme, f"/{scheme}"), rest) if found else Path(uri)
