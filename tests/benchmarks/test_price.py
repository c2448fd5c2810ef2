"""The tables of benchmarks.price from rows that are made up: pairs, what is missing, and the order of the work."""

import pytest

from benchmarks import price


def row(part, condition, setting, seed, **found):
    return {"what": [part, condition, setting, seed], "found": found, "seconds": 1.0, "commit": "abc"}


def accuracy(setting, seed, value, passes=2.5):
    return row("accuracy", "noise", setting, seed, steps=9, passes=passes, challenge=value)


ROWS = [accuracy(price.FAITHFUL, seed, 0.5 + seed / 100) for seed in range(4)]
ROWS += [accuracy("head", seed, 0.4 + seed / 50, passes=4 / 3) for seed in range(3)]


def test_differences_are_paired_by_seed():
    lines = price.accuracies(ROWS, "noise")
    assert lines[0] == "| noise, challenge | seeds | accuracy | difference to faithful |"
    assert lines[2] == "| faithful | 4 | 0.515 ± 0.006 | – |"
    # 0.40, 0.42, 0.44 less 0.50, 0.51, 0.52: mean -0.09, standard error 0.01 / sqrt(3), t of two degrees 4.303
    assert lines[3] == "| head | 3 | 0.420 ± 0.012 | -0.090 [-0.115, -0.065], n = 3 |"
    assert price.accuracies(ROWS, "imbalance") == []


def test_times_are_ratios_of_rounds_and_passes_those_of_a_run():
    found = dict.fromkeys(price.SETTINGS, [3.0] * 9) | {"plain": [2.0] * 9, "head": [1.0, *[3.0] * 7, 9.0]}
    lines = price.cost([*ROWS, {"what": ["time", "noise", "", 0], "found": found}])
    assert "| faithful | 1.50 [1.50, 1.50] | 2.50 |" in lines
    assert "| head | 1.50 [1.50, 1.50] | 1.33 |" in lines
    assert "| clean every 4 | 1.50 [1.50, 1.50] | – |" in lines
    assert price.cost(ROWS) == []


def test_agreements_need_three_seeds():
    found = {name: {"split-half": [0.1 * k, 0.5], "fresh": [0.2, 0.3]} for k, name in enumerate(["faithful", "head"])}
    rows = [row("scores", "noise", "", seed, **found) for seed in range(3)]
    lines = price.agreements(rows)
    assert lines[0] == "| setting | split-half, 50 steps | split-half, 300 steps | fresh, 50 steps | fresh, 300 steps |"
    assert lines[3] == "| head | 0.10 ± 0.00 | 0.50 ± 0.00 | 0.20 ± 0.00 | 0.30 ± 0.00 |"
    assert price.agreements(rows[:2]) == []


def test_the_page_names_settings_and_commits():
    page = price.written(ROWS)
    assert '| clean every 4 | 32 | {"clean_every": 4} |' in page and "| erm | 32 | plain training |" in page
    assert "Measured at commit abc." in page
    assert max(map(len, page.splitlines())) <= 130


@pytest.mark.parametrize("hans", [False, True])
def test_each_seed_is_whole_before_the_next(hans):
    work = [one for one in price.work(3, hans) if one[0] == "accuracy"]
    assert len(set(work)) == len(work)
    assert (price.HANS in {condition for _, condition, _, _ in work}) == hans
    assert [seed for *_, seed in work] == sorted(seed for *_, seed in work)
    first = [setting for _, condition, setting, seed in work if condition == "noise" and seed == 0]
    assert first == list(price.SETTINGS)
