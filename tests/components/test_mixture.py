"""Two tasks trained together through the stages: splits, a model of two heads, predictions and scores of both."""

import argparse
import copy
import csv
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from gradworks import cell, loop, models
from gradworks.base import artifacts
from gradworks.base.errors import InputError
from tests.small import SMALL, run

pytestmark = pytest.mark.slow("trains through all stages")

WORDS = {"bad": -1.0, "poor": -0.5, "fair": 0.0, "good": 0.5, "great": 1.0}
TAKE = {"train": {}, "clean": {"size": 24}, "selection": {"size": 40}, "test": {}}
SOURCE = {"train": "train", "clean": "validation", "selection": "validation", "test": "test"}
# beside erm, dotprod and reweight
RESUMED = {
    "reptile": {"update": {"reptile": {"batches": 4, "inner_lr": 0.1}}},
    "fomaml": {"update": {"fomaml": {"batches": 2, "inner_lr": 0.1}}},
    "different": {"update": {"reptile": {"batches": 2, "inner_lr": 0.1, "tasks": "different"}}},
    "sam": {"update": "sam"},
    "smart": {"objective": "smart"},
}


def write(folder):
    """The value of a text is the sum of its words'."""
    draw = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for name, rows in (("train", 160), ("validation", 64), ("test", 64)):
        with (folder / f"{name}.csv").open("w", newline="") as file:
            out = csv.writer(file)
            out.writerow(["text", "label"])
            for _ in range(rows):
                words = draw.choice(list(WORDS), 5).tolist()
                out.writerow([" ".join(words), sum(WORDS[word] for word in words)])


def values():
    made = copy.deepcopy(SMALL)
    made["tasks"] = {"worth": {"kind": "regression", "texts": ["text"], "metrics": ["pearson"]}}
    made["fetch"]["mine"] = {"from": "file:data/mine", "task": "worth"}
    made["corrupt"]["parts"] = {
        "worth": {split: {"from": f"mine/{SOURCE[split]}", **take} for split, take in TAKE.items()}
    }
    made["train"] |= {"epochs": 2}
    made["methods"] |= {"reweight": {"weighting": "reweight"}, "apart": {"update": {"reptile": {"tasks": "different"}}}}
    made["methods"] |= RESUMED
    made["mixtures"] = {
        "both": {"parts": ["nli", "worth"], "schedule": "round_robin", "select": "mean"},
        "turned": {"parts": ["worth", "nli"], "schedule": "proportional", "select": "worth"},
        "alone": {"parts": ["nli"]},
        "worth": {"parts": ["worth"]},
        "then": {"parts": ["nli", "worth"], "from": "worth", "epochs": 0.5},
        "last": {"parts": ["nli"], "from": "then", "epochs": 1},
        "after": {"parts": ["worth"], "from": "last"},
    }
    return made


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder, before = tmp_path_factory.mktemp("mixture"), Path.cwd()
    os.chdir(folder)
    write(folder / "data/mine")
    (folder / "params.yaml").write_text(yaml.safe_dump(values()))
    for source in ("synthetic", "mine"):
        run("fetch", "--source", source, "--out", f"runs/fetch/{source}")
    run("corrupt", "--condition", "noise", "--seed", 0, "--data", "runs/fetch", "--out", "runs/corrupt/noise/0")
    run("pretrain", "--encoder", "gru", "--data", "runs/fetch", "--out", "runs/pretrain/gru")
    yield folder
    os.chdir(before)


def train(method, mixture=None, out="out", start="runs/pretrain/gru"):
    folder = f"{out}/{mixture}-{method}"
    run("train", "--method", method, "--seed", 0, "--data", "runs/corrupt/noise/0", "--start", start,
        "--out", f"{folder}/run", "--model", f"{folder}/model",
        *(["--mixture", mixture] if mixture else []))  # fmt: skip
    return Path(folder)


def evaluate(folder):
    run("evaluate", "--run", folder / "run", "--model", folder / "model", "--data", "runs/corrupt/noise/0",
        "--out", folder / "evaluate", "--metrics", folder / "metrics.json")  # fmt: skip
    return artifacts.read_json(folder / "metrics.json")


def contents(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def killed_and_resumed(method, mixture, monkeypatch, capsys, **start):
    """A run that is killed after 26 steps goes on from a checkpoint and ends with the bytes of one that was not."""
    whole, step = train(method, mixture, out="whole", **start), loop.step
    assert "resumed" not in capsys.readouterr().out
    calls = []

    def killed(*args, **more):
        calls.append(1)
        if len(calls) > 26:
            raise KeyboardInterrupt
        return step(*args, **more)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop, "step", killed)
        train(method, mixture, out="killed", **start)
    resumed = train(method, mixture, out="killed", **start)
    total = artifacts.read_json(whole / "run/status.json")["steps"]
    found = re.search(rf"resumed from step (\d+) of {total}\b", capsys.readouterr().out)
    assert 0 < int(found[1]) <= 26 < total
    assert contents(whole / "run") == contents(resumed / "run")
    assert contents(whole / "model") == contents(resumed / "model")


def test_the_splits_of_the_other_task_lie_beside_those_of_the_main_one(project):
    manifest = artifacts.check(project / "runs/corrupt/noise/0")
    sizes = {"train": 160, "clean": 24, "selection": 40, "test": 64}
    for split, rows in sizes.items():
        assert artifacts.read_parquet(project / f"runs/corrupt/noise/0/parts/worth/{split}.parquet").num_rows == rows
        assert manifest["parts"]["worth"]["splits"][split]["rows"] == rows
    assert f"parts/worth/{split}.parquet" in manifest["files"]


def test_the_tokenizer_has_read_both(project):
    assert set(WORDS) <= set(artifacts.read_json(project / "runs/pretrain/gru/tokenizer.json")["model"]["vocab"])


@pytest.mark.parametrize("method", ["erm", "dotprod", "reweight"])
@pytest.mark.parametrize("mixture", ["both", "turned"])
def test_two_tasks_are_trained_and_scored_together(project, method, mixture):
    folder = train(method, mixture)
    status = artifacts.read_json(folder / "run/status.json")
    assert status["examples"] == 2 * (480 + 160)
    history = artifacts.read_parquet(folder / "run/history.parquet").to_pylist()
    chosen = "selection_mean" if mixture == "both" else "selection_worth_pearson"
    looks = [row for row in history if row[chosen] is not None]
    assert status["best"]["score"] == max(row[chosen] for row in looks)
    heads = {name for name in load_file(folder / "model/model.safetensors") if name.startswith("head")}
    assert heads == {f"heads.{task}.{part}" for task in ("nli", "worth") for part in ("weight", "bias")}
    weights = artifacts.read_parquet(folder / "run/weights.parquet")
    if method == "reweight":
        assert set(weights["task"].to_pylist()) == {"nli", "worth"}
    found = evaluate(folder)
    assert set(found["overall"]) == {"accuracy", "log_loss"} and set(found["by"]) == {"set", "heuristic"}
    table = artifacts.read_parquet(folder / "evaluate/parts/worth/predictions.parquet")
    value = np.corrcoef(table["label"].to_numpy(), table["value"].to_numpy())[0, 1]
    assert found["parts"]["worth"]["overall"]["pearson"]["value"] == pytest.approx(value)
    assert artifacts.read_parquet(folder / "evaluate/predictions.parquet").num_rows == 160
    assert value > 0.1  # two epochs


@pytest.mark.parametrize("method", ["erm", "dotprod", "reweight"])
def test_one_part_is_the_single_run_to_the_byte(project, method):
    plain, one = train(method), train(method, "alone")
    assert contents(plain / "run") == contents(one / "run")
    assert contents(plain / "model") == contents(one / "model")
    assert evaluate(plain) == evaluate(one)
    assert contents(plain / "evaluate") == contents(one / "evaluate")


def test_another_task_alone_is_scored_as_a_part(project):
    found = evaluate(train("erm", "worth"))
    assert found["overall"] == {} and found["parts"]["worth"]["overall"]["pearson"]["value"] > 0.3


@pytest.mark.parametrize(
    ("mixture", "method"),
    [("both", name) for name in ("erm", "dotprod", "reweight", *RESUMED)]
    + [("turned", name) for name in ("erm", "dotprod", "different")],
)
def test_killed_and_resumed_it_ends_with_the_same_bytes(project, method, mixture, monkeypatch, capsys):
    killed_and_resumed(method, mixture, monkeypatch, capsys)


def begun(mixture, start):
    """The model that a phase starts with."""
    asked = {"params": Path("params.yaml"), "method": "erm", "seed": 0, "data": Path("runs/corrupt/noise/0")}
    return cell.Run(argparse.Namespace(**asked, mixture=mixture, start=start / "model")).model()


def test_a_phase_goes_on_with_the_encoder_and_the_heads_that_it_knows(project):
    """worth -> nli and worth -> nli -> worth: heads of seen tasks are carried, the others fresh and keyed by name."""
    first = train("erm", "worth", out="phases")
    both, ours = begun("then", first), load_file(first / "model/model.safetensors")
    weights = {name: tensor for name, tensor in both.state_dict().items() if name.startswith("heads.nli.")}
    for name, tensor in both.state_dict().items():
        if name not in weights:
            assert torch.equal(tensor, ours[name.replace("heads.worth.", "head.")]), name
    unseen = models.create(Path("runs/pretrain/gru"), {"nli": 3, "other": 2}, 0)
    assert torch.equal(weights["heads.nli.weight"], unseen.heads.nli.weight)  # whatever the other tasks are
    second = train("erm", "then", out="phases", start=first / "model")
    status = artifacts.read_json(second / "run/status.json")
    assert status["examples"] == (480 + 160) // 2
    seen = load_file(second / "model/model.safetensors")
    last = begun("last", second).state_dict()
    assert {name.replace("head.", "heads.nli.") for name in last} == set(seen) - {
        "heads.worth.weight", "heads.worth.bias"
    }  # fmt: skip
    assert all(torch.equal(last[name], seen[name.replace("head.", "heads.nli.")]) for name in last)
    third = train("erm", "last", out="phases", start=second / "model")
    assert evaluate(third)["overall"]["accuracy"]["n"] == 160
    again = begun("after", third)  # its head is gone
    assert again.head.out_features == 1 and not torch.equal(again.head.weight, ours["head.weight"])


def test_a_phase_that_was_killed_ends_with_the_same_bytes(project, monkeypatch, capsys):
    first = train("erm", "worth", out="phases")
    capsys.readouterr()
    killed_and_resumed("erm", "then", monkeypatch, capsys, start=first / "model")


def test_what_the_schedule_cannot_give_is_refused_before_training(project):
    with pytest.raises(
        InputError, match=r"methods\.apart: mixtures\.both\.schedule: found round_robin: the update takes"
    ):
        train("apart", "both")
    with pytest.raises(InputError, match=r"mixtures\.neither"):
        train("erm", "neither")


def test_tags_of_a_tasks_own_words_are_trained_beside_it(tmp_path, monkeypatch):
    """A sentence task and the parts of speech of its sentences, from one file, on one encoder."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "data/mine")
    made = values()
    made["fetch"]["words"] = {"from": "file:data/mine", "task": "universal_pos", "tags": "textblob"}
    made["corrupt"]["parts"]["universal_pos"] = {
        split: {"from": f"words/{SOURCE[split]}", **take} for split, take in TAKE.items()
    }
    made["evaluate"] = {"by": []}
    made["task"], made["corrupt"]["splits"] = "worth", made["corrupt"]["parts"].pop("worth")
    made["corrupt"] |= {"conditions": {"clean": {}}}
    made["corrupt"]["splits"]["duplicates"] = made["corrupt"]["parts"]["universal_pos"]["duplicates"] = "keep"
    made["pretrain"]["gru"] |= {"bidirectional": True}
    made["train"] |= {"epochs": 3, "learning_rate": 0.01, "select": {"metric": "pearson"}}
    made["mixtures"] = {"both": {"parts": ["worth", "universal_pos"], "schedule": "round_robin", "select": "worth"}}
    made["methods"] = {"erm": {}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(made))
    for source in ("mine", "words"):
        run("fetch", "--source", source, "--out", f"runs/fetch/{source}")
    table = artifacts.read_parquet(Path("runs/fetch/words/train.parquet"))
    tags = dict(zip(table["text"][0].as_py().split(), table["label"][0].as_py().split(), strict=True))
    assert {tags[word] for word in tags} <= {"ADJ", "NOUN", "ADV", "VERB"} and table.num_rows == 160
    run("corrupt", "--condition", "clean", "--seed", 0, "--data", "runs/fetch", "--out", "runs/corrupt/clean/0")
    run("pretrain", "--encoder", "gru", "--data", "runs/fetch", "--out", "runs/pretrain/gru")
    where = ("--method", "erm", "--mixture", "both", "--seed", 0, "--data", "runs/corrupt/clean/0")
    run("train", *where, "--start", "runs/pretrain/gru", "--out", "out", "--model", "model")
    run("evaluate", "--run", "out", "--model", "model", "--data", "runs/corrupt/clean/0", "--out", "found", "--metrics",
        "metrics.json")  # fmt: skip
    found = artifacts.read_json(Path("metrics.json"))
    assert found["parts"]["universal_pos"]["overall"]["tag_accuracy"]["value"] > 0.9  # a word has one tag here
    assert found["overall"]["pearson"]["n"] == 64


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({"task": "worth"}, r"words\.tags: found task worth of kind regression\nexpected one of kind tagging"),
        (
            {"task": "few"},
            r"words\.tags: the task few has no class 'ADJ'\nexpected the classes of the task universal_pos",
        ),
        ({"task": "universal_pos", "labels": {"a": "NOUN"}}, "tags: expected neither `labels` nor `unlabelled`"),
    ],
)
def test_tags_that_do_not_fit_are_refused(tmp_path, monkeypatch, source, said):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "data/mine")
    made = values()
    made["tasks"]["few"] = {"kind": "tagging", "texts": ["text"], "classes": ["NOUN", "VERB"]}
    made["fetch"]["words"] = {"from": "file:data/mine", "tags": "textblob", **source}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(made))
    with pytest.raises(InputError, match=said):
        run("fetch", "--source", "words", "--out", "runs/fetch/words")
    assert not Path("runs/fetch/words").exists()
