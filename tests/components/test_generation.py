"""Texts that a model writes, from JSON files to the report: instructions for a causal model, summaries for another."""

import copy
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from gradworks.base import artifacts
from gradworks.data import corruptions
from tests.small import PROGRAMS, SMALL, run_all

pytestmark = pytest.mark.slow("whole pipelines")

WORDS = ("red", "blue", "cat", "dog", "sun", "moon")
TASKS = {
    "orders": {"kind": "causal", "texts": ["order", "words"], "metrics": ["exact_match", "rougeL"], "max_response": 12},
    "short": {"kind": "seq2seq", "texts": ["document"], "metrics": ["rouge1", "rougeL"], "max_response": 9, "beams": 2},
}  # fmt: skip
SIZES = {"layers": 2, "width": 32, "heads": 2, "vocabulary": 300, "positions": 64}


def rows(task, n, seed):
    """Rows of a file: what is asked for follows by a rule."""
    draw = np.random.default_rng(seed)
    for i in range(n):
        words = draw.permutation(WORDS)[:3].tolist()
        if task == "orders":
            order = ("first", "last")[i % 2]
            yield {"order": order, "words": " ".join(words), "response": words[0 if order == "first" else -1]}
        else:
            yield {"article": " and ".join(words), "highlights": " ".join(words[:2])}


def project(task, folder):
    (folder / "data").mkdir()
    shutil.copy(Path(__file__).parents[2] / "versions.json", folder)
    for split, n in (("train", 96), ("validation", 48), ("test", 40)):
        made = "".join(json.dumps(row) + "\n" for row in rows(task, n, n))
        (folder / f"data/{split}.jsonl").write_text(made)
    values = copy.deepcopy(SMALL)
    values |= {"task": task, "tasks": TASKS, "fetch": {"mine": {"from": "file:data"}}}
    source = {"train": "train", "clean": "validation", "selection": "validation", "test": "test"}
    sizes = {"clean": {"size": 16}, "selection": {"size": 24}}
    values["corrupt"] = {
        "splits": {split: {"from": f"mine/{of}"} | sizes.get(split, {}) for split, of in source.items()}
        | {"duplicates": "keep"},
        "conditions": {"noise": {"noise": {"share": 0.3, "to": "swap"}}},
    }
    model = {"model": TASKS[task]["kind"], **SIZES}
    values["pretrain"] = {"lm": model, "adapters": {**model, "lora": {"rank": 2}}}
    values["methods"] = {"erm": {}, "reweight": {"weighting": "reweight"}}
    values["train"] |= {"epochs": 2, "max_length": 40, "select": {"metric": "perplexity", "every": 0.5}}
    values["train"] |= {"learning_rate": 0.01, "batch": 16}
    values["evaluate"] = {"by": [], "batch": 20}
    values["report"] = {"title": task, "primary": {"metric": TASKS[task]["metrics"][0]}}
    values["cells"] = {
        "seeds": [0],
        "grid": [
            {"condition": ["noise"], "method": ["erm", "reweight"], "encoder": ["lm", "adapters"]},
            {"condition": ["noise"], "method": ["erm"], "encoder": ["lm"], "seed": [1]},
        ],
    }
    values["ensemble"] = [{"condition": "noise", "method": "erm", "encoders": ["lm"]}]
    (folder / "params.yaml").write_text(yaml.safe_dump(values))


@pytest.mark.parametrize("task", TASKS)
def test_from_files_to_the_report(task, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    project(task, tmp_path)
    (tmp_path / "components").symlink_to(PROGRAMS)
    params = Path("params.yaml")
    results = run_all(params)

    source = artifacts.read_parquet(Path("runs/fetch/mine/train.parquet"))
    train = artifacts.read_parquet(Path("runs/corrupt/noise/0/train.parquet"))
    changes = artifacts.read_parquet(Path("runs/corrupt/noise/0/corruptions.parquet"))
    moved = [a != b for a, b in zip(source["label"].to_pylist(), train["label"].to_pylist(), strict=True)]
    assert sum(moved) == changes.num_rows == 29
    assert sorted(changes["old_label"].to_pylist()) == sorted(changes["new_label"].to_pylist())
    assert corruptions.restore(train, changes, source)["label"].to_pylist() == source["label"].to_pylist()

    assert len(results["cells"]) == 5 and {cell["state"] for cell in results["cells"]} <= {"ok", "not converged"}
    for encoder in ("lm", "adapters"):
        table = artifacts.read_parquet(Path(f"runs/evaluate/noise/erm/{encoder}/0/predictions.parquet"))
        column = "response" if task == "orders" else "highlights"
        assert table["label"].to_pylist() == [row[column] for row in rows(task, 40, 40)]
        found = artifacts.read_json(Path(f"runs/metrics/noise/erm/{encoder}/0.json"))["overall"]
        nll, tokens = sum(table["nll"].to_pylist()), sum(table["tokens"].to_pylist())
        assert found["perplexity"]["value"] == pytest.approx(math.exp(nll / tokens))
        assert found["perplexity"]["note"] == f"{int(tokens)} tokens"
        if task == "orders":
            same = [a == b for a, b in zip(table["label"].to_pylist(), table["prediction"].to_pylist(), strict=True)]
            assert found["exact_match"]["value"] == sum(same) / 40
    detected = {(row["encoder"], row["method"], row["kind"]): row for row in results["detection"]}
    assert set(detected) == {(encoder, "reweight", "noise") for encoder in ("lm", "adapters")}
    assert all(row["corrupted"] == 29 for row in detected.values())
    weights = {p: artifacts.read_json(Path(f"runs/pretrain/{p}/gradworks.json")) for p in ("lm", "adapters")}
    assert weights["lm"]["lora"] is None and weights["adapters"]["lora"]["rank"] == 2
    page = Path("report/report.html").read_text()
    assert "perplexity" in page
