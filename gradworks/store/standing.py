"""Pipelines that stay in Kubeflow, uploaded or on a schedule: what a run that Kubeflow itself begins is recorded as.

`submit` writes the record of its run. Nobody does where "Create run" or a schedule begins one, so the record waits in
S3 as gradworks/pipelines/NAME.json and the first pod of such a run writes it under Kubeflow's own id of the run.
"""

from __future__ import annotations

import time
from typing import Any

from gradworks.base.errors import InputError
from gradworks.store.places import Damaged, Places

RUN = "{{$.pipeline_job_uuid}}"  # kfp.dsl.PIPELINE_JOB_ID_PLACEHOLDER; the image of a stage has no kfp


def _key(places: Places, name: str) -> str:
    return places.key("pipelines", f"{name}.json")


def put(places: Places, name: str, record: dict[str, Any]) -> None:
    """Write the record that runs of a standing pipeline begin with. Raises InputError."""
    places.put_mapping(_key(places, name), record)


def get(places: Places, name: str) -> dict[str, Any] | None:
    """The record, or None if there is none. Raises Damaged."""
    return places.mapping(_key(places, name), "the record of a pipeline, a mapping in JSON")


def drop(places: Places, name: str) -> None:
    """Remove the record; `prune` may then remove the code that nothing else uses. Raises InputError."""
    places.delete([_key(places, name)])


def every(places: Places) -> dict[str, dict[str, Any] | None]:
    """All records by name, the latest first; None for a damaged one. Raises InputError."""
    prefix = places.key("pipelines") + "/"
    ends = sorted(places.list(prefix), key=lambda one: one["LastModified"], reverse=True)
    names = [one["Key"].removeprefix(prefix).removesuffix(".json") for one in ends]
    found: dict[str, dict[str, Any] | None] = {}
    for name in names:
        try:
            record = get(places, name)
        except Damaged:
            found[name] = None
            continue
        if record is not None:  # removed meanwhile
            found[name] = record
    return found


def begin(places: Places, name: str, run: str) -> None:
    """Record a run that Kubeflow began, unless another pod of it has.

    Pods that do so at once write the same but for the time of the start.

    Args:
        name: of the standing pipeline; run: Kubeflow's id of the run.

    Raises:
        InputError: Kubeflow put no id in, or the pipeline's record is not in S3.
    """
    if not run or run.startswith("{{"):
        raise InputError(
            f"run: found {run or 'nothing'}\nexpected Kubeflow's id of the run, which its driver puts there"
        )
    if places.record(run) is not None:
        return
    record = get(places, name)
    if record is None:
        raise InputError(
            f"{places.uri(_key(places, name))}: not found\n"
            "expected the record of this pipeline: upload it again (gradworks compile --upload, or submit --every)"
        )
    endpoint = str(record.get("endpoint") or "").rstrip("/")
    own = {"run": run, "run_id": run, "begun": time.time(), "state": "submitted", "standing": name}
    places.put_record(run, "run", record | own | {"url": f"{endpoint}/#/runs/details/{run}" if endpoint else ""})
