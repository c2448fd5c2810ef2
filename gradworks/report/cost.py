"""What each method costs, from the stage `measure`: one row per encoder and method, each with its hardware.

A ratio holds for one machine only, so hardware is part of every row and no column mixes two machines.
"""

from __future__ import annotations

import math
from typing import Any

from gradworks.report.settings import Inputs

PARTS = ("time", "memory", "operations", "energy", "throughput")
_MILLION, _HOUR = 1e6, 3600  # examples, seconds
_MISSING = {"state": "not measured", "reason": "", "hardware": {}}


def costs(inputs: Inputs) -> dict[str, Any]:
    """Rows for all encoders and methods of the cells, and the hardware in words."""
    pairs = dict.fromkeys((cell["encoder"], cell["method"]) for cell in inputs.cells.values())
    rows = [_row(inputs, encoder, method) for encoder, method in pairs]
    named = dict.fromkeys(row["hardware"] for row in rows if row["hardware"])
    return {"rows": rows, "hardware": list(named), "measured": bool(named), "of": inputs.settings.baseline}


def hardware(about: dict[str, Any]) -> str:
    """`AMD EPYC 7763, 2 cores, 1 thread, torch 2.13.0`: what sets the speed; the release of torch, not its build."""
    said = [about["device"]] if about.get("device") else []
    for key, one in (("cores", "core"), ("threads", "thread")):
        said += [f"{about[key]} {one}{'s' * (about[key] != 1)}"] if about.get(key) else []
    return ", ".join([*said, *([f"torch {about['torch'].partition('+')[0]}"] if about.get("torch") else [])])


def _row(inputs: Inputs, encoder: str, method: str) -> dict[str, Any]:
    point = inputs.values["methods"].get(method) or {}
    found = inputs.costs.get((encoder, method), _MISSING)
    other = inputs.costs.get((encoder, point.get("as_long_as")), _MISSING)
    made: dict[str, Any] = {"encoder": encoder, "method": method, "state": found["state"]}
    made |= {"reason": found.get("reason", ""), "note": found.get("note", "")}
    about = (found if "as_long_as" not in point else other).get("hardware") or {}
    made["hardware"] = hardware(about)
    ok = found["state"] == "ok"
    made |= {part: found.get(part) if ok else None for part in (*PARTS, "passes", "pairs", "batches")}
    made |= {"after": point.get("from"), "as_long_as": point.get("as_long_as")}
    price, rate = inputs.settings.price_per_hour.get(about.get("device", "")), made["throughput"]
    # of training on a million examples, in the money of the price
    made["money"] = None if price is None or not rate else _MILLION / rate["method_examples"] / _HOUR * price
    total, low, high = _total(inputs, encoder, method) or (None, None, None)
    return made | {"total": total, "total_low": low, "total_high": high}


def _total(inputs: Inputs, encoder: str, method: str) -> tuple[float, float | None, float | None] | None:
    """The time of a whole run over that of the baseline's run on the same machine, and its interval.

    Rows are compared at equal examples, so it is the ratio of times per batch, for any number of batches in a step;
    both were timed beside plain training with one batch a step. A method that starts from another's model includes
    that one's time. None if either was not measured or the machines differ; no interval if nothing is uncertain.
    """
    points, baseline, measured, fixed = inputs.values["methods"], inputs.settings.baseline, [], 0.0
    base = inputs.costs.get((encoder, baseline), _MISSING)
    name: str | None = method
    while name:
        point = points.get(name) or {}
        found = inputs.costs.get((encoder, point.get("as_long_as", name)), _MISSING)
        if found["state"] != "ok":
            return None
        if "as_long_as" in point:  # its schedule from the stage `measure`, in steps of plain training
            fixed += round(found["time"]["ratio"], 1)
        elif base["state"] != "ok" or base.get("hardware") != found.get("hardware"):
            return None
        elif name == baseline:
            fixed += 1.0
        else:
            measured.append(found["run"])
        name = point.get("from")
    if not measured:
        return fixed, None, None
    total, *ends = over(measured, base["run"])
    return fixed + total, *(None if end is None else fixed + end for end in ends)


def over(parts: list[dict[str, Any]], base: dict[str, Any]) -> tuple[float, float | None, float | None]:
    """The sum of independently measured ratios over another one: value, low, high.

    Half widths add in quadrature: those of the terms of the sum, then those of the logarithms of sum and divisor. Both
    intervals have 95 % coverage, so their ratio's has it too (to first order; exactly for two normal logarithms).
    """
    total = math.fsum(part["ratio"] for part in parts)
    if any(one.get(end) is None for one in (*parts, base) for end in ("low", "high")):
        return total / base["ratio"], None, None
    ends = []
    for end, other in (("low", "high"), ("high", "low")):
        far = total + math.copysign(math.hypot(*(p[end] - p["ratio"] for p in parts)), 1 if end == "high" else -1)
        if far <= 0 or base[other] <= 0:  # too noisy for a logarithm
            return total / base["ratio"], None, None
        log = math.hypot(math.log(far / total), math.log(base[other] / base["ratio"]))
        ends.append(total / base["ratio"] * math.exp(log if end == "high" else -log))
    return total / base["ratio"], *ends
