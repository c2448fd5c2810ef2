"""A folder of pictures through every stage: fetched, unbalanced, trained, evaluated, reported; what is refused."""

import copy
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from gradworks import parameters
from gradworks.base import artifacts
from gradworks.base.errors import InputError
from tests.small import PROGRAMS, SMALL, run, run_all

CLASSES = ("cat", "dog")
PETS = {"kind": "image", "texts": ["image"], "classes": [*CLASSES], "shape": [12, 12, 3]}
COUNTS = {"train": 60, "validation": 40, "test": 30}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Pictures of 16 x 16: the left half of a cat's is bright, the right half of a dog's."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "components").symlink_to(PROGRAMS)
    shutil.copy(Path(__file__).parents[2] / "versions.json", tmp_path)
    draw = np.random.default_rng(0)
    for split, count in COUNTS.items():
        for place, name in enumerate(CLASSES):
            folder = tmp_path / "pictures" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = draw.integers(0, 120, (16, 16, 3), dtype=np.uint8)
                pixels[:, 8 * place : 8 * place + 8] += 100
                Image.fromarray(pixels).save(folder / f"{i:02}.png")
    values = copy.deepcopy(SMALL)
    values |= {"task": "pets", "tasks": {"pets": PETS}, "evaluate": {"by": ["label"]}}
    values["fetch"] = {"mine": {"from": "file:pictures", "bad_rows": 0.02}}
    values["corrupt"] = {
        "splits": {
            "train": {"from": "mine/train"},
            "clean": {"from": "mine/validation", "size": 8, "balanced": True},
            "selection": {"from": "mine/validation", "size": 40},
            "test": {"from": "mine/test", "balanced": True},
        },
        "conditions": {"few": {"imbalance": {"counts": {"cat": 12}}, "leak": {"count": 3}}},
    }
    values["pretrain"] = {
        "lenet": {"model": "lenet5", "channels": [4], "hidden": [8], "kernel": 3},
        "conv": {"model": "conv4", "channels": 4, "blocks": 2},
    }
    values["methods"] = {"erm": {}, "reweight": {"weighting": "reweight"}}
    values["train"] |= {"epochs": 12, "learning_rate": {"lenet5": 0.01, "conv4": 0.01}}
    values["report"] = {"title": "Pets", "primary": {"metric": "accuracy"}}
    block = {"condition": ["few"], "method": ["erm", "reweight"], "encoder": ["lenet", "conv"]}
    values["cells"] = {"seeds": [0], "grid": [block]}
    return values


def write(values):
    Path("params.yaml").write_text(yaml.safe_dump(values))
    return Path("params.yaml")


@pytest.mark.slow("a whole pipeline")
def test_from_pictures_to_the_report(project):
    broken = Path("pictures/train/cat/99.png")
    broken.write_bytes(Path("pictures/train/cat/00.png").read_bytes()[:80])
    params = write(project)
    results = run_all(params)
    manifest = artifacts.check(Path("runs/fetch/mine"))
    assert {split: (found["rows"], found["bad"]) for split, found in manifest["splits"].items()} == {
        "train": (120, 1), "validation": (80, 0), "test": (60, 0),
    }  # fmt: skip
    (bad,) = artifacts.read_json(Path("runs/fetch/mine/bad_rows.json"))["train"]["bad"]
    assert (bad["file"], bad["line"]) == ("pictures/train", 61) and bad["reason"].startswith("cat/99.png: ")
    drawn = artifacts.check(Path("runs/corrupt/few/0"))["splits"]
    assert drawn["train"]["labels"]["cat"] in range(12, 16) and drawn["clean"]["labels"] == {"cat": 4, "dog": 4}
    for method in ("erm", "reweight"):
        for encoder in ("lenet", "conv"):
            status = artifacts.read_json(Path(f"runs/train/few/{method}/{encoder}/0/status.json"))
            assert status["state"] == "ok", (method, encoder, status)
            found = artifacts.read_json(Path(f"runs/metrics/few/{method}/{encoder}/0.json"))
            assert found["overall"]["accuracy"]["value"] > 0.8, (method, encoder)
            assert found["without_leaked"]["leaked"] == 3 and set(found["by"]["label"]) == set(CLASSES)
    table = artifacts.read_parquet(Path("runs/evaluate/few/erm/lenet/0/predictions.parquet"))
    assert Counter(table["label"].to_pylist()) == {"cat": 30, "dog": 30} and "image" not in table.column_names
    assert len(results["cells"]) == 4
    assert "Pets" in Path("report/report.html").read_text()


def test_too_many_pictures_that_do_not_decode(project):
    for i in range(8):
        Path(f"pictures/test/dog/{i:02}.png").write_bytes(b"\x89PNG")
    write(project)
    with pytest.raises(InputError, match=r"pictures/test: line 31: dog/00.png: .*\n8 of 260 rows are bad, more than"):
        run("fetch", "--source", "mine", "--out", "runs/fetch/mine")


def test_an_encoder_of_texts_and_a_size_that_cannot_be_balanced(project):
    values = copy.deepcopy(project)
    values["pretrain"]["gru"] = SMALL["pretrain"]["gru"]
    said = r"pretrain.gru.model: found gru, which reads texts\nexpected one for pictures, which pets has"
    with pytest.raises(InputError, match=said):
        parameters.check(write(values))
    values = copy.deepcopy(SMALL)
    values["pretrain"]["lenet"] = project["pretrain"]["lenet"]
    said = r"pretrain.lenet.model: found lenet5, which reads pictures\nexpected one for texts, which nli has"
    with pytest.raises(InputError, match=said):
        parameters.check(write(values))
    values = copy.deepcopy(project)
    values["train"]["batch"] = {"tokens": 64}
    with pytest.raises(InputError, match=r"train.batch: found tokens\nexpected a number of examples"):
        parameters.check(write(values))
    write(project)
    run("fetch", "--source", "mine", "--out", "runs/fetch/mine")
    sizes = {9: "clean.size: found 9\nexpected a multiple of 2", 90: "has 80 examples for it, expected 90"}
    for size, said in sizes.items():
        project["corrupt"]["splits"]["clean"]["size"] = size
        write(project)
        with pytest.raises(InputError) as error:
            run("corrupt", "--condition", "few", "--seed", "0", "--data", "runs/fetch", "--out", "runs/corrupt/few/0")
        assert said in str(error.value)
