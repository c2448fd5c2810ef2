"""Statistics over seeds: mean and standard error, paired differences, detectable effects.

Runs of one seed share initialisation, data order, corruption and dropout masks, so methods are compared seed by seed:
what counts is the spread of the paired differences, not that of the values. This module has single comparisons; those
of a table, with their correction, are in `gradworks.simultaneous`. Imports scipy.special only: scipy.stats takes two
seconds.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

ERROR_FROM = 3  # seeds; below, values are listed
INTERVAL_FROM = 2  # seeds
LEVEL = 0.95


@dataclass(frozen=True)
class Mean:
    """Mean of n values and its standard error (None below three values, `note` says so)."""

    n: int
    value: float | None
    se: float | None
    note: str = ""


@dataclass(frozen=True)
class Difference:
    """Mean of n paired differences.

    `low`, `high`: 95 % t interval; `p`: two-sided paired t test; `detectable`: the smallest true difference that this
    number of pairs finds with 80 % power at the 5 % level. They need two pairs; else they are None, and `note` says
    why. `unpaired`: the keys of one side only.
    """

    n: int
    values: tuple[float, ...]
    mean: float | None
    se: float | None
    low: float | None
    high: float | None
    p: float | None
    detectable: float | None
    note: str = ""
    unpaired: tuple[Hashable, ...] = ()

    @property
    def certain(self) -> bool:
        """Whether there is an interval that excludes 0."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


def mean(values: Sequence[float]) -> Mean:
    """Mean and standard error s/√n of the finite values over seeds."""
    values = [v for v in values if is_number(v)]
    n = len(values)
    if n == 0:
        return Mean(0, None, None, "no values")
    centre = math.fsum(values) / n
    if n < ERROR_FROM:
        return Mean(n, centre, None, f"{_seeds(n)}: no standard error below {ERROR_FROM}")
    return Mean(n, centre, _sd(values, centre) / math.sqrt(n))


def paired(ours: Mapping[Hashable, float], theirs: Mapping[Hashable, float]) -> Difference:
    """`ours` minus `theirs`, paired by key (the seed); scores that are None or not finite are ignored."""
    ours, theirs = ({k: v for k, v in side.items() if is_number(v)} for side in (ours, theirs))
    common = sorted(ours.keys() & theirs.keys(), key=str)
    unpaired = tuple(sorted(ours.keys() ^ theirs.keys(), key=str))
    values = tuple(ours[k] - theirs[k] for k in common)
    n = len(values)
    if n == 0:
        return Difference(0, (), None, None, None, None, None, None, "no seed that both have", unpaired)
    centre = math.fsum(values) / n
    if n < INTERVAL_FROM:
        note = f"no interval: 1 seed, {INTERVAL_FROM} are needed"
        return Difference(1, values, centre, None, None, None, None, None, note, unpaired)
    sd = _sd(values, centre)
    if sd <= 1e-12 * max(1.0, abs(centre)):
        note = f"no interval: all {n} seeds differ by the same amount"
        return Difference(n, values, centre, None, None, None, None, None, note, unpaired)
    from scipy.special import stdtr, stdtrit

    se = sd / math.sqrt(n)
    half = float(stdtrit(n - 1, (1 + LEVEL) / 2)) * se
    p = float(2 * stdtr(n - 1, -abs(centre / se)))
    return Difference(n, values, centre, se, centre - half, centre + half, p, detectable(sd, n), "", unpaired)


def is_number(value: float | None) -> bool:
    """Whether it is finite: not NaN, infinite or None."""
    return value is not None and math.isfinite(value)


def detectable(sd: float, n: int, power: float = 0.8, alpha: float = 0.05, freedom: int | None = None) -> float | None:
    """Smallest true mean difference that a two-sided paired t test finds with this power (Cohen 1988, chapter 2).

    Args:
        sd: standard deviation of the paired differences.
        n: number of pairs; below two there is no test, so None.
        power: probability to find it.
        alpha: probability of a false alarm.
        freedom: degrees of freedom of `sd`, if estimated from more than these pairs; n - 1 by default.

    Returns:
        δ·sd/√n with δ the noncentrality at which the t statistic exceeds its critical value with probability `power`.
    """
    if n < 2 and not freedom:
        return None
    from scipy.special import nctdtrinc, stdtrit

    freedom = freedom or n - 1
    critical = stdtrit(freedom, 1 - alpha / 2)
    return float(nctdtrinc(freedom, 1 - power, critical)) * sd / math.sqrt(n)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction (Scand. J. Stat. 6, 1979) of the given p-values; None stays None, and NaN becomes
    None.
    """
    order = sorted((p, i) for i, p in enumerate(p_values) if is_number(p))
    corrected: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, i) in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * p))
        corrected[i] = highest
    return corrected


def _sd(values: Sequence[float], centre: float) -> float:
    return math.sqrt(math.fsum((v - centre) ** 2 for v in values) / (len(values) - 1))


def _seeds(n: int) -> str:
    return "1 seed" if n == 1 else f"{n} seeds"
