"""Compares two results.json of one benchmark: how a code change moved each method, and whether that is beyond chance.

A method whose cells all score as before is unchanged: stages are replayed bit for bit, so most are. For the others the
difference is paired by seed. With two seeds, one row has a single degree of freedom, and its interval would hide a drop
of ten points. So the spread of the differences is pooled over all changed rows and over the residuals of method + seed
in each condition, which are the noise of a retraining. Rows may differ in spread: a difference must also exceed five
standard errors of the widest row. If rows clearly differ, the widest row's spread replaces the pooled one, and a
difference must exceed its own row's interval as well. With two seeds a noisy row can look quiet by chance, so a row
that is worse by this rule is reported but does not fail, unless its own spread confirms it.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradworks import statistics
from gradworks.base.artifacts import read_json
from gradworks.base.errors import InputError
from gradworks.report import form

LEVEL = 0.999  # of the intervals: frequent false alarms get ignored
ALARM = 0.9999  # of the exit status; LEVEL at three seeds, which must find drops of ten points
_OWN = 3  # seeds; below, only a row's own spread can fail the run
_USED = ("ok", "not converged")
_CLEAR = 0.01  # level of the test that rows differ in spread
_WIDEST = 5.0  # standard errors of the row with the widest spread
Key = tuple[str, str, str]  # condition, encoder, method
Rows = dict[Key, dict[int, float | None]]


@dataclass(frozen=True)
class Change:
    """One method on one condition and encoder, before and after.

    Attributes:
        seeds: number of common seeds.
        before, after: means of the primary metric over them; None if a side has no score.
        mean: of the paired differences; `low`, `high`: its interval, corrected like p; None without one.
        p: two-sided, corrected over the changed rows (Bonferroni).
        detectable: the smallest true difference that this rule finds with 80 % power, correction included.
        verdict: "unchanged", "better", "worse", "within chance", "no interval", "new", "gone", "lost" (a cell had a
            score and lost it), "now scored" (no cell had one) or "no common seed".
        sure: beyond chance at the level of the exit status, too.
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
    sure: bool = False

    @property
    def fails(self) -> bool:
        """Surely worse, or lost its result."""
        return self.verdict == "lost" or (self.verdict == "worse" and self.sure)


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[Change]:
    """Every row of either side, in the order of `after`.

    Raises:
        ValueError: the two differ in primary metric or subset, so their scores are not comparable.
    """
    if before["primary"]["name"] != after["primary"]["name"]:
        raise ValueError(f"the base's figure is {before['primary']['name']!r}, now it is {after['primary']['name']!r}")
    old, new = _rows(before), _rows(after)
    pairs: dict[Key, list[float]] = {}
    made: dict[Key, Change] = {}
    for key in dict.fromkeys([*new, *old]):
        ours, theirs = new.get(key, {}), old.get(key, {})
        common = [s for s in ours if s in theirs and ours[s] is not None and theirs[s] is not None]
        means = [math.fsum(side[s] for s in common) / len(common) if common else None for side in (theirs, ours)]
        made[key] = Change(*key, len(common), *means, verdict=_known(ours, theirs))
        if made[key].verdict == "":
            pairs[key] = [ours[s] - theirs[s] for s in common]
    spreads = _spreads(old, new, {key: made[key].verdict for key in made})
    return list((made | _judged(made, pairs, *spreads, after["primary"]["better"])).values())


def _rows(results: dict[str, Any]) -> Rows:
    """(condition, encoder, method) -> seed -> value; None where the cell ended without a score."""
    found: Rows = {}
    for cell in results["cells"]:
        if cell["state"] != "not run":
            score = cell["primary"] if cell["state"] in _USED else None
            row = found.setdefault((cell["condition"], cell["encoder"], cell["method"]), {})
            value = score["value"] if score else None
            row[cell["seed"]] = value if statistics.is_number(value) else None
    return found


def _known(ours: dict[int, float | None], theirs: dict[int, float | None]) -> str:
    """A verdict without statistics, or ""."""
    if not theirs:
        return "new"
    if not ours:
        return "gone"
    if any(theirs[s] is not None and ours.get(s, 0.0) is None for s in theirs):
        return "lost"
    both = [s for s in ours if s in theirs]
    if not both:
        return "no common seed"
    known = [s for s in both if ours[s] is not None and theirs[s] is not None]
    if not known and any(ours[s] is not None for s in both):
        return "now scored"
    return "unchanged" if all(ours[s] == theirs[s] for s in both) or not known else ""


def _spreads(old: Rows, new: Rows, verdicts: dict[Key, str]) -> tuple[dict[Key, tuple[float, int]], tuple[float, int]]:
    """Row -> sum of squares and degrees of freedom of one training's noise, from the residuals of method + seed; and
    those of all rows together, fewer than their sum because the residuals of a seed add to 0.

    A changed row counts with both sides: their sum is independent of their difference and has twice the variance.
    """
    import numpy as np

    found: dict[Key, tuple[float, int]] = {}
    squares, freedom = 0.0, 0
    for family in dict.fromkeys(key[:2] for key in old):
        own = {key: row for key, row in old.items() if key[:2] == family and None not in row.values()}
        seeds = sorted(set.intersection(*(set(row) for row in own.values()))) if own else []
        if len(own) < 2 or len(seeds) < 2:
            continue
        table = np.zeros((len(own), len(seeds)))
        for i, (key, row) in enumerate(own.items()):
            after = new.get(key, {})
            twice = verdicts.get(key) == "" and all(after.get(s) is not None for s in seeds)
            table[i] = [(row[s] + after[s]) / math.sqrt(2) if twice else row[s] for s in seeds]
        rest = table - table.mean(0) - table.mean(1, keepdims=True) + table.mean()
        squares, freedom = squares + float((rest**2).sum()), freedom + (len(own) - 1) * (len(seeds) - 1)
        for key, of in zip(own, rest, strict=True):
            found[key] = float((of**2).sum()) / (1 - 1 / len(own)), len(seeds) - 1
    return found, (squares, freedom)


def _judged(
    made: dict[Key, Change],
    pairs: dict[Key, list[float]],
    spreads: dict[Key, tuple[float, int]],
    all_: tuple[float, int],
    better: int,
) -> dict[Key, Change]:
    """The changed rows with interval, corrected p and verdict. Variances are of one training; a difference has two."""
    from scipy.special import stdtr, stdtrit

    if not pairs:  # no score has changed
        return {}
    means = {key: math.fsum(values) / len(values) for key, values in pairs.items()}
    rows, (total, freedom) = dict(spreads), all_
    for key, values in pairs.items():
        squares, of_own = math.fsum((v - means[key]) ** 2 for v in values) / 2, len(values) - 1
        total, freedom = total + squares, freedom + of_own
        known = rows.get(key, (0.0, 0))
        rows[key] = known[0] + squares, known[1] + of_own
    variance = total / freedom if freedom else 0.0
    if variance == 0.0:  # one seed, or equal differences: no estimate of the noise
        return {key: _with(made[key], mean=mean, verdict="no interval") for key, mean in means.items()}
    differ, widest = _differ(rows, total, freedom), max(s / f for s, f in rows.values() if f)
    variance = widest if differ else variance
    alpha = (1 - LEVEL) / len(pairs)
    judged: dict[Key, Change] = {}
    for key, values in pairs.items():
        own, of_own = rows[key]
        sides = [(variance, freedom)] + ([(own / of_own, of_own)] if differ and of_own else [])
        errors = [(math.sqrt(2 * v / len(values)), f) for v, f in sides]
        half = max(float(stdtrit(f, 1 - alpha / 2)) * se for se, f in errors)
        p = max(float(2 * stdtr(f, -abs(means[key]) / se)) if se else 0.0 for se, f in errors)
        least = [statistics.detectable(math.sqrt(2 * v), len(values), alpha=alpha, freedom=f) for v, f in sides]
        wide = _WIDEST * math.sqrt(2 * widest / len(values))
        if wide > half:  # p follows the interval
            half, p = wide, float(2 * stdtr(freedom, -abs(means[key]) / wide * stdtrit(freedom, 1 - alpha / 2)))
            least = [wide + float(stdtrit(freedom, 0.8)) * errors[0][0]]
        verdict = "within chance"
        if abs(means[key]) > half:
            verdict = "better" if means[key] * better > 0 else "worse"
        if len(values) < _OWN and of_own and not differ:
            errors.append((math.sqrt(2 * own / of_own / len(values)), of_own))
        alarm = (1 - (LEVEL if len(values) == _OWN else ALARM)) / len(pairs)
        sure = all(abs(means[key]) > float(stdtrit(f, 1 - alarm / 2)) * se for se, f in errors)
        judged[key] = _with(
            made[key], mean=means[key], low=means[key] - half, high=means[key] + half, verdict=verdict,
            p=min(1.0, p * len(pairs)), detectable=max(least), sure=sure and abs(means[key]) > half,
        )  # fmt: skip
    return judged


def _differ(rows: dict[Key, tuple[float, int]], squares: float, freedom: int) -> bool:
    """Whether a row clearly spreads more than the others together: F tests, corrected over the rows. What is left of
    all squares without a row's own is independent of it, and holds nothing of it.
    """
    from scipy.special import fdtrc

    for own, of_own in rows.values():
        rest, of_rest = squares - own, freedom - of_own
        if of_own and of_rest > 0:
            ratio = own / of_own / (rest / of_rest) if rest > 0 else math.inf
            if float(fdtrc(of_own, of_rest, ratio)) * len(rows) < _CLEAR:
                return True
    return False


def _with(change: Change, **values: Any) -> Change:
    return Change(**{**vars(change), **values})


def markdown(found: list[Change], after: dict[str, Any], base: str) -> str:
    """The comment on a pull request: a sentence, and a table of the rows that changed.

    Args:
        found: what `changes` returned.
        after: the results now.
        base: name of the commit to compare with.
    """
    from gradworks.report.page import escaped

    name, other = escaped(after["primary"]["name"]), [c for c in found if c.verdict != "unchanged"]
    lines = [f"### Against `{base}`: {_sentence(found)}", ""]
    if other:
        lines += [
            f"{name}; means over the common seeds, differences paired by seed. The {LEVEL:.1%} intervals use the "
            "spread of all changed rows and of methods over seeds, and span at least five standard errors of the "
            "widest row; intervals, p and detectable differences are corrected over the changed rows. “Not sure” does "
            "not fail: with two seeds a noisy row may look quiet.",
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
        cells[-1] += ", not sure" * (c.verdict == "worse" and not c.fails)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines).rstrip() + "\n\n"


def _sentence(found: list[Change]) -> str:
    counts: dict[str, int] = {}
    for change in found:
        counts[change.verdict] = counts.get(change.verdict, 0) + 1
    order = ("lost", "worse", "better", "within chance", "no interval", "no common seed", "now scored", "new", "gone")
    return (
        ", ".join(f"{counts[verdict]} {verdict}" for verdict in (*order, "unchanged") if verdict in counts)
        or "nothing to compare"
    )


def say(before: Path, after: Path, base: str) -> None:
    """Print the comparison of two results.json as Markdown.

    Args:
        before, after: the files.
        base: name of `before` in the text.

    Raises:
        InputError: a file is not a results.json, or the two are not comparable.
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
