"""What a stage requests from a cluster: its `meta` in dvc.yaml, which DVC ignores.

meta: {resources: {cpu: 4, memory: 16Gi, gpu: {kind: a100, count: 1}}, timeout: 12h, retries: 2, pod: own}

The cluster's names for GPUs, nodes and secrets are in its profile (see profile.py).
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from gradworks.base import Section
from gradworks.store.sections import text, validated

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
# Kubernetes counts thousandths of a core, calls 1000 bytes k, which kfp does not take, and keeps a timeout in 31 bits
_CORES = "cores to a thousandth, as 4, 0.5 or 500m"
Cpu = text(r"[1-9][0-9]{0,8}m?|(?=.*[1-9])(0|[1-9][0-9]{0,8})\.[0-9]{1,3}", _CORES, int | float)
Memory = text(r"[1-9][0-9]{0,17}([KMGTPE]i|[MGTPE])", "bytes with a unit, as 16Gi or 800M")
Duration = text(r"[1-9][0-9]{0,8}[smhd]", "seconds, or a number with its unit, as 90m or 12h", int)
LONGEST = 2**31 - 1  # seconds


class Gpu(Section):
    """GPUs of a stage. kind: a key of the profile's `gpus`; count: 0 requests none, so that a parameter can decide."""

    kind: str = Field(min_length=1)
    count: int = Field(1, ge=0)


class Resources(Section):
    """Resources of a stage's pod; the requests are also its limits.

    cpu: cores (4, 0.5, 500m). memory: bytes with a unit (16Gi). nodes: pods of these resources each that run the stage
    together, as a TrainJob of Kubeflow Trainer; 1 = the stage's own pod alone.
    """

    cpu: Cpu | None = None
    memory: Memory | None = None
    gpu: Gpu | None = None
    nodes: int = Field(1, ge=1)


class Meta(Section):
    """`meta` of a stage.

    image: cpu or gpu; by default gpu if it requests a GPU. timeout: seconds, or a number with s, m, h or d (90m);
    none = unlimited. retries: how often Kubeflow restarts it after a failure or the loss of its node; it resumes.
    pod: own keeps the stage alone; a shared one may hold the stage before this one, or that which waits for it. With
    submit, `gradworks submit` runs the stage before the run starts, so that it knows what is done below it: for seconds
    of work whose result is the same on every machine.
    """

    image: Literal["cpu", "gpu"] | None = None
    resources: Resources = Field(default_factory=Resources)
    timeout: Duration | None = None
    retries: int = Field(0, ge=0, le=20)
    pod: Literal["shared", "own", "submit"] = "shared"

    @field_validator("timeout", mode="after")
    @classmethod
    def _not_too_long(cls, value: Any) -> Any:
        if value is not None and _seconds(value) > LONGEST:
            raise ValueError(f"expected at most {LONGEST} seconds, 68 years")
        return value

    @model_validator(mode="after")
    def _possible(self) -> Meta:
        if self.pod == "submit" and (self.image == "gpu" or self.gpu or self.resources.nodes > 1):
            raise ValueError("found pod: submit, but it asks for a GPU or several nodes; expected pod: shared or own")
        return self

    @property
    def gpu(self) -> Gpu | None:
        """The GPUs requested, or None."""
        gpu = self.resources.gpu
        return gpu if gpu and gpu.count else None

    @property
    def gpus(self) -> dict[str, str | int] | None:
        """The GPUs of all its nodes together, or None."""
        return {"kind": self.gpu.kind, "count": self.gpu.count * self.resources.nodes} if self.gpu else None

    @property
    def kind(self) -> str:
        """Kind of its image: cpu or gpu."""
        return self.image or ("gpu" if self.gpu else "cpu")

    @property
    def seconds(self) -> int | None:
        """`timeout` in seconds."""
        return None if self.timeout is None else _seconds(self.timeout)


def _seconds(value: int | str) -> int:
    return int(value[:-1]) * _UNITS[value[-1]] if isinstance(value, str) else value


def read(value: Any, where: str) -> Meta:
    """A stage's `meta`, validated.

    Args:
        value: from dvc.yaml, interpolated; None if absent.
        where: file and stage, for the error message.

    Raises:
        InputError: a key is unknown or a value impossible.
    """
    return validated({} if value is None else value, Meta, f"{where}: meta")
