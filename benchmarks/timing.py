"""The ratio of two sides' times: interleaved in one process, the median of the rounds' ratios, its 95 % interval."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import torch

AT_LEAST = 6  # rounds below which order statistics give no 95 % interval


@dataclass(frozen=True)
class Ratio:
    """Median of n ratios; `low`, `high`: its 95 % interval, None below six."""

    value: float
    low: float | None
    high: float | None
    n: int


def ratio(values: Sequence[float]) -> Ratio:
    """Median and the interval between two order statistics that covers the true median with at least 95 %.

    Of n independent values, the number below the median is binomial(n, 1/2), so the interval from the k-th smallest to
    the k-th largest misses it with probability 2 P(X < k): the largest k that keeps this at most 5 %. No assumption on
    the distribution; below six values there is no such k.
    """
    ordered, n = sorted(values), len(values)
    if n == 0:
        raise ValueError("ratio: found no values, expected at least one")
    k, tail = 0, 0.0
    while True:
        tail += math.comb(n, k) / 2**n
        if 2 * tail > 0.05:
            break
        k += 1
    low, high = (ordered[k - 1], ordered[n - k]) if k else (None, None)
    return Ratio(median(ordered), low, high, n)


def clock(device: str) -> Callable[[], float]:
    """Seconds: of this process on a CPU with one thread (others cannot disturb it), else of the wall."""
    if device != "cpu":

        def synchronised() -> float:
            torch.cuda.synchronize()
            return time.perf_counter()

        return synchronised
    return time.process_time if torch.get_num_threads() == 1 else time.perf_counter


def compare(
    plain: Callable[[int], None],
    method: Callable[[int], None],
    device: str,
    seconds: float,
    rounds: tuple[int, int] = (15, 120),
    narrow: float = 0.02,
) -> tuple[Ratio, float]:
    """Time of `method` over that of `plain`.

    Each round runs both, and which goes first alternates, so that whatever drifts or caches favours neither.

    Args:
        plain, method: one round of each side, given its index.
        device: "cpu" or "cuda".
        seconds: of the wall after which no further round starts, once the least number is there.
        rounds: least and greatest number.
        narrow: half-width of the interval, as a share of the median, that is enough.

    Returns:
        The ratio, and the median seconds of a round of the plain side.
    """
    now, ratios, plains = clock(device), [], []
    sides = (plain, method)
    end = time.monotonic() + seconds
    while len(ratios) < rounds[1]:
        i = len(ratios)
        took = [0.0, 0.0]
        for side in (0, 1) if i % 2 == 0 else (1, 0):
            start = now()
            sides[side](i)
            took[side] = now() - start
        ratios.append(took[1] / took[0])
        plains.append(took[0])
        if len(ratios) >= rounds[0]:
            found = ratio(ratios)
            wide = found.low is None or found.high - found.low > 2 * narrow * found.value
            if not wide or time.monotonic() > end:
                break
    return ratio(ratios), median(plains)
