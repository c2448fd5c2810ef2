"""Follow a submitted run: a line for each stage that starts or ends, with rate and time left.

Stage records that pods write to S3 are more detailed than the API. The API gives the run's state and the tasks that
failed before their program started; Kubernetes gives the reason why a pod does not start.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from types import MappingProxyType
from typing import Any
from urllib.parse import unquote

from gradworks.base.errors import InputError
from gradworks.cluster import kube, waiting
from gradworks.cluster.answers import ApiError
from gradworks.store.places import Damaged, Places, encoded

BROKEN = ("failed", "retrying")  # retrying: its pod is started again if the run continues
PATIENCE = 600.0  # seconds without a pod that can start
_LOOK = 5.0  # seconds between two polls
_ASK = 15.0  # seconds between two requests to Kubernetes
_AWAY = 600.0  # seconds that the API or S3 may be unreachable
_ENDED = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")


def follow(client: Any, places: Places, record: Mapping[str, Any], patience: float = PATIENCE) -> None:
    """Print the progress of a run until it ends.

    Args:
        client: of the cluster.
        places: where the pods write to.
        record: of the run, as it was submitted.
        patience: seconds without progress after which the run is given up.

    Raises:
        InputError: the run failed, was cancelled or cannot go on; names the stages. Or the services stopped answering.
    """
    before = set(record.get("restored", ()))
    seen, away = Seen(places, record["run"], [name for name in record["stages"] if name not in before]), 0.0
    waits = _Waits(places, record, patience)
    while True:
        try:
            found = client.get_run(record["run_id"])
            seen.look()  # after the API: once the run has ended, its records are complete
        except InputError as error:
            if isinstance(error, ApiError) and not error.passing:
                raise
            away = away or time.monotonic()
            if time.monotonic() - away > _AWAY:
                raise
            print(f"{str(error).splitlines()[0]}; asking again", flush=True)
        else:
            away = 0.0
            waits.look(seen, found.state in _ENDED)
            if found.state in _ENDED:
                break
        time.sleep(_LOOK)
    _ended(found, seen, record, waits.reasons)


class Seen:
    """The stage records seen so far."""

    def __init__(self, places: Places, run: str, stages: Sequence[str]) -> None:
        self._places, self.run, self.stages = places, run, stages
        self._prefix = places.key("runs", run, "stages") + "/"
        self._tags: dict[str, str] = {}
        self.records: dict[str, dict[str, Any]] = {}
        self._begun = time.monotonic()

    def look(self) -> None:
        """Print a line for each changed stage record. Raises InputError."""
        for one in sorted(self._places.list(self._prefix), key=lambda one: one["LastModified"]):
            if self._tags.get(one["Key"]) == one["ETag"]:
                continue
            self._tags[one["Key"]] = one["ETag"]
            name = unquote(one["Key"].removeprefix(self._prefix).removesuffix(".json"))
            try:
                record = self._places.record(self.run, f"stages/{encoded(name)}")
            except Damaged as error:
                print(str(error).splitlines()[0], flush=True)
                continue
            if record and isinstance(record.get("state"), str):
                self.records[name] = record
                print(f"{name}: {_outcome(record)}   [{self.progress()}]", flush=True)

    def progress(self) -> str:
        """The number of stages done, and the time left at this rate."""
        done = sum(record["state"] == "succeeded" for record in self.records.values())
        left, seconds = len(self.stages) - done, time.monotonic() - self._begun
        said = f"{done} of {len(self.stages)}"
        if not done or not left or not seconds:
            return said
        return (
            f"{said}, {60 * done / seconds:.3g} a minute, about {timedelta(seconds=round(left * seconds / done))} left"
        )


class _Waits:
    """Why stages wait, according to Kubernetes.

    Attributes:
        reasons: by stage.
    """

    def __init__(self, places: Places, record: Mapping[str, Any], patience: float) -> None:
        self.reasons: dict[str, str] = {}
        self._places, self._record, self._patience = places, record, patience
        self._asked, self._since = float("-inf"), None
        self._kube = None
        try:
            self._kube = kube.connect(record.get("kube_context"), record.get("namespace"))
        except InputError as error:
            self._unknown(error)

    def _unknown(self, error: InputError) -> None:
        print(f"why a stage waits is not known: {str(error).splitlines()[0]}", flush=True)

    def look(self, seen: Seen, last: bool = False) -> None:
        """Print new reasons. Raises InputError after too long without progress."""
        now = time.monotonic()
        if self._kube is None or (now - self._asked < _ASK and not last):
            return
        self._asked = now
        try:
            found = waiting.look(self._kube, self._record["run_id"], self._record["tasks"], self._record["begun"])
        except InputError as error:
            self._unknown(error)
            self._kube = None  # reported once
            return
        ended = {name for name, one in seen.records.items() if one["state"] in ("succeeded", "failed")}
        reasons = {name: why for name, why in found.reasons.items() if name not in ended}
        for name, why in reasons.items():
            if self.reasons.get(name) != why:
                print(f"{name}: waits: {why}   [{seen.progress()}]", flush=True)
        if reasons != self.reasons:
            self.reasons = reasons
            with contextlib.suppress(InputError):  # so that `runs show` has it too
                self._places.put_record(self._record["run"], "reasons", reasons)
        if not reasons or found.moving or last:
            self._since = None
            return
        self._since = now if self._since is None else self._since
        if now - self._since >= self._patience:
            name, why = next(iter(reasons.items()))
            more = f" (and {len(reasons) - 1} more wait)" if len(reasons) > 1 else ""
            raise InputError(
                f"run {seen.run}: {name} cannot start: {why}\n"
                f"no pod of the run has moved for {timedelta(seconds=round(self._patience))} (--patience){more}\n"
                f"it still waits in the cluster: end it there, or see status: gradworks runs show {seen.run}"
            )


def _outcome(record: Mapping[str, Any]) -> str:
    tries = f" (try {record['attempt']})" if record.get("attempt", 1) > 1 else ""
    seconds = record.get("seconds", {}).get("total")
    if record["state"] == "succeeded":
        took = timedelta(seconds=round(seconds or 0))
        return f"{'succeeded' if record.get('ran', True) else 'restored'} in {took}{tries}"
    if record["state"] in BROKEN:
        return f"{record['state']}{tries}: {'; '.join(_lines(record.get('error')))}"
    return f"{record['state']}{tries}"


def _ended(found: Any, seen: Seen, record: Mapping[str, Any], reasons: Mapping[str, str]) -> None:
    """Print that the run succeeded, or raise an InputError that names what failed."""
    if found.state == "SUCCEEDED":
        restored = sum(not record.get("ran", True) for record in seen.records.values())
        print(f"run {seen.run} succeeded: {len(seen.records)} stages, {restored} of them restored", flush=True)
        return
    # no retries after the run has ended
    failed = {n: one.get("error") or "" for n, one in seen.records.items() if one["state"] in BROKEN}
    never = {name: why for name, why in reasons.items() if name not in failed}
    for name, message in waiting.messages(found).items():
        if name in seen.stages and name not in seen.records:
            never.setdefault(name, message)
    if never:
        with contextlib.suppress(InputError):
            seen._places.put_record(seen.run, "reasons", never)
    word = "was cancelled" if found.state == "CANCELED" else "failed"
    raise InputError(failure(seen.run, failed, never, word, record.get("namespace")))


def failure(
    run: str,
    failed: Mapping[str, str],
    never: Mapping[str, str] = MappingProxyType({}),
    word: str = "failed",
    namespace: str | None = None,
) -> str:
    """Three lines on a failed run: the error in up to two lines, and where to read more.

    Args:
        run: its name; word: how it ended.
        failed: the errors by stage; never: for stages that never started, the reasons of Kubernetes or Kubeflow. The
            first one is shown.
        namespace: of its pods.
    """
    events = f"kubectl get events -n {namespace or 'kubeflow'}"
    both = {**failed, **never}
    if not both:
        return f"run {run} {word}\nno stage wrote why: the run's page has its events, or {events}"
    name, said = next(iter(both.items()))
    no_words = "it ended without a word" if name in failed else "its pod never began, and Kubeflow does not say why"
    lines = _lines(said) or [f"{no_words}: {events}"]
    lines[0] = f"run {run} {word}: {name}: {lines[0].removeprefix(f'{name}: ')}"
    others = list(both)[1:]
    more = f"   (failed too: {', '.join(others[:3])}{', ...' if len(others) > 3 else ''})" if others else ""
    log = f"its log: gradworks runs show {run} --stage {name} --log"
    return "\n".join([*lines, f"{log if name in failed else f'status: gradworks runs show {run}'}{more}"])


def _lines(said: str | None) -> list[str]:
    """The first two lines of an error."""
    return [line for line in (said or "").splitlines() if line.strip()][:2]
