"""Configure a Kubeflow task from a stage's `meta` and the cluster profile: resources, nodes, secrets, object store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gradworks.cluster.nodes import Toleration
from gradworks.cluster.profile import CA_FOLDER, Profile
from gradworks.store.meta import LONGEST, Meta

if TYPE_CHECKING:
    from kfp.dsl import PipelineTask

_GPU = "nvidia.com/gpu"  # the default without a profile


def image(kind: str, tag: str, profile: Profile | None) -> str:
    """The image of a kind (cpu, gpu); `tag` is used where the profile gives none."""
    if profile is None:
        return f"gradworks-{kind}:{tag}"
    given = str(getattr(profile.images, kind))
    own = "@" in given or ":" in given.rpartition("/")[2]
    return given if own else f"{given}:{tag}"


def apply(task: PipelineTask, meta: Meta, profile: Profile | None, timeouts: Sequence[int | None]) -> None:
    """Configure a task, except for its name. `timeouts`: of its stages in seconds; `meta`: of one, as the rest is."""
    from kfp import kubernetes

    task.set_caching_options(False)  # DVC's run cache is the cache
    kubernetes.set_security_context(task, run_as_non_root=True)  # required by Pod Security "restricted"
    resources = meta.resources
    if resources.cpu is not None:
        task.set_cpu_request(str(resources.cpu)).set_cpu_limit(str(resources.cpu))
    if resources.memory is not None:
        task.set_memory_request(resources.memory).set_memory_limit(resources.memory)
    if meta.gpu:
        resource = profile.gpus[meta.gpu.kind].resource if profile else _GPU
        task.set_accelerator_type(resource).set_accelerator_limit(meta.gpu.count)
    if meta.retries:
        task.set_retry(meta.retries, backoff_duration="30s", backoff_factor=2, backoff_max_duration="600s")
    if all(timeouts):
        kubernetes.set_timeout(task, min(sum(filter(None, timeouts)), LONGEST))
    if profile:
        _nodes(task, meta, profile)
        _environment(task, profile)


def _nodes(task: PipelineTask, meta: Meta, profile: Profile) -> None:
    from kfp import kubernetes

    gpu = profile.gpus[meta.gpu.kind] if meta.gpu else None
    for key, value in {**profile.node_selector, **(gpu.node_selector if gpu else {})}.items():
        kubernetes.add_node_selector(task, key, value)
    tolerations: list[Toleration] = [*profile.tolerations, *(gpu.tolerations if gpu else [])]
    for one in tolerations:
        kubernetes.add_toleration(task, **one.model_dump())
    for term in profile.affinity:
        expressions = [one.model_dump() for one in term.match_expressions]
        kubernetes.add_node_affinity(task, match_expressions=expressions, weight=term.weight)
    if profile.queue:
        kubernetes.add_pod_label(task, "kueue.x-k8s.io/queue-name", profile.queue)
    if profile.image_pull_secrets:
        kubernetes.set_image_pull_secrets(task, list(profile.image_pull_secrets))
    if profile.shm:  # data loader processes pass batches through it; the default of 64 MB is too small
        kubernetes.empty_dir_mount(task, "shm", "/dev/shm", medium="Memory", size_limit=profile.shm)


def _environment(task: PipelineTask, profile: Profile) -> None:
    from kfp import kubernetes

    for name, value in profile.s3.environment.items():
        task.set_env_variable(name, value)
    for name, secret in profile.secret_env.items():
        kubernetes.use_secret_as_env(task, secret.secret, {secret.key: name})
    for name, entry in profile.config_map_env.items():
        kubernetes.use_config_map_as_env(task, entry.config_map, {entry.key: name})
    if profile.s3.ca:
        kubernetes.use_config_map_as_volume(task, profile.s3.ca.config_map, CA_FOLDER)
