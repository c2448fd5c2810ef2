"""The content of report/results.json: a row per cell, and one per condition, encoder and method."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from gradworks import metrics, statistics
from gradworks.report import caveats, cost, examples, words
from gradworks.report.differences import bounds, differences
from gradworks.report.read import adversarial_share, figure
from gradworks.report.settings import Inputs, Report, Target

USED = ("ok", "not converged")  # states whose scores count; those of the second are marked
INACTIVE = 1e-3  # a row whose smoothness term has less than this share of the loss's gradient is labelled


def results(inputs: Inputs, steps: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    """The results, a pure function of the inputs: independent of time, host, paths and stale files.

    Args:
        steps: rows of the waterfall (waterfall.py).
    """
    settings = inputs.settings
    cells = [_cell(inputs, key) for key in inputs.cells]
    made = {
        "title": settings.title,
        "task": inputs.task.name,
        "baseline": settings.baseline,
        "controls": settings.controls,
        "primary": _target(settings.primary),
        "secondary": _target(settings.secondary) if settings.secondary else None,
        "cells": cells,
        "summaries": _summaries(inputs, cells),
        "references": [
            {"condition": condition, "name": name, "primary": _score(one), "secondary": _score(two)}
            for condition, rows in inputs.references.items()
            for name, (one, two) in rows.items()
        ],
        "ensembles": [_ensemble(settings, key, item) for key, item in inputs.ensembles.items()],
        "data": _data(inputs),
        "cost": cost.costs(inputs),
    }
    if steps:  # no key where there is none
        made["waterfall"] = list(steps)
    said = {"answer": words.answer(made), "headline": words.headline(made), "checks": words.checks(made, inputs)}
    return made | said


def _target(target: Target) -> dict[str, Any]:
    return {
        **target.model_dump(),
        "name": target.name,
        "subset": target.subset,
        "better": metrics.better(target.metric),
    }


def _score(score: metrics.Score | None) -> dict[str, Any] | None:
    return None if score is None else score.as_dict()


def _cell(inputs: Inputs, key: str) -> dict[str, Any]:
    item, found, settings = inputs.cells[key], inputs.metrics[key], inputs.settings
    where = f"metrics of {key}"
    made = {"key": key, **{name: item[name] for name in ("condition", "method", "encoder", "seed", "path")}}
    made |= {name: found.get(name) for name in ("state", "reason", "steps", "examples", "skipped")}
    made["primary"] = figure(found, settings.primary, where)
    made["secondary"] = figure(found, settings.secondary, where) if settings.secondary else None
    without = found.get("without_leaked")
    made["without_leaked"] = figure(without, settings.primary, where) if without else None
    made["adversarial_share"] = adversarial_share(inputs, key)
    return made


def _values(cells: list[dict[str, Any]], which: str) -> dict[int, float]:
    """Seed -> value of the cells that have one."""
    scores = {c["seed"]: c[which] for c in cells if c["state"] in USED and c[which] is not None}
    return {seed: score["value"] for seed, score in scores.items() if statistics.is_number(score["value"])}


def _summaries(inputs: Inputs, cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for cell in cells:
        groups.setdefault((cell["condition"], cell["encoder"], cell["method"]), []).append(cell)
    made = []
    conditions = list(dict.fromkeys(c for c, _, _ in groups))  # grouped by condition
    for condition, encoder in sorted(dict.fromkeys((c, e) for c, e, _ in groups), key=lambda f: conditions.index(f[0])):
        family = {m: rows for (c, e, m), rows in groups.items() if (c, e) == (condition, encoder)}
        summaries = {method: _summary(inputs, rows) for method, rows in family.items()}
        for which, target in (("primary", inputs.settings.primary), ("secondary", inputs.settings.secondary)):
            if target:
                _compare(inputs, summaries, family, which, target)
        made += [{"condition": condition, "encoder": encoder, "method": m, **s} for m, s in summaries.items()]
    return made


def _compare(
    inputs: Inputs,
    summaries: dict[str, dict[str, Any]],
    family: dict[str, list[dict[str, Any]]],
    which: str,
    target: Target,
) -> None:
    """Set `difference` (to the baseline) and `control` of each method of a condition and encoder."""
    values = {method: _values(cells, which) for method, cells in family.items()}
    weak = {m: {c["seed"] for c in cells if c["state"] != "ok"} for m, cells in family.items()}
    baseline, controls = inputs.settings.baseline, inputs.settings.controls
    for name, others in (("difference", dict.fromkeys(family, baseline)), ("control", controls)):
        pairs = [(m, others[m]) for m in family if others.get(m) in family and others[m] != m]
        spread = examples.spread(inputs, family, target, pairs)
        better, limits = metrics.better(target.metric), bounds(target.metric)
        for (method, _), one in differences(values, weak, pairs, better, spread, name == "difference", limits).items():
            summaries[method][name][which] = one


def _summary(inputs: Inputs, cells: list[dict[str, Any]]) -> dict[str, Any]:
    made: dict[str, Any] = {"seeds": [c["seed"] for c in cells], "states": {}}
    for cell in cells:
        made["states"][cell["state"]] = made["states"].get(cell["state"], 0) + 1
    for which in ("primary", "secondary", "without_leaked"):
        values = _values(cells, which)
        made[which] = {**dataclasses.asdict(statistics.mean(list(values.values()))), "values": list(values.values())}
    made |= {name: {"primary": None, "secondary": None} for name in ("difference", "control")}
    for count in ("steps", "examples", "skipped"):
        counts = [c[count] for c in cells if c[count] is not None]
        made[count] = round(sum(counts) / len(counts)) if counts else None
    shares = [c["adversarial_share"] for c in cells if c["adversarial_share"] is not None]
    made["adversarial_share"] = sum(shares) / len(shares) if shares else None
    made["inactive"] = bool(shares) and made["adversarial_share"] < INACTIVE
    made["by"] = _by(inputs, cells)
    return made


def _by(inputs: Inputs, cells: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Column -> value -> mean of the primary metric over seeds, and the number of examples."""
    metric, made = inputs.settings.primary.metric, {}
    used = [inputs.metrics[c["key"]]["by"] for c in cells if c["state"] in USED]
    for column in used[0] if used else ():
        made[column] = {}
        for value in used[0][column]:
            scores = [by[column][value][metric] for by in used if value in by.get(column, {})]
            known = [s["value"] for s in scores if s["value"] is not None]
            mean = statistics.mean(known).value
            made[column][value] = {"mean": mean, "n": scores[0]["n"], "small": scores[0].get("small", False)}
    return made


def _ensemble(settings: Report, key: str, item: dict[str, Any]) -> dict[str, Any]:
    found, where = item["metrics"], f"metrics of ensemble {key}"
    made: dict[str, Any] = {name: item[name] for name in ("condition", "method", "encoders")}
    made |= {"name": key, "state": found["state"], "reason": found.get("reason", ""), "rows": []}
    if found["state"] == "ok":
        rules = [(name, one) for name, one in found.get("rules", {}).items() if "overall" in one]
        rows = [*found["members"].items(), ("mean", found["mean"]), *rules, ("oracle", found["oracle"])]
        for name, scores in rows:
            two = figure(scores, settings.secondary, where) if settings.secondary else None
            made["rows"].append({"name": name, "primary": figure(scores, settings.primary, where), "secondary": two})
    made |= {name: found.get(name, {}) for name in ("left_out", "disagreement", "adds", "against")}
    made |= {"pairs": found.get("pairs", []), "members": list(found.get("members", {}))}
    made["rules"] = {name: {k: v for k, v in one.items() if k not in ("overall", "by")}
                     for name, one in found.get("rules", {}).items()}  # fmt: skip
    return made | {"said": words.ensemble(made, metrics.better(settings.primary.metric))}


def _data(inputs: Inputs) -> dict[str, Any]:
    """The data behind the figures: sources as in params.yaml, rows, corruptions, digests."""
    made: dict[str, Any] = {"sources": inputs.values.get("fetch") or {}, "conditions": {}}
    for condition, manifest in inputs.data.items():
        made["conditions"][condition] = {
            "splits": manifest.get("splits", {}),
            "corruptions": manifest.get("corruptions", {}),
            "seed": manifest.get("seed"),
            "sha256": {name: entry["sha256"] for name, entry in manifest["files"].items()},
        }
    corrupt = inputs.values.get("corrupt") or {}
    said = words.data(made, corrupt.get("splits") or {}, corrupt.get("parts"))
    notes = "".join(f" {note}" for note in inputs.settings.notes)
    return made | {"said": said + caveats.said(inputs.data, inputs.task.reads) + caveats.terms(inputs) + notes}
