"""Metrics of classes, from the probabilities that a model gives them."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from gradworks.base.errors import InputError
from gradworks.metrics._shared.scores import Score, known, mean, undefined, wilson

METRICS = ("accuracy", "macro_f1", "f1", "matthews", "log_loss")
LOWER_IS_BETTER = ("log_loss",)
RESAMPLES = 1000
FEWEST = 12  # examples; below them the intervals of F1, macro F1 and Matthews hold less than 93 %
SURE = 1e-15  # smallest probability that the log loss takes a logarithm of


def score(metric: str, labels: Any, outputs: Any, classes: Sequence[str], seed: int = 0) -> Score:
    """One metric with its 95 % interval.

    Accuracy: Wilson (1927). F1, macro F1, Matthews: 1000 draws of the confusion matrix's shares given its counts
    (Goutte and Gaussier, ECIR 2005), keyed by (metric, seed); as in Clopper and Pearson's interval (1934) the lower end
    is read with half an error more a class, the upper one with as many more right, so that a perfect score on few
    examples has an interval. None below 12 examples. Log loss (nats): Student's t interval of the logarithm of the
    mean, the upper end with one loss more, as bad as the worst seen; none below 30 examples.

    Args:
        metric: a name in METRICS. `f1` is that of the last of two classes.
        labels: (n,) class indices or class names.
        outputs: (n, classes) probabilities, or logits for what only ranks classes.
        classes: the class names in the order of the columns of `outputs`.
        seed: key of the bootstrap.

    Raises:
        InputError: an unknown metric, `f1` without two classes, or a label that is no class.
    """
    known(metric, "a task of classes", METRICS)
    if metric == "f1" and len(classes) != 2:
        raise InputError(f"metric 'f1' needs two classes, found {len(classes)}\nexpected: macro_f1")
    labels, outputs = np.asarray(labels), np.asarray(outputs, dtype=np.float64)
    nothing = undefined(labels, outputs)
    if nothing is not None:
        return nothing
    labels = indices(labels, classes)
    if metric == "log_loss":
        return mean(-np.log(outputs[np.arange(len(labels)), labels].clip(SURE)), np.log(len(classes)))
    return _score(metric, labels, outputs.argmax(axis=1), classes, seed)


def shares(metric: str, labels: Any, outputs: Any, classes: Sequence[str]) -> np.ndarray | None:
    """What each of n examples adds to a score: (n,) whose mean is the score, or near it, and whose variance over n
    is the score's variance over examples.

    Accuracy and log loss are means of examples. For F1, macro F1 and Matthews these are jackknife pseudo-values
    (Miller, Biometrika 61, 1974): an example changes its own cell of the confusion matrix, so there are as many as
    cells. None where the score is not defined. Arguments as in `score`.
    """
    labels, outputs = np.asarray(labels), np.asarray(outputs, dtype=np.float64)
    n = len(labels)
    if n < 2 or not np.isfinite(outputs).all():
        return None
    labels = indices(labels, classes)
    if metric == "log_loss":
        return -np.log(outputs[np.arange(n), labels].clip(SURE))
    predicted, c = outputs.argmax(axis=1), len(classes)
    if metric == "accuracy":
        return (labels == predicted).astype(float)
    cell = labels * c + predicted
    counts = np.bincount(cell, minlength=c * c).astype(float)
    without = np.maximum(counts - np.eye(c * c), 0).reshape(-1, c, c)
    statistic = STATISTICS[metric]
    whole = float(statistic(counts.reshape(1, c, c))[0])
    return n * whole - (n - 1) * statistic(without)[cell]


def indices(labels: Any, classes: Sequence[str]) -> np.ndarray:
    """(n,) class indices of class names; indices pass through. Raises InputError that names the label that is no
    class.
    """
    labels = np.asarray(labels)
    if not np.issubdtype(labels.dtype, np.integer):
        place = {name: i for i, name in enumerate(classes)}
        unknown = [x for x in dict.fromkeys(labels.tolist()) if x not in place]
        if unknown:
            raise InputError(f"label {unknown[0]!r} is no class of the task\nexpected one of: {', '.join(classes)}")
        labels = np.array([place[x] for x in labels.tolist()], dtype=np.int64)
    if labels.size and not 0 <= labels.min() <= labels.max() < len(classes):
        raise InputError(f"label {int(labels.max())} is no class index\nexpected: 0 to {len(classes) - 1}")
    return labels


def _score(metric: str, labels: np.ndarray, predicted: np.ndarray, classes: Sequence[str], seed: int) -> Score:
    n, c = len(labels), len(classes)
    if metric == "accuracy":
        correct = int((labels == predicted).sum())
        return Score(correct / n, n, *wilson(correct, n))
    confusion = np.bincount(labels * c + predicted, minlength=c * c)
    if metric == "matthews" and len(np.unique(labels)) == 1:
        return Score(None, n, note=f"every label is {classes[labels[0]]!r}: Matthews is not defined")
    if metric == "f1" and confusion[1:].sum() == 0:
        return Score(None, n, note=f"{classes[1]!r} is neither a label nor a prediction: F1 is not defined")
    statistic = STATISTICS[metric]
    value = float(statistic(confusion.reshape(1, c, c).astype(float))[0])
    if n < FEWEST:
        return Score(value, n, note=f"no interval below {FEWEST} examples")
    right, wrong = np.eye(c).ravel(), 1 - np.eye(c).ravel()
    right = right * (np.arange(c * c) == c * c - 1) if metric == "f1" else right
    draw = np.random.default_rng([seed, zlib.crc32(metric.encode())])
    found = []
    for more, quantile in ((wrong, 0.025), (right, 0.975)):
        drawn = draw.standard_gamma(confusion + more * (c / 2 / more.sum()), size=(RESAMPLES, c * c))
        found.append(float(np.quantile(statistic(drawn.reshape(-1, c, c)), quantile)))
    return Score(value, n, min(found[0], value), max(found[1], value))


# Each takes (b, c, c) confusion matrices, rows = labels, and returns (b,). scikit-learn takes one at a time and
# examples, not counts: a thousand resamples would cost seconds.
def _class_f1(m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    total = m.sum(axis=1) + m.sum(axis=2)  # (b, c): labels plus predictions of a class
    return 2 * np.diagonal(m, axis1=1, axis2=2) / np.where(total > 0, total, 1), total > 0


def _f1(m: np.ndarray) -> np.ndarray:
    return _class_f1(m)[0][:, 1]


def _macro_f1(m: np.ndarray) -> np.ndarray:
    f1, occurs = _class_f1(m)  # a class that is neither label nor prediction does not count, as in scikit-learn
    return (f1 * occurs).sum(axis=1) / occurs.sum(axis=1)


def _matthews(m: np.ndarray) -> np.ndarray:
    """Gorodkin's generalisation to c classes; 0 where every prediction (or every label of a resample) is one class."""
    n, labels, predicted = m.sum(axis=(1, 2)), m.sum(axis=2), m.sum(axis=1)
    covariance = np.trace(m, axis1=1, axis2=2) * n - (labels * predicted).sum(axis=1)
    variance = (n**2 - (labels**2).sum(axis=1)) * (n**2 - (predicted**2).sum(axis=1))
    return np.where(variance > 0, covariance / np.sqrt(np.where(variance > 0, variance, 1)), 0.0)


STATISTICS = {"f1": _f1, "macro_f1": _macro_f1, "matthews": _matthews}
