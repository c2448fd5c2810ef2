"""What the report reads: the cells that cells.yaml names, with the outputs that exist so far."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradworks import base, metrics, tasks
from gradworks.base import artifacts
from gradworks.base.errors import InputError
from gradworks.base.place import place
from gradworks.report.settings import Inputs, Report, Target

if TYPE_CHECKING:
    from gradworks.tasks.kinds import Kind

_SHARE = "smoothness_share"  # of the log of the objectives smart and r3f
NOT_RUN = {"state": "not run", "reason": "", "overall": {}, "by": {}}


def read(params: Path, cells: Path, runs: Path, outdated: Collection[str] = ()) -> Inputs:
    """Read the existing outputs; missing cells are "not run", as are those whose path is among the `outdated`.

    Raises:
        InputError: a file is damaged, or `report` names a method that params.yaml does not have.
    """
    values = base.read_yaml(params)
    if "fetch" in values:
        values["fetch"] = _named(values["fetch"])
    settings = base.optional(params, "report", Report)
    named = {"baseline": settings.baseline, **{f"controls.{m}": m for m in settings.controls}}
    named |= {f"controls.{m}": c for m, c in settings.controls.items() if m in values["methods"]}
    for key, name in named.items():
        if name not in values["methods"]:
            raise InputError(f"{params}: report.{key}: found {name!r}\nexpected one of: {', '.join(values['methods'])}")
    each = base.value(cells, "each")
    each["train"] = by_mixture(each["train"])
    folder = runs / "metrics"
    found = {key: _metrics(folder / f"{cell['path']}.json") for key, cell in each["train"].items()}
    for key, cell in each["train"].items():
        if found[key]["state"] == "not run" and (runs / "train" / cell["path"] / "status.json").exists():
            found[key] = {**NOT_RUN, "reason": "trained, not evaluated"}
        if cell["path"] in outdated:
            found[key] = {**NOT_RUN, "reason": "its result is of other parameters or code; not run again yet"}
    ensembles = {
        key: {**item, "metrics": _metrics(folder / "ensemble" / f"{key}.json")}
        for key, item in {**(each.get("ensemble") or {}), **_soups(each)}.items()
    }
    named_files = {folder / f"{cell['path']}.json" for cell in each["train"].values()}
    named_files |= {folder / "ensemble" / f"{key}.json" for key in ensembles}
    task = tasks.of(params)
    references, data = {}, {}
    for condition in dict.fromkeys(cell["condition"] for cell in each["train"].values()):
        seeds = sorted({c["seed"] for c in each["train"].values() if c["condition"] == condition})
        folders = [f for f in (runs / "corrupt" / condition / str(s) for s in seeds) if f.is_dir()]
        if folders:
            data[condition] = artifacts.read_json(folders[0] / artifacts.MANIFEST)
            references[condition] = _references(folders[0] / "test.parquet", task, settings)
    versions = place(params, values)[0] / "versions.json"
    return Inputs(
        settings, task, values, runs, each["train"], found, ensembles, references, data,
        _costs(runs, each["train"]), artifacts.read_json(versions) if versions.exists() else {},
        tuple(sorted(set(folder.rglob("*.json")) - named_files)),
    )  # fmt: skip


def _soups(each: dict[str, Any]) -> dict[str, Any]:
    """Items of the stage `soup`; their results lie among those of ensembles, under a rule of their own."""
    return {key: item | {"rule": f"{item['rule']} soup"} for key, item in (each.get("soup") or {}).items()}


def by_mixture(cells: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The cells; with several mixtures, each is named with the encoder, `gru · both`, so that no table mixes two.

    `trained` is then the encoder's own name, and `measured` the folder of its costs.
    """
    if len({cell.get("mixture") for cell in cells.values()}) < 2:
        return cells
    return {
        key: cell
        | {
            "encoder": f"{cell['encoder']} · {cell['mixture']}",
            "trained": cell["encoder"],
            "measured": f"{cell['mixture']}/{cell['encoder']}",
        }
        for key, cell in cells.items()
    }


def _named(value: Any) -> Any:
    """The same with every key as text: the keys of `labels: {0: …, yes: …}` do not sort."""
    if not isinstance(value, dict):
        return value
    return {key if isinstance(key, str) else json.dumps(key, default=str): _named(one) for key, one in value.items()}


def figure(found: dict[str, Any], target: Target, where: str) -> dict[str, Any] | None:
    """The score of a target in the output of `evaluate`; None if nothing was predicted. Raises InputError if it is
    missing.
    """
    scores = found["overall"]
    if not scores:
        return None
    for column, value in target.where.items():
        values = found["by"].get(column)
        if values is None:
            there = ", ".join(found["by"]) or "none"
            raise InputError(f"{where}: no scores by {column!r}, which report names\nfound: {there}; see evaluate.by")
        if str(value) not in values:
            raise InputError(f"{where}: no test example has {column} = {value}\nfound: {', '.join(values)}")
        scores = values[str(value)]
    if target.metric not in scores:
        raise InputError(f"{where}: no metric {target.metric!r}, which report names\nfound: {', '.join(scores)}")
    return scores[target.metric]


def history(inputs: Inputs, key: str) -> dict[str, list[float]] | None:
    """`{"examples": [...], "score": [...]}` at each evaluation on the selection split; None without any.

    By `step` instead of examples where the task's kind is paced so.
    """
    file = inputs.runs / "train" / inputs.cells[key]["path"] / "history.parquet"
    if not file.exists():
        return None
    over = inputs.task.paced
    table = artifacts.read_parquet(file, [over])
    columns = [name for name in table.column_names if name.startswith("selection_")]
    if not columns:
        return None
    pairs = zip(table[over].to_pylist(), table[columns[0]].to_pylist(), strict=True)
    points = [(x, y) for x, y in pairs if y is not None]
    return {over: [x for x, _ in points], "score": [y for _, y in points]}


def adversarial_share(inputs: Inputs, key: str) -> float | None:
    """Norm of the gradient of the objective's smoothness term over that of the loss, the mean over the steps that
    measured it; None if the objective has no such term.
    """
    file = inputs.runs / "train" / inputs.cells[key]["path"] / "statistics.parquet"
    if not file.exists():
        return None
    table = artifacts.read_parquet(file, ["name", "value"])
    found = [v for name, v in zip(*(table[c].to_pylist() for c in ("name", "value")), strict=True) if name == _SHARE]
    return sum(found) / len(found) if found else None


def _costs(runs: Path, cells: dict[str, dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    """(encoder, method) -> output of `measure`, for the encoders and methods that have been measured.

    Raises:
        InputError: a file is damaged or says "ok" and lacks a time.
    """
    found = {}
    folders = {(c["encoder"], c["method"]): c.get("measured", c["encoder"]) for c in cells.values()}
    for (encoder, method), folder in folders.items():
        file = runs / "measure" / folder / f"{method}.json"
        if not file.exists():
            continue
        made = artifacts.read_json(file)
        if made.get("state") == "ok":
            for name in ("ratio", "method_seconds"):
                if not isinstance((made.get("time") or {}).get(name), int | float):
                    raise InputError(f"{file}: time.{name} is missing\nexpected: what the stage `measure` writes")
            if not isinstance((made.get("run") or {}).get("ratio"), int | float):
                raise InputError(f"{file}: run.ratio is missing\nexpected: what the stage `measure` writes now")
        found[encoder, method] = made
    return found


def _metrics(file: Path) -> dict[str, Any]:
    return artifacts.read_json(file) if file.exists() else NOT_RUN


def _references(file: Path, task: Kind, settings: Report) -> dict[str, list[metrics.Score | None]]:
    """Scores that need no training, for the primary and the secondary target."""
    import numpy as np

    table = artifacts.read_parquet(file, ["label", *task.also])
    made: list[dict[str, metrics.Score | None]] = []
    for target in (settings.primary, settings.secondary):
        chosen = np.ones(len(table), dtype=bool)
        for column, value in target.where.items() if target else ():
            values = table[column].to_pylist() if column in table.column_names else [None] * len(table)
            chosen &= np.array([str(x) == str(value) for x in values], dtype=bool)
        rule = table["rule"].to_numpy(zero_copy_only=False)[chosen] if "rule" in table.column_names else None
        labels = task.truths(table)[chosen]
        made.append(task.references(target.metric, labels, rule) if target and chosen.any() else {})
    first, second = made
    return {name: [one, second.get(name)] for name, one in first.items() if one is not None and one.value is not None}
