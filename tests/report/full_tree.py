"""runs_tree with what costs, gradients and weights leave behind, too."""

import numpy as np
import pyarrow as pa

from gradworks.base import artifacts
from tests import runs_tree

RATIOS = {"erm": 1.0, "erm+clean": 1.02, "random": 1.1, "reweight": 1.61}
MACHINE = {"device": "Processor <9>", "processor": "Processor <9>", "cores": 2, "accelerator": None, "threads": 1,
           "torch": "2.13.0"}  # fmt: skip


def cost(runs, encoder, method, ratio, hardware=MACHINE, **other):
    """runs/measure/ENCODER/METHOD.json as the stage `measure` writes it."""
    time = {"ratio": ratio, "low": ratio - 0.02, "high": ratio + 0.03}
    rates = {"plain_examples": 1600, "method_examples": 1600 / ratio, "plain_tokens": 9e3, "method_tokens": 9e3 / ratio}
    made = {
        "method": method, "encoder": encoder, "state": "ok", "reason": "", "hardware": hardware, "pairs": 57,
        "batches": 1, "run": time, "time": {**time, "plain_seconds": 0.02, "method_seconds": 0.02 * ratio},
        "memory": {"ratio": 1.2, "plain_bytes": 2**20, "method_bytes": 1.2 * 2**20},
        "operations": {"ratio": ratio, "plain": 1e6, "method": ratio * 1e6, "not_counted": []},
        "passes": 2.0, "energy": None, "throughput": rates,
    }  # fmt: skip
    artifacts.write_json(runs / "measure" / encoder / f"{method}.json", {**made, **other})


def traces(runs, path, scores=None, dots=None, each=1):
    """weights.parquet (id -> score; weight = the score where positive) and statistics.parquet of a cell."""
    folder = runs / "train" / path
    if scores is not None:
        columns = {"step": [1] * len(scores), "id": list(scores), "score": list(scores.values())}
        columns["weight"] = [max(0.0, s) for s in scores.values()]
        schema = {"step": pa.int64(), "id": pa.string(), "weight": pa.float32(), "score": pa.float32()}
        table = pa.table({name: pa.array(columns[name], kind) for name, kind in schema.items()})
        artifacts.write_parquet(folder / "weights.parquet", table)
    if dots is not None:
        rows = [(i + 1, name, value) for i, dot in enumerate(dots) for name, value in _products(dot)]
        table = dict(zip(("step", "name", "value"), map(list, zip(*rows, strict=True)), strict=True))
        artifacts.write_parquet(folder / "statistics.parquet", pa.table(table))
        history = {"step": list(range(1, len(dots) + 1)), "examples": [4 * each * (i + 1) for i in range(len(dots))]}
        score = [None] * (len(dots) - 1) + [0.5]
        artifacts.write_parquet(folder / "history.parquet", pa.table({**history, "selection_accuracy": score}))


def _products(dot):
    return (("loss", 1.0), ("dot", float(dot)), ("cosine", float(np.tanh(dot))), ("conflict", float(dot < 0)))


def changes(runs, condition, seed, rows):
    """corruptions.parquet of a condition: (id, kind, old label, new label)."""
    names = ("id", "kind", "old_label", "new_label")
    columns = {name: pa.array([row[i] for row in rows], pa.string()) for i, name in enumerate(names)}
    artifacts.write_parquet(runs / "corrupt" / condition / str(seed) / "corruptions.parquet", pa.table(columns))


def write(folder, seeds=(0, 1, 2), **more):
    """A benchmark with costs of the encoder gru, weights of reweight and dot products of erm+clean."""
    tree = runs_tree.write(folder, seeds, **more)
    runs = tree[2]
    for method, ratio in RATIOS.items():
        cost(runs, "gru", method, ratio)
    rng = np.random.default_rng(0)
    for seed in seeds:
        rows = [(f"t{i}", "noise", "neutral", "entailment" if i % 4 else "neutral") for i in range(40)]
        changes(runs, "noise", seed, rows)
        found = {f"t{i}": rng.normal() - (i < 40 and i % 4 > 0) for i in range(80)}
        traces(runs, f"noise/reweight/gru/{seed}", scores=found)
        traces(runs, f"noise/erm+clean/gru/{seed}", dots=rng.normal(1, 0.5, 30))
    return tree
