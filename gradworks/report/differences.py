"""The differences in a table and their verdicts, all by the rule of `gradworks.simultaneous`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from gradworks import metrics, simultaneous, statistics


def bounds(metric: str) -> tuple[float, float]:
    """The lowest and the highest value that a metric can have."""
    if metric in metrics.LOWER_IS_BETTER:
        return 0.0, math.inf
    return (-1.0, 1.0) if metric in ("matthews", "pearson", "spearman") else (0.0, 1.0)


def differences(
    values: Mapping[str, Mapping[int, float]],
    weak: Mapping[str, set[int]],
    pairs: Sequence[tuple[str, str]],
    better: int,
    examples: Mapping[tuple[str, str], tuple[float, int]],
    correlated: bool = True,
    limits: tuple[float, float] = (-math.inf, math.inf),
) -> dict[tuple[str, str], dict[str, Any]]:
    """Compare each pair of methods, corrected over all pairs with at least two common seeds.

    Args:
        values: method -> seed -> score, of every method that enters the estimate of noise.
        weak: method -> seeds whose scores are left out of the pooled spread.
        pairs: (method, other).
        better: 1 if a higher score is better, -1 if a lower one is.
        examples: pair -> standard error of the difference over test examples and their number, if known.
        correlated: all pairs share the other method.
        limits: the lowest and the highest possible score.

    Returns:
        Pair -> the difference as results.json has it. `verdict`: "gain" or "loss" (the interval excludes 0),
        "undecided" or "no interval"; `value`, `base`: means of the two over their common seeds; `methods`: number of
        comparisons in the correction; `examples`: test examples whose variance the interval includes, None if it is
        over seeds only; `spreads`: "differ" if one of the two spreads clearly more than the others. Intervals are cut
        at the possible scores; `detectable` is None if not even the best score would be detected.
    """
    known = {m: {s: v for s, v in of.items() if statistics.is_number(v)} for m, of in values.items()}
    found = {pair: statistics.paired(*(known.get(name, {}) for name in pair)) for pair in pairs}
    judged = [pair for pair, one in found.items() if one.n >= simultaneous.FROM]
    intervals: dict[tuple[str, str], simultaneous.Interval | None] = {}
    if judged:
        cells = [(method, seed) for method, of in known.items() for seed in of]
        pool = [seed not in weak.get(method, ()) for method, seed in cells]
        by = [examples.get(pair, (0.0, math.inf)) for pair in judged]
        rule = simultaneous.Rule(cells, pool, judged, by, correlated)
        intervals = dict(zip(judged, rule.intervals([known[m][s] for m, s in cells]), strict=True))
    return {
        pair: _one(pair, found[pair], known, better, intervals.get(pair), len(judged), examples.get(pair), limits)
        for pair in pairs
    }


def _one(
    pair: tuple[str, str],
    found: statistics.Difference,
    known: Mapping[str, Mapping[int, float]],
    better: int,
    interval: simultaneous.Interval | None,
    methods: int,
    examples: tuple[float, int] | None,
    limits: tuple[float, float],
) -> dict[str, Any]:
    made = dataclasses.asdict(found)
    seeds = sorted(known.get(pair[0], {}).keys() & known.get(pair[1], {}).keys(), key=str)
    made |= {"to": pair[1], "seeds": seeds, "corrected_p": None, "methods": methods, "spreads": "alike"}
    made |= {name: statistics.mean([known[m][s] for s in seeds]).value for name, m in
             zip(("value", "base"), pair, strict=True)} if seeds else {"value": None, "base": None}  # fmt: skip
    made["examples"] = examples[1] if examples and interval else None
    if interval:
        most = limits[1] - limits[0]
        low, high = max(found.mean - interval.half, -most), min(found.mean + interval.half, most)
        room = limits[1] - made["base"] if better > 0 else made["base"] - limits[0]
        made |= {"se": interval.se, "low": low, "high": high, "p": interval.p, "corrected_p": interval.corrected}
        made["detectable"] = interval.detectable if interval.detectable <= room else None
        made |= {"spreads": interval.spreads, "note": ""}
        if interval.p < simultaneous.ALPHA and low <= 0 <= high and methods > 1:
            made["note"] = f"not beyond chance among {methods} methods compared"
    elif found.n >= simultaneous.FROM:  # nothing varies: a sign test is all that is left
        p = 2.0 ** (1 - found.n)
        corrected = min(1.0, methods * p)
        sure = found.mean != 0 and corrected < simultaneous.ALPHA
        span = found.mean if sure else None
        made |= {"se": None, "low": span, "high": span, "p": p, "corrected_p": corrected, "detectable": None}
        made["note"] = "" if sure else f"no interval: all {found.n} seeds differ by the same amount"
    else:
        made |= {"se": None, "low": None, "high": None, "p": None, "detectable": None}
    made["certain"] = made["low"] is not None and (made["low"] > 0 or made["high"] < 0)
    verdict = "no interval" if made["low"] is None else "undecided"
    if made["certain"]:
        verdict = "gain" if found.mean * better > 0 else "loss"
    return made | {"verdict": verdict}
