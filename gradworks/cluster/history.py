"""What was submitted and how it fares: `gradworks runs` and `gradworks runs show`, read from S3."""

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
from gradworks.store import runs
from gradworks.store.artifacts.words import columns, plain
from gradworks.store.places import Damaged, Places, encoded

Reasons = Callable[[dict[str, Any]], dict[str, str]]  # of a run's record: by stage, why it does not run
_STATES = ("succeeded", "failed", "retrying", "running", "waiting", "damaged")
_FOREIGN = 3  # objects that are named


def _nothing(_: dict[str, Any]) -> dict[str, str]:
    return {}


def listing(found: Places, limit: int = 20) -> str:
    """A line for each of the latest runs, and one for what lies among their records and is none."""
    lines = [("run", "pipeline", "commit", "stages", "where")]
    known, foreign = runs.objects(found)
    for run in known[:limit]:
        try:
            told = runs.record(found, run)
        except Damaged as error:
            lines.append((plain(run), "", "", "damaged", str(error).splitlines()[0]))
            continue
        counts = Counter(state["state"] for state in runs.states(found, run, told["stages"]).values())
        fared = ", ".join(f"{counts[k]} {k}" for k in _STATES if counts[k])
        where = str(told.get("url") or told.get("where") or "")
        lines.append(tuple(map(plain, (run, told["pipeline"], told["base"][:12], fared, where))))
    skipped = [f"skipped, as no run wrote it: {plain(found.uri(key))}" for key in foreign[:_FOREIGN]]
    if len(foreign) > _FOREIGN:
        skipped.append(f"and {len(foreign) - _FOREIGN} more")
    if len(lines) == 1:
        return "\n".join([f"{found.remote}: no runs yet; begin one: gradworks submit", *skipped])
    return "\n".join([columns(lines), *skipped])


def shown(found: Places, run: str, stage: str | None = None, asked: Reasons = _nothing) -> str:
    """How a run's stages fare, or all that is known of one of them.

    Args:
        asked: what Kubernetes and Kubeflow say of stages that do not run; is called where there are any.
    """
    told = runs.record(found, run)
    if stage is not None and stage not in told["stages"]:
        raise InputError(f"run {run}: no stage {stage!r}\nfound: {', '.join(told['stages'][:5])} ...")
    fared = runs.states(found, run, told["stages"])
    why, note = reasons(found, told, fared, asked)
    if stage is not None:
        state = fared[stage] | ({"why": why[stage]} if stage in why else {})
        return "\n".join(f"{key}: {value}" for key, value in sorted(state.items()))
    lines = [("stage", "state", "tries", "seconds", "said")]
    for name, state in fared.items():
        what = state["state"]
        if what == "succeeded" and not state.get("ran", True):
            what = "restored"
        said = why.get(name) or (state.get("error", "").splitlines() or [""])[0]
        lines.append((name, what, str(state.get("attempt", "")), _seconds(state), plain(said)))
    about = f"run {run} of {told['pipeline']} at {told['base'][:12]}  {' '.join(told['sets'])}".rstrip()
    head = "\n".join(filter(None, [about, told.get("url", ""), _spent(told, fared), note]))
    failed = {name: state.get("error", "") for name, state in fared.items() if state["state"] == "failed"}
    return "\n\n".join([head, columns(lines), *([follow.failure(run, failed)] if failed else [])])


def reasons(
    found: Places, told: dict[str, Any], fared: dict[str, dict[str, Any]], asked: Reasons = _nothing
) -> tuple[dict[str, str], str]:
    """Why stages of a run do not run, and a note where it could not be asked for."""
    if all(state["state"] in ("succeeded", "failed", "damaged") for state in fared.values()):
        return {}, ""
    try:
        known = found.record(told["run"], "reasons") or {}
    except Damaged:
        known = {}
    known, note = {name: str(why) for name, why in known.items()}, ""
    try:
        known |= asked(told)
    except InputError as error:
        note = f"why a stage waits is not known: {str(error).splitlines()[0]}"
    return waiting.explained(told, fared, known), note


def ask(told: Mapping[str, Any], profile: Profile | None, file: Path | None) -> dict[str, str]:
    """What Kubeflow, where there is a profile, and Kubernetes, where there is a kubeconfig, say of a run's stages.

    Args:
        told: the run's record.
        profile: of the cluster; file: where it was read from.

    Raises:
        InputError: one of them does not answer, or this login may not ask.
    """
    run_id = told.get("run_id")
    if run_id is None:  # in containers on this machine
        return {}
    said: dict[str, str] = {}
    if profile and file:
        said |= {name: why for name, why in waiting.messages(connect(profile, file).get_run(run_id)).items() if why}
    context = profile.auth.kube_context if profile else told.get("kube_context")
    cluster = kube.connect(context, told.get("namespace"))
    if cluster:
        said |= waiting.look(cluster, run_id, told.get("tasks", {}), told.get("begun", 0.0)).reasons
    return said


def failed(found: Places, run: str) -> list[str]:
    """The stages of a run that failed. Raises InputError where there is none."""
    stages = runs.record(found, run)["stages"]
    names = [name for name, state in runs.states(found, run, stages).items() if state["state"] in follow.BROKEN]
    if not names:
        raise InputError(f"run {run}: no stage has failed\nname one: gradworks runs show {run} --log --stage S")
    return names


def log(found: Places, run: str, stage: str, asked: Reasons = _nothing) -> str:
    """What a stage printed.

    Raises:
        InputError: it has not printed anything, and why.
    """
    body = found.get(found.key("logs", run, f"{encoded(stage)}.txt"))
    if body is not None:
        return body.decode(errors="replace")
    told = runs.record(found, run)
    if stage not in told["stages"]:
        raise InputError(f"run {run}: no stage {stage!r}\nfound: {', '.join(told['stages'][:5])} ...")
    fared = runs.states(found, run, told["stages"])
    why, note = reasons(found, told, fared, asked)
    state = fared[stage]
    said = why.get(stage) or note or state.get("error") or f"it is {state['state']}; its log comes every 15 s"
    raise InputError(
        f"run {run}: no log of {stage}: {said.splitlines()[0]}\nhow it fares: gradworks runs show {run} --stage {stage}"
    )


def _spent(told: dict[str, Any], fared: dict[str, dict[str, Any]]) -> str:
    """GPU hours by kind, and what they cost where the profile knew it; "" of a run without GPUs.

    A stage's time is that of its last try, from its first line to its last: not the node's start.
    """
    hours: Counter[str] = Counter()
    for name, gpu in told.get("gpus", {}).items():
        hours[gpu["kind"]] += gpu["count"] * fared[name].get("seconds", {}).get("total", 0.0) / 3600
    prices = told.get("price_per_gpu_hour", {})
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
