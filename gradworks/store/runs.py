"""Submitted runs and the state of their stages, read from S3."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from gradworks import dvc_compat
from gradworks.base.errors import InputError
from gradworks.store.artifacts.words import plain
from gradworks.store.places import Damaged, Places, encoded


def remote(root: Path = Path()) -> str:
    """URL of the checkout's default DVC remote. Raises InputError where it is not on S3."""
    config = dvc_compat.config(root)
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
    """The record of a submitted run.

    Raises:
        InputError: no such run; names the latest ones. Damaged: its record cannot be read.
    """
    submitted = found.record(run)
    if submitted is None:
        known = ", ".join(map(plain, names(found)[:3])) or "none"
        raise InputError(f"{found.remote}: no run {run!r}\nthe latest ones: {known}")
    kinds = {"run": str, "pipeline": str, "base": str, "stages": list, "sets": list}
    wrong = [key for key, kind in kinds.items() if not isinstance(submitted.get(key), kind)]
    if wrong or not all(isinstance(one, str) for one in (*submitted["stages"], *submitted["sets"])):
        uri = found.uri(found.key("runs", run, "run.json"))
        raise Damaged(f"{uri}: not the record of a run\nexpected what submit writes: {', '.join(kinds)}")
    return submitted


def names(found: Places) -> list[str]:
    """All runs, the latest first."""
    return objects(found)[0]


def objects(found: Places) -> tuple[list[str], list[str]]:
    """All runs, the latest first, and the keys of foreign objects among them."""
    prefix, ends, foreign = found.key("runs") + "/", [], []
    for one in found.list(prefix):
        run, _, rest = one["Key"].removeprefix(prefix).partition("/")
        if run and rest == "run.json":
            ends.append((one["LastModified"], run))
        elif not (run and (rest == "reasons.json" or re.fullmatch(r"(stages/[^/]+|nodes/[^/]+/\d+)\.json", rest))):
            foreign.append(one["Key"])
    return [run for _, run in sorted(ends, key=lambda end: end[0], reverse=True)], foreign


def states(found: Places, record: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The records of a run's stages, by stage.

    {"state": "restored"} if it was restored before the start, so that it had no pod;
    {"state": "waiting"} if it has not started; "damaged", with the `error`, if its record cannot be read.
    """
    run, before = record["run"], set(record.get("restored") or ())
    prefix = found.key("runs", run, "stages") + "/"
    begun = {unquote(one["Key"].removeprefix(prefix).removesuffix(".json")) for one in found.list(prefix)}
    none = {True: "restored", False: "waiting"}
    return {
        name: _state(found, run, name) if name in begun else {"state": none[name in before]}
        for name in record["stages"]
    }


def _state(found: Places, run: str, stage: str) -> dict[str, Any]:
    key = f"stages/{encoded(stage)}"
    try:
        state = found.record(run, key)
    except Damaged as error:
        return {"state": "damaged", "error": str(error)}
    if state is None:  # removed meanwhile
        return {"state": "waiting"}
    kinds = {"state": str, "error": str, "begun": int | float, "seconds": dict, "attempt": int}
    if "state" in state and all(isinstance(state[k], kind) for k, kind in kinds.items() if k in state):
        return state
    return {"state": "damaged", "error": f"{found.uri(found.key('runs', run, f'{key}.json'))}: not a stage's record"}
