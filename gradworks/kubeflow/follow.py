"""Follow a run that was submitted: a line for each stage that begins or ends, with rate and time left.

What the pods write about their stages in S3 says more than the API does, so the API is asked for the run's state, and
for tasks that failed before their pod's program began.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any
from urllib.parse import unquote

from gradworks.kubeflow.answers import ApiError
from gradworks.kubeflow.places import Places, encoded
from gradworks.stage.errors import InputError

_LOOK = 5.0  # seconds between two looks
_PATIENCE = 600.0  # seconds that the API or S3 may be away
_ENDED = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")


def follow(client: Any, run_id: str, places: Places, run: str, stages: Sequence[str]) -> None:
    """Print how a run fares until it ends.

    Args:
        client: of the cluster.
        run_id: Kubeflow's.
        places: where the pods write to.
        run: the run's name.
        stages: of the run.

    Raises:
        InputError: the run failed or was cancelled; names the stages. Or nothing answers any more.
    """
    seen, away = Seen(places, run, stages), 0.0
    while True:
        try:
            found = client.get_run(run_id)
            seen.look()  # after the API: what pods of a run that has ended wrote is all there
        except InputError as error:
            if isinstance(error, ApiError) and not error.passing:
                raise
            away = away or time.monotonic()
            if time.monotonic() - away > _PATIENCE:
                raise
            print(f"{str(error).splitlines()[0]}; asking again", flush=True)
        else:
            away = 0.0
            if found.state in _ENDED:
                break
        time.sleep(_LOOK)
    _ended(found, seen)


class Seen:
    """What was told of each stage so far."""

    def __init__(self, places: Places, run: str, stages: Sequence[str]) -> None:
        self._places, self.run, self._stages = places, run, stages
        self._prefix = places.key("runs", run, "stages") + "/"
        self._tags: dict[str, str] = {}
        self.records: dict[str, dict[str, Any]] = {}
        self._begun = time.monotonic()

    def look(self) -> None:
        """Print a line for each stage whose record is new. Raises InputError."""
        for one in sorted(self._places.list(self._prefix), key=lambda one: one["LastModified"]):
            if self._tags.get(one["Key"]) == one["ETag"]:
                continue
            name = unquote(one["Key"].removeprefix(self._prefix).removesuffix(".json"))
            record = self._places.record(self.run, f"stages/{encoded(name)}")
            self._tags[one["Key"]] = one["ETag"]
            if record:
                self.records[name] = record
                print(f"{name}: {_told(record)}   [{self._progress()}]", flush=True)

    def _progress(self) -> str:
        done = sum(record["state"] == "succeeded" for record in self.records.values())
        left, seconds = len(self._stages) - done, time.monotonic() - self._begun
        said = f"{done} of {len(self._stages)}"
        if not done or not left or not seconds:
            return said
        return (
            f"{said}, {60 * done / seconds:.3g} a minute, about {timedelta(seconds=round(left * seconds / done))} left"
        )


def _told(record: Mapping[str, Any]) -> str:
    tries = f" (try {record['attempt']})" if record.get("attempt", 1) > 1 else ""
    seconds = record.get("seconds", {}).get("total")
    if record["state"] == "succeeded":
        return f"{'succeeded' if record.get('ran', True) else 'restored'} in {timedelta(seconds=round(seconds))}{tries}"
    if record["state"] == "failed":
        return f"failed{tries}: {_error(record)}"
    return f"{record['state']}{tries}"


def _ended(found: Any, seen: Seen) -> None:
    """Say that the run went well, or raise an InputError that names what failed."""
    if found.state == "SUCCEEDED":
        restored = sum(not record.get("ran", True) for record in seen.records.values())
        print(f"run {seen.run} succeeded: {len(seen.records)} stages, {restored} of them restored", flush=True)
        return
    failed = {name: _error(record) for name, record in seen.records.items() if record["state"] == "failed"}
    for task in (found.run_details.task_details if found.run_details else None) or []:
        name = task.display_name or ""
        if task.state == "FAILED" and name in seen._stages and name not in seen.records:
            failed[name] = f"{name}: {task.error.message if task.error else 'its pod did not start'}"
    said = next(iter(failed.values()), "no stage wrote why: the run's page has its events").splitlines()[0]
    raise InputError(
        f"run {seen.run}: {'was cancelled' if found.state == 'CANCELED' else 'failed'}"
        f"{': ' if failed else ''}{', '.join(failed)}\n{said}\n"
        f"its log: gradworks runs show {seen.run} --stage {next(iter(failed), 'STAGE')} --log"
    )


def _error(record: Mapping[str, Any]) -> str:
    return (record.get("error") or "no word why").splitlines()[0]
