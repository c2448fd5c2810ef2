"""`--set KEY=VALUE`: what the run's params.yaml and cells.yaml become, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from gradworks.base import cells, read_yaml
from gradworks.base.errors import InputError
from gradworks.cluster import sets

ROOT = Path(__file__).parent.parent.parent
TEXT = """\
# what this is
train:
  epochs: 3  # of all examples
  lr: 1e-3
  text: "1e-3"
answer: "yes"  # a text, which is none without its quotes
grid:
  - {seed: [0, 1], name: a}
  - {seed: [2]}
"""


@pytest.fixture
def params(tmp_path) -> Path:
    (tmp_path / "params.yaml").write_text(TEXT)
    return tmp_path / "params.yaml"


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        ("train.epochs=1", {"train": {"epochs": 1, "lr": 0.001, "text": "1e-3"}}),
        ("train.lr=2e-4", {"train": {"epochs": 3, "lr": 0.0002, "text": "1e-3"}}),
        ("train.text=a=b", {"train": {"epochs": 3, "lr": 0.001, "text": "a=b"}}),
        ("train.text=", {"train": {"epochs": 3, "lr": 0.001, "text": None}}),
        ("train={epochs: [1, 2]}", {"train": {"epochs": [1, 2]}}),
        ("grid.0.seed=[5]", {"grid": [{"seed": [5], "name": "a"}, {"seed": [2]}]}),
        ("grid.1={seed: [7]}", {"grid": [{"seed": [0, 1], "name": "a"}, {"seed": [7]}]}),
    ],
)
def test_one_value_changes_and_nothing_else(params, one, expected):
    (params.parent / "new.yaml").write_text(sets.changed(params, [one]))
    assert read_yaml(params.parent / "new.yaml") == read_yaml(params) | expected
    assert "# what this is" in (params.parent / "new.yaml").read_text() and params.read_text() == TEXT


@pytest.mark.parametrize(
    ("one", "said"),
    [
        ("train.epoch=1", "has no key 'train.epoch'\nfound: epochs, lr, text$"),
        ("trains=1", "has no key 'trains'\nfound: train, answer, grid$"),
        ("train.epochs.more=1", "has no key 'train.epochs.more'\ntrain.epochs is 3$"),
        ("grid.2.seed=1", "has no key 'grid.2'\nfound: 0, 1$"),
        ("train.epochs", "^--set train.epochs: expected KEY=VALUE"),
        ("=1", "expected KEY=VALUE"),
        ("train.epochs=[1", r"^--set train.epochs=\[1: the value is no YAML"),
    ],
)
def test_what_is_refused(params, one, said):
    with pytest.raises(InputError, match=said) as raised:
        sets.changed(params, [one])
    assert len(str(raised.value).splitlines()) <= 3


@pytest.mark.parametrize("folder", [".", "pipelines/sst5"])
def test_cells_follow_as_if_the_file_had_been_edited(tmp_path, folder):
    for name in ("params.yaml", "cells.yaml", "versions.json"):
        if (ROOT / folder / name).exists():
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / folder / name, tmp_path / folder / name)
    (tmp_path / "components").mkdir()
    found = sets.replaced(tmp_path, tmp_path / folder / "dvc.yaml", ["cells.seeds=[7]"])
    paths = [(Path(folder) / name).as_posix() for name in ("params.yaml", "cells.yaml", "dvc.yaml")]
    assert list(found) == paths
    (tmp_path / paths[0]).write_bytes(found[paths[0]])
    assert cells.text(tmp_path / paths[0]).encode() == found[paths[1]] != (ROOT / paths[1]).read_bytes()
    assert cells.definition(tmp_path / paths[0]).encode() == found[paths[2]]
    assert yaml.safe_load(found[paths[1]])["root"] == ("." if folder == "." else "../..")


def test_cells_look_for_files_where_the_checkout_has_them(tmp_path):
    """An encoder that starts from a folder of the checkout depends on that folder."""
    folder = tmp_path / "pipelines/one"
    folder.mkdir(parents=True)
    (tmp_path / "models/mine").mkdir(parents=True)
    (tmp_path / "components").mkdir()
    values = yaml.safe_load((ROOT / "pipelines/sst5/params.yaml").read_text())
    name = next(iter(values["pretrain"]))
    (folder / "params.yaml").write_text(yaml.safe_dump(values))
    (folder / "cells.yaml").write_text("")
    found = sets.replaced(tmp_path, folder / "dvc.yaml", [f"pretrain.{name}={{model: transformer, from: models/mine}}"])
    written = yaml.safe_load(found["pipelines/one/cells.yaml"])
    assert written["each"]["pretrain"][name]["from"] == "models/mine"


def test_cells_that_are_impossible_are_said_of_the_checkouts_file(tmp_path):
    for name in ("params.yaml", "cells.yaml"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    with pytest.raises(
        InputError, match=f"^{tmp_path / 'params.yaml'} with what is set: cells.grid.0.method: found 'x'"
    ):
        sets.replaced(tmp_path, tmp_path / "dvc.yaml", ["cells.grid.0.method=[x]"])


def test_without_cells_and_without_sets(params):
    assert list(sets.replaced(params.parent, params.with_name("dvc.yaml"), ["train.epochs=1"])) == ["params.yaml"]
    assert sets.replaced(params.parent, params.with_name("dvc.yaml"), []) == {}
