"""Metrics by name, each with n and a 95 % interval over examples; an undefined metric is None with the reason in words.

The interval says how far the score of one trained model could move with other test examples drawn alike. How far it
moves with other seeds is `gradworks.statistics`. One file is one family, each with METRICS, LOWER_IS_BETTER, `score`
and `shares`; a kind of task says which family scores it. NumPy alone, so that the training loop can call it at no cost
in start-up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from gradworks.metrics import answers, classification, cloze, episodes, generation, regression, span, tagging
from gradworks.metrics._shared.scores import SMALL as SMALL
from gradworks.metrics._shared.scores import Score as Score

_FAMILIES = (answers, classification, generation, regression, span, tagging, episodes, cloze)
NAMES = tuple(dict.fromkeys(name for family in _FAMILIES for name in family.METRICS))
LOWER_IS_BETTER = frozenset(name for family in _FAMILIES for name in family.LOWER_IS_BETTER)


def better(metric: str) -> int:
    """1 where a higher value is better, -1 where a lower one is."""
    return -1 if metric in LOWER_IS_BETTER else 1


def scores(
    score: Callable[[str, Any, Any], Score],
    metrics: Sequence[str],
    labels: Any,
    answers: Any,
    slices: Mapping[str, Sequence[Any]] | None = None,
) -> dict[str, Any]:
    """`{"overall": {metric: score}, "by": {column: {value: {metric: score}}}}`, ready for JSON.

    Args:
        score: of a kind of task: metric, labels and answers of some examples.
        metrics: names.
        labels: (n,) as `score` takes them.
        answers: (n, ...) as `score` takes them.
        slices: column name -> (n,) values; examples whose value is None belong to no slice of that column.
    """
    labels, answers = np.asarray(labels), np.asarray(answers)

    def rows(chosen: np.ndarray) -> dict[str, Any]:
        return {m: score(m, labels[chosen], answers[chosen]).as_dict() for m in metrics}

    by: dict[str, dict[str, Any]] = {}
    for column, values in (slices or {}).items():
        kept = np.array([None if v is None else str(v) for v in values], dtype=object)
        by[column] = {v: rows(kept == v) for v in sorted({v for v in kept.tolist() if v is not None})}
    return {"overall": rows(np.ones(len(labels), dtype=bool)), "by": by}
