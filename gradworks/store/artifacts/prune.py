"""`gradworks artifacts prune`: delete old runs' own objects; never DVC's files/ and runs/.

A run (lock entries, log, records) is deleted as a whole if its newest object is older than the bound and it has ended;
a code archive if it is that old and no remaining run or pipeline in Kubeflow uses it; checkpoints if they are that
old and no run of their pipeline is unfinished.
"""

from __future__ import annotations

from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from gradworks.base.errors import InputError
from gradworks.store import standing
from gradworks.store.artifacts import words
from gradworks.store.artifacts.lock import AT_ONCE
from gradworks.store.places import Damaged, Places, encoded

KINDS = ("code", "checkpoints", "logs", "locks", "runs")  # deleted in this order: a run's record last
_ENDED = ("succeeded", "failed", "refused", "stopped", "restored")


@dataclass
class _Run:
    """A run's objects, the time of the newest one, and its record if it is readable."""

    objects: list[dict[str, Any]] = field(default_factory=list)
    record: dict[str, Any] | None = None

    @property
    def newest(self) -> datetime:
        return max(one["LastModified"] for one in self.objects)


def plan(places: Places, seconds: float, ended: tuple[str, ...] = ()) -> dict[str, Any]:
    """What to delete, and which old runs stay because they have not ended.

    Args:
        seconds: minimum age of an object.
        ended: runs to take as ended though their records say otherwise (a killed pod does not update its record).

    Raises:
        InputError: the store cannot be read, or it has no run of a name in `ended`.
    """
    bound = datetime.now(UTC) - timedelta(seconds=seconds)
    found = {kind: list(places.list(places.key(kind) + "/")) for kind in KINDS}
    runs: dict[str, _Run] = defaultdict(_Run)
    for kind in ("logs", "locks", "runs"):
        for one in found[kind]:
            runs[_part(places, one["Key"], 1)].objects.append(one)
    unknown = [name for name in ended if name not in runs]
    if unknown:
        raise InputError(f"--ended {words.plain(unknown[0])}: no such run in {places.remote}")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for run, record in zip(runs, pool.map(lambda run: _record(places, f"{run}/run"), runs), strict=True):
            runs[run].record = record
        fared = pool.map(lambda run: _ended(places, run), runs.values())
        alive = {name for name, has in zip(runs, fared, strict=True) if not has} - set(ended)
    gone = [name for name, run in runs.items() if run.newest <= bound and name not in alive]
    stays = [run for name, run in runs.items() if name not in gone]
    stays += [_Run(record=record) for record in standing.every(places).values()]  # runs of them may begin at any time
    objects = [one for name in gone for one in runs[name].objects]
    objects += [one for one in found["code"] if one["LastModified"] <= bound and not _needed(places, one["Key"], stays)]
    objects += _checkpoints(places, found["checkpoints"], bound, [runs[name] for name in alive])
    objects.sort(key=lambda one: (KINDS.index(_part(places, one["Key"], 0)), one["Key"].endswith("/run.json")))
    return {"objects": objects, "runs": sorted(gone), "running": sorted(n for n in alive if runs[n].newest <= bound)}


def _part(places: Places, key: str, depth: int) -> str:
    """A part of a key below gradworks/: 0 is the kind, 1 is the run."""
    return key.removeprefix(places.key("")).lstrip("/").split("/")[depth]


def _record(places: Places, name: str) -> dict[str, Any] | None:
    """A record, or None if it is missing or damaged."""
    run, _, rest = name.partition("/")
    try:
        return places.record(run, rest)
    except Damaged:
        return None


def _ended(places: Places, run: _Run) -> bool:
    """Whether a run has ended: no stage runs or waits."""
    prefix = places.key("runs") + "/"
    names = [one["Key"].removeprefix(prefix) for one in run.objects if "/stages/" in one["Key"].removeprefix(prefix)]
    states = {name: (_record(places, name.removesuffix(".json")) or {}).get("state") for name in names}
    if any(state not in ("succeeded", "failed") for state in states.values()):
        return False
    if run.record is None:  # no record, or a damaged one
        return not any(one["Key"].endswith("/run.json") for one in run.objects)
    stages = run.record.get("stages")
    before = run.record.get("restored")  # before the start: no pod wrote a record of them
    every = isinstance(stages, list) and len(states) + len(before if isinstance(before, list) else ()) >= len(stages)
    return run.record.get("state") in _ENDED or every or "failed" in states.values()


def _needed(places: Places, key: str, stays: list[_Run]) -> bool:
    """Whether a remaining run uses this code archive; a run without a readable record may use any."""
    return any(run.record is None or run.record.get("code", places.uri(key)) == places.uri(key) for run in stays)


def _checkpoints(
    places: Places, found: list[dict[str, Any]], bound: datetime, running: list[_Run]
) -> list[dict[str, Any]]:  # fmt: skip
    """Checkpoints of stages whose newest one is old, in pipelines without an unfinished run."""
    stages: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for one in found:
        pipeline, _, rest = one["Key"].removeprefix(places.key("checkpoints") + "/").partition("/")
        stages[pipeline, rest.partition("/")[0]].append(one)
    pipelines = {None if run.record is None else run.record.get("pipeline") for run in running}
    kept = {None if one is None else encoded(one) for one in pipelines}
    return [
        one
        for (pipeline, _), objects in stages.items()
        if max(one["LastModified"] for one in objects) <= bound and not kept & {None, pipeline}
        for one in objects
    ]


def summary(places: Places, made: dict[str, Any], dry: bool) -> dict[str, Any]:
    """The counts and sizes of a plan."""
    kinds: dict[str, dict[str, int]] = {kind: {"objects": 0, "bytes": 0} for kind in KINDS}
    for one in made["objects"]:
        at = kinds[_part(places, one["Key"], 0)]
        at["objects"] += 1
        at["bytes"] += one["Size"]
    total = {name: sum(kind[name] for kind in kinds.values()) for name in ("objects", "bytes")}
    return {"dry_run": dry, **total, "kinds": kinds, "runs": made["runs"], "running": made["running"]}


def remove(places: Places, made: dict[str, Any]) -> None:
    """Delete what a plan lists. Raises InputError."""
    keys = [one["Key"] for one in made["objects"]]
    allowed = tuple(places.key(kind) + "/" for kind in KINDS)
    if not all(key.startswith(allowed) for key in keys):
        raise InputError(f"{places.remote}: the store listed objects that are not gradworks' own; nothing was removed")
    places.delete(keys)


def shown(found: dict[str, Any]) -> str:
    """The result of `summary` as text."""
    rows = [(kind, str(one["objects"]), words.size(one["bytes"])) for kind, one in found["kinds"].items()]
    total = f"{found['objects']} objects, {words.size(found['bytes'])}"
    lines = [words.columns(rows, right=(1, 2)), f"{'would remove' if found['dry_run'] else 'removed'} {total}"]
    if found["running"]:
        names = ", ".join(map(words.plain, found["running"][:5])) + (", ..." if len(found["running"]) > 5 else "")
        lines.append(f"still running by their records, so they stay: {names}; of one that is not: --ended RUN")
    return "\n".join(lines)
