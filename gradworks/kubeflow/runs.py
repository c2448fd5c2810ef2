"""What was submitted and how it fares: `gradworks runs` and `gradworks runs show`, read from S3."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from gradworks.kubeflow.artifacts.words import columns
from gradworks.kubeflow.places import Places, encoded
from gradworks.stage.errors import InputError


def remote(root: Path = Path()) -> str:
    """URL of the checkout's default DVC remote. Raises InputError where it is not on S3."""
    from dvc.config import Config

    config = Config(str(root / ".dvc"), validate=False)
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
    """What was submitted under a name. Raises InputError that names the latest ones."""
    told = found.record(run)
    if told is None:
        known = ", ".join(names(found)[:3]) or "none"
        raise InputError(f"{found.remote}: no run {run!r}\nthe latest ones: {known}")
    return told


def names(found: Places) -> list[str]:
    """All runs, the latest first."""
    prefix = found.key("runs") + "/"
    ends = [one for one in found.list(prefix) if one["Key"].endswith("/run.json")]
    ends.sort(key=lambda one: one["LastModified"], reverse=True)
    return [one["Key"].removeprefix(prefix).rpartition("/")[0] for one in ends]


def states(found: Places, run: str, stages: list[str]) -> dict[str, dict[str, Any]]:
    """The record of each stage of a run, by stage; {"state": "waiting"} for one that has not begun."""
    prefix = found.key("runs", run, "stages") + "/"
    begun = {unquote(one["Key"].removeprefix(prefix).removesuffix(".json")) for one in found.list(prefix)}
    return {
        name: (found.record(run, f"stages/{encoded(name)}") if name in begun else None) or {"state": "waiting"}
        for name in stages
    }


def listing(found: Places, limit: int = 20) -> str:
    """A line for each of the latest runs."""
    lines = [("run", "pipeline", "commit", "stages", "where")]
    for run in names(found)[:limit]:
        told = record(found, run)
        counts = Counter(state["state"] for state in states(found, run, told["stages"]).values())
        fared = ", ".join(f"{counts[k]} {k}" for k in ("succeeded", "failed", "running", "waiting") if counts[k])
        lines.append((run, told["pipeline"], told["base"][:12], fared, told.get("url") or told.get("where", "")))
    if len(lines) == 1:
        return f"{found.remote}: no runs yet; begin one: gradworks submit"
    return columns(lines)


def shown(found: Places, run: str, stage: str | None = None) -> str:
    """How a run's stages fare, or all that is known of one of them."""
    told = record(found, run)
    if stage is None:
        lines = [("stage", "state", "tries", "seconds", "said")]
        fared = states(found, run, told["stages"])
        for name, state in fared.items():
            what = state["state"]
            if what == "succeeded" and not state.get("ran", True):
                what = "restored"
            lines.append((name, what, str(state.get("attempt", "")), _seconds(state), state.get("error", "")))
        about = f"run {run} of {told['pipeline']} at {told['base'][:12]}  {' '.join(told['sets'])}".rstrip()
        head = "\n".join(filter(None, [about, told.get("url", ""), _spent(told, fared)]))
        return f"{head}\n\n{columns(lines)}"
    if stage not in told["stages"]:
        raise InputError(f"run {run}: no stage {stage!r}\nfound: {', '.join(told['stages'][:5])} ...")
    state = states(found, run, [stage])[stage]
    return "\n".join(f"{key}: {value}" for key, value in sorted(state.items()))


def failed(found: Places, run: str) -> list[str]:
    """The stages of a run that failed. Raises InputError where there is none."""
    stages = record(found, run)["stages"]
    names = [name for name, state in states(found, run, stages).items() if state["state"] == "failed"]
    if not names:
        raise InputError(f"run {run}: no stage has failed\nname one: gradworks runs show {run} --log --stage S")
    return names


def log(found: Places, run: str, stage: str) -> str:
    """What a stage printed. Raises InputError where it has not printed anything yet."""
    body = found.get(found.key("logs", run, f"{encoded(stage)}.txt"))
    if body is None:
        raise InputError(f"run {run}: no log of {stage} yet\nhow it fares: gradworks runs show {run} --stage {stage}")
    return body.decode(errors="replace")


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
        return f"{time.time() - state['begun']:.0f} so far"
    return "" if seconds is None else f"{seconds:.0f}"
