"""The answer: never a gain without its interval; at most six lines; the checks; the terminal's table."""

import re
from types import SimpleNamespace

import pytest

from gradworks import report
from gradworks.report import form, words
from gradworks.report.differences import bounds, differences
from tests import runs_tree


def results_of(values, others=(), baseline="erm"):
    """Results of one condition and encoder: method -> values by seed."""
    import dataclasses

    from gradworks import statistics

    pairs = [(method, baseline) for method in values if method != baseline]
    found = differences(values, {}, pairs, 1, {})
    rows = []
    for method, of in values.items():
        mean = {**dataclasses.asdict(statistics.mean(list(of.values()))), "values": list(of.values())}
        state = {"ok": len(of)} if of else {"not run": 1}
        pair = found.get((method, baseline))
        about = {"condition": "noise", "encoder": "gru", "method": method, "states": state, "inactive": False}
        rows.append({**about, "primary": mean, "difference": {"primary": pair}, "control": {"primary": None}})
    return {"baseline": baseline, "primary": {"name": "accuracy", "better": 1}, "summaries": [*rows, *others]} | {
        "cost": {"rows": []}
    }


def by_seed(*values):
    return dict(enumerate(values))


def test_a_gain_with_its_interval():
    said = words.answer(results_of({"erm": by_seed(0.5, 0.52, 0.49), "reweight": by_seed(0.71, 0.7, 0.72)}))
    assert "noise: reweight gains +0.207 [+0.144, +0.269] over erm, from 0.503 to 0.710 (3 seeds" in said[1]
    assert "(3 seeds; p = 0.0049, corrected over 1 method)" in said[1]
    assert said[2].startswith("Smallest true gain that this rule finds 4 times in 5: noise 0.08")


def test_one_seed_claims_nothing():
    said = " ".join(words.answer(results_of({"erm": by_seed(0.5), "reweight": by_seed(0.9)})))
    assert " gains " not in said and "no claim, no interval with 1 seed, 2 are needed" in said
    assert "+0.400 (+0.400)" in said


def test_two_seeds_have_an_interval_and_rarely_a_claim():
    values = {"erm": by_seed(0.5, 0.52), "reweight": by_seed(0.6, 0.61), "b": by_seed(0.51, 0.49)}
    said = " ".join(words.answer(results_of(values)))
    assert " gains " not in said and "+0.095 [−" in said and "no claim, the interval holds 0 (2 seeds" in said


def test_no_interval_and_no_detectable_gain_beyond_the_best_score_there_can_be():
    values = {"erm": by_seed(0.5, 0.52), "reweight": by_seed(0.6, 0.9), "b": by_seed(0.51, 0.49)}
    pairs = [("reweight", "erm"), ("b", "erm")]
    free = differences(values, {}, pairs, 1, {})["reweight", "erm"]
    held = differences(values, {}, pairs, 1, {}, limits=bounds("accuracy"))["reweight", "erm"]
    assert free["low"] < -1 and free["high"] > 1 and free["detectable"] > 0.49
    assert (held["low"], held["high"], held["detectable"]) == (-1, 1, None) and held["verdict"] == free["verdict"]
    lower = differences(values, {}, pairs, -1, {}, limits=bounds("log_loss"))["reweight", "erm"]
    assert (lower["low"], lower["high"], lower["detectable"]) == (free["low"], free["high"], None)  # .51 at most
    said = results_of(values)
    for row in said["summaries"]:
        row["difference"]["primary"] = held if row["method"] == "reweight" else None
    assert "4 times in 5: noise none (2 seeds)." in " ".join(words.answer(said))


def test_value_and_gap_of_a_sentence_are_of_the_same_seeds():
    values = {"erm": {0: 0.5, 1: 0.52, 2: 0.51, 3: 0.99}, "a": {0: 0.6, 1: 0.62, 2: 0.611, 9: 0.1}}
    said = words.answer(results_of(values))[1]
    assert "a gains +0.100" in said and "from 0.510 to 0.610 (3 seeds" in said


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
    shifts = (0.063, 0.033, 0.093, 0.073, 0.033)
    values = {"erm": erm, "a": {s: erm[s] + d for s, d in enumerate(shifts)}}
    assert " gains " in words.answer(results_of(values))[1]
    values |= {name: {s: erm[s] + (-1) ** (s // 2) * 0.03 for s in erm} for name in "bcd"}
    said = words.answer(results_of(values))[1]
    assert " gains " not in said and "not beyond chance among 4 methods compared" in said


def test_at_most_six_lines(tmp_path):
    values = {"erm": by_seed(0.5, 0.52, 0.49), "reweight": by_seed(0.71, 0.7, 0.72)}
    rows = results_of(values)["summaries"]
    more = [{**row, "condition": f"c{i}"} for i in range(9) for row in rows]
    said = words.answer(results_of(values, more))
    assert len(said) <= 6 and "7 more comparisons" in " ".join(said)


def test_nothing_to_compare_yet():
    assert words.answer(results_of({"erm": {}})) == ["No cell has run yet; nothing to compare with erm."]
    assert "nothing to compare with erm yet" in words.answer(results_of({"erm": {}, "reweight": {}}))[1]


def test_a_report_of_one_method_says_what_it_found():
    said = words.answer(results_of({"erm": by_seed(0.5, 0.52, 0.51)}))
    assert said[1] == "noise, gru: erm 0.510 ± 0.006 (3 seeds)" and "Only one method" in said[2]


def test_the_steps_of_a_waterfall_are_the_answer():
    def step(name, value, **gain):
        return {"name": name, "value": value, "to": "one", "gain": {"covers": "3 seeds", **gain} if gain else None}

    alone = results_of({"erm": by_seed(0.5, 0.52, 0.51)})
    unsure = step("two", 0.52, mean=0.01, low=-0.02, high=0.04, verdict="undecided")
    sure = step("three", 0.62, mean=0.1, low=0.05, high=0.15, verdict="gain")
    loss = step("four", 0.5, mean=-0.12, low=-0.2, high=-0.04, verdict="loss")
    none = step("five", 0.6, mean=0.1, low=None, high=None, verdict="no interval")
    never = step("six", None)

    def said(*rows):
        return words.answer(alone | {"waterfall": [step("one", 0.51), *rows]})

    found = said(unsure, sure, loss, never)
    assert found[1] == "Steps, each against the one before: one 0.510, two 0.520, three 0.620, four 0.500."
    assert found[2].startswith("three gains +0.100 [+0.050, +0.150] over one (3 seeds); four loses −0.120")
    assert found[2].endswith("; no other step is beyond chance, of 3 tested.") and len(found) == 3
    assert said(unsure)[2] == "The one step tested is not beyond chance."
    assert said(unsure, unsure)[2] == "No step is beyond chance, of 2 tested."
    assert said(sure)[2].endswith("(3 seeds).") and said(none)[2] == "No step has an interval."
    assert "Only one method" in said(never)[-1]
    both = results_of({"erm": by_seed(0.5, 0.52, 0.49), "reweight": by_seed(0.71, 0.7, 0.72)})
    more = [{**row, "condition": f"c{i}"} for i in range(9) for row in both["summaries"]]
    found = words.answer({**both, "summaries": more, "waterfall": [step("one", 0.51), sure]})
    assert found[1].startswith("Steps") and len(found) <= 6 and "8 more comparisons" in " ".join(found)


def test_failed_cells_are_named():
    results = results_of({"erm": by_seed(0.5, 0.52, 0.51), "a": by_seed(0.5, 0.52, 0.53), "b": {}})
    results["summaries"][2]["states"] = {"OOM": 2, "diverged": 1}
    assert "; b has no score: 2 OOM, 1 diverged" in words.answer(results)[1]
    assert "without a value" not in words.answer(results)[1]
    results = results_of({"erm": {}, "a": by_seed(0.5, 0.52, 0.53)})
    results["summaries"][0]["states"] = {"diverged": 3}
    said = words.answer(results)[1]
    assert said == "noise: nothing to compare with; erm has no score: 3 diverged, a 0.517 ± 0.009 (3 seeds)"
    results = results_of({"erm": by_seed(0.5, 0.52), "a": {}})
    results["summaries"][1]["states"] = {"OOM": 2}
    assert "no other method has a score; erm 0.500, 0.520 (2 seeds), a has no score: 2 OOM" in words.answer(results)[1]
    results = results_of({"erm": {0: 0.5}, "a": {1: 0.6}})
    assert "no seed that both have; erm 0.500 (1 seed), a 0.600 (1 seed)" in words.answer(results)[1]


def test_an_ensemble_of_one_member_or_of_none_says_so():
    score = {"value": 0.6}
    rows = [{"name": name, "primary": score} for name in ("gru/0", "mean", "oracle")]
    one = {"state": "ok", "reason": "", "rows": rows, "left_out": {"cased/0": "OOM"}, "disagreement": {}}
    one |= {"members": ["gru/0"], "rules": {}, "pairs": [], "against": {}}
    said = "gru/0 is the only member with predictions, so the mean and the oracle are its own. Left out: cased/0 (OOM)."
    assert words.ensemble(one) == said
    none = {**one, "state": "not run", "reason": "no member has predictions", "rows": []}
    assert words.ensemble(none) == "Nothing was averaged: no member has predictions. Left out: cased/0 (OOM)."


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


@pytest.mark.parametrize(
    ("conditions", "where", "there"),
    [({}, {}, False), ({"clean": {}}, {"set": "a"}, True), ({"clean": {}, "noise": {"noise": {}}}, {}, True)],
)
def test_a_gain_is_no_failed_control_where_all_data_are_as_they_came(tree, conditions, where, there):
    results = report.collect(*tree)
    results["secondary"]["where"] = where
    inputs = SimpleNamespace(values={"corrupt": {"conditions": conditions or {"clean": {}, "noise": {}}}})
    assert bool(words._nothing_to_gain(results, inputs)) == there


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
        (
            {"from": "file:data/mnist"},
            {
                "train": {"from": "s/train", "where": {"label": ["4", "9"]}},
                "test": {"from": "t/test", "where": {"a": "b"}},
            },
            "On a part of s (file:data/mnist; label: 4, 9)",
        ),
    ],
)
def test_on_what_data(source, splits, said):
    assert words.data({"sources": {"s": source}, "conditions": {}}, splits) == said + "."


def test_of_another_task_a_part_is_a_sample_too():
    made = {"sources": {"s": {"from": "file:data/rte"}, "t": {"from": "file:data/cola"}}, "conditions": {}}
    parts = {"cola": {"train": {"from": "t/train", "size": 5}, "test": {"from": "t/dev"}}}
    said = words.data(made, {"train": {"from": "s/train"}, "test": {"from": "s/dev"}}, parts)
    assert said == "On the whole of s (file:data/rte) and a sample of t (file:data/cola)."
