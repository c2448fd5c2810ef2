"""What tests that start containers share: the engine, and the image of this checkout's environment."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest

from gradworks.pod.environment import digest

ROOT = Path(__file__).parent.parent


@functools.cache
def _engine() -> tuple[Any, str]:
    import docker
    from docker.errors import DockerException

    try:
        client = docker.from_env(timeout=600)
        client.ping()
    except DockerException as error:
        return None, " ".join(str(error).split())
    return client, ""


def engine() -> Any:
    """A docker.DockerClient; without an engine the test is skipped with the reason."""
    client, reason = _engine()
    if client is None:
        pytest.skip(f"no Docker engine: {reason}")
    return client


def image(kind: str = "cpu") -> str:
    """The tag of the environment image of this checkout; where it is not built, the test is skipped.

    Args:
        kind: "cpu" or "gpu".
    """
    from docker.errors import ImageNotFound

    tag = f"gradworks-{kind}:{digest(ROOT, kind)}"
    try:
        engine().images.get(tag)
    except ImageNotFound:
        pytest.skip(f"no image {tag}: `make images KIND={kind}` builds it")
    return tag
