"""Labelling functions through the stages: from unlabelled text and a file of functions to the report."""

import copy
import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
import yaml

from gradworks import parameters
from gradworks.base import artifacts
from gradworks.base.errors import InputError
from tests.small import run, run_all

pytestmark = pytest.mark.slow("trains through all stages")

FUNCTIONS = """
from gradworks.data.labelling import ABSTAIN, labelling_function

def says(word, mood):
    @labelling_function(name=word)
    def function(row):
        return mood if word in row["text"].split() else ABSTAIN

for word in ("great", "lovely", "fine"):
    says(word, "good")
for word in ("awful", "poor", "bleak"):
    says(word, "bad")
"""
GOOD, BAD = ("great", "lovely", "fine", "witty"), ("awful", "poor", "bleak", "dull")
PARAMS = {
    "root": ".", "here": "", "threads": 1, "device": "cpu", "gpu": {"kind": "a100", "count": 0}, "task": "mood",
    "tasks": {"mood": {"kind": "classification", "texts": ["text"], "classes": ["bad", "good"]}},
    "fetch": {"mine": {"from": "file:data"}, "raw": {"from": "file:raw", "unlabelled": True}},
    "label": {"weak": {"file": "labelling.py", "from": "raw/all", "gold": "mine/dev"}},
    "corrupt": {
        "splits": {"train": {"from": "weak/train"}, "clean": {"from": "mine/dev", "size": 20},
                   "selection": {"from": "mine/dev", "size": 60}, "test": {"from": "mine/test"}},
        "conditions": {"plain": {}, "leaky": {"leak": {"count": 5}}},
    },
    "pretrain": {"gru": {"model": "gru", "lowercase": True, "vocabulary": 80, "embedding": 16, "hidden": 16}},
    "methods": {"erm": {}, "both": {"train_on": ["train", "clean"]}},
    "train": {"epochs": 2, "batch": 16, "clean_batch": 6, "max_length": 16, "learning_rate": 5e-3},
    "report": {"title": "Weak labels"},
    "cells": {"seeds": [0], "grid": [
        {"condition": ["plain"], "method": ["erm", "both"], "encoder": ["gru"]},
        {"condition": ["leaky"], "method": ["erm"], "encoder": ["gru"]}]},
}  # fmt: skip


def text(draw):
    """Words of the mood, each with probability .4, and of the other one, .1, independently; and the mood."""
    good = bool(draw.integers(2))
    words = [w for of, mine in ((GOOD, good), (BAD, not good)) for w in of if draw.random() < (0.4 if mine else 0.1)]
    return " ".join(draw.permutation([*words, *draw.choice(["it", "was", "the", "film"], 3)])), good


def write(folder):
    draw = np.random.default_rng(0)
    for file, rows in (("raw/all", 900), ("data/dev", 120), ("data/test", 240)):
        (folder / file).parent.mkdir(exist_ok=True)
        with (folder / f"{file}.csv").open("w", newline="") as opened:
            out = csv.writer(opened)
            out.writerow(["text"] if "raw" in file else ["text", "label"])
            for _ in range(rows):
                said, good = text(draw)
                out.writerow([said] if "raw" in file else [said, "good" if good else "bad"])


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder, before = tmp_path_factory.mktemp("labels"), Path.cwd()
    os.chdir(folder)
    write(folder)
    (folder / "labelling.py").write_text(FUNCTIONS)
    (folder / "params.yaml").write_text(yaml.safe_dump(PARAMS))
    results = run_all(folder / "params.yaml")
    yield folder, results
    os.chdir(before)


def test_rows_with_votes_have_probabilities_and_the_others_are_counted(project):
    folder, _ = project
    about = artifacts.check(folder / "runs/label/weak")
    table = artifacts.read_parquet(folder / "runs/label/weak/train.parquet").to_pylist()
    raw = artifacts.read_parquet(folder / "runs/fetch/raw/all.parquet").to_pylist()
    words = {"great", "lovely", "fine", "awful", "poor", "bleak"}
    voted = [row["id"] for row in raw if words & set(row["text"].split())]
    assert [row["id"] for row in table] == voted and {row["label"] for row in raw} == {None}
    assert about["rows"] == {"read": 900, "labelled": len(voted), "without_votes": 900 - len(voted)}
    for row in table:
        assert sum(row["distribution"]) == pytest.approx(1)
        assert row["label"] == ("bad", "good")[int(np.argmax(row["distribution"]))]
    great = about["functions"]["great"]
    gold = artifacts.read_parquet(folder / "runs/fetch/mine/dev.parquet").to_pylist()
    own = [row["label"] == "good" for row in gold if "great" in row["text"].split()]
    assert great["gold"]["accuracy"] == pytest.approx(np.mean(own)) and great["gold"]["votes"] == len(own)
    assert great["coverage"] == pytest.approx(sum("great" in row["text"].split() for row in raw) / 900)
    for one in about["functions"].values():  # planted: .4 of .5; three standard errors
        assert abs(one["estimated"] - 0.8) < 0.15


def test_training_is_on_probabilities_and_evaluation_on_labels(project):
    folder, results = project
    train = artifacts.read_parquet(folder / "runs/corrupt/leaky/0/train.parquet").to_pylist()
    leaked = [row for row in train if row["distribution"] is None]
    assert len(leaked) == 5 and all(row["id"].startswith("mine/test") for row in leaked)
    assert "distribution" not in artifacts.read_parquet(folder / "runs/corrupt/plain/0/test.parquet").column_names
    for cell in results["cells"]:
        assert cell["state"] == "ok" and cell["primary"]["value"] > 0.75


def test_the_report_has_the_functions(project):
    folder, _ = project
    rows = json.loads((folder / "report/results.json").read_text())["labels"]["weak"]["functions"]
    assert set(rows) == {"great", "lovely", "fine", "awful", "poor", "bleak"}
    html = (folder / "report/report.html").read_text()
    assert "Labelling functions" in html and "without a vote" in html


def test_errors_leave_nothing_behind(project, tmp_path):
    folder, _ = project
    for broken, said in (
        (FUNCTIONS.replace('row["text"]', 'row["txt"]'), "labelling function great: row .*: raised KeyError"),
        (FUNCTIONS.replace('says(word, "bad")', 'says(word, "sad")'), "function awful: row .*: returned 'sad'"),
        (FUNCTIONS.replace('"fine"', '"fein"'), "labelling function fein: abstained on all 900 rows"),
    ):
        (folder / "broken.py").write_text(broken)
        made = copy.deepcopy(PARAMS)
        made["label"]["weak"]["file"] = "broken.py"
        (folder / "broken.yaml").write_text(yaml.safe_dump(made))
        with pytest.raises(InputError, match=said):
            run("label", "--params", "broken.yaml", "--name", "weak", "--data", "runs/fetch", "--out", tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_what_does_not_fit_is_refused_before_anything_runs(project):
    folder, _ = project

    def refused(said, change):
        made = copy.deepcopy(PARAMS)
        change(made)
        with pytest.raises(InputError, match=said):
            parameters.check(folder / "params.yaml", made)

    refused(
        r"label\.weak\.from: found 'row'; did you mean raw", lambda m: m["label"]["weak"].update({"from": "row/all"})
    )
    refused(r"label\.mine: a source of fetch has this name", lambda m: m["label"].update(mine=m["label"]["weak"]))
    refused(r"labelling\.txt: no such file", lambda m: m["label"]["weak"].update(file="labelling.txt"))
    refused(r"train\.from: found 'weak/test'", lambda m: m["corrupt"]["splits"]["train"].update({"from": "weak/test"}))

    made = copy.deepcopy(PARAMS)
    made["corrupt"]["splits"]["selection"] = {"from": "weak/train", "size": 10}
    made["corrupt"]["conditions"]["noisy"] = {"noise": {"share": 0.5}}
    (folder / "other.yaml").write_text(yaml.safe_dump(made))
    with pytest.raises(InputError, match=r"selection\.from: found 'weak/train', labels of labelling functions"):
        run("corrupt", "--params", "other.yaml", "--condition", "plain", "--seed", 0, "--data", "runs/fetch",
            "--labels", "runs/label", "--out", "out")  # fmt: skip
    made["corrupt"]["splits"]["selection"] = {"from": "mine/dev", "size": 10}
    (folder / "other.yaml").write_text(yaml.safe_dump(made))
    with pytest.raises(InputError, match=r"noisy\.noise: the training labels are probabilities"):
        run("corrupt", "--params", "other.yaml", "--condition", "noisy", "--seed", 0, "--data", "runs/fetch",
            "--labels", "runs/label", "--out", "out")  # fmt: skip
