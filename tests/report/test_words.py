"""The answer: never a gain without its interval; at most six lines; the checks; the terminal's table."""

import re

import pytest

from gradworks import report
from gradworks.report import form, words
from tests import runs_tree


def results_of(values, others=(), baseline="erm"):
    """Results of one condition and encoder: method -> values by seed."""
    from gradworks import statistics
    from gradworks.report.summary import _correct, difference

    rows = []
    for method, by_seed in values.items():
        mean = statistics.mean(list(by_seed.values()))
        pair = None if method == baseline else difference(baseline, by_seed, values[baseline], 1)
        rows.append(
            {
                "condition": "noise", "encoder": "gru", "method": method,
                "primary": {"value": mean.value}, "difference": {"primary": pair}, "control": {"primary": None},
            }
        )  # fmt: skip
    _correct([row["difference"]["primary"] for row in rows])
    return {"baseline": baseline, "primary": {"name": "accuracy", "better": 1}, "summaries": [*rows, *others]} | {
        "cost": {"rows": []}
    }


def by_seed(*values):
    return dict(enumerate(values))


def test_a_gain_with_its_interval():
    said = words.answer(results_of({"erm": by_seed(0.5, 0.52, 0.49), "reweight": by_seed(0.71, 0.7, 0.72)}))
    assert "noise: reweight gains +0.207 [+0.144, +0.269] over erm, from 0.503 to 0.710 (3 seeds" in said[1]
    assert said[2].startswith("Smallest true gain that would be seen 4 times in 5: noise 0.082")


def test_two_seeds_claim_nothing():
    said = " ".join(words.answer(results_of({"erm": by_seed(0.5, 0.52), "reweight": by_seed(0.9, 0.91)})))
    assert " gains " not in said and "no claim, no interval with 2 seeds, 3 are needed" in said
    assert "+0.395 (+0.400, +0.390)" in said


def test_an_interval_that_holds_zero_claims_nothing():
    said = " ".join(words.answer(results_of({"erm": by_seed(0.5, 0.6, 0.4), "reweight": by_seed(0.9, 0.6, 0.5)})))
    assert " gains " not in said and "no claim, the interval holds 0 (3 seeds)" in said


def test_no_method_above_the_baseline():
    values = {"erm": by_seed(0.9, 0.91, 0.92), "a": by_seed(0.5, 0.51, 0.53), "b": by_seed(0.8, 0.81, 0.83)}
    said = words.answer(results_of(values))
    assert "no method is above erm (0.910); nearest is b, −0.097" in said[1]


def test_a_winner_among_many_must_stand_the_correction():
    noise = (0.02, -0.03, 0.01, 0.03, -0.02)
    erm = by_seed(*[0.5 + x for x in noise])
    shifts = (0.06, 0.03, 0.13, 0.07, 0.02)  # p = 0.031 alone
    values = {"erm": erm, "a": {s: erm[s] + d for s, d in enumerate(shifts)}}
    assert " gains " in words.answer(results_of(values))[1]
    values |= {name: {s: erm[s] + (-1) ** s * 0.05 for s in erm} for name in "bcd"}
    said = words.answer(results_of(values))[1]
    assert " gains " not in said and "not beyond chance among 4 methods compared (Holm)" in said


def test_at_most_six_lines(tmp_path):
    values = {"erm": by_seed(0.5, 0.52, 0.49), "reweight": by_seed(0.71, 0.7, 0.72)}
    rows = results_of(values)["summaries"]
    more = [{**row, "condition": f"c{i}"} for i in range(9) for row in rows]
    said = words.answer(results_of(values, more))
    assert len(said) <= 6 and "7 more comparisons" in " ".join(said)


def test_nothing_to_compare_yet():
    assert words.answer(results_of({"erm": by_seed(0.5)})) == ["No cell has been compared with erm yet."]
    assert "nothing to compare with erm yet" in words.answer(results_of({"erm": {}, "reweight": by_seed(0.5)}))[1]


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return runs_tree.write(tmp_path_factory.mktemp("words"), seeds=range(3))


def test_the_three_controls(tree):
    checks = {check["name"]: check for check in report.collect(*tree)["checks"]}
    assert set(checks) == {"nothing to gain", "random weights", "true rule"}
    assert (
        "set = in_distribution" in checks["nothing to gain"]["text"]
        and "clean, gru" in checks["nothing to gain"]["text"]
    )
    assert checks["random weights"]["verdict"] == "as expected" and "random" in checks["random weights"]["text"]
    assert "clean 1.000, noise 1.000" in checks["true rule"]["text"]


def test_a_control_that_gains_is_said(tmp_path):
    _, _, runs = tree = runs_tree.write(tmp_path)
    for seed in range(3):
        runs_tree.evaluated(runs, f"noise/random/gru/{seed}", 1.0, seed)
    checks = {check["name"]: check["verdict"] for check in report.collect(*tree)["checks"]}
    assert checks["random weights"] == "not as expected" and checks["true rule"] == "as expected"


@pytest.mark.parametrize("seeds", [(0, 1), range(3)])
def test_the_table_fits_a_terminal(tmp_path, seeds):
    states = {"noise/reweight/gru/0": "OOM", "noise/random/gru/1": "not converged"}
    results = report.collect(*runs_tree.write(tmp_path, seeds, states=states, skip=("noise/erm+clean/gru/0",)))
    lines = report.table(results).splitlines()
    assert max(map(len, lines)) <= 100 and not any(re.search(r"\S…", line) for line in lines)
    assert "† OOM: ran out of memory" in lines and any(line.startswith("* not converged") for line in lines)
    assert any("chance 0.333, majority class 0.400, true rule 1.000" in line for line in lines)
    assert len(report.answer(results).splitlines()) <= 6


def test_one_line_for_a_cell(tmp_path):
    results = report.collect(*runs_tree.write(tmp_path, (0,), {"noise/reweight/gru/0": "OOM"}, ("noise/erm/gru/0",)))
    assert report.cell_line(results, "noise/reweight/gru/0") == "noise/reweight/gru/0  OOM"
    assert report.cell_line(results, "noise/erm/gru/0") == "noise/erm/gru/0  not run"
    assert report.cell_line(results, "clean/erm/gru/0").split()[1].startswith("0.")


def test_forms():
    assert form.signed(-0.0314) == "−0.031" and form.number(None) == "–" and form.count(12345) == "12\u202f345"
    assert form.states({"ok": 1, "OOM": 1}) == "1 of 2, 1 OOM†" and form.states({"ok": 3}) == "3"
    assert form.point({}) == "plain training" and form.point({"weighting": "reweight"}) == "weighting: reweight"


@pytest.mark.parametrize(
    ("source", "splits", "said"),
    [
        ({"from": "synthetic:nli", "seed": 7}, {}, "On synthetic data (synthetic:nli, generated with seed 7)"),
        ({"from": "file:data/mnli"}, {}, "On the whole of s (file:data/mnli)"),
        ({"from": "file:data/mnli"}, {"train": {"size": 5}}, "On a sample of s (file:data/mnli)"),
        ({"from": "hub:glue/rte@1", "rows": {"train": 5}}, {}, "On a sample of s (hub:glue/rte@1)"),
    ],
)
def test_on_what_data(source, splits, said):
    assert words.data({"sources": {"s": source}, "conditions": {}}, splits) == said + "."
