"""Why stages have not started, from Kubernetes: an unschedulable pod, a missing image, a pod refused by admission."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gradworks.cluster.kube import Kube
from gradworks.store import chains

_LONG = 300  # characters of a reason
_STARTING = ("ContainerCreating", "PodInitializing")


@dataclass(frozen=True)
class Found:
    """The state of a run's pods.

    Attributes:
        reasons: by stage, why its pod does not run; by pod name for one of Kubeflow's own.
        moving: whether a pod runs or starts, so that waiting makes sense.
    """

    reasons: dict[str, str] = field(default_factory=dict)
    moving: bool = False


def look(cluster: Kube, run_id: str, tasks: Mapping[str, list[str]], begun: float) -> Found:
    """Ask Kubernetes about a run.

    Args:
        run_id: Kubeflow's.
        tasks: the stages of each task of the pipeline.
        begun: when the run was submitted (seconds since 1970).

    Raises:
        InputError: it does not answer or refuses this login.
    """
    pods, events = cluster.pods(run_id), cluster.warnings()
    latest = {str(event.involved_object.name): _said(event) for event in events}
    reasons, moving = {}, False
    for pod in pods:  # oldest first, so that the latest attempt wins
        names, why = stages_of(pod), _problem(pod, latest.get(pod.metadata.name, ""))
        moving = moving or (not why and pod.status.phase in ("Pending", "Running"))
        for name in names:
            reasons.pop(name, None)
        if why:  # a pod of Kubeflow's own runs before those of its stages
            names = names or _stages(_node(pod.metadata.annotations), tasks)
            reasons |= dict.fromkeys(names or [f"pod {pod.metadata.name}"], why)
    for name, why in _refused(events, pods, tasks, begun):
        reasons.setdefault(name, why)
    return Found({name: " ".join(why.split())[:_LONG] for name, why in reasons.items()}, moving)


def messages(run: Any) -> dict[str, str]:
    """Kubeflow's messages on failed tasks, by stage: a task's display name has them all."""
    tasks = (run.run_details.task_details if run.run_details else None) or []
    return {
        name: (task.error.message if task.error else "") or ""
        for task in tasks
        if task.state == "FAILED" and task.display_name
        for name in chains.split(task.display_name)
    }


def explained(
    record: Mapping[str, Any], states: Mapping[str, Mapping[str, Any]], reasons: Mapping[str, str]
) -> dict[str, str]:  # fmt: skip
    """Why each stage that waits or is retried does not run.

    Args:
        record: the run's record; states: the record of each stage, upstream first; reasons: from Kubernetes.
    """
    ups, found, blocked = record.get("ups", {}), {}, {}
    for name, state in states.items():
        if state["state"] in ("running", "retrying") and name in reasons:
            found[name] = reasons[name]
        if state["state"] == "failed":
            blocked[name] = name
        if state["state"] != "waiting":
            continue
        before = [one for one in ups.get(name, []) if states.get(one, {}).get("state") not in ("succeeded", "restored")]
        causes = [blocked[one] for one in before if one in blocked]
        if causes:
            blocked[name] = causes[0]
            found[name] = f"{causes[0]} failed, whose outputs it needs"
        elif name in reasons and not any(reasons.get(one) == reasons[name] for one in before):  # of one pod
            found[name] = reasons[name]
        elif before:
            found[name] = f"after {before[0]}" + (f" and {len(before) - 1} more" if len(before) > 1 else "")
        else:
            where = record.get("namespace") or "kubeflow"
            found[name] = "" if "where" in record else f"its pod has not started; see: kubectl get events -n {where}"
    return found


def stages_of(pod: Any) -> list[str]:
    """The stages of a pod, from its executor input; [] of one of Kubeflow's own."""
    for container in pod.spec.containers or []:
        for text in (*(container.command or []), *(container.args or [])):
            if text.startswith("{") and '"stage"' in text:
                try:
                    return chains.split(str(json.loads(text)["inputs"]["parameterValues"]["stage"]))
                except (ValueError, KeyError, TypeError):
                    continue
    return []


def _problem(pod: Any, event: str) -> str:
    """Why a pod does not run, or ""; `event`: its latest warning."""
    status = pod.status
    containers = [*(status.init_container_statuses or []), *(status.container_statuses or [])]
    if status.phase == "Failed":
        ends = [one.state.terminated for one in containers if one.state and one.state.terminated]
        killed = next((one for one in ends if one.reason not in ("Completed", "Error", None)), None)
        parts = [status.reason, status.message, killed and killed.reason, killed and killed.message]
        return ": ".join(str(part) for part in parts if part)
    if status.phase != "Pending":
        return ""
    for one in status.conditions or []:
        if one.type == "PodScheduled" and one.status == "False":
            return f"{one.reason or 'not scheduled'}: {one.message or event}"
    for one in containers:
        waits = one.state and one.state.waiting
        if waits and waits.reason and waits.reason not in _STARTING:
            return f"{waits.reason}: {waits.message or event or one.image}"
    return "" if event.startswith("FailedScheduling") else event  # for example a volume that cannot be mounted


def _said(event: Any) -> str:
    return f"{event.reason}: {event.message}"


def _node(annotations: Mapping[str, str] | None) -> str:
    """The Argo node of a pod or event."""
    return (annotations or {}).get("workflows.argoproj.io/node-name", "")


def _stages(node: str, tasks: Mapping[str, list[str]]) -> list[str]:
    """The stages of an Argo node: WORKFLOW.root.TASK or TASK-driver, and below."""
    for part in re.split(r"[.()]", node)[1:]:
        for name in (part, part.removesuffix("-driver")):
            if name in tasks:
                return list(tasks[name])
    return []


def _refused(
    events: Iterable[Any], pods: Iterable[Any], tasks: Mapping[str, list[str]], begun: float
) -> Iterable[tuple[str, str]]:  # fmt: skip
    """Pods that could not be created, which only workflow events report: (stage, reason)."""
    workflows = {(pod.metadata.labels or {}).get("workflows.argoproj.io/workflow") for pod in pods}
    for event in events:
        about, text = event.involved_object, str(event.message)
        at = event.last_timestamp or event.event_time
        if about.kind != "Workflow" or (workflows and about.name not in workflows):
            continue
        if not workflows and (at is None or at.timestamp() < begun or not str(about.name).startswith("gradworks")):
            continue
        # why Kubernetes refused the pod; a failure of the stage's program is in its record
        said = re.search(r'(pods? "[^"]*" is forbidden: .*|admission webhook .*|.*exceeded quota.*)', text, re.DOTALL)
        if not said:
            continue
        node = _node(event.metadata.annotations) or (re.search(r"node (\S+?):? ", text) or ["", ""])[1]
        for name in _stages(node, tasks) or ["the run"]:
            yield name, f"refused: {said[1]}"
