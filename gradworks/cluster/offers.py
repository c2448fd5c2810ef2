"""Which of a profile's kinds of GPU a cluster offers, by the scheduler's rules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from gradworks.cluster.nodes import Affinity, Expression, Toleration
from gradworks.cluster.profile import Profile


def most(kind: str, profile: Profile, nodes: Iterable[Any]) -> int:
    """The most GPUs of a kind on any node that its pods may run on."""
    gpu = profile.gpus[kind]
    selector = {**profile.node_selector, **gpu.node_selector}
    tolerations = [*profile.tolerations, *gpu.tolerations]
    required = [term for term in profile.affinity if term.weight is None]
    return max(
        (
            _count((node.status.allocatable or {}).get(gpu.resource))
            for node in nodes
            if _labelled(node.metadata.labels or {}, selector, required) and _open(node.spec, tolerations)
        ),
        default=0,
    )


def _count(value: Any) -> int:
    """A whole Kubernetes quantity: 8, or 1k."""
    text = str(value or 0)
    return int(text) if text.isdigit() else int(text[:-1]) * 1000 if text[:-1].isdigit() and text[-1] == "k" else 0


def _labelled(labels: Mapping[str, str], selector: Mapping[str, str], required: Iterable[Affinity]) -> bool:
    terms = list(required)  # one of them must hold
    return selector.items() <= labels.items() and (
        not terms or any(all(_holds(one, labels) for one in term.match_expressions) for term in terms)
    )


def _holds(one: Expression, labels: Mapping[str, str]) -> bool:
    value = labels.get(one.key)
    if one.operator in ("In", "NotIn"):
        return (value in one.values) == (one.operator == "In")
    if one.operator in ("Exists", "DoesNotExist"):
        return (value is not None) == (one.operator == "Exists")
    if value is None or not value.isdigit():
        return False
    bound = int(one.values[0])
    return int(value) > bound if one.operator == "Gt" else int(value) < bound


def _open(spec: Any, tolerations: Iterable[Toleration]) -> bool:
    """Whether a node takes new pods with these tolerations."""
    taints = [one for one in spec.taints or [] if one.effect != "PreferNoSchedule"]
    return not spec.unschedulable and all(any(_tolerated(one, by) for by in tolerations) for one in taints)


def _tolerated(taint: Any, by: Toleration) -> bool:
    if by.effect not in (None, taint.effect) or (by.key and by.key != taint.key):
        return False
    return by.operator == "Exists" or (by.value or "") == (taint.value or "")
