"""Published numbers beside the measured ones: `published.yaml` of a benchmark, and a verdict on every published gain.

A verdict is on the gain over another method, not on the score: its sign and its size. It is that of the report's own
interval of the paired difference, so it is corrected over the methods of the table.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from pydantic import Field

from gradworks import base
from gradworks.base import Section
from gradworks.base.errors import InputError

FILE = "published.yaml"


class Row(Section):
    """A published score.

    Attributes:
        method: of the report.
        value: in the unit of the report's metric: an accuracy is a share, not per cent.
        se: its standard error, as published.
        over: the method whose row its gain is over; by default the file's. Its own name: nothing is said of a gain.
        metric: primary or secondary, of the section `report`.
        encoder, condition: of the report; needed where it has several.
        note: printed beside the verdict: why the two are not comparable, what the source has wrong.
    """

    method: str
    value: float
    se: float | None = Field(None, ge=0)
    over: str | None = None
    metric: str = Field("primary", pattern="^(primary|secondary)$")
    encoder: str | None = None
    condition: str | None = None
    note: str = ""


class Published(Section):
    """A file published.yaml.

    Attributes:
        source: authors, title, table.
        over: the method that gains are over; by default the report's baseline.
        differs: what differs from the source, one sentence each, the weightiest first.
        rows: the published scores.
    """

    source: str
    over: str | None = None
    differs: list[str] = Field(min_length=1)
    rows: list[Row] = Field(min_length=1)


def read(folder: Path) -> Published | None:
    """The file of a benchmark's folder; None where it has none. Raises InputError for one that does not fit."""
    file = folder / FILE
    return base.validate(base.fresh_yaml(file), Published, str(file)) if file.exists() else None


def ledger(results: dict[str, Any], published: Published, where: str) -> list[dict[str, Any]]:
    """A row for each published score.

    Args:
        results: those of the report.
        published: of the same benchmark.
        where: its file, for messages.

    Returns:
        method, metric, note, published, se, measured (the mean over seeds of results.json), over (None for the row
        that others are over), gain (published), difference (of results.json; None where none was computed), verdict.

    Raises:
        InputError: a row names no row of the report, or several; nothing was published of what a gain is over.
    """
    made = []
    for row in published.rows:
        own, over = _summary(results, row, where), row.over or published.over or results["baseline"]
        if results[row.metric] is None:
            raise InputError(f"{where}: {row.method}: found metric secondary, expected one that the report has")
        one: dict[str, Any] = {"method": row.method, "metric": results[row.metric]["name"], "note": row.note}
        one |= {"published": row.value, "se": row.se, "measured": own[row.metric]}
        if row.method == over:
            made.append(one | {"over": None, "gain": None, "difference": None, "verdict": ""})
            continue
        like = (row.metric, row.encoder, row.condition)
        there = [r for r in published.rows if r.method == over and (r.metric, r.encoder, r.condition) == like]
        if len(there) != 1:
            raise InputError(f"{where}: {row.method}: found {len(there)} rows of {over}, expected the one it is over")
        found = (own[name][row.metric] for name in ("difference", "control"))
        difference = next((d for d in found if d and d["to"] == over), None)
        gain = row.value - there[0].value
        made.append(one | {"over": over, "gain": gain, "difference": difference, "verdict": verdict(gain, difference)})
    return made


def verdict(gain: float, measured: dict[str, Any] | None) -> str:
    """The verdict on a published gain.

    Args:
        gain: the published difference of two scores.
        measured: the difference that results.json has of them.

    Returns:
        `reproduced`: the interval excludes 0 on the side of the published gain. `contradicted`: on the other.
        `not reproduced`: it holds 0 and ends before the published gain. Else `undecided`, with the number of seeds at
        which a gain of the published size would be found with 80 % power, if the spread stays.
    """
    if measured is None or measured["low"] is None:
        return "no interval"
    low, high, sign = measured["low"], measured["high"], math.copysign(1.0, gain)
    if gain == 0:
        return "no gain was published"
    if low > 0 or high < 0:
        return "reproduced" if measured["mean"] * gain > 0 else "contradicted"
    if max(low * sign, high * sign) < abs(gain):
        return "not reproduced"
    if not measured["detectable"]:
        return "undecided"
    seeds = math.ceil(measured["n"] * (measured["detectable"] / abs(gain)) ** 2)
    return f"undecided; {max(seeds, measured['n'] + 1)} seeds would decide"


def _summary(results: dict[str, Any], row: Row, where: str) -> dict[str, Any]:
    wanted = {name: value for name in ("method", "encoder", "condition") if (value := getattr(row, name))}
    found = [s for s in results["summaries"] if all(s[name] == value for name, value in wanted.items())]
    if len(found) != 1:
        said = ", ".join(f"{name} {value}" for name, value in wanted.items())
        names = ", ".join(dict.fromkeys(s["method"] for s in results["summaries"]))
        more = f"the methods {names}" if not found else "condition and encoder too"
        raise InputError(f"{where}: {said}: found {len(found)} rows of the report, expected one\nexpected: {more}")
    return found[0]
