"""How often a report claims what is not there, and what it finds: benchmarks/CLAIMS.md, through the report's own code.

examples:
  python -m benchmarks.claims            # writes benchmarks/CLAIMS.md, a minute on one core
  python -m benchmarks.claims --tables 400
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from gradworks import simultaneous
from gradworks.report import compare

OUT = Path(__file__).with_name("CLAIMS.md")
SEEDS = (2, 3, 4, 5, 10)
# own standard deviations of real methods' accuracy over seeds
MEASURED = (0.0225, 0.019, 0.0225, 0.026, 0.045, 0.026, 0.007, 0.014, 0.004, 0.056)
GAIN = 0.05


def scenarios(methods: int) -> dict[str, np.ndarray]:
    """Name -> standard deviation of each row over seeds, the baseline first."""
    rows = methods + 1
    made = {"all alike, 0.02": np.full(rows, 0.02)}
    if rows == len(MEASURED):
        ordered = np.sort(MEASURED)
        made |= {"as measured, 0.004 to 0.056": np.array(MEASURED)}
        made |= {"the same, baseline noisiest": ordered[::-1], "the same, baseline quietest": ordered}
    spaced = np.geomspace(0.004, 0.056, rows)
    made |= {"0.004 to 0.056 evenly, baseline noisiest": spaced[::-1]}
    for times in (2, 3, 5):
        made[f"baseline {times} times the others"] = np.array([0.02 * times, *[0.02] * methods])
    for times in (2, 5):
        made[f"one method {times} times the others"] = np.array([0.02, 0.02 * times, *[0.02] * (methods - 1)])
        spreads = np.repeat([0.02, 0.02 * times], [rows - rows // 2, rows // 2])
        made[f"half of the methods {times} times the others"] = spreads
    return made


def rule(methods: int, seeds: int, error: float = 0.0) -> simultaneous.Rule:
    """The report's rule for a table of this many methods and a baseline; `error`: standard error over test examples."""
    names = [f"m{i}" for i in range(methods + 1)]
    cells = [(name, seed) for name in names for seed in range(seeds)]
    pairs = [(name, names[0]) for name in names[1:]]
    return simultaneous.Rule(cells, [True] * len(cells), pairs, [(error, 3000.0 if error else np.inf)] * methods)


def drawn(spreads: np.ndarray, seeds: int, tables: int, error: float = 0.0) -> np.ndarray:
    """Scores without a true difference: seed, own noise, and what the test examples add, the same for all seeds."""
    draw = np.random.default_rng([seeds, len(spreads), round(1e6 * float(spreads.sum()))])
    own = draw.normal(size=(tables, len(spreads), seeds)) * spreads[:, None]
    shared = draw.normal(0, error / np.sqrt(2), (tables, len(spreads), 1)) if error else 0.0
    return own + draw.normal(0, 0.03, (tables, 1, seeds)) + shared


def read(made: simultaneous.Rule, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each table and method, whether any difference is claimed, and whether a gain is."""
    mean, _, half, _, _ = made.read(scores.reshape(len(scores), -1))
    return np.abs(mean) > half, mean > half


def rates(tables: int) -> list[str]:
    """The tables of false claims, and of power where spreads are alike."""
    lines = []
    for methods in (19, 9, 4, 3, 2):
        lines += ["", f"**{methods} methods and a baseline**: tables with a false claim, %", ""]
        lines += [
            "| spread over seeds | " + " | ".join(f"{n} seeds" for n in SEEDS) + " |",
            "|---|" + "---:|" * len(SEEDS),
        ]
        for name, spreads in scenarios(methods).items():
            found = [read(rule(methods, n), drawn(spreads, n, tables))[0].any(1).mean() for n in SEEDS]
            lines.append(f"| {name} | " + " | ".join(f"{100 * x:.1f}" for x in found) + " |")
        for said, held in (("left out", 0.0), ("held", 0.009)):
            found = [
                read(rule(methods, n, held), drawn(np.full(methods + 1, 0.01), n, tables, 0.009))[0] for n in SEEDS
            ]
            name = f"all alike, 0.01, and 0.009 of the test examples, {said}"
            lines.append(f"| {name} | " + " | ".join(f"{100 * x.any(1).mean():.1f}" for x in found) + " |")
    return lines


def power(tables: int) -> tuple[list[str], dict[int, float]]:
    """How often a true gain is found, and how often one of the size that the report calls detectable.

    Returns:
        The table; and by number of seeds, the share of gains of GAIN that are found where all spreads are alike.
    """
    alike = {}
    lines = [
        "",
        f"**Power**, 9 methods: a true gain of {GAIN} of one of them, and one as large as “detectable” says",
        "",
    ]
    lines += ["| | " + " | ".join(f"{n} seeds" for n in SEEDS) + " |", "|---|" + "---:|" * len(SEEDS)]
    for name in ("all alike, 0.02", "as measured, 0.004 to 0.056"):
        spreads = scenarios(9)[name]
        fixed, size, found = [], [], []
        for n in SEEDS:
            made, scores = rule(9, n), drawn(spreads, n, tables)
            least = made._detectable(spreads**2)
            scores[:, 1:] += GAIN
            fixed.append(read(made, scores)[1].mean())
            scores[:, 1:] += (least - GAIN)[:, None]
            size.append(least.mean())
            found.append(read(made, scores)[1].mean())
        alike = alike or dict(zip(SEEDS, map(float, fixed), strict=True))  # of the first scenario
        lines.append(f"| {name}: found of {GAIN}, % | " + " | ".join(f"{100 * x:.0f}" for x in fixed) + " |")
        lines.append(f"| {name}: detectable, mean | " + " | ".join(f"{x:.3f}" for x in size) + " |")
        lines.append(f"| {name}: found of that, % | " + " | ".join(f"{100 * x:.0f}" for x in found) + " |")
    return lines, alike


def retrained(tables: int) -> list[str]:
    """`gradworks compare` after a training of the same code."""
    lines = [
        "",
        "**`gradworks compare`**, two conditions, nothing changed: tables with a false verdict / with exit 1, %",
        "",
    ]
    lines += ["| spread of a row | 2 seeds | 3 seeds | 5 seeds |", "|---|---:|---:|---:|"]
    rows = {
        "5 methods, all 0.01": np.full(5, 0.01),
        "10 methods, 0.0025 to 0.05 evenly": np.geomspace(0.0025, 0.05, 10),
        "5 methods, one 0.05, the others 0.0025": np.array([0.05, *[0.0025] * 4]),
    }
    rows |= {"10 methods, one 0.05, the others 0.0025": np.array([0.05, *[0.0025] * 9])}
    for name, spreads in rows.items():
        said = []
        for n in (2, 3, 5):
            draw, false, failed = np.random.default_rng([n, len(spreads)]), 0, 0
            for _ in range(tables):
                found = compare.changes(*(_results(side) for side in _sides(draw, spreads, n)))
                false += any(c.verdict in ("better", "worse") for c in found)
                failed += any(c.fails for c in found)
            said.append(f"{100 * false / tables:.2f} / {100 * failed / tables:.2f}")
        lines.append(f"| {name} | {' | '.join(said)} |")
    return lines


def _sides(draw: np.random.Generator, spreads: np.ndarray, seeds: int) -> np.ndarray:
    shared = draw.normal(0, 0.03, (1, 2, 1, seeds))
    return 0.6 + shared + draw.normal(size=(2, 2, len(spreads), seeds)) * spreads[:, None]


def _results(scores: np.ndarray) -> dict:
    cells = [
        {
            "condition": str(c),
            "encoder": "gru",
            "method": f"m{m}",
            "seed": s,
            "state": "ok",
            "primary": {"value": float(v)},
        }
        for (c, m, s), v in np.ndenumerate(scores)
    ]
    return {"primary": {"name": "accuracy", "better": 1}, "cells": cells}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=int, default=10_000, help="drawn for each figure; a quarter for compare")
    args = parser.parse_args()
    error = 100 * (0.05 * 0.95 / args.tables) ** 0.5
    powers, alike = power(args.tables)
    head = f"""# What a report claims

Written by `python -m benchmarks.claims`: {args.tables} tables for each figure, {args.tables // 4} for `compare`,
through `gradworks/simultaneous.py`, by which table, answer, verdict, p and the detectable difference are made. Scores
are seed + own noise, normal, without any true difference; the standard error of 5 % is {error:.2f} %. With two and
three seeds spreads that differ are hard to see: the level at which such tables are read is lower, and so is their
power. The largest figures are at two and three seeds, where the baseline has several times the noise of all others.

With three seeds, 9 methods and all spreads alike, a gain of {GAIN} is found in {100 * alike[3]:.0f} % of tables.
The rule counts a method's own spread from twice the pooled variance. Rules that were tried before, with what they found
then: the first one 20 %; own spreads without bias 22 %; own spreads from 2.5 times the pooled variance 28 %, at half
the nominal level with many methods; an F test 24 %; degrees of freedom that blend into the pool's 22 to 24 %, because
the level has to fall to a third where the baseline is noisiest."""
    lines = [head, *rates(args.tables), *powers, *retrained(args.tables // 4)]
    OUT.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
