"""The TrainJob of a stage that asks for several nodes, but for what its pod adds (pod/trainjob.py).

The request is that of Kubeflow Trainer 2.2 and 2.3 (trainer.kubeflow.org/v1alpha1), with the runtime
`torch-distributed`. It holds the names of secrets, never their values.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from gradworks.base.errors import InputError
from gradworks.cluster.profile import CA_FOLDER, Profile
from gradworks.pod.trainjob import FIELDS, NODE, QUEUE, REQUEST
from gradworks.store.cached import measured
from gradworks.store.meta import Meta, Resources
from gradworks.store.stages import Stage

if TYPE_CHECKING:
    from kfp.dsl import PipelineTask

_RUNTIME = "torch-distributed"
_GPU = "nvidia.com/gpu"  # the default without a profile
_OWN = Resources(cpu=1, memory="2Gi")  # of the pod that follows it and restores the outputs
_SECURE = {  # Pod Security "restricted", which Kubeflow Pipelines adds to its own pods
    "runAsNonRoot": True, "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}  # fmt: skip


def possible(stages: Iterable[Stage], pipeline: str) -> None:
    """Raises InputError where a stage asks for several nodes and its result is of one machine."""
    for stage in stages:
        if stage.meta.resources.nodes > 1 and measured(stage):
            raise InputError(
                f"{pipeline}: stage {stage.name}: meta.resources.nodes: found {stage.meta.resources.nodes}\n"
                "expected 1: it reads hardware.yaml, which is of one node"
            )


def expect_cluster(stages: Iterable[Stage], pipeline: str) -> None:
    """Raises InputError where a stage asks for several nodes: this machine is one."""
    for stage in stages:
        if stage.meta.resources.nodes > 1:
            raise InputError(
                f"{pipeline}: stage {stage.name}: meta.resources.nodes: found {stage.meta.resources.nodes}\n"
                "containers on this machine are one node: gradworks submit --cluster, or --set gpu.nodes=1"
            )


def apply(task: PipelineTask, meta: Meta, image: str, profile: Profile | None) -> Meta:
    """Give the task of a stage of several nodes its TrainJob; returns the `meta` of the task's own pod."""
    if meta.resources.nodes == 1:
        return meta
    from kfp import kubernetes

    task.set_env_variable(REQUEST, json.dumps(request(meta, image, profile), separators=(",", ":")))
    for name, path in FIELDS.items():
        kubernetes.use_field_path_as_env(task, name, path)
    return meta.model_copy(update={"resources": _OWN})


def request(meta: Meta, image: str, profile: Profile | None) -> dict[str, Any]:
    """The TrainJob without names, command and owner."""
    resources = {name: str(value) for name in ("cpu", "memory") if (value := getattr(meta.resources, name)) is not None}
    if meta.gpu:
        resources[profile.gpus[meta.gpu.kind].resource if profile else _GPU] = str(meta.gpu.count)
    trainer: dict[str, Any] = {
        "image": image, "numNodes": meta.resources.nodes, "numProcPerNode": meta.gpu.count if meta.gpu else 1,
        "env": _environment(profile) if profile else [],
    }  # fmt: skip
    if resources:
        trainer["resourcesPerNode"] = {"requests": resources, "limits": resources}
    job = {"name": NODE, "template": {"spec": {"template": {"spec": _pod(meta, profile)}}}}
    patch = {
        "manager": "gradworks.org/submit",
        "trainingRuntimeSpec": {"template": {"spec": {"replicatedJobs": [job]}}},
    }
    spec: dict[str, Any] = {"runtimeRef": {"name": _RUNTIME}, "trainer": trainer, "runtimePatches": [patch]}
    if meta.seconds:
        spec["activeDeadlineSeconds"] = meta.seconds
    labels = {QUEUE: profile.queue} if profile and profile.queue else {}
    made = {"apiVersion": "trainer.kubeflow.org/v1alpha1", "kind": "TrainJob", "spec": spec}
    return {**made, "metadata": {"labels": {"app.kubernetes.io/managed-by": "gradworks", **labels}}}


def _environment(profile: Profile) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [{"name": name, "value": value} for name, value in profile.s3.environment.items()]
    for name, secret in profile.secret_env.items():
        found.append({"name": name, "valueFrom": {"secretKeyRef": {"name": secret.secret, "key": secret.key}}})
    for name, entry in profile.config_map_env.items():
        found.append({"name": name, "valueFrom": {"configMapKeyRef": {"name": entry.config_map, "key": entry.key}}})
    return found


def _pod(meta: Meta, profile: Profile | None) -> dict[str, Any]:
    """What a node's pod has beside the container's own."""
    container: dict[str, Any] = {"name": NODE, "securityContext": _SECURE}
    if profile is None:
        return {"containers": [container]}
    gpu = profile.gpus[meta.gpu.kind] if meta.gpu else None
    mounts, volumes = [], []
    if profile.shm:
        volumes.append({"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": profile.shm}})
        mounts.append({"name": "shm", "mountPath": "/dev/shm"})
    if profile.s3.ca:
        volumes.append({"name": "ca", "configMap": {"name": profile.s3.ca.config_map}})
        mounts.append({"name": "ca", "mountPath": CA_FOLDER})
    found = {
        "serviceAccountName": profile.service_account,
        "nodeSelector": {**profile.node_selector, **(gpu.node_selector if gpu else {})},
        "tolerations": [_plain(one) for one in (*profile.tolerations, *(gpu.tolerations if gpu else []))],
        "affinity": _affinity(profile), "volumes": volumes,
        "imagePullSecrets": [{"name": name} for name in profile.image_pull_secrets],
    }  # fmt: skip
    if mounts:
        container["volumeMounts"] = mounts
    return {**{name: value for name, value in found.items() if value}, "containers": [container]}


def _affinity(profile: Profile) -> dict[str, Any]:
    """As kfp makes it of the same terms: of those without a weight one must hold."""
    terms = [(one.weight, {"matchExpressions": [_plain(e) for e in one.match_expressions]}) for one in profile.affinity]
    must = [term for weight, term in terms if weight is None]
    rather = [{"weight": weight, "preference": term} for weight, term in terms if weight is not None]
    found: dict[str, Any] = {}
    if must:
        found["requiredDuringSchedulingIgnoredDuringExecution"] = {"nodeSelectorTerms": must}
    if rather:
        found["preferredDuringSchedulingIgnoredDuringExecution"] = rather
    return {"nodeAffinity": found} if found else {}


def _plain(section: Any) -> dict[str, Any]:
    return section.model_dump(by_alias=True, exclude_none=True)
