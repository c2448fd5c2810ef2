"""What Kubeflow's backend makes of a pipeline before a pod sees it, as a real one (2.17.0) did.

The Argo compiler (backend/src/v2/compiler/argocompiler/container.go) keeps component and container specifications under
a hash of the container, so components with equal containers share what the first of them has. The driver adds an output
artifact to every task where logs are published (PUBLISH_LOGS, on by default); the launcher writes it.
"""

from __future__ import annotations

import copy
import hashlib
import json
from typing import Any

LOGS = "executor-logs"


def seen(spec: dict[str, Any], publish_logs: bool = True) -> dict[str, Any]:
    """A pipeline's first document as its pods see it."""
    made, first = copy.deepcopy(spec), {}
    executors = made["deploymentSpec"]["executors"]
    for name in sorted(made["components"]):
        component = made["components"][name]
        container = executors.get(component.get("executorLabel"), {}).get("container")
        if container is None:  # of a loop or a part: known by its name
            continue
        digest = hashlib.sha256(json.dumps(container, sort_keys=True).encode()).hexdigest()
        made["components"][name] = first.setdefault(digest, component)
    for component in first.values():
        if publish_logs:
            artifacts = component.setdefault("outputDefinitions", {}).setdefault("artifacts", {})
            artifacts[LOGS] = {"artifactType": {"schemaTitle": "system.Artifact", "schemaVersion": "0.0.1"}}
    return made
