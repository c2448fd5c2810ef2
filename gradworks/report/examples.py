"""How far a difference could move with another test sample, from the predictions by example id.

All seeds share one test split, so the spread over seeds does not include it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gradworks.base import artifacts

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from gradworks.report.settings import Inputs, Target


def spread(
    inputs: Inputs, family: dict[str, list[dict[str, Any]]], target: Target, pairs: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], tuple[float, int]]:
    """Pair -> standard error of its difference over test examples, and their number.

    A pair is left out if one of its cells has no predictions or was tested on other examples.
    """
    found: dict[tuple[str, int], tuple[np.ndarray, np.ndarray] | None] = {}

    def of(cell: dict[str, Any]) -> tuple[np.ndarray, np.ndarray] | None:
        key = cell["method"], cell["seed"]
        if key not in found:
            file = inputs.runs / "evaluate" / cell["path"] / "predictions.parquet"
            found[key] = shares(inputs, file, target)
        return found[key]

    made = {}
    for ours, theirs in pairs:
        others = {cell["seed"]: cell for cell in family[theirs]}
        both = [(cell, others[cell["seed"]]) for cell in family[ours] if cell["seed"] in others]
        both = [pair for pair in both if all(c["primary"] is not None and c["state"] in SCORED for c in pair)]
        one = error([(of(a), of(b)) for a, b in both])
        if one:
            made[ours, theirs] = one
    return made


SCORED = ("ok", "not converged")


def shares(inputs: Inputs, file: Path, target: Target) -> tuple[np.ndarray, np.ndarray] | None:
    """Sorted ids and each example's share of the score of some predictions; None without any."""
    import numpy as np

    if not file.exists():
        return None
    table = artifacts.read_parquet(file, ["id", "label", *inputs.task.also])
    chosen = np.ones(len(table), dtype=bool)
    for column, value in target.where.items():
        if column not in table.column_names:
            return None
        chosen &= np.array([str(x) == str(value) for x in table[column].to_pylist()], dtype=bool)
    if chosen.sum() < 2:
        return None
    answers = inputs.task.read(table)[chosen]
    ids = np.array(table["id"].to_pylist(), dtype=str)[chosen]
    labels = inputs.task.truths(table)[chosen]
    added = inputs.task.shares(target.metric, labels, answers)
    order = ids.argsort()
    return None if added is None else (ids[order], added[order])


def error(pairs: list[tuple[Any, Any]]) -> tuple[float, int] | None:
    """Standard error over examples of the difference averaged over seeds, without the noise of seeds.

    The variance of the mean of differences d[seed, example] has components of seeds, examples and residual (Brennan
    2001, Generalizability Theory, chapter 3). The spread over seeds includes the first and the last, so the residual's
    part is subtracted from the variance between the examples' means.
    """
    import numpy as np

    if not pairs or any(side is None for pair in pairs for side in pair):
        return None
    ids = pairs[0][0][0]
    if any(len(side[0]) != len(ids) or (side[0] != ids).any() for pair in pairs for side in pair):
        return None
    gaps = np.stack([ours[1] - theirs[1] for ours, theirs in pairs])
    seeds, n = gaps.shape
    means = gaps.mean(axis=0)
    variance = means.var(ddof=1)
    if seeds > 1:
        rest = gaps - means - gaps.mean(axis=1, keepdims=True) + gaps.mean()
        variance -= (rest**2).sum() / ((seeds - 1) * (n - 1)) / seeds
    return float(np.sqrt(max(0.0, variance) / n)), n
