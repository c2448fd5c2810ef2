"""A score with its interval, and the intervals that families of metrics share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradworks.base.errors import InputError

Z = 1.959963984540054  # the 97.5 % quantile of the standard normal
SMALL = 30  # fewer examples than this are marked: an interval is wide and a normal approximation is poor
FEWEST_LOSSES = 30  # examples; below them the interval of a mean of losses holds less than 93 %


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
        """For JSON: `small` only below 30 examples, `note` only where there is something to say."""
        made = {"value": self.value, "n": self.n, "low": self.low, "high": self.high}
        return made | ({"small": True} if self.n < SMALL else {}) | ({"note": self.note} if self.note else {})


def known(metric: str, family: str, names: Sequence[str]) -> None:
    """Raises InputError when a metric is none of its family's."""
    if metric not in names:
        raise InputError(f"metric {metric!r} does not fit {family}\nexpected one of: {', '.join(names)}")


def undefined(labels: np.ndarray, outputs: np.ndarray) -> Score | None:
    """The score of no examples, or of outputs that are not finite; None where a metric can be computed.

    Raises:
        ValueError: there are not as many labels as outputs.
    """
    n = len(labels)
    if len(outputs) != n:
        raise ValueError(f"{n} labels but {len(outputs)} outputs")
    if n == 0:
        return Score(None, 0, note="no examples")
    bad = int((~np.isfinite(outputs.reshape(n, -1))).any(axis=1).sum())
    return Score(None, n, note=f"{bad} of {n} outputs are not finite") if bad else None


def wilson(correct: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share (J. Am. Stat. Assoc. 22, 1927); stays inside [0, 1] where n is small."""
    share, weight = correct / n, Z * Z / n
    centre = (share + weight / 2) / (1 + weight)
    half = Z * np.sqrt(share * (1 - share) / n + weight / (4 * n)) / (1 + weight)
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))


def mean(losses: np.ndarray, worst: float = 0.0) -> Score:
    """Of losses (n,) that are not negative, with Student's t interval of the logarithm of the mean.

    The upper end has one loss more, as bad as the worst seen; no interval below 30 examples.

    Args:
        losses: one per example.
        worst: the least that an example not seen may lose.
    """
    n, value = len(losses), float(losses.mean())
    if n < FEWEST_LOSSES:
        return Score(value, n, note=f"no interval below {FEWEST_LOSSES} examples")
    found = []
    for more in ([], [max(float(losses.max()), worst)]):
        given = np.append(losses, more)
        centre, error = float(given.mean()), float(given.std(ddof=1) / np.sqrt(len(given)))
        found.append((centre, error / centre if centre else 0.0))
    (low, below), (high, above) = found
    t = student(n)
    return Score(value, n, low * float(np.exp(-t * below)), high * float(np.exp(t * above)))


def student(n: int) -> float:
    """The 97.5 % quantile of Student's t for the mean of n values, to 1e-4 from n = 30 on."""
    return Z + (Z**3 + Z) / (4 * (n - 1)) + (5 * Z**5 + 16 * Z**3 + 3 * Z) / (96 * (n - 1) ** 2)
