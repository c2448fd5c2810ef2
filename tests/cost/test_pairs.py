"""Ratios and intervals on planted numbers; the clock of a side that works, sleeps or is kept from working."""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from gradworks.cost import pairs


def test_median_and_interval_of_planted_numbers():
    """Of 9 values the 2nd and the 8th: 1 - 2 * (1 + 9) / 512 = 96.1 %."""
    found = pairs.ratio([9, 1, 8, 2, 7, 3, 6, 4, 5])
    assert (found.value, found.low, found.high, found.n) == (5, 2, 8, 9)


def test_no_interval_below_six():
    assert pairs.ratio([1.0, 2.0, 3.0, 4.0, 5.0]) == pairs.Ratio(3.0, None, None, 5)
    assert pairs.ratio([1, 2, 3, 4, 5, 6]) == pairs.Ratio(3.5, 1, 6, 6)  # 1 - 2 / 64 = 96.9 %


def test_no_values():
    with pytest.raises(ValueError, match="found no values"):
        pairs.ratio([])


@pytest.mark.parametrize("n", [6, 15, 40])
def test_the_interval_covers_the_median(n):
    random = np.random.default_rng(0)
    hits = [f.low <= 1.0 <= f.high for f in (pairs.ratio(random.lognormal(0, 0.3, n).tolist()) for _ in range(2000))]
    assert 0.94 < np.mean(hits) < 0.99


@pytest.mark.parametrize("n", [9, 40, 120])
def test_the_wider_interval_holds_the_median_of_a_repeat(n):
    random = np.random.default_rng(0)
    made = [pairs.Pairs([1.0] * n, random.lognormal(0, 0.3, n).tolist()) for _ in range(2000)]
    hits = [a.repeat.low <= b.ratio.value <= a.repeat.high for a, b in zip(made[::2], made[1::2], strict=True)]
    assert 0.93 < np.mean(hits) < 0.995
    usual = [pairs.ratio(a.ratios) for a in made[::2]]
    narrow = [a.low <= b.ratio.value <= a.high for a, b in zip(usual, made[1::2], strict=True)]
    assert np.mean(narrow) < 0.92  # the usual one does not


@pytest.mark.parametrize(("rounds", "half_width"), [((40, 200), 0.03), ((15, 120), 0.02)])
@pytest.mark.parametrize("spread", [0.06, 0.1])
def test_the_interval_covers_where_pairs_stop_once_it_is_narrow(rounds, half_width, spread):
    """600 measurements: the standard error of a coverage of 95 % is 0.9 %; with `MISS` it would be 91 to 93 %."""
    random, held = np.random.default_rng(0), []
    for _ in range(600):
        drawn = (1.5 * np.exp(spread * random.normal(size=rounds[1]))).tolist()
        found = pairs.Pairs([1.0] * rounds[0], drawn[: rounds[0]])
        while len(found) < rounds[1] and not pairs.narrow(found.ratio, half_width):
            found.plain.append(1.0)
            found.method.append(drawn[len(found) - 1])
        held.append(found.ratio.low <= 1.5 <= found.ratio.high)
    assert np.mean(held) >= 0.95


class Clock:
    """Sides that take as long as they say."""

    def __init__(self):
        self.now, self.order = 0.0, []

    def side(self, name, seconds):
        def run(i):
            self.order.append(name)
            self.now += seconds * (1 + 0.1 * i)  # the machine gets slower: the ratio of a round does not see it

        return run


def test_sides_alternate_and_drift_cancels(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(pairs, "clock", lambda device: lambda: clock.now)
    both = pairs.compare(clock.side("A", 2.0), clock.side("B", 3.0), "cpu", 60, rounds=(8, 20))
    found = both.ratio
    assert [found.value, found.low, found.high] == pytest.approx([1.5] * 3)
    assert found.n == 8  # narrow enough at once
    assert "".join(clock.order) == "ABBA" * 4
    assert both.seconds == pytest.approx((2.0 * 1.35, 3.0 * 1.35))


def test_it_ends_when_time_is_up_or_rounds_are(monkeypatch):
    clock, wobble = Clock(), iter(range(1000))
    monkeypatch.setattr(pairs, "clock", lambda device: lambda: clock.now)

    def noisy(i):
        clock.now += 1 + next(wobble) % 2

    assert pairs.compare(clock.side("A", 1.0), noisy, "cpu", 0, rounds=(7, 20)).ratio.n == 7
    assert pairs.compare(clock.side("A", 1.0), noisy, "cpu", 600, rounds=(7, 20)).ratio.n == 20


@pytest.mark.skipif(not pairs._SCHEDSTAT.is_file(), reason="the system does not count what a thread waits for a core")
def test_the_clock_sees_a_sleep_and_not_the_processes_beside_it():
    assert torch.get_num_threads() == 1
    now = pairs.clock("cpu")
    start = now()
    time.sleep(0.05)
    assert now() - start >= 0.05
    spin = "import os; os.sched_setaffinity(0, {%d}); print(flush=True)\nwhile True: pass"
    import os

    before = os.sched_getaffinity(0)
    core = min(before)
    beside = [subprocess.Popen([sys.executable, "-c", spin % core], stdout=subprocess.PIPE) for _ in range(3)]
    try:
        for one in beside:
            one.stdout.readline()
        os.sched_setaffinity(0, {core})  # one core for four
        start, wall, mine = now(), time.perf_counter(), time.process_time()
        while time.process_time() - mine < 0.3:
            pass
        took, passed = now() - start, time.perf_counter() - wall
    finally:
        os.sched_setaffinity(0, before)
        for one in beside:
            one.kill()
            one.wait()
    assert passed > 2 * took  # of the wall it took four times its own
    assert took < 1.5 * 0.3


@pytest.mark.parametrize("read", range(1, 6))
def test_a_wait_between_the_reads_of_the_clock_counts_for_neither_side(monkeypatch, read):
    """The thread loses the core for 50 ms after its `read`-th look at the counter or the time."""
    counts, seconds, waits = 0, 10.0, 0

    def look(what):
        nonlocal counts, seconds, waits
        found, counts = what(), counts + 1
        if counts == read:
            seconds, waits = seconds + 0.05, waits + 50_000_000
        return found

    class Counter:
        def is_file(self):
            return True

        def read_text(self):
            return look(lambda: f"0 {waits} 0")

    monkeypatch.setattr(pairs, "_SCHEDSTAT", Counter())
    monkeypatch.setattr(pairs.time, "perf_counter", lambda: look(lambda: seconds))
    now = pairs.clock("cpu")
    assert now() == pytest.approx(10) and now() == pytest.approx(10)


def test_with_more_threads_the_clock_is_that_of_the_wall(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert pairs.clock("cpu") is time.perf_counter
