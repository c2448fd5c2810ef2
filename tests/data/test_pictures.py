"""Pictures: idx, npz and folders are read as they were written, what is damaged is named; memory."""

import gzip
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from gradworks.base import artifacts
from gradworks.base.errors import InputError
from gradworks.data import files, layouts, pictures, records
from tests.kinds import kind

IMAGES = np.arange(3 * 28 * 28, dtype=np.uint32).reshape(3, 28, 28).astype(np.uint8)
LABELS = np.array([4, 9, 9], np.uint8)
ROOT = Path(__file__).parents[2]


def idx(array):
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def mnist(folder, images=None, labels=None, suffix=".gz"):
    folder.mkdir(exist_ok=True)
    pack = gzip.compress if suffix else bytes
    (folder / f"train-images-idx3-ubyte{suffix}").write_bytes(pack(images or idx(IMAGES)))
    (folder / f"train-labels-idx1-ubyte{suffix}").write_bytes(pack(labels or idx(LABELS)))
    return folder


def read(folder, task="mnist", files_=None):
    made = kind(task)
    found = files.splits_of(folder, files_, "f", made.reads)
    return files.read(made, found, "s", folder, "data", chosen=bool(files_))[0]


def picture(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)


@pytest.mark.parametrize("suffix", [".gz", ""])
def test_idx_files(tmp_path, suffix):
    (split,) = (found := read(mnist(tmp_path, suffix=suffix))).values()
    assert list(found) == ["train"]
    assert [one["label"] for one in split.records] == ["4", "9", "9"]
    assert [one["id"] for one in split.records] == ["s/train-1", "s/train-2", "s/train-3"]
    assert all(np.array_equal(one["image"][..., 0], IMAGES[i]) for i, one in enumerate(split.records))
    assert not split.bad and not split.values  # digits are names of classes, not indices


DAMAGED = {
    "header": (b"\0\0\x0d\x03" + idx(IMAGES)[4:], None, "no idx file of 3 dimensions: begins with 00 00 0d 03"),
    "short": (idx(IMAGES)[:-1], None, "found fewer bytes\nexpected 2352 of [3, 28, 28]"),
    "long": (idx(IMAGES) + b"\0", None, "found more bytes"),
    "labels": (None, idx(LABELS[:2]), "found 2 labels\nexpected 3, one for each of train-images"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_idx_files(name, tmp_path):
    images, labels, said = DAMAGED[name]
    with pytest.raises(InputError) as error:
        read(mnist(tmp_path, images, labels))
    assert said in str(error.value) and str(tmp_path) not in str(error.value)


def test_a_truncated_archive_and_missing_labels(tmp_path):
    file = mnist(tmp_path) / "train-images-idx3-ubyte.gz"
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(InputError, match=r"train-images-idx3-ubyte.gz: damaged"):
        read(tmp_path)
    (mnist(tmp_path) / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(InputError, match=r"train-labels-idx1-ubyte.gz: no such file"):
        read(tmp_path)


def test_npz_of_classes_by_pictures_of_bits(tmp_path):
    images = np.zeros((2, 3, 28, 28), bool)
    images[1, :, 3] = True
    np.savez_compressed(tmp_path / "background.npz", images=images, labels=np.array([[4] * 3, [9] * 3]))
    (split,) = read(tmp_path).values()
    assert [one["label"] for one in split.records] == ["4"] * 3 + ["9"] * 3
    assert split.records[0]["image"].max() == 0 and set(split.records[5]["image"][3].ravel()) == {255}


def test_npz_that_is_something_else(tmp_path):
    file = tmp_path / "a.npz"
    for arrays, said in (
        ({"x": IMAGES}, "no array 'images'"),
        ({"images": IMAGES.astype(float), "labels": LABELS}, "images (3, 28, 28) of float64"),
        ({"images": IMAGES, "labels": LABELS[:2]}, "expected a label for each"),
        ({"images": np.array([{}, {}], dtype=object), "labels": LABELS}, "not a readable .npz"),  # a pickle
    ):
        np.savez(file, **arrays)
        with pytest.raises(InputError) as error:
            read(tmp_path)
        assert said in str(error.value), arrays
    file.write_bytes(b"PK\3\4 no archive")
    with pytest.raises(InputError, match=r"not a readable .npz"):
        read(tmp_path)


def test_a_folder_of_pictures_for_each_class(tmp_path):
    picture(tmp_path / "4/b.png", IMAGES[0])
    picture(tmp_path / "4/a.png", np.stack([IMAGES[1]] * 3, -1))  # colours become grey
    picture(tmp_path / "9/c.bmp", np.kron(IMAGES[2], np.ones((2, 2), np.uint8)))  # twice the size
    (tmp_path / "9/broken.png").write_bytes((tmp_path / "4/b.png").read_bytes()[:60])
    (tmp_path / "9/notes.txt").write_text("no picture")
    picture(tmp_path / "9/deep.png", np.arange(784, dtype=np.uint16).reshape(28, 28))
    (tmp_path / "9/.hidden.png").write_text("")
    (split,) = (found := read(tmp_path)).values()
    assert list(found) == ["all"]
    assert [(one["id"], one["label"]) for one in split.records] == [
        ("s/all-4/a.png", "4"), ("s/all-4/b.png", "4"), ("s/all-9/c.bmp", "9"),
    ]  # fmt: skip
    assert np.array_equal(split.records[0]["image"][..., 0], IMAGES[1])
    assert split.records[2]["image"].shape == (28, 28, 1)
    assert [one["line"] for one in split.bad] == [3, 5, 6]
    reasons = [one["reason"] for one in split.bad]
    assert reasons[0].startswith("9/broken.png: ") and "truncated" in reasons[0].lower()
    assert "9/deep.png: found pixels of mode I;16" in reasons[1] and reasons[2].startswith("9/notes.txt: no picture")
    assert not any(str(tmp_path) in one for one in reasons)


def test_splits_of_folders_and_a_class_that_the_task_lacks(tmp_path):
    for split in ("train", "test"):
        picture(tmp_path / split / "4/a.png", IMAGES[0])
        picture(tmp_path / split / "9/a.png", IMAGES[1])
    assert list(read(tmp_path)) == ["test", "train"]
    assert len(read(tmp_path / "train")["all"].records) == 2
    assert list(read(tmp_path, files_={"mine": "train"})) == ["mine"]
    picture(tmp_path / "train/seven/a.png", IMAGES[1])
    bad = read(tmp_path)["train"].bad
    assert len(bad) == 1 and "found label 'seven', expected one of: 0, 1" in bad[0]["reason"]
    with pytest.raises(InputError, match=r"no data file\nexpected X-images-idx3-ubyte.gz, X.npz"):
        read(tmp_path / "train/seven")


def test_parquet_as_the_hub_has_it(tmp_path):
    picture(tmp_path / "a.png", IMAGES[0])
    rows = [{"image": {"bytes": (tmp_path / "a.png").read_bytes(), "path": "a.png"}, "label": 4},
            {"image": {"bytes": b"GIF89a", "path": "b.gif"}, "label": 4}]  # fmt: skip
    (tmp_path / "hub").mkdir()
    artifacts.write_parquet(tmp_path / "hub/train.parquet", pa.Table.from_pylist(rows))
    split = read(tmp_path / "hub")["train"]
    assert np.array_equal(split.records[0]["image"][..., 0], IMAGES[0]) and split.records[0]["label"] == "4"
    assert [one["line"] for one in split.bad] == [2] and "b.gif" in split.bad[0]["reason"]


def test_a_file_of_parts_is_the_same_table(tmp_path, monkeypatch):
    made = kind("mnist")
    rows = [{"id": str(i), "image": one[..., None], "label": "4"} for i, one in enumerate(IMAGES)]
    artifacts.write_parquet(tmp_path / "whole.parquet", records.to_tables(made, rows))
    made.rows_at_once = 2
    assert len(list(records.to_tables(made, rows))) == 2
    artifacts.write_parquet(tmp_path / "parts.parquet", records.to_tables(made, rows))
    whole, parts = (artifacts.read_parquet(tmp_path / f"{name}.parquet") for name in ("whole", "parts"))
    assert whole.equals(parts.combine_chunks()) and whole.num_rows == 3


PROGRAM = """
import re, resource, sys
import numpy as np, pyarrow as pa, pyarrow.parquet as pq
from pathlib import Path
from gradworks.base import artifacts
from gradworks.data import files, pictures, records
from gradworks.tasks import TaskSpec, kind
import gradworks.models.lenet5

made = kind(TaskSpec("t", "image", ("image",), ("0", "1"), ("accuracy",), options={"shape": (128, 128, 1)}))
folder = Path(sys.argv[2])


def peak():  # bytes; Linux hands ru_maxrss on to what a process starts
    status = Path("/proc/self/status")
    if status.exists():
        return int(re.search(r"VmHWM:\\s+(\\d+) kB", status.read_text())[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


artifacts.write_parquet(folder / "small.parquet", pa.table({"a": ["b"]}))
artifacts.read_parquet(folder / "small.parquet")
before = peak()
if sys.argv[1] == "fetch":
    read = files.read(made, files.splits_of(folder, None, "f", "pictures"), "s", folder, "f")[0]
    artifacts.write_parquet(folder / "train.parquet", records.to_tables(made, read["train"].records))
else:
    class Model:
        shape = (128, 128, 1)
    table = artifacts.read_parquet(folder / "train.parquet")
    found, labels = made.encode(table, Model, 0, "f")
    assert len(found) == len(labels) and int(found[len(found) - 1]["pixels"].sum())
print(peak() - before)
"""


@pytest.mark.slow("memory of processes")
def test_loading_takes_one_and_a_half_times_the_pictures_at_most(tmp_path):
    count = 12_000
    drawn = np.random.default_rng(0).integers(0, 64, (count, 128, 128), dtype=np.uint8)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(drawn))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(np.arange(count, dtype=np.uint8) % 2))
    size = drawn.nbytes
    del drawn
    for step in ("fetch", "load"):
        command = [sys.executable, "-c", PROGRAM, step, str(tmp_path)]
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}
        )
        assert not done.returncode, done.stderr
        assert size <= int(done.stdout) <= 1.5 * size, f"{step}: {int(done.stdout) / size:.2f} times the pictures"


def test_the_layout_is_found_by_name(tmp_path):
    assert layouts.detect(tmp_path) == "folder"
    assert layouts.detect(mnist(tmp_path) / "train-images-idx3-ubyte.gz") == "idx"
    assert pictures.layout_of(tmp_path / "train-labels-idx1-ubyte.gz") is None


def test_mnist_itself(data):
    found = read(data / "mnist")
    assert {name: len(split.records) for name, split in found.items()} == kind("mnist").spec.sizes
    counts = kind("mnist").count([one["label"] for one in found["t10k"].records])
    assert (counts["4"], counts["9"]) == (982, 1009)
    assert max(counts.values()) / 10_000 == kind("mnist").spec.majority["accuracy"]
