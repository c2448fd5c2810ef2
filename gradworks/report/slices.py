"""Slices in the report: each slice's score with heads for slices and without, and the paired gain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gradworks import metrics, statistics
from gradworks.metrics import SMALL
from gradworks.report import examples
from gradworks.report.differences import bounds, differences
from gradworks.report.read import figure
from gradworks.report.settings import Target
from gradworks.report.summary import USED

if TYPE_CHECKING:
    from gradworks.report.settings import Inputs

MEMBER = "in"  # as of gradworks.data.members, on which only the stages with slices depend


def names(inputs: Inputs) -> list[str]:
    """Of all slices that were scored."""
    found = (one for each in inputs.metrics.values() for one in (each.get("slices") or {}).get("names", ()))
    return list(dict.fromkeys(found))


def compared(inputs: Inputs) -> list[dict[str, Any]]:
    """A part for each condition, method, encoder and mixture with heads for slices.

    Returns:
        `condition`, `method`, `encoder`, `mixture`, `base` (see `_base`),
        `combine`, and `rows`: for all examples and each slice `n`, `small` (below 30), `base` and `sliced` (means over
        seeds of the primary metric), `combined` (of each way to combine the heads) and `gain`: the difference as
        `differences` gives it, its p corrected over the part's rows (Holm). With one seed the interval is over test
        examples, and `note` says so.
    """
    made = []
    for (condition, method, encoder), cells in _groups(inputs).items():
        for mixture, own in cells.items():
            first = next((inputs.metrics[key]["slices"] for key in own.values() if _heads(inputs, key)), None)
            if first is None:
                continue
            base = _base(inputs, mixture, list(cells))
            rows = [_row(inputs, slice_, own, cells.get(base) or {}) for slice_ in (None, *first["names"])]
            _correct(rows)
            about = {"condition": condition, "method": method, "encoder": encoder, "mixture": mixture, "base": base}
            made.append({**about, "combine": first["combine"], "heads": first["heads"], "rows": rows})
    return made


def _groups(inputs: Inputs) -> dict[tuple[str, str, str], dict[str, dict[int, str]]]:
    """(condition, method, encoder) -> mixture -> seed -> key of the cell."""
    groups: dict[tuple[str, str, str], dict[str, dict[int, str]]] = {}
    for key, cell in inputs.cells.items():
        if cell.get("mixture"):
            family = groups.setdefault((cell["condition"], cell["method"], cell.get("trained", cell["encoder"])), {})
            family.setdefault(cell["mixture"], {})[cell["seed"]] = key
    return groups


def _heads(inputs: Inputs, key: str) -> bool:
    return "heads" in (inputs.metrics[key].get("slices") or {})


def _base(inputs: Inputs, mixture: str, others: list[str]) -> str | None:
    """The mixture of the same tasks without slices: one that starts where it does, else the one it starts from."""
    mixtures = inputs.values["mixtures"]
    ours = mixtures[mixture]
    there = [n for n in others if mixtures[n]["parts"] == ours["parts"] and not mixtures[n].get("slices")]
    ranks = {n: (mixtures[n].get("from") != ours.get("from"), n != ours.get("from")) for n in there}
    return min(there, key=ranks.__getitem__, default=None)


def _row(inputs: Inputs, name: str | None, own: dict[int, str], base: dict[int, str]) -> dict[str, Any]:
    """One slice, or all examples."""
    metric = inputs.settings.primary.metric
    target = Target(metric=metric, where={name: MEMBER} if name else {})
    family = {side: [_cell(inputs, key, seed, side, target) for seed, key in keys.items()]
              for side, keys in (("sliced", own), ("base", base))}  # fmt: skip
    values = {side: {c["seed"]: c["primary"]["value"] for c in cells if c["state"] in USED and c["primary"]}
              for side, cells in family.items()}  # fmt: skip
    values = {side: {s: v for s, v in of.items() if statistics.is_number(v)} for side, of in values.items()}
    n = next((c["primary"]["n"] for cells in family.values() for c in cells if c["primary"]), 0)
    row: dict[str, Any] = {"slice": name, "n": n, "small": n < SMALL}
    row |= {side: statistics.mean(list(of.values())).value for side, of in values.items()}
    row["combined"] = _combined(inputs, own, name, metric)
    row["gain"] = _gain(inputs, family, values, target) if values["sliced"] and values["base"] else None
    return row


def _cell(inputs: Inputs, key: str, seed: int, side: str, target: Target) -> dict[str, Any]:
    found = inputs.metrics[key]
    score = figure(found, target, f"metrics of {key}") if found["overall"] else None
    cell = {"method": side, "seed": seed, "path": inputs.cells[key]["path"], "state": found["state"]}
    return cell | {"primary": score}


def _combined(inputs: Inputs, own: dict[int, str], name: str | None, metric: str) -> dict[str, float | None]:
    found: dict[str, list[float]] = {}
    for key in own.values():
        for how, scores in (inputs.metrics[key].get("slices") or {}).get("combined", {}).items():
            part = scores["by"].get(name, {}).get(MEMBER, {}) if name else scores["overall"]
            if statistics.is_number(part.get(metric, {}).get("value")):
                found.setdefault(how, []).append(part[metric]["value"])
    return {how: statistics.mean(values).value for how, values in found.items()}


def _gain(inputs: Inputs, family: Any, values: dict[str, dict[int, float]], target: Target) -> dict[str, Any] | None:
    pair = ("sliced", "base")
    spread = examples.spread(inputs, family, target, [pair])
    better = metrics.better(target.metric)
    made = differences(values, {}, [pair], better, spread, True, bounds(target.metric))[pair]
    if made["n"] == 1 and pair in spread and spread[pair][0] > 0:
        from scipy.special import stdtr, stdtrit

        error, n = spread[pair]
        half = float(stdtrit(n - 1, 0.975)) * error
        made |= {"low": made["mean"] - half, "high": made["mean"] + half, "se": error, "examples": n}
        made |= {"p": float(2 * stdtr(n - 1, -abs(made["mean"] / error))), "note": "over test examples alone: 1 seed"}
    return made


def _correct(rows: list[dict[str, Any]]) -> None:
    """Verdicts by p corrected over the rows: with many slices some differ by chance."""
    gains = [row["gain"] for row in rows if row["gain"]]
    for one, p in zip(gains, statistics.holm([gain["p"] for gain in gains]), strict=True):
        one["corrected_p"] = p
        one["certain"] = p is not None and p < 0.05
        if p is not None:
            one["verdict"] = ("gain" if one["mean"] > 0 else "loss") if one["certain"] else "undecided"
