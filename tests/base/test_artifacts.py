"""Artifact folders are whole or not there, and a damaged one is noticed."""

import json

import pyarrow as pa
import pytest

from gradworks.base import artifacts
from gradworks.base.errors import InputError


def tree(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def write(folder, text="a"):
    with artifacts.atomic_folder(folder) as new:
        (new / "x.txt").write_text(text)
        artifacts.write_manifest(new, "fetch", {"seed": 1})


def test_folder_appears_whole_and_replaces_the_old_one(tmp_path):
    write(tmp_path / "out", "first")
    (tmp_path / "out" / "stale.txt").write_text("left by hand")
    write(tmp_path / "out", "second")
    assert sorted(tree(tmp_path)) == ["out/manifest.json", "out/x.txt"]
    assert (tmp_path / "out" / "x.txt").read_text() == "second"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_failure_leaves_the_tree_as_it_was(tmp_path, error):
    write(tmp_path / "out")
    before = tree(tmp_path)
    with pytest.raises(error), artifacts.atomic_folder(tmp_path / "out") as new:
        (new / "half.txt").write_text("half")
        raise error
    with pytest.raises(error), artifacts.atomic_file(tmp_path / "file") as new:
        new.write_text("half")
        raise error
    assert tree(tmp_path) == before
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_what_a_killed_run_left_is_cleared(tmp_path):
    for name in (".out.abc", ".out.old"):
        (tmp_path / name).mkdir()
    write(tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_check_names_the_damaged_and_the_missing_file(tmp_path):
    write(tmp_path / "out")
    assert artifacts.check(tmp_path / "out")["parameters"] == {"seed": 1}
    (tmp_path / "out" / "x.txt").write_text("b")
    with pytest.raises(InputError, match=r"x\.txt: damaged"):
        artifacts.check(tmp_path / "out")
    (tmp_path / "out" / "x.txt").unlink()
    with pytest.raises(InputError, match=r"x\.txt: missing"):
        artifacts.check(tmp_path / "out")
    with pytest.raises(InputError, match="no such folder"):
        artifacts.check(tmp_path / "nowhere")


def test_same_table_same_bytes_and_missing_column_is_named(tmp_path):
    table = pa.table({"id": ["a", "b"], "label": [0.5, 1.0]})
    for name in "12":
        artifacts.write_parquet(tmp_path / name, table)
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()
    assert artifacts.read_parquet(tmp_path / "1", ["id"]).equals(table)
    with pytest.raises(InputError, match="no column 'premise'\nfound: id, label"):
        artifacts.read_parquet(tmp_path / "1", ["premise"])
    (tmp_path / "1").write_bytes(b"no parquet")
    with pytest.raises(InputError, match="not a readable Parquet file"):
        artifacts.read_parquet(tmp_path / "1")


def test_json_refuses_nan_and_names_a_broken_file(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        artifacts.write_json(tmp_path / "x.json", {"accuracy": float("nan")})
    assert not list(tmp_path.iterdir())
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(InputError, match=r"x\.json: not valid JSON"):
        artifacts.read_json(tmp_path / "x.json")
    artifacts.write_json(tmp_path / "x.json", {"b": 1, "a": "é"})
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": "é", "b": 1}
