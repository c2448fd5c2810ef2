"""Two labels of one file, trained in one forward pass through the stages."""

import copy
import csv
import os
from pathlib import Path

import pytest
import yaml

from gradworks import parameters
from gradworks.base import artifacts
from gradworks.base.errors import InputError
from tests.components.test_mixture import evaluate, killed_and_resumed, train
from tests.small import SMALL, run

pytestmark = pytest.mark.slow("trains through all stages")

SPLITS = {"train": {}, "clean": {"size": 24}, "selection": {"share": 0.2}, "test": {"share": 0.2}}


def values():
    made = copy.deepcopy(SMALL)
    one = {"kind": "classification", "texts": ["text"], "metrics": ["accuracy"]}
    made["task"] = "mood"
    made["tasks"] = {"mood": one | {"classes": ["bad", "good"]}, "tone": one | {"classes": ["calm", "loud"]}}
    made["fetch"] = {
        "moods": {"from": "file:data/mine.csv", "columns": {"label": "mood"}},
        "tones": {"from": "file:data/mine.csv", "task": "tone", "columns": {"label": "tone"}, "ids": "moods"},
    }
    of = {name: {"from": "moods/all", **take} for name, take in SPLITS.items()}
    made["corrupt"] = {
        "splits": {**of, "duplicates": "keep"},
        "parts": {"tone": {**{k: one | {"from": "tones/all"} for k, one in of.items()}, "duplicates": "keep"}},
        "conditions": {"noise": {"noise": {"share": 0.2}}, "few": {"imbalance": {"ratios": {"good": 0.1}}}},
        "between_tasks": "keep",  # texts are short
    }
    made["mixtures"] = {
        "both": {"parts": ["mood", "tone"], "together": [["tone", "mood"]], "select": "mean"},
        "apart": {"parts": ["mood", "tone"], "select": "mean"},
    }
    made["methods"] = {"erm": {}, "reweight": {"weighting": "reweight"}, "pcgrad": {"update": "pcgrad"}}
    made["train"] |= {"epochs": 4, "learning_rate": 0.03}
    made["evaluate"], made["report"]["primary"] = {}, {"metric": "accuracy"}
    made["cells"]["grid"] = [
        {"condition": ["noise"], "method": ["erm", "reweight"], "mixture": ["both", "apart"], "encoder": ["gru"]}
    ]
    return made


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder, before = tmp_path_factory.mktemp("together"), Path.cwd()
    os.chdir(folder)
    (folder / "data").mkdir()
    with (folder / "data/mine.csv").open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["text", "mood", "tone"])
        for i in range(240):
            mood, tone = ("bad", "good")[i % 2], ("calm", "loud")[i // 2 % 2]
            first = ("awful", "dull", "fine", "great")[i % 2 * 2 + i % 3 % 2]
            out.writerow([f"{first} {'hush' if tone == 'calm' else 'wow'} {'abcdefg'[i % 7]}", mood, tone])
    (folder / "params.yaml").write_text(yaml.safe_dump(values()))
    parameters.check(folder / "params.yaml", data=True)
    for source in ("moods", "tones"):
        run("fetch", "--source", source, "--out", f"runs/fetch/{source}")
    run("corrupt", "--condition", "noise", "--seed", 0, "--data", "runs/fetch", "--out", "runs/corrupt/noise/0")
    run("pretrain", "--encoder", "gru", "--data", "runs/fetch", "--out", "runs/pretrain/gru")
    yield folder
    os.chdir(before)


def test_both_labels_are_learned_from_half_the_steps_and_every_row_counts_once(project):
    both, apart = train("reweight", "both"), train("erm", "apart")
    status, other = (artifacts.read_json(one / "run/status.json") for one in (both, apart))
    rows = artifacts.read_parquet(project / "runs/corrupt/noise/0/train.parquet").num_rows
    assert status["steps"] == status["batches"] == 4 * -(-rows // 8) == other["steps"] / 2
    assert status["examples"] == 4 * rows == other["examples"] / 2
    weights = artifacts.read_parquet(both / "run/weights.parquet")
    train_ids = set(artifacts.read_parquet(project / "runs/corrupt/noise/0/train.parquet")["id"].to_pylist())
    assert "task" not in weights.column_names and set(weights["id"].to_pylist()) == train_ids
    assert artifacts.read_json(both / "run/manifest.json")["parameters"]["mixture"]["together"] == [["tone", "mood"]]
    found = evaluate(train("erm", "both"))
    assert found["overall"]["accuracy"]["value"] > 0.8 < found["parts"]["tone"]["overall"]["accuracy"]["value"]


def test_killed_and_resumed_it_ends_with_the_same_bytes(project, monkeypatch, capsys):
    killed_and_resumed("erm", "both", monkeypatch, capsys)


def test_what_cannot_be_read_together_is_refused_by_the_check_of_the_file(project):
    def refused(change, said):
        made = values()
        change(made)
        (project / "other.yaml").write_text(yaml.safe_dump(made))
        with pytest.raises(InputError, match=said):
            parameters.check(project / "other.yaml")

    grid = lambda v: v["cells"]["grid"][0]  # noqa: E731
    refused(
        lambda v: grid(v)["method"].append("pcgrad"), "both.together: found tone and mood, and methods.pcgrad: pcgrad"
    )
    refused(lambda v: grid(v).update(condition=["few"]), "found mood in a set, and the condition few with imbalance")
    refused(lambda v: v["fetch"]["tones"].pop("ids"), "tone and mood: found training rows that are drawn apart")
    refused(lambda v: v["fetch"]["tones"]["columns"].update(text="other"), r"found texts \['other'\] and \['text'\]")
    refused(lambda v: v["fetch"]["tones"].update({"from": "file:data/x.csv"}), "found from 'file:data/x.csv' and 'fil")
    refused(lambda v: v["corrupt"]["parts"]["tone"]["test"].update(share=0.1), "that are drawn apart")
    refused(lambda v: v["fetch"]["tones"].update(ids="mood"), "fetch.tones.ids: found 'mood'; did you mean moods")


def test_rows_that_differ_are_refused_before_the_first_step(project):
    """Of a condition that the check of the file has not seen."""
    run("corrupt", "--condition", "few", "--seed", 0, "--data", "runs/fetch", "--out", "runs/corrupt/few/0")
    said = r"params.yaml: mixtures.both.together: mood and tone: found \d+ and \d+ rows, row all-\d+ of tone alone"
    with pytest.raises(InputError, match=said):
        run("train", "--method", "erm", "--mixture", "both", "--seed", 0, "--data", "runs/corrupt/few/0",
            "--start", "runs/pretrain/gru", "--out", "few/run", "--model", "few/model")  # fmt: skip
    assert not Path("few/model").exists()
