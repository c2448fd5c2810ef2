"""Metrics by name, each with n and a 95 % interval over examples; an undefined metric is None with the reason in words.

The interval says how far the score of one trained model could move with other test examples drawn alike. How far it
moves with other seeds is `gradworks.statistics`. NumPy alone, so that the training loop can call it at no cost in
start-up.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradworks.base.errors import InputError

Z = 1.959963984540054  # the 97.5 % quantile of the standard normal
SMALL = 30  # fewer examples than this are marked: an interval is wide and a normal approximation is poor
RESAMPLES = 1000
FEWEST = 12  # examples; below them the intervals of F1, macro F1 and Matthews hold less than 93 %
FEWEST_LOSSES = 30  # and those of a mean of losses
CLASSIFICATION = ("accuracy", "macro_f1", "f1", "matthews", "log_loss")
REGRESSION = ("pearson", "spearman", "mean_squared_error")
LOWER_IS_BETTER = frozenset({"mean_squared_error", "log_loss"})
SURE = 1e-15  # smallest probability that the log loss takes a logarithm of


@dataclass(frozen=True)
class Score:
    """A metric on n examples. `value` is None where it is not defined, `note` then says why; the same holds for the
    interval.
    """

    value: float | None
    n: int
    low: float | None = None
    high: float | None = None
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For JSON: `small` stands only below 30 examples, `note` only where there is something to say."""
        made = {"value": self.value, "n": self.n, "low": self.low, "high": self.high}
        return made | ({"small": True} if self.n < SMALL else {}) | ({"note": self.note} if self.note else {})


def better(metric: str) -> int:
    """1 where a higher value is better, -1 where a lower one is."""
    return -1 if metric in LOWER_IS_BETTER else 1


def score(metric: str, labels: Any, outputs: Any, classes: Sequence[str] | None = None, seed: int = 0) -> Score:
    """One metric with its 95 % interval.

    Accuracy: Wilson (1927). F1, macro F1, Matthews: 1000 draws of the confusion matrix's shares given its counts
    (Goutte and Gaussier, ECIR 2005), keyed by (metric, seed); as in Clopper and Pearson's interval (1934) the lower end
    is read with half an error more a class, the upper one with as many more right, so that a perfect score on few
    examples has an interval. None below 12 examples. Pearson: Fisher's z. Spearman: Fisher's z with the variance of
    Bonett and Wright (2000). Mean squared error and log loss (nats): Student's t interval of the logarithm of the mean,
    the upper end with one loss more, as bad as the worst seen; none below 30 examples.

    Args:
        metric: a name in CLASSIFICATION or REGRESSION. `f1` is that of the last of two classes.
        labels: (n,) class indices or class names; numbers for regression.
        outputs: (n, classes) probabilities, or logits for what only ranks classes; (n,) values for regression.
        classes: the class names in the order of the columns of `outputs`; None for regression.
        seed: key of the bootstrap.

    Raises:
        InputError: an unknown metric, one that does not fit the task, or a label that is no class.
    """
    labels, outputs = np.asarray(labels), np.asarray(outputs, dtype=np.float64)
    if metric not in CLASSIFICATION + REGRESSION:
        raise InputError(f"metric {metric!r} is unknown\nexpected one of: {', '.join(CLASSIFICATION + REGRESSION)}")
    if (metric in CLASSIFICATION) != (classes is not None):
        kind, fit = ("regression", REGRESSION) if classes is None else ("classification", CLASSIFICATION)
        raise InputError(f"metric {metric!r} does not fit a {kind} task\nexpected one of: {', '.join(fit)}")
    n = len(labels)
    if len(outputs) != n:
        raise ValueError(f"{n} labels but {len(outputs)} outputs")
    if n == 0:
        return Score(None, 0, note="no examples")
    bad = int((~np.isfinite(outputs.reshape(n, -1))).any(axis=1).sum())
    if bad:
        return Score(None, n, note=f"{bad} of {n} outputs are not finite")
    if classes is None:
        return _regression(metric, labels.astype(np.float64), outputs.reshape(n))
    if metric == "f1" and len(classes) != 2:
        raise InputError(f"metric 'f1' needs two classes, found {len(classes)}\nexpected: macro_f1")
    if metric == "log_loss":
        return _mean(-np.log(outputs[np.arange(n), indices(labels, classes)].clip(SURE)), np.log(len(classes)))
    return _classification(metric, indices(labels, classes), outputs.argmax(axis=1), classes, seed)


def shares(metric: str, labels: Any, outputs: Any, classes: Sequence[str] | None = None) -> np.ndarray | None:
    """What each of n examples adds to a score: (n,) whose mean is the score, or near it, and whose variance over n
    is the score's variance over examples.

    Accuracy, log loss and mean squared error are means of examples. For F1, macro F1 and Matthews these are jackknife
    pseudo-values (Miller, Biometrika 61, 1974): an example changes its own cell of the confusion matrix, so there are
    as many as cells. For correlations their influence function (Devlin et al., Biometrika 62, 1975), of ranks for
    Spearman's. None where the score is not defined. Arguments as in `score`.
    """
    labels, outputs = np.asarray(labels), np.asarray(outputs, dtype=np.float64)
    n = len(labels)
    if n < 2 or not np.isfinite(outputs).all():
        return None
    if classes is None:
        labels, values = labels.astype(np.float64), outputs.reshape(n)
        if metric == "mean_squared_error":
            return (labels - values) ** 2
        if np.ptp(labels) == 0 or np.ptp(values) == 0:
            return None
        if metric == "spearman":
            labels, values = _ranks(labels), _ranks(values)
        a, b = ((x - x.mean()) / x.std() for x in (labels, values))
        r = float((a * b).mean())
        return r + a * b - r * (a * a + b * b) / 2
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


def scores(
    metrics: Sequence[str],
    labels: Any,
    outputs: Any,
    classes: Sequence[str] | None,
    slices: Mapping[str, Sequence[Any]] | None = None,
) -> dict[str, Any]:
    """`{"overall": {metric: score}, "by": {column: {value: {metric: score}}}}`, ready for JSON.

    Args:
        metrics: names.
        labels: (n,) as in `score`.
        outputs: as in `score`.
        classes: as in `score`.
        slices: column name -> (n,) values; examples whose value is None belong to no slice of that column.
    """
    labels, outputs = np.asarray(labels), np.asarray(outputs)

    def rows(chosen: np.ndarray) -> dict[str, Any]:
        return {m: score(m, labels[chosen], outputs[chosen], classes).as_dict() for m in metrics}

    by: dict[str, dict[str, Any]] = {}
    for column, values in (slices or {}).items():
        kept = np.array([None if v is None else str(v) for v in values], dtype=object)
        by[column] = {v: rows(kept == v) for v in sorted({v for v in kept.tolist() if v is not None})}
    return {"overall": rows(np.ones(len(labels), dtype=bool)), "by": by}


def wilson(correct: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share (J. Am. Stat. Assoc. 22, 1927); stays inside [0, 1] where n is small."""
    share, weight = correct / n, Z * Z / n
    centre = (share + weight / 2) / (1 + weight)
    half = Z * np.sqrt(share * (1 - share) / n + weight / (4 * n)) / (1 + weight)
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))


def _classification(metric: str, labels: np.ndarray, predicted: np.ndarray, classes: Sequence[str], seed: int) -> Score:
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


def _mean(losses: np.ndarray, worst: float = 0.0) -> Score:
    """Of losses (n,) that are not negative; `worst`: the least that an example not seen may lose."""
    n, mean = len(losses), float(losses.mean())
    if n < FEWEST_LOSSES:
        return Score(mean, n, note=f"no interval below {FEWEST_LOSSES} examples")
    found = []
    for more in ([], [max(float(losses.max()), worst)]):
        given = np.append(losses, more)
        centre, error = float(given.mean()), float(given.std(ddof=1) / np.sqrt(len(given)))
        found.append((centre, error / centre if centre else 0.0))
    (low, below), (high, above) = found
    t = Z + (Z**3 + Z) / (4 * (n - 1)) + (5 * Z**5 + 16 * Z**3 + 3 * Z) / (96 * (n - 1) ** 2)  # Student's, to 1e-4
    return Score(mean, n, low * float(np.exp(-t * below)), high * float(np.exp(t * above)))


def _regression(metric: str, labels: np.ndarray, values: np.ndarray) -> Score:
    n = len(labels)
    if metric == "mean_squared_error":
        return _mean((labels - values) ** 2)
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


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1, ties share their mean rank (scipy.stats.rankdata, whose import takes two seconds)."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]
