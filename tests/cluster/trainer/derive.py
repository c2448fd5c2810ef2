"""The part of Kubeflow Trainer's CRD that a request needs: `python -m tests.cluster.trainer.derive CRD`.

CRD is manifests/base/crds/trainer.kubeflow.org_trainjobs.yaml of github.com/kubeflow/trainer at v2.3.0 (Apache-2.0).
Descriptions are left out, and what is never sent: initializers, sources of volumes but two.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml

FILE = Path(__file__).with_name("trainjob-v2.3.0.json")
_NEVER = ("initializer", "initContainers")


def shorter(node: Any) -> Any:
    """A schema without descriptions, and without Kubernetes' own rules, which are in its own language."""
    if isinstance(node, list):
        return [shorter(one) for one in node]
    if not isinstance(node, dict):
        return node
    found = {}
    for key, value in node.items():
        if key.startswith("x-kubernetes-") or (key == "description" and isinstance(value, str)):
            continue
        if key == "properties":
            found[key] = {name: shorter(one) for name, one in value.items() if name not in _NEVER}
        else:
            found[key] = shorter(value)
    return found


def main(crd: Path) -> None:
    (version,) = yaml.safe_load(crd.read_text())["spec"]["versions"]
    schema = shorter(version["schema"]["openAPIV3Schema"])
    job = schema["properties"]["spec"]["properties"]["runtimePatches"]["items"]["properties"]["trainingRuntimeSpec"]
    for _ in range(2):
        job = job["properties"]["template" if "template" in job["properties"] else "spec"]
    pod = job["properties"]["replicatedJobs"]["items"]["properties"]["template"]["properties"]["spec"]["properties"]
    volume = pod["template"]["properties"]["spec"]["properties"]["volumes"]["items"]["properties"]
    for name in set(volume) - {"name", "emptyDir", "configMap"}:
        del volume[name]
    about = {"source": "github.com/kubeflow/trainer, v2.3.0, manifests/base/crds/trainer.kubeflow.org_trainjobs.yaml",
             "license": "Apache-2.0", "version": version["name"]}  # fmt: skip
    FILE.write_text(json.dumps({"about": about, "schema": schema}, separators=(",", ":"), sort_keys=True) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
