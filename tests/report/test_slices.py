"""The gain of heads for slices: which mixture they are set beside, and the interval where there is one seed."""

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from gradworks.base import artifacts
from gradworks.report import slices
from gradworks.report.settings import Report
from tests import kinds

N, IN = 40, 25
MIXTURES = {
    "first": {"parts": ["t"]},
    "plain": {"parts": ["t"], "from": "first"},
    "other": {"parts": ["t", "u"]},
    "sliced": {"parts": ["t"], "from": "first", "slices": ["few", "most"]},
}


def inputs(folder, right):
    """One cell of each mixture: `right` says which of its answers are; "few" are the first of the examples."""
    cells, metrics = {}, {}
    for mixture, rate in right.items():
        good = np.random.default_rng(len(mixture)).random(N) < rate
        path = f"c/erm/{mixture}/gru/0"
        few, most = (["in" if i < n else None for i in range(N)] for n in (IN, N - 1))
        made = {"id": [f"{i:02}" for i in range(N)], "label": ["a"] * N, "few": few, "most": most}
        made |= {"p_a": [float(g) for g in good], "p_b": [float(not g) for g in good]}
        artifacts.write_parquet(folder / f"evaluate/{path}/predictions.parquet", pa.table(made))
        by = {
            name: {"in": {"accuracy": {"value": good[:n].mean(), "n": n}}} for name, n in (("few", IN), ("most", N - 1))
        }
        metrics[mixture] = {"state": "ok", "overall": {"accuracy": {"value": good.mean(), "n": N}}, "by": by}
        heads = {"heads": ["few", "most"], "combine": "mean", "combined": {}} if mixture == "sliced" else {}
        metrics[mixture]["slices"] = {"names": ["few", "most"], **heads}
        cells[mixture] = {"condition": "c", "method": "erm", "encoder": f"gru · {mixture}", "trained": "gru",
                          "mixture": mixture, "seed": 0, "path": path}  # fmt: skip
    values = {"mixtures": MIXTURES}
    task = kinds.classes("a", "b")
    return SimpleNamespace(settings=Report(), task=task, values=values, runs=folder, cells=cells, metrics=metrics)


def test_one_seed_has_an_interval_over_test_examples(tmp_path):
    given = inputs(tmp_path, {"first": 0.4, "plain": 0.5, "other": 0.5, "sliced": 0.9})
    (part,) = slices.compared(given)
    assert (part["mixture"], part["base"]) == ("sliced", "plain")  # not the one that it starts from, nor of other tasks
    rows = {row["slice"]: row for row in part["rows"]}
    assert [rows[name]["small"] for name in (None, "few", "most")] == [False, True, False]
    right = {m: np.random.default_rng(len(m)).random(N)[:IN] < rate for m, rate in (("sliced", 0.9), ("plain", 0.5))}
    gaps = right["sliced"].astype(float) - right["plain"]
    gain = rows["few"]["gain"]
    low, high = stats.t.interval(0.95, IN - 1, gaps.mean(), stats.sem(gaps))
    assert (gain["mean"], gain["low"], gain["high"]) == pytest.approx((gaps.mean(), low, high))
    assert gain["p"] == pytest.approx(stats.ttest_1samp(gaps, 0).pvalue) and gain["note"].startswith(
        "over test examples"
    )
    ps = sorted(row["gain"]["p"] for row in part["rows"])
    assert min(row["gain"]["corrected_p"] for row in part["rows"]) == pytest.approx(min(1, 3 * ps[0]))
    del given.cells["plain"], given.metrics["plain"]
    assert slices.compared(given)[0]["base"] == "first"
    del given.cells["first"], given.metrics["first"]
    found = slices.compared(given)[0]
    assert found["base"] is None and all(row["gain"] is None for row in found["rows"])
