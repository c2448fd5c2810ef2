"""The linear schedule against its own words."""

import pytest

from gradworks.learning_rate import linear


@pytest.mark.parametrize("total", [20, 40, 1000])
@pytest.mark.parametrize("warmup", [0.1, 0.25])
def test_it_rises_to_one_and_falls_to_almost_zero_in_equal_steps(total, warmup):
    rates = [linear(step, total, warmup) for step in range(total)]
    peak = round(warmup * total) - 1
    assert rates[peak] == 1.0 == max(rates) and rates.count(1.0) == 1
    up, down = rates[: peak + 1], [*rates[peak:], 0.0]
    assert up == pytest.approx([(k + 1) / len(up) for k in range(len(up))])
    assert down == pytest.approx([1 - k / (total - peak) for k in range(len(down))])


def test_without_warmup_it_begins_at_the_peak():
    assert [linear(step, 4, 0.0) for step in range(4)] == [1.0, 0.75, 0.5, 0.25]
    assert linear(0, 1, 0.5) == 1.0
