"""Which nodes a pod may run on. Validated by Kubernetes' rules, so that errors show before any pod is created.

The rules are those of k8s.io/apimachinery/pkg/util/validation and k8s.io/kubernetes/pkg/apis/core/validation.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, model_validator

from gradworks.store.sections import CamelSection, text

LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"  # of a DNS name
SUBDOMAIN = rf"(?=.{{1,253}}$){LABEL}(\.{LABEL})*"
_PART = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
QUALIFIED = rf"((?=[^/]{{1,253}}/){LABEL}(\.{LABEL})*/)?{_PART}"
_INT64 = 2**63 - 1

_LIKE = "at most 63 letters, digits, - _ . with a letter or digit at both ends"
LabelKey = text(QUALIFIED, f"the key of a label: {_LIKE}, or PREFIX/ and that")
LabelValue = text(rf"({_PART})?", f"the value of a label: {_LIKE}")
_TaintKey = text(rf"({QUALIFIED})?", f"the key of a taint: {_LIKE}, or PREFIX/ and that")


class Toleration(CamelSection):
    """A taint that pods may run on, as in a pod's `tolerations`."""

    key: _TaintKey | None = None
    operator: Literal["Equal", "Exists"] = "Equal"
    value: LabelValue | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    toleration_seconds: Annotated[int, Field(ge=-_INT64, le=_INT64)] | None = None

    @model_validator(mode="after")
    def _possible(self) -> Toleration:
        if not self.key and self.operator == "Equal":
            raise ValueError("expected a key beside operator Equal (which is the default), or operator: Exists")
        if self.value and self.operator == "Exists":
            raise ValueError(f"found operator Exists with value {self.value!r}, expected no value, or operator: Equal")
        if self.toleration_seconds is not None and self.effect != "NoExecute":
            raise ValueError(f"found tolerationSeconds with effect {self.effect}, expected effect: NoExecute beside it")
        return self


class Expression(CamelSection):
    """A condition on a node's labels, as in `matchExpressions`."""

    key: LabelKey
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"]
    values: list[LabelValue] = Field(default_factory=list)

    @model_validator(mode="after")
    def _possible(self) -> Expression:
        found = f"found operator {self.operator} with values {self.values}, expected"
        if self.operator in ("In", "NotIn") and not self.values:
            raise ValueError(f"{found} one or more")
        if self.operator in ("Exists", "DoesNotExist") and self.values:
            raise ValueError(f"{found} none")
        if self.operator in ("Gt", "Lt") and not (len(self.values) == 1 and _whole(self.values[0])):
            raise ValueError(f"{found} one whole number, quoted")
        return self


def _whole(value: str) -> bool:
    return re.fullmatch(r"[0-9]+", value) is not None and int(value) <= _INT64


class Affinity(CamelSection):
    """Nodes that pods must run on (no weight; one such term must hold) or would rather run on (weight 1 to 100)."""

    match_expressions: list[Expression] = Field(min_length=1)
    weight: int | None = Field(None, ge=1, le=100)
