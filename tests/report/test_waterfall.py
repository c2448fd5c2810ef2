"""Each step's gain over the step before: paired by seed and example, over examples alone for an ensemble."""

import copy
import json
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from scipy.stats import t

from gradworks import parameters, report
from gradworks.base.errors import InputError
from tests import runs_tree
from tests.small import SMALL

ENSEMBLE = "clean-erm-gru+cased"
STEPS = [
    {"name": "plain", "method": "erm", "condition": "noise", "encoder": "gru", "published": 0.574},
    {"name": "clean labels", "method": "erm+clean", "condition": "noise", "published": 0.589},
    {"name": "weights", "method": "reweight", "condition": "noise"},
    {"name": "no result", "method": "random", "condition": "noise", "published": 0.765},
    {"name": "ensemble", "ensemble": ENSEMBLE},
]


def built(tmp_path, steps=STEPS, seeds=range(4)):
    from components import ensemble

    skip = [f"noise/random/gru/{seed}" for seed in seeds]
    params, cells, runs = runs_tree.write(tmp_path, seeds=seeds, skip=skip)
    argv = ["e", "--params", params, "--encoders", "gru", "cased", "--members", runs / "evaluate/clean/erm"]
    argv += ["--out", runs / "ensemble" / ENSEMBLE, "--metrics", runs / "metrics/ensemble" / f"{ENSEMBLE}.json"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(a) for a in argv])
        ensemble.main()
    values = yaml.safe_load(params.read_text())
    values["report"]["waterfall"] = steps
    params.write_text(yaml.safe_dump(values))
    report.build(params, cells, runs, tmp_path / "report")
    results = json.loads((tmp_path / "report/results.json").read_text())
    rows = results["waterfall"]
    assert results["answer"][1].startswith("Steps, each against the one before: ")
    return {row["name"]: row for row in rows}, runs, tmp_path / "report"


def right(runs, path):
    """Id -> whether the prediction is right, of the primary target's examples."""
    rows = pq.read_table(runs / path / "predictions.parquet").to_pylist()
    return {row["id"]: row["label"] == row["prediction"] for row in rows if row["set"] == "challenge"}


def test_gains_are_those_over_the_step_before_with_a_result(tmp_path):
    rows, runs, folder = built(tmp_path)
    each = {m: [right(runs, f"evaluate/noise/{m}/gru/{s}") for s in range(4)] for m in ("erm", "erm+clean", "reweight")}
    means = {m: np.mean([list(one.values()) for one in found]) for m, found in each.items()}
    assert rows["plain"]["value"] == pytest.approx(means["erm"]) and rows["plain"]["gain"] is None
    one = rows["weights"]["gain"]
    assert one["mean"] == pytest.approx(means["reweight"] - means["erm+clean"]) and one["verdict"] == "gain"
    assert one["low"] > 0 and one["covers"].startswith("4 seeds, 40 test examples")
    assert rows["no result"]["value"] is None and rows["no result"]["gain"] is None
    both = right(runs, f"ensemble/{ENSEMBLE}")
    mine = np.array([both[key] for key in sorted(both)], dtype=float)
    theirs = np.mean([[one[key] for key in sorted(both)] for one in each["reweight"]], axis=0)
    gap = mine - theirs
    half = t.ppf(1 - 0.025 / 3, 39) * gap.std(ddof=1) / np.sqrt(40)  # three gains at once
    found = rows["ensemble"]["gain"]
    assert (found["low"], found["high"]) == pytest.approx((gap.mean() - half, gap.mean() + half))
    assert rows["ensemble"]["to"] == "weights" and found["covers"] == "40 test examples, not seeds"
    assert rows["clean labels"]["published_gain"] == pytest.approx(0.015)
    assert rows["no result"]["published_gain"] == pytest.approx(0.176)
    html, text = ((folder / f"report.{kind}").read_text() for kind in ("html", "md"))
    assert "What each step adds, accuracy, set = challenge: plain " in html and "no result yet" in html
    assert f"| weights | {rows['weights']['value']:.3f} |" in text


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ({"name": "a", "ensemble": "clean-erm-gru"}, "waterfall.0.ensemble: found 'clean-erm-gru'"),
        ({"name": "a", "method": "erm", "encoder": "bert"}, "no cell of erm · bert in the grid"),
        ({"name": "a", "method": "erm", "encoder": "gru"}, "expected one cell a seed: name condition"),
        ({"name": "a"}, "expected `method` or `encoder` of its cells"),
        ({"name": "a", "method": "erm", "ensemble": ENSEMBLE}, "found ensemble beside names of cells"),
    ],
)
def test_a_step_without_a_cell_or_with_too_many_is_refused(tmp_path, step, said):
    values = copy.deepcopy(SMALL)
    values["corrupt"]["conditions"]["clean"] = {}
    values["cells"]["grid"][0]["condition"] = ["noise", "clean"]
    values["report"]["waterfall"] = [step]
    with pytest.raises(InputError, match=said):
        parameters.check(tmp_path / "params.yaml", values)
