"""Slices through the stages: from CSV files and a file of functions to the report, with heads and without."""

import csv
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.torch import load_file

from gradworks import loop, parameters
from gradworks.base import artifacts
from gradworks.base.errors import InputError
from tests.small import run, run_all

pytestmark = pytest.mark.slow("trains through all stages")

FUNCTIONS = """
from gradworks.data.slices import slicing_function

@slicing_function
def negated(row):
    return "not" in row["text"].split()

@slicing_function(name="long")
def words(row):
    return len(row["text"].split()) > 6
"""
PARAMS = {
    "root": ".", "here": "", "threads": 1, "device": "cpu", "gpu": {"kind": "a100", "count": 0}, "task": "mood",
    "tasks": {"mood": {"kind": "classification", "texts": ["text"], "classes": ["bad", "fair", "good"],
                       "metrics": ["accuracy"]}},
    "fetch": {"mine": {"from": "file:data"}},
    "corrupt": {
        "splits": {"train": {"from": "mine/train"}, "clean": {"from": "mine/dev", "size": 30},
                   "selection": {"from": "mine/dev", "size": 60}, "test": {"from": "mine/test"}},
        "conditions": {"plain": {}},
    },
    "slice": {"file": "slices.py", "use": ["negated", "dash_or_semicolon", "long"]},  # the last has no head
    "mixtures": {
        "base": {"parts": ["mood"]},
        "sliced": {"parts": ["mood"], "slices": ["negated", "dash_or_semicolon"], "combine": "defer"},
    },
    "pretrain": {"gru": {"model": "gru", "lowercase": True, "vocabulary": 60, "embedding": 16, "hidden": 16}},
    "methods": {"erm": {}, "reweight": {"weighting": "reweight"}},
    "train": {"epochs": 3, "batch": 16, "clean_batch": 6, "max_length": 16, "learning_rate": 5e-3},
    "report": {"title": "Slices"},
    "cells": {"seeds": [0, 1], "grid": [
        {"condition": ["plain"], "method": ["erm"], "mixture": ["base", "sliced"], "encoder": ["gru"]},
        {"condition": ["plain"], "method": ["reweight"], "mixture": ["sliced"], "encoder": ["gru"], "seed": [0]}]},
}  # fmt: skip
WORDS = {"awful": 0, "poor": 0, "plain": 1, "usual": 1, "great": 2, "lovely": 2}


def write(folder):
    """A word says the mood; after "not" it is the opposite."""
    draw = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for name, rows in (("train", 480), ("dev", 120), ("test", 240)):
        with (folder / f"{name}.csv").open("w", newline="") as file:
            out = csv.writer(file)
            out.writerow(["text", "label"])
            for _ in range(rows):
                word, negated = draw.choice(list(WORDS)), draw.random() < 0.25
                dash = " ; " if draw.random() < 0.2 else " "
                filler = " ".join(draw.choice(["it", "was", "the", "film", "day"], 4))
                mood = 2 - WORDS[word] if negated else WORDS[word]
                out.writerow([f"{filler}{dash}{'not ' * negated}{word}", ("bad", "fair", "good")[mood]])


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder, before = tmp_path_factory.mktemp("slices"), Path.cwd()
    os.chdir(folder)
    write(folder / "data")
    (folder / "slices.py").write_text(FUNCTIONS)
    (folder / "params.yaml").write_text(yaml.safe_dump(PARAMS))
    results = run_all(folder / "params.yaml")
    yield folder, results
    os.chdir(before)


def test_the_stage_names_the_ids_of_each_slice(project):
    folder, _ = project
    manifest = artifacts.check(folder / "runs/slice/plain/0")
    table = artifacts.read_parquet(folder / "runs/slice/plain/0/slices.parquet").to_pydict()
    found = {s: {i for i, name in zip(table["id"], table["slice"], strict=True) if name == s} for s in table["slice"]}
    assert set(found) == {"negated", "dash_or_semicolon", "long"}
    for split in ("train", "clean", "selection", "test"):
        data = artifacts.read_parquet(folder / f"runs/corrupt/plain/0/{split}.parquet").to_pylist()
        for name, sign in (("negated", " not "), ("dash_or_semicolon", ";")):
            own = {row["id"] for row in data if sign in row["text"]}
            assert own <= found[name] and manifest["slices"][name][split] == len(own)


def test_a_cell_has_a_head_a_slice_and_scores_by_slice(project):
    folder, _ = project
    shapes = {m: load_file(folder / f"runs/models/plain/erm/{m}/gru/0/model.safetensors")["head.weight"].shape[0]
              for m in ("base", "sliced")}  # fmt: skip
    assert shapes == {"base": 3, "sliced": 9}
    for mixture in ("base", "sliced"):
        found = artifacts.read_json(folder / f"runs/metrics/plain/erm/{mixture}/gru/0.json")
        table = artifacts.read_parquet(folder / f"runs/evaluate/plain/erm/{mixture}/gru/0/predictions.parquet")
        rows = [row for row in table.to_pylist() if row["negated"] == "in"]
        score = found["by"]["negated"]["in"]["accuracy"]
        assert score["n"] == len(rows) and score["low"] < score["value"] < score["high"]
        assert score["value"] == pytest.approx(np.mean([row["label"] == row["prediction"] for row in rows]))
    combined = found["slices"]["combined"]
    assert set(combined) == {"mean", "defer", "residual", "task"} and found["slices"]["combine"] == "defer"
    assert combined["defer"]["overall"] == found["overall"]
    assert combined["defer"]["by"]["negated"] == found["by"]["negated"]


def test_a_run_without_slices_keeps_its_bytes(project, tmp_path):
    folder, _ = project
    values = {key: value for key, value in PARAMS.items() if key not in ("slice", "mixtures")}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
    run("train", "--params", tmp_path / "params.yaml", "--method", "erm", "--seed", 0, "--data", "runs/corrupt/plain/0",
        "--start", "runs/pretrain/gru", "--out", tmp_path / "run", "--model", tmp_path / "model")  # fmt: skip
    for made, kept in (("run", "train"), ("model", "models")):
        assert contents(tmp_path / made) == contents(folder / f"runs/{kept}/plain/erm/base/gru/0")


def contents(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("method", ["erm", "reweight"])
def test_killed_and_resumed_it_ends_with_the_same_bytes(project, tmp_path, method, monkeypatch, capsys):
    folder, _ = project
    step, calls = loop.step, []

    def train():
        run("train", "--method", method, "--seed", 0, "--mixture", "sliced", "--data", "runs/corrupt/plain/0",
            "--slices", "runs/slice/plain/0", "--start", "runs/pretrain/gru", "--out", tmp_path / "run",
            "--model", tmp_path / "model")  # fmt: skip

    def killed(*args, **more):
        calls.append(1)
        if len(calls) > 40:
            raise KeyboardInterrupt
        return step(*args, **more)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop, "step", killed)
        train()
    train()
    assert 0 < int(re.search(r"resumed from step (\d+) of 90\b", capsys.readouterr().out)[1]) <= 40
    for made, kept in (("run", "train"), ("model", "models")):
        assert contents(tmp_path / made) == contents(folder / f"runs/{kept}/plain/{method}/sliced/gru/0")


def test_errors_leave_nothing_behind(project, tmp_path):
    folder, _ = project
    for text, said in ((FUNCTIONS.replace('["text"]', '["txt"]'), "negated: row .*: raised KeyError"),
                       (FUNCTIONS.replace('"not"', '"§"'), "negated: none of the 480 examples of train")):  # fmt: skip
        (folder / "broken.py").write_text(text)
        (folder / "broken.yaml").write_text(yaml.safe_dump(PARAMS | {"slice": {"file": "broken.py"}}))
        with pytest.raises(InputError, match=said):
            run("slice", "--params", "broken.yaml", "--data", "runs/corrupt/plain/0", "--out", tmp_path / "out")
        assert not (tmp_path / "out").exists()
    about = json.loads((folder / "runs/slice/plain/0/manifest.json").read_text())
    assert about["of"].keys() == {"train.parquet", "clean.parquet", "selection.parquet", "test.parquet"}
    with pytest.raises(InputError, match="slices of other data than"):
        run("train", "--method", "erm", "--seed", 0, "--mixture", "sliced", "--data", "runs/corrupt/plain/1",
            "--slices", "runs/slice/plain/0", "--start", "runs/pretrain/gru", "--out", tmp_path / "run",
            "--model", tmp_path / "model")  # fmt: skip


def test_the_report_compares_heads_with_none(project):
    folder, _ = project
    found = json.loads((folder / "report/results.json").read_text())["slices"]
    assert [(one["method"], one["mixture"], one["base"]) for one in found] == [
        ("erm", "sliced", "base"), ("reweight", "sliced", None)]  # fmt: skip
    rows = {row["slice"]: row for row in found[0]["rows"]}
    assert list(rows) == [None, "dash_or_semicolon", "long", "negated"]
    assert all(set(row["combined"]) == {"mean", "defer", "residual", "task"} for row in rows.values())

    def right(mixture, seed):
        table = artifacts.read_parquet(folder / f"runs/evaluate/plain/erm/{mixture}/gru/{seed}/predictions.parquet")
        return {row["id"]: row["label"] == row["prediction"] for row in table.to_pylist() if row["negated"] == "in"}

    gaps = []
    for seed in (0, 1):
        ours, theirs = right("sliced", seed), right("base", seed)
        gaps.append(np.mean([ours[i] - theirs[i] for i in ours]))
    gain = rows["negated"]["gain"]
    assert rows["negated"]["n"] == len(ours) and gain["mean"] == pytest.approx(np.mean(gaps))
    assert gain["values"] == pytest.approx(gaps) and gain["examples"] == len(ours)
    assert gain["low"] < gain["mean"] < gain["high"] and gain["corrected_p"] >= gain["p"]
    assert all(row["gain"] is None for row in found[1]["rows"])
    assert rows["negated"]["combined"]["defer"] == pytest.approx(rows["negated"]["sliced"])
    page = (folder / "report/report.html").read_text()
    assert "Heads for slices" in page and "by negated" not in page
    assert "## Heads for slices" in (folder / "report/report.md").read_text()


def test_a_soup_of_models_with_heads_for_slices_is_refused_in_params_and_by_the_stage(project, tmp_path):
    (tmp_path / "slices.py").write_text(FUNCTIONS)
    soup = {"condition": "plain", "method": "erm", "mixture": "sliced", "encoders": ["gru"]}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(PARAMS | {"soup": [soup]}))
    with pytest.raises(InputError, match=r"soup\.0\.mixture: sliced has heads for slices\nexpected one without"):
        parameters.check(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(PARAMS | {"soup": [soup | {"mixture": "base"}]}))
    parameters.check(tmp_path / "params.yaml")
    with pytest.raises(InputError, match=r"gru/0: a model with heads of slices\nexpected members without"):
        run("soup", "--encoders", "gru", "--seeds", 0, 1, "--models", "runs/models/plain/erm/sliced", "--data",
            "runs/corrupt/plain", "--rule", "uniform", "--out", tmp_path / "out",
            "--metrics", tmp_path / "out.json")  # fmt: skip
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.json").exists()
