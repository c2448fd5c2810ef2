"""How far predicted probabilities can be trusted: calibration error, Brier score, log loss; temperature scaling.

Guo et al., On Calibration of Modern Neural Networks (ICML 2017): the logits divided by one number, fitted on examples
that were neither trained on nor are judged. Nothing is imported before it is needed: SciPy takes a while.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from gradworks.metrics.classification import SURE

if TYPE_CHECKING:
    import numpy as np

BINS = 15  # of equal width, as in Guo et al.
LARGEST = 20.0  # temperature, and its inverse the smallest
DRAWS = 100  # of labels, for the error that calibrated predictions show


def temperature(probabilities: np.ndarray, labels: np.ndarray) -> float | None:
    """The divisor of the logits with the lowest log loss; None without finite examples."""
    from scipy.optimize import minimize_scalar

    if not finite(probabilities):
        return None
    bound = math.log(LARGEST)
    found = minimize_scalar(
        lambda t: log_loss(scaled(probabilities, math.exp(t)), labels), bounds=(-bound, bound), method="bounded"
    )
    return math.exp(found.x)


def at_bound(probabilities: np.ndarray, labels: np.ndarray, found: float) -> bool:
    """Whether a fitted temperature is no better than the largest or smallest one tried."""
    least = log_loss(scaled(probabilities, found), labels)
    bounds = [log_loss(scaled(probabilities, by), labels) for by in (LARGEST, 1 / LARGEST)]
    return min(bounds) - least < 1e-6


def scaled(probabilities: np.ndarray, by: float) -> np.ndarray:
    """Softmax of the logits divided by a temperature; (n, classes)."""
    import numpy as np

    logits = np.log(probabilities.clip(SURE)) / by
    made = np.exp(logits - logits.max(axis=1, keepdims=True))
    return made / made.sum(axis=1, keepdims=True)


def log_loss(probabilities: np.ndarray, labels: np.ndarray) -> float | None:
    """Mean negative log-likelihood in nats; None without finite examples."""
    import numpy as np

    if not finite(probabilities):
        return None
    return float(-np.log(probabilities[np.arange(len(labels)), labels].clip(SURE)).mean())


def brier(probabilities: np.ndarray, labels: np.ndarray) -> float | None:
    """Mean over examples of the squared distance to the label, summed over the classes: 0 to 2 (Brier 1950). Unlike the
    calibration error it is not biased by how few examples there are. None without finite examples.
    """
    import numpy as np

    if not finite(probabilities):
        return None
    return float(((probabilities - np.eye(probabilities.shape[1])[labels]) ** 2).sum(axis=1).mean())


def bins(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, list[float]] | None:
    """For each bin of the highest probability: examples, sum of that probability, correct predictions; None without
    finite examples.
    """
    import numpy as np

    if not finite(probabilities):
        return None
    sure = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    columns = {"n": None, "confidence": sure, "right": right.astype(float)}
    return {name: np.bincount(_places(sure), weights=w, minlength=BINS).tolist() for name, w in columns.items()}


def ece(found: dict[str, list[float]] | None) -> float | None:
    """Expected calibration error: the mean gap of confidence and accuracy over the bins, weighted by examples."""
    if found is None:
        return None
    gaps = [abs(c - r) for c, r in zip(found["confidence"], found["right"], strict=True)]
    return sum(gaps) / sum(found["n"])


def ece_chance(probabilities: np.ndarray) -> float | None:
    """The mean calibration error of perfectly calibrated predictions with the same confidences, over DRAWS draws.

    It is the bias of `ece`, large for few examples (resampling as in Bröcker and Smith 2007). The draws depend on the
    number of examples only.
    """
    import numpy as np

    if not finite(probabilities):
        return None
    sure = probabilities.max(axis=1)
    place, rng = _places(sure), np.random.default_rng(len(sure))
    gaps = [
        np.abs(np.bincount(place, weights=sure - (rng.random(len(sure)) < sure), minlength=BINS)).sum()
        for _ in range(DRAWS)
    ]
    return float(np.mean(gaps)) / len(sure)


def _places(sure: np.ndarray) -> np.ndarray:
    import numpy as np

    return np.minimum((sure * BINS).astype(int), BINS - 1)


def finite(probabilities: np.ndarray) -> bool:
    """Whether there is an example, and each has numbers."""
    import numpy as np

    return bool(len(probabilities)) and bool(np.isfinite(probabilities).all())
