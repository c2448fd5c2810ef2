"""Files and folders that a params file names, and which of them are not there."""

import copy

import yaml

from gradworks.named_files import not_there
from tests.small import SMALL


def test_what_is_missing_is_named_by_its_key(tmp_path):
    made = copy.deepcopy(SMALL)
    made["fetch"]["mine"] = {"from": "file:data", "files": {"train": "a.csv", "test": "b.csv"}}
    made["pretrain"]["gru"] |= {"vectors": {"file": "vectors.txt"}}
    params = tmp_path / "params.yaml"
    params.write_text(yaml.safe_dump(made))
    assert not_there(params) == ["data, of fetch.mine", "vectors.txt, of pretrain.gru"]
    (tmp_path / "data").mkdir()
    (tmp_path / "data/a.csv").touch()
    (tmp_path / "vectors.txt").touch()
    assert not_there(params) == ["data/b.csv, of fetch.mine"]
