"""Marks cells made with other parameters than those of params.yaml, and ensembles of other members.

An interrupted run, or a report written during one, mixes results of old and new parameters. Every cell records the
parameters of its training, data and evaluation, so the report can mark those that differ.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from gradworks import base
from gradworks.base import artifacts
from gradworks.base.points import MethodPoint
from gradworks.report import form

if TYPE_CHECKING:
    from gradworks.report.settings import Inputs

MARK = "§"
_NO_SPLIT = ("duplicates", "split_seed")  # keys of the section `splits`
_UNSAID = {"where": {}, "balanced": False}  # of a split, where params.yaml says nothing


def marked(results: dict[str, Any], inputs: Inputs) -> dict[str, Any]:
    """The results with `outdated` in each cell (the parameters that differ), summary (the number of such cells) and
    ensemble (what is wrong with its members), and a line in the answer if there is any.
    """
    said = {cell["key"]: differences(inputs, cell["key"]) for cell in results["cells"]}
    cells = [cell | {"outdated": said[cell["key"]]} for cell in results["cells"]]
    summaries = []
    for one in results["summaries"]:
        own = [c for c in cells if all(c[k] == one[k] for k in ("condition", "encoder", "method"))]
        summaries.append(one | {"outdated": sum(bool(c["outdated"]) for c in own)})
    ensembles = [_ensemble(inputs, one) for one in results["ensembles"]]
    made = results | {"cells": cells, "summaries": summaries, "ensembles": ensembles}
    old = [cell for cell in cells if cell["outdated"]]
    if old:
        line = f"{MARK} {len(old)} of {len(cells)} cells were made with other parameters or data than now"
        made["answer"] = [*results["answer"], f"{line} ({old[0]['path']}: {old[0]['outdated'][0]})."]
    return made


def differences(inputs: Inputs, key: str) -> list[str]:
    """`train.epochs: 1, now 3` for each parameter that differs; none without a result, or if it recorded
    nothing.
    """
    cell = inputs.cells[key]
    if inputs.metrics[key]["state"] == "not run":
        return []
    file = inputs.runs / "evaluate" / cell["path"] / artifacts.MANIFEST
    there = artifacts.read_json(file)["parameters"] if file.exists() else {}
    if "run" not in there:  # evaluated by a version that did not record it
        file = inputs.runs / "train" / cell["path"] / artifacts.MANIFEST
        there |= {"run": artifacts.read_json(file)["parameters"] if file.exists() else {}}
    now, run, data = inputs.values, there["run"], there.get("data", {})
    corrupt = now.get("corrupt") or {}
    found = list(_changed(run["train"], now.get("train") or {}, "train")) if "train" in run else []
    if "method" in run:
        where = f"methods.{cell['method']}"
        point = base.validate(now["methods"].get(cell["method"]) or {}, MethodPoint, where).model_dump(by_alias=True)
        found += _changed(run["method"], point, where, exact=True)
    for one, task in ((run, _trained(now, cell)), (data, now["task"]), (there, now["task"])):
        found += _changed(one.get("task", task), task, "task")
    if "condition" in data:
        given = (corrupt.get("conditions") or {}).get(cell["condition"]) or {}
        was, where = data["condition"], f"corrupt.conditions.{cell['condition']}"
        found += _changed(was, given, where)
        found += [f"{where}.{kind}: {was[kind]}, now not set" for kind in was if kind not in given]
    taken, splits = data.get("splits") or {}, corrupt.get("splits") or {}
    for key in _NO_SPLIT if taken else ():
        was, given = (one.get(key, "not set") for one in (taken, splits))
        found += [f"corrupt.splits.{key}: {was}, now {given}"] if was != given else []
    for split, take in ((one, take) for one, take in taken.items() if one not in _NO_SPLIT):
        given = splits.get(split) or {}
        found += _changed(_UNSAID | take, _UNSAID | given, f"corrupt.splits.{split}", exact=True)
    file = inputs.runs / "corrupt" / cell["condition"] / str(cell["seed"]) / artifacts.MANIFEST
    if "digests" in there and file.exists():
        files = {name: entry["sha256"] for name, entry in artifacts.read_json(file)["files"].items()}
        other = sorted(name for name, one in there["digests"].items() if files.get(name) != one)
        found += [f"data: other rows now in {', '.join(other)}"] if other else []
    if "by" in there:
        found += _changed(there["by"], (now.get("evaluate") or {}).get("by") or [], "evaluate.by")
    return list(dict.fromkeys(found))


def _trained(now: Mapping[str, Any], cell: Mapping[str, Any]) -> str:
    """The task that a run records: the project's, or the first of its mixture where that is without it."""
    mixture = (now.get("mixtures") or {}).get(cell.get("mixture")) or {}
    parts = mixture.get("parts") or [now["task"]]
    return now["task"] if now["task"] in parts else parts[0]


def _changed(was: Any, now: Any, where: str, exact: bool = False) -> Iterator[str]:
    """The differences; unless `exact`, only in keys of both: records include defaults and lack parameters that are
    newer than they are.
    """
    if isinstance(was, dict) and isinstance(now, dict):
        for key in dict.fromkeys([*now, *was]) if exact else [key for key in now if key in was]:
            yield from _changed(was.get(key), now.get(key), f"{where}.{key}", exact)
    elif not _same(was, now):
        yield f"{where}: {'not set' if was is None else was}, now {'not set' if now is None else now}"


def _same(was: Any, now: Any) -> bool:
    """Equal, as numbers if both are (`1e-3` is text in YAML)."""
    if isinstance(was, list) and isinstance(now, list | tuple):
        return len(was) == len(now) and all(map(_same, was, now))
    if isinstance(was, bool) or isinstance(now, bool) or was is None or now is None:
        return was is now
    try:
        return float(was) == float(now)
    except (TypeError, ValueError):
        return was == now


def _ensemble(inputs: Inputs, one: dict[str, Any]) -> dict[str, Any]:
    """An ensemble with its missing members, and those evaluated again since."""
    item = inputs.ensembles[one["name"]]
    pairs = list(itertools.product(one["condition"].split(), one["method"].split()))
    more = [item["mixture"]] if "mixture" in item else []
    above = os.path.commonpath(["/".join([*pair, *more]) for pair in pairs])
    asked = {
        os.path.relpath(cell["path"], above): key
        for key, cell in inputs.cells.items()
        if (cell["condition"], cell["method"]) in pairs
        and item.get("mixture") in (None, cell.get("mixture"))
        and cell.get("trained", cell["encoder"]) in one["encoders"].split()
    }
    made = item["metrics"]
    members = made.get("members", {})
    if one["state"] == "not run" and not one["left_out"]:
        waiting = [name for name, key in asked.items() if inputs.metrics[key]["state"] == "not run"]
        reason = one["reason"] or ("no result yet" + (f"; not run: {', '.join(waiting)}" if waiting else ""))
        return one | {"reason": reason, "outdated": []}
    lacking = [name for name in asked if name not in members and name not in one["left_out"]]
    said = one["said"] + (f" Missing, though params.yaml asks for it: {', '.join(lacking)}." if lacking else "")
    again = [n for n in members if n in asked and members[n]["overall"] != inputs.metrics[asked[n]]["overall"]]
    left_out = one["left_out"] | dict.fromkeys(lacking, "missing")
    outdated = [f"{name} has been evaluated again since" for name in again]
    said += (
        f" {MARK} {form.count(len(again))} of its members have other scores now: {', '.join(again)}." if again else ""
    )
    return one | {"left_out": left_out, "said": said.strip(), "outdated": outdated}
