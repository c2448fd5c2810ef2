"""What a change did: no false alarm, no missed drop, and every way in which a row can differ."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from gradworks.report import compare

SEEDS, METHODS, CONDITIONS = (0, 1), ("erm", "reweight", "dotprod", "reptile", "smart"), ("clean", "noise")


def results(values, states=None, better=1, name="accuracy"):
    """results.json as far as it is compared; values: (condition, method, seed) -> score."""
    cells = [
        {
            **{"condition": c, "encoder": "gru", "method": m, "seed": s},
            "state": (states or {}).get((c, m, s), "ok"),
            "primary": None if value is None else {"value": float(value), "n": 1000},
        }
        for (c, m, s), value in values.items()
    ]
    return {"primary": {"name": name, "better": better}, "cells": cells}


def retrained(draw, spreads, seeds, drop=0.0):
    """Two trainings of the same code: each row of another spread, and `drop` of the first."""
    shared = {(c, s): draw.normal(0, 0.03) for c in CONDITIONS for s in range(seeds)}
    return [
        results({
            (c, f"m{i}", s): 0.6 + 0.02 * i + shared[c, s] + draw.normal(0, spread) - lost * (i == 0)
            for c in CONDITIONS for i, spread in enumerate(spreads) for s in range(seeds)
        })
        for lost in (0.0, drop)
    ]  # fmt: skip


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("spreads", [[0.01] * 5, np.geomspace(0.0025, 0.05, 10), [0.05, *[0.0025] * 9]])
def test_a_retraining_without_a_change_never_fails(spreads, seeds):
    """benchmarks/CLAIMS.md has 2000 tables of each."""
    draw = np.random.default_rng(seeds)
    for _ in range(60):
        found = compare.changes(*retrained(draw, spreads, seeds))
        assert not [c for c in found if c.fails or c.verdict in ("worse", "better")]


@pytest.mark.parametrize(("seeds", "drop", "fails"), [(2, 0.2, False), (3, 0.1, True)])
def test_a_drop_is_found_where_rows_spread_alike(seeds, drop, fails):
    draw = np.random.default_rng(seeds)
    for _ in range(60):
        found = compare.changes(*retrained(draw, [0.01] * 5, seeds, drop))
        assert {c.method for c in found if c.verdict == "worse"} == {"m0"}
        assert any(c.fails for c in found) == fails


def test_two_seeds_fail_only_where_a_rows_own_spread_bears_it_out():
    """Eight rows whose residuals are ±.005; m0 loses .3, ±off. By hand its own squares are (8/7) 2 (.005 √2)² without
    `off`, with two degrees of freedom, so its half width at .01 % is 99.99 · sqrt(8/7 · 5e-5) = .756 and more.
    """
    rows = [0.005 * (-1) ** (i // 2) for i in range(8)]
    before = {("noise", f"m{i}", s): 0.5 + 0.02 * i + off * (-1) ** s for i, off in enumerate(rows) for s in SEEDS}
    for quiet, sure in ((False, False), (True, True)):
        one = {k: v - (k[1] == "m0") * (rows[0] - 0.0001) * (-1) ** k[2] if quiet else v for k, v in before.items()}
        after = {k: v - 0.3 * (k[1] == "m0") for k, v in one.items()}
        row = compare.changes(results(one), results(after))[0]
        assert (row.verdict, row.sure, row.fails) == ("worse", sure, sure)


def test_a_detectable_drop_is_found_four_times_in_five():
    draw, hits, least = np.random.default_rng(0), [], []
    for _ in range(60):
        least += [c.detectable for c in compare.changes(*retrained(draw, [0.01] * 5, 3))]
    for _ in range(150):
        found = compare.changes(*retrained(draw, [0.01] * 5, 3, float(np.mean(least))))
        hits += [c.fails for c in found if c.method == "m0"]
    assert np.mean(hits) == pytest.approx(0.8, abs=0.12)


def scores(draw, drop=0.0, methods=METHODS, seeds=SEEDS):
    """Scores of a benchmark: a method's level, a seed's effect that all share, and noise of a percent."""
    shared = {(c, s): draw.normal(0, 0.03) for c in CONDITIONS for s in seeds}
    return {
        (c, m, s): 0.6 + 0.02 * i + shared[c, s] + draw.normal(0, 0.007) - drop * (m == "dotprod")
        for c in CONDITIONS
        for i, m in enumerate(methods)
        for s in seeds
    }


def repeat(number, drop, seeds=(0, 1, 2)):
    """The verdicts of dotprod, where a change of code that all methods share moves every score a little."""
    draw = np.random.default_rng([number, round(100 * drop)])
    before = scores(draw, seeds=seeds)
    after = {key: value + draw.normal(0, 0.01) - drop * (key[1] == "dotprod") for key, value in before.items()}
    return compare.changes(results(before), results(after))


@pytest.mark.parametrize("number", range(20))
def test_a_drop_of_twenty_points_is_always_flagged_and_one_of_none_never(number):
    assert {c.method for c in repeat(number, 0.20) if c.fails} == {"dotprod"}
    assert not [c for c in repeat(number, 0.0) if c.fails or c.verdict == "worse"]


@pytest.mark.parametrize("number", range(20))
def test_the_same_where_only_one_method_was_changed(number):
    draw = np.random.default_rng(number)
    before = scores(draw)
    for drop in (0.0, 0.20):
        after = {k: v + (draw.normal(0, 0.01) - drop) * (k[1] == "dotprod") for k, v in before.items()}
        found = compare.changes(results(before), results(after))
        assert [c.method for c in found if c.verdict == "worse"] == ["dotprod", "dotprod"] * (drop > 0)
        assert [c.verdict for c in found].count("unchanged") == 8


def test_the_interval_is_that_of_all_rows():
    """By hand: differences -.1, -.2 and .1, .3, sums of both sides without residuals, which have two degrees of
    freedom, as the differences have. s² = (.005 + .02) / 2 / 4, t(1 - .001 / 4; 4) = 10.306255, se = sqrt(2 s² / 2).
    """
    before = {("noise", "a", 0): 0.5, ("noise", "a", 1): 0.55, ("noise", "b", 0): 0.5, ("noise", "b", 1): 0.4}
    before |= {("noise", "c", s): 0.5 for s in SEEDS}
    after = {**before, ("noise", "a", 0): 0.4, ("noise", "a", 1): 0.35, ("noise", "b", 0): 0.6, ("noise", "b", 1): 0.7}
    a, b, c = compare.changes(results(before), results(after))
    half = 10.306255 * 0.003125**0.5
    assert [a.mean, a.low, a.high] == pytest.approx([-0.15, -0.15 - half, -0.15 + half], abs=1e-6)
    assert [b.mean, b.low] == pytest.approx([0.2, 0.2 - half], abs=1e-6)
    assert (a.verdict, b.verdict, c.verdict) == ("within chance", "within chance", "unchanged")
    assert a.detectable == b.detectable > half and (c.low, c.p) == (None, None)


def test_the_base_says_how_far_seeds_scatter():
    """By hand: residuals of method + seed are ±.01 in both rows, with one degree of freedom, and so do the
    differences: s² = (4 + 4) (.01)² / 2.
    """
    before = {("noise", m, s): 0.5 + 0.02 * (m == "b") * (s - 0.5) * 2 for m in ("a", "b") for s in SEEDS}
    after = {**before, ("noise", "a", 0): 0.4, ("noise", "a", 1): 0.4}
    row = compare.changes(results(before), results(after))[0]
    half = 31.599055 * 0.0004**0.5  # t(.9995; 1 + 1)
    assert [row.mean, row.low] == pytest.approx([-0.1, -0.1 - half], abs=1e-6)


def test_no_common_seed_and_a_first_score_are_not_unchanged():
    one = {("noise", "a", 0): 0.5, ("noise", "b", 0): None, ("noise", "c", 0): 0.5, ("noise", "d", 0): float("nan")}
    two = {("noise", "a", 1): 0.5, ("noise", "b", 0): 0.6, ("noise", "c", 0): 0.5, ("noise", "d", 0): 0.5}
    found = {c.method: c for c in compare.changes(results(one, {("noise", "b", 0): "OOM"}), results(two))}
    said = {"a": "no common seed", "b": "now scored", "c": "unchanged", "d": "now scored"}
    assert {m: c.verdict for m, c in found.items()} == said and not any(c.fails for c in found.values())
    assert compare.markdown(list(found.values()), results(two), "x").startswith(
        "### Against `x`: 1 no common seed, 2 now scored, 1 unchanged"
    )


def test_rows_that_cannot_be_judged_say_so():
    one = {("noise", m, 0): 0.5 for m in ("kept", "moved", "gone", "lost")}
    two = {("noise", "kept", 0): 0.5, ("noise", "moved", 0): 0.3, ("noise", "lost", 0): None, ("noise", "new", 0): 0.5}
    found = {c.method: c for c in compare.changes(results(one), results(two, {("noise", "lost", 0): "diverged"}))}
    said = {name: c.verdict for name, c in found.items()}
    assert said == {"kept": "unchanged", "moved": "no interval", "gone": "gone", "lost": "lost", "new": "new"}
    assert [name for name, c in found.items() if c.fails] == ["lost"]
    unfinished = {("noise", "kept", 0): "not run"}
    (row,) = compare.changes(results({("noise", "kept", 0): 0.5}), results({("noise", "kept", 0): None}, unfinished))
    assert row.verdict == "gone"


@pytest.mark.parametrize(("better", "verdict"), [(1, "worse"), (-1, "better")])
def test_which_way_is_worse(better, verdict):
    draw = np.random.default_rng(0)
    before = scores(draw)
    after = {k: v + draw.normal(0, 0.001) - 0.2 * (k[1] == "erm") for k, v in before.items()}
    found = compare.changes(results(before, better=better), results(after, better=better))
    assert {c.verdict for c in found if c.method == "erm"} == {verdict}


def test_other_figures_are_not_compared():
    with pytest.raises(ValueError, match="the base's figure is 'accuracy', now it is 'log loss'"):
        compare.changes(results({}), results({}, name="log loss"))


def test_what_a_pull_request_is_told():
    found, after = repeat(3, 0.20, SEEDS), results({}, name="accuracy, <set> | challenge")
    said = compare.markdown(found, after, "0123abc")
    assert said.startswith("### Against `0123abc`: 2 worse, 8 within chance\n")
    assert r"accuracy, \<set\> \| challenge" in said
    row = next(line for line in said.splitlines() if line.startswith("| noise | gru | dotprod"))
    change = next(c for c in found if (c.condition, c.method) == ("noise", "dotprod"))
    assert f"| 2 | {change.before:.3f} | {change.after:.3f} | −{-change.mean:.3f} [" in row and row.endswith(
        "| worse, not sure |"
    )
    assert said.endswith(" |\n\n")  # the report follows
    assert compare.markdown([], results({}), "x") == "### Against `x`: nothing to compare\n\n"


def command(*args, folder):
    program = [sys.executable, "-c", "from gradworks.cli import main; main()", "compare", *args]
    return subprocess.run(program, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("drop", "code"), [(0.0, 0), (0.2, 1)])
def test_the_command_fails_on_a_regression_alone(drop, code, tmp_path):
    draw = np.random.default_rng(1)
    before = scores(draw, seeds=(0, 1, 2))
    after = {k: v + draw.normal(0, 0.002) - drop * (k[1] == "erm") for k, v in before.items()}
    for name, values in (("before.json", before), ("after.json", after)):
        (tmp_path / name).write_text(json.dumps(results(values)))
    done = command("before.json", "after.json", "--base", "0123abc", folder=tmp_path)
    assert done.returncode == code and "### Against `0123abc`" in done.stdout
    assert done.stderr == ("" if code == 0 else "error: 2 of 10 methods are worse beyond their intervals\n")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "error: before.json: no such file"),
        ("{}", "error: before.json: no key 'primary'\nexpected a results.json of gradworks"),
        (json.dumps(results({}, name="F1")), "error: before.json, after.json: the base's figure is 'F1'"),
    ],
)
def test_files_that_cannot_be_compared(text, said, tmp_path):
    (tmp_path / "after.json").write_text(json.dumps(results({})))
    if text is not None:
        (tmp_path / "before.json").write_text(text)
    done = command("before.json", "after.json", folder=tmp_path)
    assert done.returncode == 2 and done.stderr.startswith(said)
