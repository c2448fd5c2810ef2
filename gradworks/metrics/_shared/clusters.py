"""Metrics that are a function of sums over examples, whose interval and shares come from examples drawn anew."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np

from gradworks.metrics._shared.scores import Score

RESAMPLES = 1000
FEWEST = 12  # examples; below them there is no interval
_AT_ONCE = 2**22  # numbers drawn together

_ALL = np.array([[0.0, 1.0], [1.0, 1.0]])  # what an example adds to a mean that is all wrong, and all right

Statistic = Callable[[np.ndarray], np.ndarray]  # (b, k) sums -> (b,), from 0 to 1


def score(metric: str, counts: np.ndarray, statistic: Statistic, right: np.ndarray, seed: int = 0) -> Score:
    """The metric of the sums of `counts`, with its 95 % interval.

    Bayesian bootstrap over examples (Rubin, Ann. Stat. 9, 1981), keyed by (metric, seed); the lower end is read with
    one example more that is all wrong, the upper one with one that is all right. Of a share this is Clopper and
    Pearson's interval (1934). None below 12 examples.

    Args:
        metric: its name.
        counts: (n, k) what each example adds; k sums make the metric.
        statistic: of sums; not a number where it is not defined.
        right: (2, k) what an example adds that is all wrong, and one that is all right.
    """
    n = len(counts)
    value = float(statistic(counts.sum(axis=0, keepdims=True))[0])
    if np.isnan(value):
        return Score(None, n, note=f"no label and no prediction: {metric} is not defined")
    if n < FEWEST:
        return Score(value, n, note=f"no interval below {FEWEST} examples")
    draw, found = np.random.default_rng([seed, zlib.crc32(metric.encode())]), []
    for more, quantile in zip(right, (0.025, 0.975), strict=True):
        given, left, drawn = np.vstack([counts, more]), RESAMPLES, []
        while left:
            rows = min(left, max(1, _AT_ONCE // len(given)))
            drawn.append(statistic(draw.standard_exponential((rows, len(given))) @ given))
            left -= rows
        found.append(float(np.quantile(np.concatenate(drawn), quantile)))
    return Score(value, n, min(found[0], value), max(found[1], value))


def mean(metric: str, values: np.ndarray) -> Score:
    """`score` of a metric that is the mean of a value of each example, (n,) from 0 to 1."""
    if not len(values):
        return Score(None, 0, note="no examples")
    return score(metric, np.column_stack([values, np.ones(len(values))]), ratio, _ALL)


def shares(counts: np.ndarray, statistic: Statistic) -> np.ndarray | None:
    """(n,) jackknife pseudo-values (Miller, Biometrika 61, 1974), for means of examples these themselves; None where
    the metric is not defined.
    """
    n, sums = len(counts), counts.sum(axis=0, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        whole, without = float(statistic(sums)[0]), statistic(sums - counts)
    if n < 2 or np.isnan(whole):
        return None
    return n * whole - (n - 1) * np.where(np.isnan(without), whole, without)


def ratio(sums: np.ndarray) -> np.ndarray:
    """(b, 2) -> (b,) the first over the second."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return sums[:, 0] / sums[:, 1]


def f1(sums: np.ndarray) -> np.ndarray:
    """(b, 3) true positives, predictions, labels -> (b,)"""
    with np.errstate(invalid="ignore", divide="ignore"):
        return 2 * sums[:, 0] / (sums[:, 1] + sums[:, 2])
