"""Intervals and corrections against SciPy, power against simulation, too few seeds in words."""

import numpy as np
import pytest

from gradworks import statistics


def test_mean_and_standard_error():
    from scipy.stats import sem

    values = [0.61, 0.64, 0.60, 0.66]
    found = statistics.mean(values)
    assert (found.n, found.value) == (4, pytest.approx(np.mean(values)))
    assert found.se == pytest.approx(sem(values))


@pytest.mark.parametrize("n", [1, 2])
def test_no_standard_error_below_three_seeds(n):
    found = statistics.mean([0.5, 0.6][:n])
    assert found.se is None and "below 3" in found.note


def test_no_values():
    assert statistics.mean([]) == statistics.Mean(0, None, None, "no values")


@pytest.mark.parametrize("n", [2, 3, 5, 12])
def test_paired_agrees_with_scipy(n):
    from scipy.stats import ttest_rel

    rng = np.random.default_rng(n)
    ours, theirs = dict(enumerate(rng.normal(0.1, 1, n))), dict(enumerate(rng.normal(size=n)))
    reference = ttest_rel(list(ours.values()), list(theirs.values()))
    interval = reference.confidence_interval(0.95)
    found = statistics.paired(ours, theirs)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), abs=1e-9)
    assert found.p == pytest.approx(reference.pvalue, abs=1e-9) and found.note == ""


def test_pairs_are_by_key_not_by_position():
    found = statistics.paired({0: 0.5, 1: 0.9, 2: 0.7, 7: 0.1}, {2: 0.6, 1: 0.7, 0: 0.2})
    assert found.values == pytest.approx((0.3, 0.2, 0.1)) and found.unpaired == (7,)


@pytest.mark.parametrize("nothing", [float("nan"), float("inf"), None])
def test_what_is_no_number_is_no_value(nothing):
    found = statistics.paired({0: 0.5, 1: nothing, 2: 0.7}, {0: 0.4, 1: 0.5, 2: 0.5})
    assert found.values == pytest.approx((0.1, 0.2)) and found.unpaired == (1,)
    assert statistics.mean([0.5, nothing, 0.7]) == statistics.mean([0.5, 0.7])
    assert statistics.holm([0.01, nothing, 0.04]) == pytest.approx([0.02, None, 0.04])


def test_one_seed_and_none():
    assert statistics.paired({0: 0.5}, {0: 0.4}).detectable is None
    assert statistics.paired({0: 0.5}, {0: 0.4}).note == "no interval: 1 seed, 2 are needed"
    assert statistics.paired({0: 0.5}, {1: 0.4}).note == "no seed that both have"


def test_equal_differences_give_no_interval():
    found = statistics.paired({0: 0.5, 1: 0.6, 2: 0.7}, {0: 0.4, 1: 0.5, 2: 0.6})
    assert found.low is None and "same amount" in found.note and not found.certain


@pytest.mark.parametrize(("shift", "certain"), [(1.0, True), (-1.0, True), (0.0, False)])
def test_certain_is_an_interval_without_zero(shift, certain):
    noise = [0.1, -0.1, 0.05, -0.05]
    found = statistics.paired({i: shift + x for i, x in enumerate(noise)}, dict.fromkeys(range(4), 0.0))
    assert found.certain is certain


@pytest.mark.parametrize("n", [3, 5, 10])
def test_detectable_effect_is_found_with_80_percent_power(n):
    """Simulated: 20 000 paired t tests at the detectable effect; standard error of the share 0.003."""
    from scipy.stats import t

    sd = 0.7
    effect = statistics.detectable(sd, n)
    draws = np.random.default_rng(n).normal(effect, sd, (20_000, n))
    statistic = draws.mean(1) / (draws.std(1, ddof=1) / np.sqrt(n))
    assert (np.abs(statistic) > t.ppf(0.975, n - 1)).mean() == pytest.approx(0.8, abs=0.012)


def test_detectable_effect_shrinks_with_seeds():
    assert statistics.detectable(1, 1) is None
    effects = [statistics.detectable(1, n) for n in (2, 3, 5, 10, 100)]
    assert effects == sorted(effects, reverse=True)


def test_holm_by_hand():
    assert statistics.holm([0.01, None, 0.04, 0.03]) == pytest.approx([0.03, None, 0.06, 0.06])
    assert statistics.holm([0.9, 0.8]) == [1.0, 1.0]
    assert statistics.holm([]) == []
