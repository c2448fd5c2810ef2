"""Accuracy over few-shot episodes, each with the share of its queries that were answered rightly."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradworks.metrics._shared.scores import Score, Z, known, undefined

METRICS = ("accuracy",)
LOWER_IS_BETTER: tuple[str, ...] = ()


def score(metric: str, labels: Any, shares: Any) -> Score:
    """The mean over n episodes with a 95 % interval, of episodes, not of queries: those of one episode go together.

    Normal, at its lower end with one episode more that is all wrong, at its upper end with one more that is all right,
    so that a perfect score has an interval too.

    Args:
        metric: accuracy. labels: (n,) whatever. shares: (n,) from 0 to 1.
    """
    known(metric, "episodes", METRICS)
    shares = np.asarray(shares, dtype=np.float64)
    nothing = undefined(np.asarray(labels), shares)
    if nothing is not None:
        return nothing
    ends = []
    for more, sign in ((0.0, -1), (1.0, 1)):
        given = np.append(shares, more)
        ends.append(float(given.mean() + sign * Z * given.std(ddof=1) / np.sqrt(len(given))))
    return Score(float(shares.mean()), len(shares), max(0.0, ends[0]), min(1.0, ends[1]))
