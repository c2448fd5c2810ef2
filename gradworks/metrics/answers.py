"""Metrics of MultiRC (Khashabi et al. 2018, section 5): F1a and exact match over the answers of a question."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gradworks.metrics._shared import clusters
from gradworks.metrics._shared.scores import Score, known

METRICS = ("f1a", "question_em", "f1m")
LOWER_IS_BETTER: tuple[str, ...] = ()


def _counts(
    metric: str, groups: Sequence[str], labels: np.ndarray, predicted: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(G, k) counts of questions, what one adds that is all wrong and all right, the question of each row."""
    place = {name: i for i, name in enumerate(dict.fromkeys(groups))}
    of = np.array([place[name] for name in groups], dtype=np.int64)

    def sums(values: np.ndarray) -> np.ndarray:
        return np.bincount(of, values, minlength=len(place))

    true, made = (np.asarray(x) == 1 for x in (labels, predicted))
    both, made_of, true_of = sums(true & made), sums(made), sums(true)
    if metric == "f1a":
        size = max(true_of.mean(), 1 / len(place))
        return np.column_stack([both, made_of, true_of]), np.array([[0, size, size], [size, size, size]]), of
    if metric == "question_em":
        value = (sums(true != made) == 0).astype(float)
    else:  # of a question without right answers 1 where none is chosen, else 0
        total = made_of + true_of
        value = np.where(total > 0, 2 * both / np.where(total > 0, total, 1), 1.0)
    return np.column_stack([value, np.ones(len(place))]), np.array([[0.0, 1.0], [1.0, 1.0]]), of


def score(metric: str, groups: Sequence[str], labels: np.ndarray, predicted: np.ndarray) -> Score:
    """One metric with its 95 % interval over questions, see `clusters.score`; n questions.

    f1a: F1 of right answers, all answers pooled. question_em: the share of questions whose answers are all judged
    right. f1m: the mean over questions of the F1 of their answers.

    Args:
        metric: a name in METRICS.
        groups: (n,) the question of each answer.
        labels, predicted: (n,) 1 = the answer is right.

    Raises:
        InputError: an unknown metric.
    """
    known(metric, "a task of answers to questions", METRICS)
    if not len(groups):
        return Score(None, 0, note="no examples")
    counts, right, _ = _counts(metric, groups, labels, predicted)
    return clusters.score(metric, counts, clusters.f1 if metric == "f1a" else clusters.ratio, right)


def shares(metric: str, groups: Sequence[str], labels: np.ndarray, predicted: np.ndarray) -> np.ndarray | None:
    """(n,) what each row adds to a score, so that mean and variance over rows are those over questions: the first row
    of a question has all of it, the others the mean.
    """
    if not len(groups):
        return None
    counts, _, of = _counts(metric, groups, labels, predicted)
    found = clusters.shares(counts, clusters.f1 if metric == "f1a" else clusters.ratio)
    if found is None:
        return None
    first = np.unique(of, return_index=True)[1]
    made = np.full(len(of), found.mean())
    made[first] += len(of) / len(first) * (found - found.mean())
    return made
