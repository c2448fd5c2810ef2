"""Two results.json of one benchmark: what a change of the code did to each method, and whether that is beyond chance.

A method whose cells all score as before is unchanged: stages are replayed bit for bit, so most are. For the others the
difference is paired by seed. With two seeds a row alone has one degree of freedom, and its interval would hide a drop
of ten points; so the spread of such differences is estimated from all changed rows together, and from how far apart the
methods of the base stand from seed to seed (the residuals of method + seed in each condition: what a retraining does).
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradworks import statistics
from gradworks.report import form
from gradworks.stage.artefacts import read_json
from gradworks.stage.errors import InputError

LEVEL = 0.999  # of the intervals: an alarm that is often false is not looked at
_USED = ("ok", "not converged")


@dataclass(frozen=True)
class Change:
    """One method on one condition and encoder, before and after.

    Attributes:
        seeds: that both have.
        before, after: means of the primary metric over them; None where a side has no score.
        mean: of the paired differences; `low`, `high`: its interval, None where there is none.
        p: two-sided, corrected over the changed rows (Holm).
        detectable: the smallest true difference that this many seeds would show with 80 % power.
        verdict: "unchanged", "better", "worse", "within chance", "no interval", "new", "gone" or "lost" (its cells had
            a score and have none).
    """

    condition: str
    encoder: str
    method: str
    seeds: int
    before: float | None
    after: float | None
    mean: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    detectable: float | None = None
    verdict: str = "unchanged"

    @property
    def fails(self) -> bool:
        """It is worse beyond its interval, or has no result any more."""
        return self.verdict in ("worse", "lost")


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[Change]:
    """Every row of either side, in the order of `after`.

    Raises:
        ValueError: the two have another primary metric or subset, so that their scores are of different things.
    """
    if before["primary"]["name"] != after["primary"]["name"]:
        raise ValueError(f"the base's figure is {before['primary']['name']!r}, now it is {after['primary']['name']!r}")
    old, new = _rows(before), _rows(after)
    pairs: dict[tuple[str, str, str], list[float]] = {}
    made: dict[tuple[str, str, str], Change] = {}
    for key in dict.fromkeys([*new, *old]):
        ours, theirs = new.get(key, {}), old.get(key, {})
        common = [s for s in ours if s in theirs and ours[s] is not None and theirs[s] is not None]
        means = [math.fsum(side[s] for s in common) / len(common) if common else None for side in (theirs, ours)]
        made[key] = Change(*key, len(common), *means, verdict=_known(ours, theirs))
        if made[key].verdict == "":
            pairs[key] = [ours[s] - theirs[s] for s in common]
    return list((made | _judged(made, pairs, _spread(old), after["primary"]["better"])).values())


def _rows(results: dict[str, Any]) -> dict[tuple[str, str, str], dict[int, float | None]]:
    """(condition, encoder, method) -> seed -> value; None where the cell ended without a score."""
    found: dict[tuple[str, str, str], dict[int, float | None]] = {}
    for cell in results["cells"]:
        if cell["state"] != "not run":
            score = cell["primary"] if cell["state"] in _USED else None
            row = found.setdefault((cell["condition"], cell["encoder"], cell["method"]), {})
            row[cell["seed"]] = score["value"] if score else None
    return found


def _known(ours: dict[int, float | None], theirs: dict[int, float | None]) -> str:
    """The verdict that needs no statistics, else ""."""
    if not theirs:
        return "new"
    if not ours:
        return "gone"
    if any(theirs[s] is not None and ours.get(s, 0.0) is None for s in theirs):
        return "lost"
    return "unchanged" if all(ours[s] == theirs[s] for s in ours if s in theirs) else ""


def _spread(rows: dict[tuple[str, str, str], dict[int, float | None]]) -> tuple[float, int]:
    """Sum of squares and degrees of freedom of what neither method nor seed explains, over conditions and encoders."""
    import numpy as np

    squares, freedom = 0.0, 0
    for family in dict.fromkeys((condition, encoder) for condition, encoder, _ in rows):
        own = [row for key, row in rows.items() if key[:2] == family and None not in row.values()]
        seeds = sorted(set.intersection(*(set(row) for row in own))) if own else []
        if len(own) > 1 and len(seeds) > 1:
            table = np.array([[row[s] for s in seeds] for row in own], dtype=float)
            rest = table - table.mean(0) - table.mean(1, keepdims=True) + table.mean()
            squares += float((rest**2).sum())
            freedom += (len(own) - 1) * (len(seeds) - 1)
    return squares, freedom


def _judged(
    made: dict[tuple[str, str, str], Change],
    pairs: dict[tuple[str, str, str], list[float]],
    spread: tuple[float, int],
    better: int,
) -> dict[tuple[str, str, str], Change]:
    """The changed rows with interval, corrected p and verdict; `spread` of one training, a difference has two."""
    from scipy.special import stdtr, stdtrit

    means = {key: math.fsum(values) / len(values) for key, values in pairs.items()}
    freedom = spread[1] + sum(len(values) - 1 for values in pairs.values())
    squares = 2 * spread[0] + math.fsum((v - means[key]) ** 2 for key, values in pairs.items() for v in values)
    sd = math.sqrt(squares / freedom) if freedom else 0.0
    judged: dict[tuple[str, str, str], Change] = {}
    if sd == 0.0:  # one seed, or the same difference for each: nothing says how much chance does
        return {key: _with(made[key], mean=mean, verdict="no interval") for key, mean in means.items()}
    ses = {key: sd / math.sqrt(len(values)) for key, values in pairs.items()}
    p_values = statistics.holm([float(2 * stdtr(freedom, -abs(means[key] / ses[key]))) for key in pairs])
    for key, p in zip(pairs, p_values, strict=True):
        half = float(stdtrit(freedom, (1 + LEVEL) / 2)) * ses[key]
        verdict = "within chance"
        if p is not None and p < 1 - LEVEL:
            verdict = "better" if means[key] * better > 0 else "worse"
        judged[key] = _with(
            made[key], mean=means[key], low=means[key] - half, high=means[key] + half, p=p, verdict=verdict,
            detectable=statistics.detectable(sd, len(pairs[key]), alpha=1 - LEVEL, freedom=freedom),
        )  # fmt: skip
    return judged


def _with(change: Change, **values: Any) -> Change:
    return Change(**{**vars(change), **values})


def markdown(found: list[Change], after: dict[str, Any], base: str) -> str:
    """What a pull request is told: a sentence, and a table of the rows that changed.

    Args:
        found: what `changes` returned.
        after: the results now.
        base: how the commit that they are compared with is called.
    """
    from gradworks.report.page import escaped

    name, other = escaped(after["primary"]["name"]), [c for c in found if c.verdict != "unchanged"]
    lines = [f"### Against `{base}`: {_sentence(found)}", ""]
    if other:
        lines += [
            f"{name}; means over the seeds that both have, differences paired by seed with {LEVEL:.1%} intervals from "
            "the spread of all changed rows and of the base's methods from seed to seed, p corrected over them (Holm).",
            "",
            "| condition | encoder | method | seeds | before | after | difference | p | detectable | |",
            "|---|---|---|---|---|---|---|---|---|---|",
        ]
    for c in other:
        gap = "–" if c.mean is None else form.signed(c.mean)
        gap += f" [{form.signed(c.low)}, {form.signed(c.high)}]" if c.low is not None else ""
        p = "–" if c.p is None else f"{c.p:.2g}"
        cells = [escaped(c.condition), escaped(c.encoder), escaped(c.method), str(c.seeds), form.number(c.before)]
        cells += [form.number(c.after), gap, p, form.number(c.detectable), f"**{c.verdict}**" if c.fails else c.verdict]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines).rstrip() + "\n\n"


def _sentence(found: list[Change]) -> str:
    counts: dict[str, int] = {}
    for change in found:
        counts[change.verdict] = counts.get(change.verdict, 0) + 1
    order = ("lost", "worse", "better", "within chance", "no interval", "new", "gone", "unchanged")
    return ", ".join(f"{counts[verdict]} {verdict}" for verdict in order if verdict in counts) or "nothing to compare"


def say(before: Path, after: Path, base: str) -> None:
    """Print the comparison of two results.json as Markdown.

    Args:
        before, after: the files.
        base: what `before` is called in the text.

    Raises:
        InputError: a file is no results.json, or the two score different things.
        SystemExit: 1, a method is worse beyond its interval or lost its result.
    """
    sides = [read_json(file) for file in (before, after)]
    for file, side in zip((before, after), sides, strict=True):
        for key in ("primary", "cells"):
            if key not in side:
                raise InputError(f"{file}: no key {key!r}\nexpected a results.json of gradworks")
    try:
        found = changes(*sides)
    except ValueError as error:
        raise InputError(f"{before}, {after}: {error}") from None
    print(markdown(found, sides[1], base), end="", flush=True)
    failed = sum(change.fails for change in found)
    if failed:
        print(f"error: {failed} of {len(found)} methods are worse beyond their intervals", file=sys.stderr)
        raise SystemExit(1)
