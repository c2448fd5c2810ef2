"""Several nodes run one stage: what the stage's own pod does, and what differs on a node."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gradworks.base.errors import InputError
from gradworks.dvc_compat import Project
from gradworks.pod import objects, trainjob
from gradworks.pod.kubernetes import Api
from gradworks.store import cached
from gradworks.store.places import Places, encoded
from gradworks.store.stages import Stage


def rank(values: Mapping[str, Any]) -> int | None:
    """Which node this pod is of a TrainJob, by the parameters that it was given; None for a stage's own pod."""
    if not values.get(trainjob.NODE):
        return None
    found = os.environ.get("PET_NODE_RANK", "")
    if not found.isdigit():
        sys.exit(f"error: {values['stage']}: found no PET_NODE_RANK: is the runtime of the TrainJob one of torch?")
    return int(found)


def together(
    project: Project, places: Places, pipeline: Path, stage: Stage, values: Mapping[str, Any],
    stopped: Callable[[], bool],
) -> float | None:  # fmt: skip
    """Run a stage as a TrainJob to its end, so that it can be restored here.

    Args:
        values: the parameters of this pod, the stage's own.
        stopped: whether it was asked to stop; the TrainJob is removed then.

    Returns:
        Seconds of the node that took the longest; None where none ran, as the run cache had it.

    Raises:
        InputError: the TrainJob was refused or a node failed; says so in a line.
    """
    key = project.run_cache_key(pipeline, stage.name)
    if key is not None and cached.there(places, key):
        return None
    request = trainjob.request(dict(values), stage.name, stage.meta.resources.nodes)
    records = places.key("runs", str(values["run"]), "nodes", encoded(stage.name)) + "/"
    places.delete([one["Key"] for one in places.list(records)])  # of an earlier try
    trainjob.Job(Api.here(), request, lambda: _failed(places, records), stopped).run()
    if stopped():
        return 0.0
    objects.fetch_run_cache(project, places, pipeline, stage)
    if key is None or not cached.there(places, key):
        raise InputError(f"{stage.name}: its TrainJob is complete, and S3 has no outputs of it\nrun it again")
    return max((one.get("seconds", {}).get("total", 0.0) for one in _read(places, records)), default=0.0)


def _read(places: Places, records: str) -> list[dict[str, Any]]:
    return [json.loads(places.get(one["Key"]) or b"{}") for one in places.list(records)]


def _failed(places: Places, records: str) -> str:
    """What the first node that failed said; "" where none has. One that was asked to stop has not failed."""
    try:
        found = _read(places, records)
    except InputError:  # the store does not answer now: the nodes go on, and so does this pod
        return ""
    said = [(one.get("ended", 0), one["error"]) for one in found if "error" in one and not one.get("stopped")]
    return str(min(said)[1]) if said else ""


def command(stage: Stage) -> int:
    """Run a stage's command where DVC would miss the outputs, which the first node alone writes: its exit code."""
    return subprocess.run(["/bin/sh", "-ec", stage.cmd], cwd=stage.wdir, check=False).returncode
