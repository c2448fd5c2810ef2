"""Submitted runs and their state, read from S3: `gradworks runs` and `gradworks runs show`."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gradworks.base.errors import InputError
from gradworks.cluster import follow, kube, waiting
from gradworks.cluster.client import connect
from gradworks.cluster.profile import Profile
from gradworks.store import runs, standing
from gradworks.store.artifacts.words import columns, plain
from gradworks.store.places import Damaged, Places, encoded

Reasons = Callable[[dict[str, Any]], dict[str, str]]  # run record -> by stage, why it does not run
_STATES = ("restored", "succeeded", "failed", "retrying", "running", "waiting", "damaged")
_FOREIGN = 3  # objects named in the output


def _nothing(_: dict[str, Any]) -> dict[str, str]:
    return {}


def listing(found: Places, limit: int = 20) -> str:
    """A line for each of the latest runs, and one for foreign objects among the records."""
    lines = [("run", "pipeline", "commit", "stages", "where")]
    known, foreign = runs.objects(found)
    for run in known[:limit]:
        try:
            record = runs.record(found, run)
        except Damaged as error:
            lines.append((plain(run), "", "", "damaged", str(error).splitlines()[0]))
            continue
        counts = Counter(state["state"] for state in runs.states(found, record).values())
        states = ", ".join(f"{counts[k]} {k}" for k in _STATES if counts[k])
        where = str(record.get("url") or record.get("where") or "")
        lines.append(tuple(map(plain, (run, record["pipeline"], record["base"][:12], states, where))))
    skipped = [f"skipped, as no run wrote it: {plain(found.uri(key))}" for key in foreign[:_FOREIGN]]
    if len(foreign) > _FOREIGN:
        skipped.append(f"and {len(foreign) - _FOREIGN} more")
    skipped = [*_schedules(found), *skipped]
    if len(lines) == 1:
        return "\n".join([f"{found.remote}: no runs yet; begin one: gradworks submit", *skipped])
    return "\n".join([columns(lines), *skipped])


def _schedules(found: Places) -> list[str]:
    """A line for each recurring run."""
    lines = []
    for name, record in standing.every(found).items():
        if record is None:
            lines.append(f"pipeline {plain(name)}: its record is damaged")
        elif "every" in record:
            said = f"every {record['every']}  {record.get('pipeline')} at {str(record.get('base'))[:12]}"
            lines.append(plain(f"schedule {name}: {said}   to end it: gradworks runs remove {name} --cluster PROFILE"))
    return lines


def shown(found: Places, run: str, stage: str | None = None, asked: Reasons = _nothing) -> str:
    """The state of a run's stages, or the full record of one of them.

    Args:
        asked: gets the reasons of Kubernetes and Kubeflow; called only where a stage does not run.
    """
    record = runs.record(found, run)
    if stage is not None and stage not in record["stages"]:
        raise InputError(f"run {run}: no stage {stage!r}\nfound: {', '.join(record['stages'][:5])} ...")
    states = runs.states(found, record)
    why, note = reasons(found, record, states, asked)
    if stage is not None:
        state = states[stage] | ({"why": why[stage]} if stage in why else {})
        return "\n".join(f"{key}: {value}" for key, value in sorted(state.items()))
    lines = [("stage", "state", "tries", "seconds", "said")]
    for name, state in states.items():
        what = state["state"]
        if what == "restored":
            what = "restored before the start"
        if what == "succeeded" and not state.get("ran", True):
            what = "restored"
        said = why.get(name) or (state.get("error", "").splitlines() or [""])[0]
        lines.append((name, what, str(state.get("attempt", "")), _seconds(state), plain(said)))
    about = f"run {run} of {record['pipeline']} at {record['base'][:12]}  {' '.join(record['sets'])}".rstrip()
    failed = {name: state.get("error", "") for name, state in states.items() if state["state"] == "failed"}
    some = ""
    if failed and any(state["state"] in ("restored", "succeeded") for state in states.values()):
        report = f"gradworks report {Path(record['pipeline']).with_name('params.yaml')}"
        some = f"the report of what is there: gradworks collect {run} --some && {report}"
    head = "\n".join(filter(None, [about, record.get("url", ""), _spent(record, states), note, some]))
    return "\n\n".join([head, columns(lines), *([follow.failure(run, failed)] if failed else [])])


def reasons(
    found: Places, record: dict[str, Any], states: dict[str, dict[str, Any]], asked: Reasons = _nothing
) -> tuple[dict[str, str], str]:
    """Why stages do not run, and a note where that could not be found out."""
    if all(state["state"] in ("restored", "succeeded", "failed", "damaged") for state in states.values()):
        return {}, ""
    try:
        known = found.record(record["run"], "reasons") or {}
    except Damaged:
        known = {}
    known, note = {name: str(why) for name, why in known.items()}, ""
    try:
        known |= asked(record)
    except InputError as error:
        note = f"why a stage waits is not known: {str(error).splitlines()[0]}"
    return waiting.explained(record, states, known), note


def ask(record: Mapping[str, Any], profile: Profile | None, file: Path | None) -> dict[str, str]:
    """Why stages do not run, from Kubeflow (with a profile) and from Kubernetes (with a kubeconfig).

    Args:
        record: the run's record.
        profile: of the cluster; file: its path.

    Raises:
        InputError: one of them does not answer or refuses this login.
    """
    run_id = record.get("run_id")
    if run_id is None:  # in containers on this machine
        return {}
    said: dict[str, str] = {}
    if profile and file:
        said |= {name: why for name, why in waiting.messages(connect(profile, file).get_run(run_id)).items() if why}
    context = profile.auth.kube_context if profile else record.get("kube_context")
    cluster = kube.connect(context, record.get("namespace"))
    if cluster:
        said |= waiting.look(cluster, run_id, record.get("tasks", {}), record.get("begun", 0.0)).reasons
    return said


def failed(found: Places, run: str) -> list[str]:
    """The stages of a run that failed. Raises InputError where there is none."""
    states = runs.states(found, runs.record(found, run))
    names = [name for name, state in states.items() if state["state"] in follow.BROKEN]
    if not names:
        raise InputError(f"run {run}: no stage has failed\nname one: gradworks runs show {run} --log --stage S")
    return names


def log(found: Places, run: str, stage: str, asked: Reasons = _nothing) -> str:
    """The output of a stage; of several nodes, theirs follow it.

    Raises:
        InputError: there is none; says why.
    """
    body = found.get(found.key("logs", run, f"{encoded(stage)}.txt"))
    if body is not None:
        prefix = found.key("logs", run, "nodes", encoded(stage)) + "/"
        more = {one["Key"].removeprefix(prefix).removesuffix(".txt"): one["Key"] for one in found.list(prefix)}
        parts = [(f"--- node {node} ---\n", found.get(key) or b"") for node, key in sorted(more.items())]
        return body.decode(errors="replace") + "".join(head + text.decode(errors="replace") for head, text in parts)
    record = runs.record(found, run)
    if stage not in record["stages"]:
        raise InputError(f"run {run}: no stage {stage!r}\nfound: {', '.join(record['stages'][:5])} ...")
    states = runs.states(found, record)
    why, note = reasons(found, record, states, asked)
    state = states[stage]
    said = why.get(stage) or note or state.get("error") or f"it is {state['state']}; its log comes every 15 s"
    raise InputError(
        f"run {run}: no log of {stage}: {said.splitlines()[0]}\nstatus: gradworks runs show {run} --stage {stage}"
    )


def _spent(record: dict[str, Any], states: dict[str, dict[str, Any]]) -> str:
    """GPU hours by kind, with their price if the profile has one; "" for a run without GPUs.

    A stage's time is that of its last attempt, without the start of the node; of several nodes, without their queue.
    """
    hours: Counter[str] = Counter()
    for name, gpu in record.get("gpus", {}).items():
        seconds = states[name].get("seconds", {})
        hours[gpu["kind"]] += gpu["count"] * seconds.get("nodes", seconds.get("total", 0.0)) / 3600
    prices = record.get("price_per_gpu_hour", {})
    parts = [
        f"{kind} {spent:.2f}" + (f" ({spent * prices[kind]:.2f} at {prices[kind]:g} an hour)" if kind in prices else "")
        for kind, spent in sorted(hours.items())
    ]
    return f"GPU hours: {', '.join(parts)}" if parts else ""


def _seconds(state: dict[str, Any]) -> str:
    seconds = state.get("seconds", {}).get("total")
    if seconds is None and state["state"] == "running":
        return f"{time.time() - state['begun']:.0f} so far" if "begun" in state else ""
    return "" if seconds is None else f"{seconds:.0f}"
