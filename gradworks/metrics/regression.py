"""Metrics of values: correlations and the mean squared error."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradworks.metrics._shared.scores import Score, Z, known, mean, undefined

METRICS = ("pearson", "spearman", "mean_squared_error")
LOWER_IS_BETTER = ("mean_squared_error",)


def score(metric: str, labels: Any, values: Any) -> Score:
    """One metric with its 95 % interval.

    Pearson: Fisher's z. Spearman: Fisher's z with the variance of Bonett and Wright (2000). Mean squared error:
    Student's t interval of the logarithm of the mean, the upper end with one loss more, as bad as the worst seen; none
    below 30 examples.

    Args:
        metric: a name in METRICS.
        labels: (n,) numbers.
        values: (n,) or (n, 1) predicted numbers.

    Raises:
        InputError: an unknown metric.
    """
    known(metric, "a task of values", METRICS)
    labels, values = np.asarray(labels), np.asarray(values, dtype=np.float64)
    nothing = undefined(labels, values)
    if nothing is not None:
        return nothing
    n = len(labels)
    labels, values = labels.astype(np.float64), values.reshape(n)
    if metric == "mean_squared_error":
        return mean((labels - values) ** 2)
    for name, given in (("label", labels), ("value", values)):
        if n < 2 or np.ptp(given) == 0:
            return Score(None, n, note=f"every {name} is the same: a correlation is not defined")
    if metric == "spearman":
        labels, values = _ranks(labels), _ranks(values)
    r = float(np.clip(np.corrcoef(labels, values)[0, 1], -1, 1))
    if n < 4:
        return Score(r, n, note="no interval below 4 examples")
    if abs(r) == 1:
        return Score(r, n, r, r)
    half = Z * np.sqrt((1 + r * r / 2 if metric == "spearman" else 1) / (n - 3))
    return Score(r, n, float(np.tanh(np.arctanh(r) - half)), float(np.tanh(np.arctanh(r) + half)))


def shares(metric: str, labels: Any, values: Any) -> np.ndarray | None:
    """What each of n examples adds to a score: (n,) whose mean is the score, or near it, and whose variance over n
    is the score's variance over examples.

    The mean squared error is a mean of examples; for correlations it is their influence function (Devlin et al.,
    Biometrika 62, 1975), of ranks for Spearman's. None where the score is not defined. Arguments as in `score`.
    """
    labels, values = np.asarray(labels), np.asarray(values, dtype=np.float64)
    n = len(labels)
    if n < 2 or not np.isfinite(values).all():
        return None
    labels, values = labels.astype(np.float64), values.reshape(n)
    if metric == "mean_squared_error":
        return (labels - values) ** 2
    if np.ptp(labels) == 0 or np.ptp(values) == 0:
        return None
    if metric == "spearman":
        labels, values = _ranks(labels), _ranks(values)
    a, b = ((x - x.mean()) / x.std() for x in (labels, values))
    r = float((a * b).mean())
    return r + a * b - r * (a * a + b * b) / 2


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1, ties share their mean rank (scipy.stats.rankdata, whose import takes two seconds)."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]
