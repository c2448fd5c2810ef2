"""What was submitted and how it fares: `gradworks runs` and `gradworks runs show`, read from S3."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from gradworks.kubeflow import follow, waiting
from gradworks.kubeflow.artifacts.words import columns, plain
from gradworks.kubeflow.places import Damaged, Places, encoded
from gradworks.stage.errors import InputError

Reasons = Callable[[dict[str, Any]], dict[str, str]]  # of a run's record: by stage, why it does not run
_STATES = ("succeeded", "failed", "retrying", "running", "waiting", "damaged")
_FOREIGN = 3  # objects that are named


def _nothing(_: dict[str, Any]) -> dict[str, str]:
    return {}


def remote(root: Path = Path()) -> str:
    """URL of the checkout's default DVC remote. Raises InputError where it is not on S3."""
    from dvc.config import Config, ConfigError

    try:
        config = Config(str(root / ".dvc"), validate=False)
    except ConfigError as error:
        said = " ".join(str(error).split()).partition("config file error: ")[2] or str(error)
        raise InputError(
            f"{root / '.dvc/config'}: {said[:150]}\nexpected DVC's settings: are there marks of a merge conflict in it?"
        ) from None
    name = config.get("core", {}).get("remote")
    url = config.get("remote", {}).get(name, {}).get("url", "")
    if not url.startswith("s3://"):
        raise InputError(
            f".dvc/config: the default remote is {url or name or 'not set'}\nexpected one on S3: "
            "dvc remote modify --local store url s3://BUCKET/PREFIX"
        )
    return url


def places(root: Path = Path()) -> Places:
    """The objects of all runs in the checkout's default remote. Raises InputError."""
    return Places(remote(root))


def record(found: Places, run: str) -> dict[str, Any]:
    """What was submitted under a name.

    Raises:
        InputError: there is no such run, and names the latest ones; Damaged where its record cannot be read.
    """
    told = found.record(run)
    if told is None:
        known = ", ".join(map(plain, names(found)[:3])) or "none"
        raise InputError(f"{found.remote}: no run {run!r}\nthe latest ones: {known}")
    kinds = {"run": str, "pipeline": str, "base": str, "stages": list, "sets": list}
    wrong = [key for key, kind in kinds.items() if not isinstance(told.get(key), kind)]
    if wrong or not all(isinstance(one, str) for one in (*told["stages"], *told["sets"])):
        uri = found.uri(found.key("runs", run, "run.json"))
        raise Damaged(f"{uri}: not the record of a run\nexpected what submit writes: {', '.join(kinds)}")
    return told


def names(found: Places) -> list[str]:
    """All runs, the latest first."""
    return _objects(found)[0]


def _objects(found: Places) -> tuple[list[str], list[str]]:
    """All runs, the latest first; and the keys of objects beside them that no run wrote."""
    prefix, ends, foreign = found.key("runs") + "/", [], []
    for one in found.list(prefix):
        run, _, rest = one["Key"].removeprefix(prefix).partition("/")
        if run and rest == "run.json":
            ends.append((one["LastModified"], run))
        elif not (run and (rest == "reasons.json" or re.fullmatch(r"stages/[^/]+\.json", rest))):
            foreign.append(one["Key"])
    return [run for _, run in sorted(ends, key=lambda end: end[0], reverse=True)], foreign


def states(found: Places, run: str, stages: list[str]) -> dict[str, dict[str, Any]]:
    """The record of each stage of a run, by stage.

    {"state": "waiting"} for one that has not begun, "damaged" for one whose record cannot be read, with its `error`.
    """
    prefix = found.key("runs", run, "stages") + "/"
    begun = {unquote(one["Key"].removeprefix(prefix).removesuffix(".json")) for one in found.list(prefix)}
    return {name: _state(found, run, name) if name in begun else {"state": "waiting"} for name in stages}


def _state(found: Places, run: str, stage: str) -> dict[str, Any]:
    key = f"stages/{encoded(stage)}"
    try:
        told = found.record(run, key)
    except Damaged as error:
        return {"state": "damaged", "error": str(error)}
    if told is None:  # removed meanwhile
        return {"state": "waiting"}
    kinds = {"state": str, "error": str, "begun": int | float, "seconds": dict, "attempt": int}
    if "state" in told and all(isinstance(told[k], kind) for k, kind in kinds.items() if k in told):
        return told
    return {"state": "damaged", "error": f"{found.uri(found.key('runs', run, f'{key}.json'))}: not a stage's record"}


def listing(found: Places, limit: int = 20) -> str:
    """A line for each of the latest runs, and one for what lies among their records and is none."""
    lines = [("run", "pipeline", "commit", "stages", "where")]
    known, foreign = _objects(found)
    for run in known[:limit]:
        try:
            told = record(found, run)
        except Damaged as error:
            lines.append((plain(run), "", "", "damaged", str(error).splitlines()[0]))
            continue
        counts = Counter(state["state"] for state in states(found, run, told["stages"]).values())
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
    told = record(found, run)
    if stage is not None and stage not in told["stages"]:
        raise InputError(f"run {run}: no stage {stage!r}\nfound: {', '.join(told['stages'][:5])} ...")
    fared = states(found, run, told["stages"])
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


def failed(found: Places, run: str) -> list[str]:
    """The stages of a run that failed. Raises InputError where there is none."""
    stages = record(found, run)["stages"]
    names = [name for name, state in states(found, run, stages).items() if state["state"] in follow.BROKEN]
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
    told = record(found, run)
    if stage not in told["stages"]:
        raise InputError(f"run {run}: no stage {stage!r}\nfound: {', '.join(told['stages'][:5])} ...")
    fared = states(found, run, told["stages"])
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
