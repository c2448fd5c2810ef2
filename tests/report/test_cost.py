"""Costs in results, answer, tables and pictures: each beside its hardware, and no column of two machines."""

import re

import pytest

from gradworks import report
from gradworks.base import artifacts
from gradworks.base.errors import InputError
from gradworks.report import cost, form
from tests import runs_tree
from tests.report import full_tree

pytestmark = pytest.mark.usefixtures("undrawn")

OTHER = {**full_tree.MACHINE, "device": "Accelerator 1", "accelerator": "Accelerator 1", "torch": "2.13.0+build"}
NAME, OTHER_NAME = ("Processor <9>, 2 cores, 1 thread, torch 2.13.0", "Accelerator 1, 2 cores, 1 thread, torch 2.13.0")


def built(folder, tree):
    results = report.build(*tree, folder / "report")
    return results, (folder / "report/report.html").read_text(), (folder / "report/report.md").read_text()


@pytest.mark.slow("a whole report")
def test_the_answer_has_cost_and_hardware(tmp_path):
    results, html, text = built(tmp_path, full_tree.write(tmp_path))
    line = next(one for one in results["answer"] if one.startswith("noise: reweight"))
    assert f"it takes × 1.61 [1.56, 1.65] the time of erm on {NAME}" in line
    row = next(h for h in results["headline"] if h["condition"] == "noise" and h["highest"])
    assert (row["time"], row["hardware"], row["method"]) == ("× 1.61", NAME, "reweight")
    assert "× 1.61 [1.59, 1.64]" in html and "Times measured on Processor &lt;9&gt;" in html and "<9>" not in html
    assert re.search(r"\| gru \| reweight \| × 1\.61 \\\[1\.59, 1\.64\\\] \| × 1\.20 \| × 1\.61 \| 994 \|", text)
    assert "×1.61" in report.table(results) and f"time: whole run, × erm, on {NAME}" in report.table(results)


@pytest.mark.slow("a whole report")
def test_money_where_the_device_has_a_price(tmp_path):
    _, _, runs = tree = full_tree.write(tmp_path)
    full_tree.cost(runs, "gru", "erm+clean", 1.1, OTHER)
    assert "for a million" not in built(tmp_path, tree)[1]
    text = tree[0].read_text()
    assert text.count("\nreport:") == 1
    tree[0].write_text(text.replace("\nreport:", "\nreport:\n  price_per_hour: {Processor <9>: 36.0}"))
    results, html, markdown = built(tmp_path, tree)
    rows = {row["method"]: row for row in results["cost"]["rows"]}
    rate = rows["reweight"]["throughput"]["method_examples"]
    assert rows["reweight"]["money"] == pytest.approx(36 * (1e6 / rate / 3600))  # an example takes 1 / rate seconds
    assert rows["erm+clean"]["money"] is None  # of a machine without a price
    said = f"{36 * 1e6 / rate / 3600:.2f} for a million"
    assert html.count(said) == markdown.count(said) == 1 and html.count("at the price of an hour") == 1


def test_nothing_measured_is_said(tmp_path):
    results, html, text = built(tmp_path, runs_tree.write(tmp_path, (0,)))
    assert results["cost"]["measured"] is False
    assert {row["state"] for row in results["cost"]["rows"]} == {"not measured"}
    assert "Not measured: no result of the stage" in html and "No time was measured" in html and "Not measured." in text
    assert "it takes" not in " ".join(results["answer"]) and "time" not in report.table(results).splitlines()[2]


def columns(html, condition):
    """Heads and rows of the table of a condition."""
    table = next(t for t in re.findall(r"<table.*?</table>", html, re.S) if f"<b>{condition}</b>" in t)
    heads = re.findall(r"<th scope=\"col\"[^>]*>(.*?)</th>", table.partition("</thead>")[0], re.S)
    rows = re.findall(r"<tr data-method[^>]*><th scope=\"row\">(.*?)</th>(.*?)</tr>", table, re.S)
    return heads, {name: re.findall(r"<td.*?</td>", cells, re.S) for name, cells in rows}


def test_two_machines_never_stand_in_one_column(tmp_path):
    _, _, runs = tree = full_tree.write(tmp_path)
    full_tree.cost(runs, "gru", "reweight", 2.5, OTHER)
    full_tree.cost(runs, "cased", "erm", 1.1, OTHER)
    results, html, text = built(tmp_path, tree)
    assert form.cost_of(results, "gru", "reweight") is None  # no run of erm on that machine to set it beside
    assert results["cost"]["hardware"] == [NAME, OTHER_NAME]
    heads, rows = columns(html, "clean")
    first, second = (next(i for i, head in enumerate(heads) if name in head) - 1 for name in ("Processor", OTHER_NAME))
    assert "× 1.02" in rows["erm+clean"][first] and "–" in rows["erm+clean"][second]
    assert "–" in rows["reweight"][first] and "× 2.50" not in "".join(rows["reweight"])
    assert "–" in rows["erm"][first] and "× 1.00" in rows["erm"][second]  # cased, which stands below gru
    cased = report.table(results).partition("clean · cased")[2].splitlines()[1]
    assert cased.split()[:1] == ["erm"] and "×" not in cased  # it was measured on the other machine
    captions = re.findall(r"<caption><b>Cost</b> on (.*?):", html)
    assert captions == ["Processor &lt;9&gt;, 2 cores, 1 thread, torch 2.13.0", OTHER_NAME]
    assert (
        "2.50" not in report.table(results)
        and text.count("| Model | Method | Time of a step |") == 2
        and "2.50" in html
    )
    scatters = re.findall(r'aria-label="([^"]*against time[^"]*)"', html)
    assert scatters and all("2.50" not in one and OTHER_NAME not in one for one in scatters)


def test_a_method_that_starts_from_another_carries_its_time(tmp_path):
    _, _, runs = tree = full_tree.write(tmp_path)
    text = tree[0].read_text().replace("reweight: {weighting: reweight}", "reweight: {from: erm, weighting: reweight}")
    tree[0].write_text(text)
    full_tree.cost(runs, "gru", "erm", 1.1)
    more = {"run": {"ratio": 0.3, "low": 0.29, "high": 0.32}, "note": "the second phase alone"}
    full_tree.cost(runs, "gru", "reweight", 1.5, **more)
    results, html, _ = built(tmp_path, tree)
    row = form.cost_of(results, "gru", "reweight")
    assert row["total"] == pytest.approx(1 + 0.3 / 1.1) and row["after"] == "erm"
    assert "× 1.27, erm included" in html and "the second phase alone" in html
    assert "including the erm run that it starts from" in " ".join(results["answer"])
    full_tree.cost(runs, "gru", "erm", 1.1, OTHER)  # times of two machines are not added
    assert form.cost_of(report.collect(*tree), "gru", "reweight") is None


def test_the_cost_of_a_run_is_over_the_run_of_the_baseline(tmp_path):
    """A step of four batches takes 1.14 times a plain one of four, and its run 0.90 of the baseline's."""
    _, _, runs = tree = full_tree.write(tmp_path)
    full_tree.cost(runs, "gru", "erm", 1.17)
    time = {"ratio": 1.14, "low": 1.13, "high": 1.16, "plain_seconds": 0.0185, "method_seconds": 0.0211}
    full_tree.cost(runs, "gru", "reweight", 1.14, time=time, batches=4, run={"ratio": 1.053, "low": 1.04, "high": 1.07})
    results, html, text = built(tmp_path, tree)
    assert form.cost_of(results, "gru", "erm")["total"] == 1.0
    assert form.cost_of(results, "gru", "reweight")["total"] == pytest.approx(1.053 / 1.17)
    assert "× 1.00" in columns(html, "noise")[1]["erm"][4] and "× 0.90" in columns(html, "noise")[1]["reweight"][4]
    assert "it takes × 0.90 [0.87, 0.92] the time of erm" in " ".join(results["answer"])
    assert "× 1.14 [1.13, 1.16]" in html and "× 1.14" in text  # a step, in the table of costs alone
    assert "Time of a run, × erm" in html and "Time of a step" in html


def test_the_interval_of_a_run_is_that_of_two_independent_measurements():
    """Logarithms that spread by .03 and .04 differ by .05; and the same drawn, with a first phase measured apart."""
    import numpy as np

    def part(ratio, width):
        return {"ratio": ratio, "low": ratio * np.exp(-width), "high": ratio * np.exp(width)}

    found = cost.over([part(1.6, 0.03)], part(1.1, 0.04))
    assert found == pytest.approx((1.6 / 1.1, 1.6 / 1.1 * np.exp(-0.05), 1.6 / 1.1 * np.exp(0.05)))
    draw, n = np.random.default_rng(0), 400_000
    first, second, base = (
        ratio * np.exp(draw.normal(0, width / 1.959964, n)) for ratio, width in ((1.6, 0.03), (0.7, 0.08), (1.1, 0.04))
    )
    found = cost.over([part(1.6, 0.03), part(0.7, 0.08)], part(1.1, 0.04))
    assert found == pytest.approx(tuple(np.quantile((first + second) / base, (0.5, 0.025, 0.975))), rel=1.5e-3)
    assert cost.over([{"ratio": 1.6, "low": None, "high": None}], part(1.1, 0.04))[1:] == (None, None)


def test_what_both_measurements_share_is_in_no_run(tmp_path):
    """A machine that was slower by half during one measurement: seconds differ, the run's time does not."""
    _, _, runs = tree = full_tree.write(tmp_path)
    time = {"ratio": 1.61, "low": 1.59, "high": 1.64, "plain_seconds": 0.03, "method_seconds": 0.03 * 1.61}
    full_tree.cost(runs, "gru", "reweight", 1.61, time=time)
    results, html, _ = built(tmp_path, tree)
    row = form.cost_of(results, "gru", "reweight")
    assert row["total"] == pytest.approx(1.61) and row["total_low"] < 1.59 and row["total_high"] > 1.64
    assert html.count("× 1.61 [1.56, 1.65]") >= 2  # the answer and the table of costs
    assert form.cost_of(results, "gru", "erm")["total_low"] is None  # the unit itself


def test_a_run_as_long_as_another_takes_its_time(tmp_path):
    tree = full_tree.write(tmp_path)
    (tree[2] / "measure/gru/erm+clean.json").unlink()
    tree[0].write_text(tree[0].read_text().replace("train_on: [train, clean]", "as_long_as: reweight"))
    results, html, text = built(tmp_path, tree)
    row = form.cost_of(results, "gru", "erm+clean")
    assert (row["total"], row["hardware"], row["state"]) == (1.6, NAME, "not measured")
    measure = next(one for one in results["pipeline"] if one["stage"] == "measure")
    assert (measure["done"], measure["asked"]) == (3, 4)  # cased has none
    assert "× 1.60, as long as reweight" in html and "× 1.60, as long as reweight" in text


def test_what_could_not_be_measured_says_why(tmp_path):
    _, _, runs = tree = full_tree.write(tmp_path)
    about = {"method": "reweight", "encoder": "gru", "hardware": full_tree.MACHINE}
    artifacts.write_json(runs / "measure/gru/reweight.json", {**about, "state": "OOM", "reason": "1 <GiB> asked"})
    (runs / "measure/gru/random.json").unlink()
    results, html, _ = built(tmp_path, tree)
    assert form.cost_of(results, "gru", "reweight") is None
    assert "1 &lt;GiB&gt; asked" in html and "Not measured: gru random, cased erm." in html


def test_operations_that_were_not_counted_have_no_ratio(tmp_path):
    _, _, runs = tree = full_tree.write(tmp_path)
    operations = {"ratio": None, "plain": 1, "method": 2, "not_counted": ["a<b"]}
    full_tree.cost(runs, "gru", "reweight", 1.6, operations=operations)
    html = built(tmp_path, tree)[1]
    assert "not counted: a&lt;b" in html and 'data-value=""' in html


def test_energy_where_it_was_read(tmp_path):
    _, _, runs = tree = full_tree.write(tmp_path)
    energy = {"ratio": 1.7, "plain_joules": 0.001, "method_joules": 0.0017, "source": "RAPL"}
    full_tree.cost(runs, "gru", "reweight", 1.6, energy=energy)
    html = built(tmp_path, tree)[1]
    assert "× 1.70" in html and "RAPL" in html and html.count("not read") == 3


@pytest.mark.parametrize("text", ['{"state": ', '{"state": "ok", "time": {}}', '{"state": "ok", "time": {"ratio": 2}}',
                                  '{"state": "ok", "time": {"ratio": 2, "method_seconds": 1}}'])  # fmt: skip
def test_a_damaged_file_is_named(tmp_path, text):
    tree = full_tree.write(tmp_path, (0,))
    (tree[2] / "measure/gru/reweight.json").write_text(text)
    with pytest.raises(InputError, match=r"measure/gru/reweight\.json") as error:
        report.collect(*tree)
    assert len(str(error.value).splitlines()) <= 3


def test_significance_in_words():
    from gradworks.report import words
    from gradworks.report.differences import differences

    def said(values, better=1):
        table = {"a": dict(enumerate(values)), "erm": dict.fromkeys(range(len(values)), 0.0)}
        return words.significant(differences(table, {}, [("a", "erm")], better, {})["a", "erm"], better)

    assert said([0.1]) == "not tested: 1 seed, 2 are needed"
    assert said([0.1, 0.2]) == "no: p = 0.2, corrected over 1 method"  # t = 3 with one degree of freedom
    assert said([0.1, 0.11, 0.12]) == "yes: p = 0.0027, corrected over 1 method"
    assert said([0.1, -0.1, 0.05]).startswith("no: p = 0.8")
    assert said([-0.1, -0.11, -0.12]) == "yes, it loses: p = 0.0027, corrected over 1 method"
    assert said([0.1, 0.11, 0.12], -1).startswith("yes, it loses")


def test_a_significant_gain_below_the_highest_is_told():
    from gradworks.report import words
    from tests.report.test_words import by_seed, results_of

    level = {m: by_seed(*(0.5 + 0.01 * ((i + s) % 3) for s in range(5))) for i, m in enumerate(("erm", *"abcde"))}
    sure = {s: v + 0.06 for s, v in level["erm"].items()}
    results = results_of({**level, "wild": by_seed(0.62, 0.55, 0.6, 0.5, 0.75), "sure": sure})
    assert "; sure gains +0.060" in " ".join(words.answer(results))
    assert [(h["method"], h["highest"]) for h in words.headline(results)] == [("wild", True), ("sure", False)]


def test_a_noisy_measurement_has_no_interval_of_a_run():
    part = {"ratio": 1.0, "low": -0.2, "high": 2.0}
    assert cost.over([part], {"ratio": 1.1, "low": 1.0, "high": 1.2}) == (1.0 / 1.1, None, None)
    assert cost.over([{"ratio": 1.0, "low": 0.9, "high": 1.1}], {"ratio": 1.1, "low": -0.1, "high": 2}) == (
        1 / 1.1,
        None,
        None,
    )
