"""The soup stage on small models that were trained from one start: the mean of their weights, called by hand."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

from gradworks import models
from gradworks.base import artifacts
from gradworks.base.errors import InputError
from tests import runs_tree
from tests.components.test_evaluate import small_model
from tests.kinds import kind
from tests.small import run

CLASSES = kind("nli").classes


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """Models of seeds 0, 1 and 2, each the start plus noise of its own, and the data of these seeds."""
    monkeypatch.chdir(tmp_path)
    runs_tree.params(tmp_path)
    start, texts = small_model(tmp_path, runs_tree.test_split())
    for seed, size in enumerate((0.05, 0.05, 3.0)):
        folder = runs_tree.corrupt(tmp_path / "runs", "clean", seed)
        table = pq.read_table(folder / "test.parquet")
        with artifacts.atomic_folder(folder) as new:
            artifacts.write_parquet(new / "test.parquet", table)
            artifacts.write_parquet(new / "selection.parquet", table.slice(2 * seed, 60))
            artifacts.write_manifest(new, "corrupt", {"task": "nli"})
        rng = torch.Generator().manual_seed(seed)
        with artifacts.atomic_folder(tmp_path / f"runs/models/clean/erm/gru/{seed}") as new:
            models.save(start, new)
            state = load_file(new / "model.safetensors")
            save_file({k: v + size * torch.randn(v.shape, generator=rng) for k, v in state.items()},
                      new / "model.safetensors", metadata={"format": "pt"})  # fmt: skip
            artifacts.write_manifest(new, "train", {"task": "nli", "train": {"max_length": 16}})
    return tmp_path, start, texts


def call(rule, *seeds, encoders=("gru",)):
    run("soup", "--encoders", *encoders, "--seeds", *seeds, "--models", "runs/models/clean/erm", "--data",
        "runs/corrupt/clean", "--rule", rule, "--out", "out", "--metrics", "out.json")  # fmt: skip
    return artifacts.read_json(Path("out.json"))


def answers(tmp_path, start, texts, seeds):
    states = [load_file(tmp_path / f"runs/models/clean/erm/gru/{seed}/model.safetensors") for seed in seeds]
    start.load_state_dict({k: sum(one[k] for one in states) / len(states) for k in states[0]})
    with torch.no_grad():
        return start.eval()(start.collate(start.encode(texts, 16))).double().softmax(1).numpy()


def test_the_soup_answers_as_the_mean_of_the_weights(tree):
    found = call("uniform", 0, 1, 2, 7)
    expected = answers(*tree, (0, 1, 2))
    table = pq.read_table("out/predictions.parquet")
    made = np.column_stack([table[f"p_{name}"].to_numpy() for name in CLASSES])
    assert made == pytest.approx(expected, abs=1e-5)
    right = (expected.argmax(1) == kind("nli").indices(table["label"].to_numpy(zero_copy_only=False))).mean()
    assert found["rules"]["uniform soup"]["overall"]["accuracy"]["value"] == pytest.approx(right)
    assert found["left_out"] == {"gru/7": "missing"} and set(found["members"]) == {"gru/0", "gru/1", "gru/2"}
    assert "greedy" in found["rules"] and "adds" in found  # beside the mean of answers


def test_the_greedy_soup_is_chosen_on_selection_examples_that_all_members_have(tree):
    found = call("greedy", 0, 1, 2)["rules"]["greedy soup"]
    assert found["fitted"] == 56 == pq.read_table("out/selection.parquet").num_rows
    labels = kind("nli").indices(runs_tree.test_split()["label"].to_numpy(zero_copy_only=False))
    rows = slice(4, 60)

    def value(seeds):
        made = answers(*tree, seeds)[rows]
        return (made.argmax(1) == labels[rows]).mean(), np.log(made[np.arange(56), labels[rows]]).mean()

    kept = []
    for seed in sorted(range(3), key=lambda s: value([s]), reverse=True):
        if not kept or value([*kept, seed])[0] >= value(kept)[0]:
            kept.append(seed)
    assert found["kept"] == [f"gru/{seed}" for seed in kept]


def test_members_of_two_vocabularies_are_refused_and_nothing_is_written(tree):
    tmp_path, *_ = tree
    other = tmp_path / "runs/models/clean/erm/cased/0"
    with artifacts.atomic_folder(other) as new:
        for file in (tmp_path / "runs/models/clean/erm/gru/0").iterdir():
            (new / file.name).write_bytes(file.read_bytes())
        text = (new / "tokenizer.json").read_text().replace('"judge"', '"Judge"')
        (new / "tokenizer.json").write_text(text + " ")
        artifacts.write_manifest(new, "train", {"task": "nli", "train": {"max_length": 16}})
    with pytest.raises(InputError, match=r"cased/0: another vocabulary than runs/models/clean/erm/gru/0"):
        call("uniform", 0, encoders=("gru", "cased"))
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="no model of gru with such a seed"):
        call("uniform", 9)
