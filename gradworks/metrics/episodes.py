"""Accuracy over few-shot episodes, each with the share of its queries that were answered rightly.

Two forms of each answer: `accuracy`, each query alone beside what was learned from, and `transductive_accuracy`, all
queries of an episode in one batch, by whose statistics batch normalisation normalises. Published numbers of MAML and
first-order MAML are of the second form, those of Reptile of either (Nichol, Achiam and Schulman 2018, section 6.1).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gradworks.metrics._shared.scores import Score, Z, known, undefined

METRICS = ("accuracy", "transductive_accuracy")  # by column of the shares
LOWER_IS_BETTER: tuple[str, ...] = ()


def of(metric: str, shares: Any) -> np.ndarray:
    """(n,) the shares (n, 2) of one form."""
    known(metric, "episodes", METRICS)
    return np.asarray(shares, dtype=np.float64)[:, METRICS.index(metric)]


def score(metric: str, labels: Any, shares: Any) -> Score:
    """The mean over n episodes with a 95 % interval, of episodes, not of queries: those of one episode go together.

    Normal, at its lower end with one episode more that is all wrong, at its upper end with one more that is all right,
    so that a perfect score has an interval too.

    Args:
        metric: see above. labels: (n,) whatever. shares: (n, 2) from 0 to 1.
    """
    shares = of(metric, shares)
    nothing = undefined(np.asarray(labels), shares)
    if nothing is not None:
        return nothing
    ends = []
    for more, sign in ((0.0, -1), (1.0, 1)):
        given = np.append(shares, more)
        ends.append(float(given.mean() + sign * Z * given.std(ddof=1) / np.sqrt(len(given))))
    return Score(float(shares.mean()), len(shares), max(0.0, ends[0]), min(1.0, ends[1]))
