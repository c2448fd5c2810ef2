"""Reptile on Omniglot beside a plain script of supervised-reptile's algorithm: own network, own draws, same budget."""

import copy
import random
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import nn
from torch.nn import functional as F

from gradworks.base import artifacts
from tests.small import SMALL, run

pytestmark = [pytest.mark.slow("trains twice for a minute"), pytest.mark.timeout(1800)]
STEPS, TASKS, K, BATCH, WAYS, SHOTS = 120, 2, 5, 5, 5, 5
RATE, META = 0.1, 1.0
INNER, EPISODES = 10, 100


def characters(file):
    """(classes, 20, 1, 28, 28) from 0 to 1."""
    with np.load(file) as found:
        images = found["images"]
    small = [np.asarray(Image.fromarray(one).convert("L").resize((28, 28), Image.Resampling.BILINEAR))
             for one in images.reshape(-1, 105, 105)]  # fmt: skip
    return torch.from_numpy(np.stack(small)).view(-1, 20, 1, 28, 28).float() / 255


def network():
    layers, before = [], 1
    for _ in range(4):
        layers += [nn.Conv2d(before, 64, 3, 2, 1), nn.BatchNorm2d(64, track_running_stats=False), nn.ReLU()]
        before = 64
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(256, WAYS))


def episode(classes, each):
    chosen = random.sample(range(len(classes)), WAYS)
    return [(classes[c][i], place) for place, c in enumerate(chosen) for i in random.sample(range(20), each)]


def batches(examples, size):
    left = []
    while True:
        random.shuffle(examples)
        for one in examples:
            left.append(one)
            if len(left) == size:
                yield torch.stack([x for x, _ in left]), torch.tensor([y for _, y in left])
                left = []


def descend(model, examples, size, steps):
    for (x, y), _ in zip(batches(examples, size), range(steps), strict=False):
        gradient = torch.autograd.grad(F.cross_entropy(model(x), y), list(model.parameters()))
        with torch.no_grad():
            for p, g in zip(model.parameters(), gradient, strict=True):
                p -= RATE * g


def plain(data):
    """The share of queries right in each test episode."""
    torch.manual_seed(0)
    random.seed(0)
    background, evaluation = (characters(data / f"omniglot/images_{name}.npz") for name in ("background", "evaluation"))
    model = network()
    for step in range(STEPS):
        moved = []
        for _ in range(TASKS):
            learner = copy.deepcopy(model)
            descend(learner, episode(background, SHOTS), BATCH, K)
            moved.append([p.detach() for p in learner.parameters()])
        share = META * (1 - step / STEPS)
        with torch.no_grad():
            for p, *others in zip(model.parameters(), *moved, strict=True):
                p += share * (torch.stack(others).mean(0) - p)
    right = []
    for _ in range(EPISODES):
        drawn, learner = episode(evaluation, 2), copy.deepcopy(model)
        known, asked = drawn[::2], drawn[1::2]
        descend(learner, list(known), BATCH, INNER)
        with torch.no_grad():
            chosen = [int(learner(torch.stack([x for x, _ in [*known, one]]))[-1].argmax()) for one in asked]
        right.append(np.mean([a == y for a, (_, y) in zip(chosen, asked, strict=True)]))
    return np.array(right)


def library(data):
    """The score on the test split of the stages."""
    own = {"kind": "episodes", "texts": ["image"], "shape": [28, 28, 1], "ways": WAYS, "train_shots": SHOTS,
           "inner": {"learning_rate": RATE, "steps": INNER, "batch": BATCH}, "select": 5, "test": EPISODES}  # fmt: skip
    source = "omniglot/images_background"
    splits = {
        "train": {"from": source},
        "clean": {"from": source, "size": 964, "balanced": True},
        "selection": {"from": source, "size": 1928, "balanced": True},
        "test": {"from": "omniglot/images_evaluation"},
    }
    update = {"reptile": {"batches": K, "inner_lr": RATE, "tasks": "same", "groups": TASKS}}
    rows = 964 * 17
    values = copy.deepcopy(SMALL) | {
        "task": "five",
        "tasks": {"five": own},
        "fetch": {"omniglot": {"from": f"file:{data / 'omniglot'}"}},
        "corrupt": {"splits": splits, "conditions": {"plain": {}}},
        "pretrain": {"conv4": {"model": "conv4", "statistics": "batch"}},
        "methods": {"reptile": {"update": update}},
        "train": {
            "epochs": STEPS * K * TASKS * BATCH / rows, "batch": BATCH, "optimizer": "SGD", "weight_decay": 0.0,
            "warmup": 0.0, "clip": None, "learning_rate": META * RATE * K,
            "select": {"metric": "accuracy", "every": 1.0},
        },
        "evaluate": {},
    }  # fmt: skip
    Path("params.yaml").write_text(yaml.safe_dump(values))
    run("fetch", "--source", "omniglot", "--out", "runs/fetch/omniglot")
    run("corrupt", "--condition", "plain", "--seed", "0", "--data", "runs/fetch", "--out", "runs/corrupt/plain/0")
    run("pretrain", "--encoder", "conv4", "--data", "runs/fetch", "--out", "runs/pretrain/conv4")
    where = ("--data", "runs/corrupt/plain/0", "--model", "runs/m")
    run("train", "--method", "reptile", "--seed", "0", "--start", "runs/pretrain/conv4", "--out", "runs/t", *where)
    run("evaluate", "--run", "runs/t", "--out", "runs/e", "--metrics", "metrics.json", *where)
    assert artifacts.read_json(Path("metrics.json"))["steps"] == STEPS
    return artifacts.read_parquet(Path("runs/e/predictions.parquet"))["right"].to_numpy()


def test_reptile_learns_as_a_plain_script_does(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ours, theirs = library(data), plain(data)
    error = np.sqrt(ours.var(ddof=1) / len(ours) + theirs.var(ddof=1) / len(theirs))
    print(f"library {ours.mean():.3f}, script {theirs.mean():.3f}, standard error of the difference {error:.3f}")
    assert min(ours.mean(), theirs.mean()) > 0.3  # chance is 0.2
    assert abs(ours.mean() - theirs.mean()) < 1.96 * error + 0.06  # of seeds, by which both differ
