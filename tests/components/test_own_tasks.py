"""Tasks of one's own from CSV to the report: classes with names of their own, numbers, two texts."""

import copy
import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from gradworks.base import artifacts
from tests.small import PROGRAMS, SMALL, run_all

pytestmark = pytest.mark.slow("whole pipelines")

WORDS = {"awful": -2, "poor": -1, "fair": 0, "good": 1, "great": 2}
TASKS = {
    "mood": {"kind": "classification", "texts": ["review"], "classes": ["not so good", "10/10"], "metrics": ["f1"]},
    "worth": {"kind": "regression", "texts": ["review"], "metrics": ["mean_squared_error"]},
    "pick": {
        "kind": "choice",
        "texts": ["review", "this", "that"],
        "classes": ["this", "that"],
        "metrics": ["accuracy"],
    },
    "alike": {"kind": "similarity", "texts": ["left", "right"], "metrics": ["spearman"], "scale": 4.0},
}
COLUMNS = {  # of the file
    "mood": ["opinion"], "worth": ["opinion"], "alike": ["this", "that"], "pick": ["opinion", "left", "right"],
}  # fmt: skip


def rows(task, n, seed):
    """Texts and their label, which the words say."""
    draw = np.random.default_rng(seed)
    for _ in range(n):
        words = draw.choice(list(WORDS), 4).tolist()
        value = sum(WORDS[word] for word in words)
        if task == "mood":
            yield [" ".join(words), TASKS["mood"]["classes"][value > 0]]
        elif task == "worth":
            yield [" ".join(words), value / 2]
        elif task == "pick":  # the one that goes with the mood
            right = int(draw.integers(2))
            yield [
                " ".join(words),
                *(["yes", "no"] if right == (value <= 0) else ["no", "yes"]),
                ["this", "that"][right],
            ]
        else:
            other = words[: draw.integers(5)]
            yield [" ".join(words), " ".join(other or ["none"]), len(other)]


def project(task, folder):
    (folder / "components").symlink_to(PROGRAMS)
    shutil.copy(Path(__file__).parents[2] / "versions.json", folder)
    for split, n in (("train", 96), ("validation", 48), ("test", 40)):
        (folder / "data").mkdir(exist_ok=True)
        with (folder / f"data/{split}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([[*COLUMNS[task], "verdict"], *rows(task, n, n)])
    values = copy.deepcopy(SMALL)
    names = dict(zip(TASKS[task]["texts"], COLUMNS[task], strict=True))
    values |= {"task": task, "tasks": TASKS}
    values["fetch"] = {"mine": {"from": "file:data", "columns": names | {"label": "verdict"}}}
    source = {"train": "train", "clean": "validation", "selection": "validation", "test": "test"}
    sizes = {"clean": {"size": 12}, "selection": {"size": 24}}
    values["corrupt"] = {
        "splits": {split: {"from": f"mine/{of}"} | sizes.get(split, {}) for split, of in source.items()},
        "conditions": {"clean": {}},
    }
    values["pretrain"]["gru"] |= {"vocabulary": 60, "embedding": 8, "hidden": 8, "dropout": 0.0}
    values["methods"] = {"erm": {}, "reweight": {"weighting": "reweight"}}
    metric = TASKS[task]["metrics"][0]
    values["train"] |= {"epochs": 6, "learning_rate": 0.01, "select": {"metric": metric, "every": 0.5}}
    values["evaluate"] = {"by": []}
    values["report"] = {"title": task, "primary": {"metric": metric}}
    block = {"condition": ["clean"], "method": ["erm", "reweight"], "encoder": ["gru"]}
    values["cells"] = {"seeds": [0, 1], "grid": [block]}
    values["ensemble"] = [{"condition": "clean", "method": "erm", "encoders": ["gru"]}]
    (folder / "params.yaml").write_text(yaml.safe_dump(values))


@pytest.mark.parametrize("task", TASKS)
def test_from_csv_to_the_report(task, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    project(task, tmp_path)
    params = Path("params.yaml")
    results = run_all(params)
    assert len(results["cells"]) == 4
    table = artifacts.read_parquet(Path("runs/evaluate/clean/erm/gru/0/predictions.parquet"))
    expected = [row[-1] for row in rows(task, 40, 40)]
    assert table["label"].to_pylist() == expected
    found = artifacts.read_json(Path("runs/metrics/clean/erm/gru/0.json"))["overall"][TASKS[task]["metrics"][0]]
    if task == "mood":
        label, chosen = (np.array(table[c].to_pylist()) == "10/10" for c in ("label", "prediction"))
        value = 2 * (label & chosen).sum() / (label.sum() + chosen.sum())
    elif task == "pick":
        value = np.mean([a == b for a, b in zip(expected, table["prediction"].to_pylist(), strict=True)])
    elif task == "worth":
        value = ((np.array(expected) - table["value"].to_numpy()) ** 2).mean()
    else:
        from scipy.stats import spearmanr

        value = spearmanr(expected, table["value"].to_numpy()).statistic
    assert found["value"] == pytest.approx(value)
    page = Path("report/report.html").read_text()
    assert ("10/10" in page) == (task == "mood") and TASKS[task]["metrics"][0].split("_")[0] in page.lower()
    # the distributions, of both seeds
    assert ("values" in results) == (task in ("worth", "alike")) == ("True and predicted values" in page)
    if "values" in results:
        tables = [
            artifacts.read_parquet(Path(f"runs/evaluate/clean/erm/gru/{seed}/predictions.parquet")) for seed in (0, 1)
        ]
        pairs = np.concatenate([np.stack([t["label"].to_numpy(), t["value"].to_numpy()]) for t in tables], 1)
        row = next(one for one in results["values"] if one["method"] == "erm")
        assert (row["n"], row["seeds"]) == (80, 2) and row["error"] == pytest.approx(abs(pairs[0] - pairs[1]).mean())
        assert (row["edges"][0], row["edges"][-1]) == pytest.approx((pairs.min(), pairs.max()), rel=1e-5)
        for name, own in zip(("label", "predicted"), pairs, strict=True):
            counts = np.histogram(own, np.linspace(pairs.min(), pairs.max(), len(row["edges"])))[0]
            assert row[name] == pytest.approx(counts / 80, rel=1e-5)
            assert sum(row[name]) == pytest.approx(1, abs=1e-4)
