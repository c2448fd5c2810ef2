"""The ratio of two times, interleaved in one process: the median over pairs, with a 95 % interval."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import torch

MISS = 0.05  # probability that an interval misses the true median
# and one that is looked at after each pair, until it is narrow: 0.05 would miss in 8 %, as a run of luck ends the pairs
MISS_STOPPED = 0.02
# and one that is to hold the median of a second measurement, as noisy as the first: sqrt(2) as wide, if it is normal
MISS_REPEAT = math.erfc(1.96)
_SCHEDSTAT = Path("/proc/thread-self/schedstat")  # nanoseconds on a core, waiting for one; how often


@dataclass(frozen=True)
class Ratio:
    """Median of n ratios; `low`, `high`: its 95 % interval, None below six."""

    value: float
    low: float | None
    high: float | None
    n: int


@dataclass
class Pairs:
    """Seconds of each side, pair by pair."""

    plain: list[float] = field(default_factory=list)
    method: list[float] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.plain)

    @property
    def ratios(self) -> list[float]:
        return [method / plain for plain, method in zip(self.plain, self.method, strict=True)]

    @property
    def ratio(self) -> Ratio:
        """With a 95 % interval where pairs stop once it is narrow; None below seven."""
        return ratio(self.ratios, MISS_STOPPED)

    @property
    def repeat(self) -> Ratio:
        """The same with the interval in which the ratio of a second measurement lies with 95 %; None below nine."""
        return ratio(self.ratios, MISS_REPEAT)

    @property
    def seconds(self) -> tuple[float, float]:
        """Median seconds of the plain side and of the method's."""
        return median(self.plain), median(self.method)


def ratio(values: Sequence[float], miss: float = MISS) -> Ratio:
    """Median and the interval between two order statistics that covers the true median with at least 95 %.

    Of n independent values, the number below the median is binomial(n, 1/2), so the interval from the k-th smallest to
    the k-th largest misses it with probability 2 P(X < k): the largest k that keeps this at most `miss`. No assumption
    on the distribution; below six values (at 5 %) there is no such k.
    """
    ordered, n = sorted(values), len(values)
    if n == 0:
        raise ValueError("ratio: found no values, expected at least one")
    k, tail = 0, 0.0
    while True:
        tail += math.comb(n, k) / 2**n
        if 2 * tail > miss:
            break
        k += 1
    low, high = (ordered[k - 1], ordered[n - k]) if k else (None, None)
    return Ratio(median(ordered), low, high, n)


def narrow(found: Ratio, half_width: float) -> bool:
    """Whether the interval reaches at most this share of the median to either side, on average."""
    return found.low is not None and found.high - found.low <= 2 * half_width * found.value


def clock(device: str) -> Callable[[], float]:
    """The clock for a side, in seconds.

    On an accelerator: wall time, after synchronizing. On a CPU with one thread: wall time minus the time that the
    thread waited for a core (from Linux), so that other processes do not disturb it; unlike CPU time it includes
    sleeping and waiting for a disk. Otherwise: wall time.
    """
    if device != "cpu":

        def synchronised() -> float:
            torch.cuda.synchronize()
            return time.perf_counter()

        return synchronised
    if torch.get_num_threads() > 1 or not _SCHEDSTAT.is_file():
        return time.perf_counter

    def waited() -> int:
        return int(_SCHEDSTAT.read_text().split()[1])

    def undisturbed() -> float:
        while True:  # losing the core between two of these reads would count the wait once only
            before, now = waited(), time.perf_counter()
            if waited() == before:
                return now - before / 1e9

    return undisturbed


def compare(
    plain: Callable[[int], None],
    method: Callable[[int], None],
    device: str,
    seconds: float,
    rounds: tuple[int, int] = (15, 120),
    half_width: float = 0.02,
) -> Pairs:
    """Time `method` against `plain`.

    Each pair runs both in alternating order, so that neither drift nor caches favour one.

    Args:
        plain, method: one pair's part of each side, given its index.
        device: "cpu" or "cuda".
        seconds: of both sides together, by the same clock, after which no further pair starts once the least number
            is there.
        rounds: least and greatest number of pairs.
        half_width: of the interval, as a share of the median, that is enough.
    """
    now, found = clock(device), Pairs()
    sides = ((plain, found.plain), (method, found.method))
    spent = 0.0
    while len(found) < rounds[1]:
        i = len(found)
        for side, took in sides if i % 2 == 0 else sides[::-1]:
            start = now()
            side(i)
            took.append(now() - start)
            spent += took[-1]
        if len(found) >= rounds[0] and (narrow(found.ratio, half_width) or spent > seconds):
            break
    return found
