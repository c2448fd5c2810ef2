"""A small runs/ folder as the stages leave it, made without training: for tests of what reads it."""

import atexit
import functools
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa

from gradworks import metrics
from gradworks.base import artifacts, cells, grid
from gradworks.data.predictions import SELECTION, TEST, to_table
from tests.kinds import kind

PARAMS = """
root: .
here: ""
threads: 1
device: cpu
task: nli
fetch:
  synthetic: {from: "synthetic:nli", seed: 1, rows: {train: 60, validation: 30, test: 80}}
corrupt:
  splits:
    train: {from: synthetic/train}
    clean: {from: synthetic/validation, size: 10}
    selection: {from: synthetic/validation, size: 10}
    test: {from: synthetic/test}
  conditions:
    clean: {}
    noise: {noise: {share: 0.5}}
pretrain:
  gru: {model: gru}
  cased: {model: gru}
methods:
  erm: {}
  erm+clean: {train_on: [train, clean]}
  random: {weighting: random}
  reweight: {weighting: reweight}
train: {epochs: 1, batch: 4, max_length: 16, learning_rate: 0.001}
measure: {pairs: [9, 9], half_width: 1.0}
evaluate: {by: [set, heuristic]}
report:
  title: "Which <method> helps?"
  primary: {metric: accuracy, where: {set: challenge}}
  secondary: {metric: accuracy, where: {set: in_distribution}}
  baseline: erm
  controls: {reweight: erm+clean}
cells:
  seeds: SEEDS
  grid:
    - {condition: [clean, noise], method: [erm, erm+clean, reweight], encoder: [gru]}
    - {condition: [noise], method: [random], encoder: [gru]}
    - {condition: [clean], method: [erm], encoder: [cased]}
ensemble:
  - {condition: clean, method: erm, encoders: [gru, cased]}
"""
CLASSES = kind("nli").classes


def params(folder, seeds=(0, 1, 2)):
    """params.yaml and cells.yaml in `folder`; returns the former's path."""
    path = folder / "params.yaml"
    path.write_text(PARAMS.replace("SEEDS", str(list(seeds))))
    cells.write(path)
    return path


def items(path, kind="train"):
    """What cells.yaml asks for."""
    return grid.expand(path)[kind]


def test_split(n=80):
    """The columns of a synthetic test split; its ids are not in any order."""
    rng = np.random.default_rng(0)
    heuristics = ("lexical_overlap", "subsequence", "constituent")
    challenge = [i % 2 == 1 for i in range(n)]
    labels = [CLASSES[i] for i in rng.integers(3, size=n)]
    return pa.table(
        {
            "id": [f"synthetic/test-{i}" for i in rng.permutation(n)],
            "premise": [f"The judge saw the actor {i} ." for i in range(n)],
            "hypothesis": ["The judge saw the actor ."] * n,
            "label": labels,
            "set": ["challenge" if c else "in_distribution" for c in challenge],
            "heuristic": [heuristics[i % 3] if c else "none" for i, c in enumerate(challenge)],
            "rule": labels,
        }
    )


def selection_split(n=40):
    """Ids and labels of a selection split."""
    labels = [CLASSES[i] for i in np.random.default_rng(1).integers(3, size=n)]
    return pa.table({"id": [f"synthetic/validation-{i}" for i in range(n)], "label": labels})


def corrupt(runs, condition, seed, leaks=()):
    """runs/corrupt/CONDITION/SEED."""
    table = test_split()
    with artifacts.atomic_folder(runs / "corrupt" / condition / str(seed)) as folder:
        for name in ("train", "clean", "selection", "test"):
            artifacts.write_parquet(folder / f"{name}.parquet", table)
        changes = {"id": list(leaks), "kind": ["leak"] * len(leaks), "old_label": None, "new_label": "neutral"}
        none = [None] * len(leaks)
        changes = {**changes, "old_label": none, "new_label": none}
        artifacts.write_parquet(folder / "corruptions.parquet", pa.table(changes, _CHANGES))
        rows = {"rows": len(table), "labels": {}}
        splits = dict.fromkeys(("train", "clean", "selection", "test"), rows)
        done = {"noise": {"rows": 40, "changed": 27, "share": 0.5}} if condition == "noise" else {}
        artifacts.write_manifest(folder, "corrupt", {"task": "nli"}, seed=seed, splits=splits, corruptions=done)
    return runs / "corrupt" / condition / str(seed)


_CHANGES = pa.schema([(name, pa.string()) for name in ("id", "kind", "old_label", "new_label")])


def run(runs, path, state="ok", reason="", steps=15):
    """runs/train/PATH and an empty runs/models/PATH."""
    parameters = {"train": {"max_length": 16}, "seed": 0}
    with artifacts.atomic_folder(runs / "train" / path) as folder:
        score = [None if i % 3 else 0.3 + i / 40 for i in range(steps)]
        history = {"step": range(steps), "examples": [4 * i for i in range(steps)], "selection_accuracy": score}
        history["loss"] = [1.1 - i / 40 for i in range(steps)]
        artifacts.write_parquet(folder / "history.parquet", pa.table({k: list(v) for k, v in history.items()}))
        counts = {"steps": steps, "examples": 4 * steps, "skipped": 1, "best": {"step": steps, "score": 0.7}}
        artifacts.write_json(folder / "status.json", {"state": state, "reason": reason, **counts})
        artifacts.write_manifest(folder, "train", parameters)
    with artifacts.atomic_folder(runs / "models" / path) as folder:
        artifacts.write_manifest(folder, "train", parameters)


def _predicted(rng, labels, skill):
    """Probabilities that are right with a chance of about `skill`, one-hot where they are."""
    outputs = rng.dirichlet(np.ones(3), size=len(labels))
    right = rng.random(len(labels)) < skill
    outputs[right] = 0
    outputs[right, labels[right]] = 1
    return outputs


def evaluated(runs, path, skill, seed=0, state="ok", reason=""):
    """runs/evaluate/PATH and runs/metrics/PATH.json: right with a chance of about `skill`."""
    table, task = test_split(), kind("nli")
    rng = np.random.default_rng([seed, *path.encode()])
    labels = kind("nli").indices(table["label"].to_numpy(zero_copy_only=False))
    outputs = _predicted(rng, labels, skill)
    held = selection_split()
    on_selection = _predicted(rng, kind("nli").indices(held["label"].to_numpy(zero_copy_only=False)), skill)
    found = {"overall": {}, "by": {}}
    if state in ("ok", "not converged"):
        slices = {c: table[c].to_pylist() for c in ("set", "heuristic")}
        found = metrics.scores(task.score, task.reported, labels, outputs, slices)
    with artifacts.atomic_folder(runs / "evaluate" / path) as folder:
        made = to_table(table, outputs if found["overall"] else None, task, ["set", "heuristic"])
        artifacts.write_parquet(folder / TEST, made)
        artifacts.write_parquet(
            folder / SELECTION, to_table(held, on_selection if found["overall"] else None, task, [])
        )
        about = {"rows": len(made), "state": state, "reason": reason}
        artifacts.write_manifest(folder, "evaluate", {"task": "nli"}, **about)
    counts = {"state": state, "reason": reason, "steps": 15, "examples": 60, "skipped": 1}
    artifacts.write_json(runs / "metrics" / f"{path}.json", {**found, **counts})


SKILL = {"erm": 0.5, "erm+clean": 0.55, "random": 0.5, "reweight": 0.75}


def write(folder, seeds=(0, 1, 2), states=None, skip=()):
    """A whole benchmark: params.yaml, cells.yaml and runs/.

    Args:
        folder: where.
        seeds: of every cell.
        states: path -> state of cells that are not ok.
        skip: paths of cells that have not run.
    """
    made = _written(PARAMS, tuple(seeds), tuple((states or {}).items()), tuple(skip))
    shutil.copytree(made, folder, dirs_exist_ok=True)
    return folder / "params.yaml", folder / "cells.yaml", folder / "runs"


@functools.cache
def _written(text, seeds, states, skip):
    """Of the params file `text`: a folder that `write` copies, which takes a tenth of the time of making it."""
    folder = Path(tempfile.mkdtemp(prefix="runs_tree."))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path, runs, states = params(folder, seeds), folder / "runs", dict(states)
    for item in items(path, "corrupt").values():
        corrupt(runs, item["condition"], item["seed"])
    for cell in items(path).values():
        if cell["path"] in skip:
            continue
        state = states.get(cell["path"], "ok")
        reason = "" if state == "ok" else f"it was {state}"
        run(runs, cell["path"], state, reason)
        evaluated(runs, cell["path"], SKILL[cell["method"]], cell["seed"], state, reason)
    return folder


def metrics_of(runs, path):
    """The metrics JSON of a cell."""
    return json.loads((runs / "metrics" / f"{path}.json").read_text())
