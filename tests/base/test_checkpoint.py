"""Checkpoints: the same tree comes back, whole or not at all, and only to the run that it belongs to."""

import math
import os
import signal
import subprocess
import sys
import time
from collections import OrderedDict

import numpy as np
import pytest
import torch

from gradworks.base import artifacts
from gradworks.base.checkpoint import Checkpoint, key

TREE = {
    "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}, "groups": [{"betas": (0.9, 0.999), "params": [0, 1]}]},
    "history": [{"step": 1, "loss": 0.1 + 0.2, "best": None, "ok": True}, {"loss": math.inf}],
    "transposed": torch.arange(6).reshape(2, 3).T,
    "half": torch.tensor([1.5], dtype=torch.bfloat16),
    "mask": torch.tensor([True, False]),
    "none": torch.empty(0, 3),
}  # fmt: skip


def same(a, b):
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return type(b) is dict and list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


def test_the_tree_comes_back(tmp_path):
    saved = Checkpoint("k", tmp_path)
    assert saved.load() is None
    saved.save(TREE)
    assert same(Checkpoint("k", tmp_path).load(), TREE)
    assert Checkpoint("other", tmp_path).load() is None


def test_tensors_that_share_memory_come_back_and_a_view_is_saved_alone(tmp_path):
    weight, saved = torch.arange(100_000.0), Checkpoint("k", tmp_path)
    saved.save({"a": weight, "b": weight, "part": weight[1:3]})
    assert same(saved.load(), {"a": weight, "b": weight, "part": weight[1:3]})
    saved.save({"part": weight[1:3]})
    assert same(saved.load(), {"part": weight[1:3]}) and saved.path.stat().st_size < 10_000


def test_what_is_a_kind_of_a_plain_type_becomes_it(tmp_path):
    layer, saved = torch.nn.Linear(2, 1), Checkpoint("k", tmp_path)
    saved.save({"parameters": OrderedDict(w=layer.weight), "size": layer.weight.shape, "x": np.float64(0.5)})
    assert same(saved.load(), {"parameters": {"w": layer.weight.detach()}, "size": (1, 2), "x": 0.5})
    assert not saved.load()["parameters"]["w"].requires_grad


def test_nothing_is_unpickled(tmp_path, capsys):
    saved, made = Checkpoint("k", tmp_path), tmp_path / "made"
    saved.path.parent.mkdir()

    class Harm:
        def __reduce__(self):
            return os.mkdir, (str(made),)

    torch.save({"step": Harm()}, saved.path)
    assert saved.load() is None and not made.exists()
    assert "damaged" in capsys.readouterr().err


def test_an_optimizer_goes_on_exactly(tmp_path):
    def make():
        torch.manual_seed(0)
        layer = torch.nn.Linear(3, 2)
        return layer, torch.optim.AdamW(layer.parameters(), lr=0.1)

    def step(layer, optimizer):
        layer(torch.ones(1, 3)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    layer, optimizer = make()
    for _ in range(3):
        step(layer, optimizer)
    Checkpoint("k", tmp_path).save({"model": layer.state_dict(), "optimizer": optimizer.state_dict()})
    step(layer, optimizer)
    again, other = make()
    loaded = Checkpoint("k", tmp_path).load()
    again.load_state_dict(loaded["model"])
    other.load_state_dict(loaded["optimizer"])
    step(again, other)
    assert torch.equal(layer.weight, again.weight)


def test_what_cannot_be_saved_is_named(tmp_path):
    with pytest.raises(TypeError, match=r"tree\['a'\]\[1\]: found set"):
        Checkpoint("k", tmp_path).save({"a": [1, {2}]})
    with pytest.raises(TypeError, match=r"tree: key 1\.5"):
        Checkpoint("k", tmp_path).save({1.5: 1})
    assert not list(tmp_path.rglob("*.pt"))


def test_no_flipped_bit_gives_another_tree(tmp_path):
    saved = Checkpoint("k", tmp_path)
    saved.save({"w": torch.arange(6.0), "n": [1, "two"]})
    data = saved.path.read_bytes()
    refused = 0
    for at in range(len(data)):
        saved.path.write_bytes(data[:at] + bytes([data[at] ^ (1 << at % 8)]) + data[at + 1 :])
        loaded = saved.load()
        refused += loaded is None
        assert loaded is None or same(loaded, {"w": torch.arange(6.0), "n": [1, "two"]}), at
    assert refused > 100  # the rest is padding and dates


@pytest.mark.parametrize("damage", ["cut", "flip", "garbage"])
def test_a_damaged_one_is_ignored_with_a_line(tmp_path, capsys, damage):
    saved = Checkpoint("k", tmp_path)
    saved.save({**TREE, "w": torch.arange(6.0)})
    data = bytearray(saved.path.read_bytes())
    if damage == "flip":
        data[data.index(torch.arange(6.0).numpy().tobytes())] ^= 1
    saved.path.write_bytes({"cut": data[:-5], "flip": data, "garbage": b"not a checkpoint"}[damage])
    assert saved.load() is None
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and str(saved.path) in said


def test_a_failed_save_keeps_the_one_before(tmp_path, monkeypatch):
    saved = Checkpoint("k", tmp_path)
    saved.save({"step": 1})

    def broken(tree, path):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", broken)
    with pytest.raises(OSError, match="disk full"):
        saved.save({"step": 2})
    assert saved.load() == {"step": 1}


def test_remove_leaves_nothing(tmp_path):
    saved, other = Checkpoint("k", tmp_path), Checkpoint("other", tmp_path)
    saved.save(TREE)
    other.save({"step": 1})
    saved.remove()
    saved.remove()
    assert [p.name for p in tmp_path.iterdir()] == ["other"]


def test_a_kill_in_the_middle_of_saving_leaves_a_whole_one(tmp_path):
    program = (
        "import sys, torch; from pathlib import Path; from gradworks.base.checkpoint import Checkpoint\n"
        "saved = Checkpoint('k', Path(sys.argv[1]))\n"
        "for n in range(10**6): saved.save({'n': n, 'tensor': torch.full((300_000,), float(n))}); print(n, flush=True)"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    for _ in range(3):
        process.stdout.readline()
    time.sleep(0.017)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    tree = Checkpoint("k", tmp_path).load()
    assert tree["n"] >= 2 and (tree["tensor"] == tree["n"]).all()
    assert [p.name for p in (tmp_path / "k").iterdir()] == ["state.pt"]  # load clears what a kill left


def test_the_key_changes_with_everything_that_counts(tmp_path, monkeypatch):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.txt").write_text("1")
    artifacts.write_manifest(folder, "fetch", {})
    base = key("train", [folder], {"rate": 1})
    assert key("train", [folder], {"rate": 1}) == base
    assert len({base, key("pretrain", [folder], {"rate": 1}), key("train", [folder], {"rate": 2}),
                key("train", [], {"rate": 1})}) == 4  # fmt: skip
    (folder / "a.txt").write_text("2")
    artifacts.write_manifest(folder, "fetch", {})
    other = key("train", [folder], {"rate": 1})
    assert other != base
    (folder / "manifest.json").unlink()
    assert key("train", [folder], {"rate": 1}) not in (base, other)
    monkeypatch.setattr("gradworks.base.checkpoint._version", lambda name: "0")
    artifacts.write_manifest(folder, "fetch", {})
    assert key("train", [folder], {"rate": 1}) != other


def test_the_key_changes_with_the_source(tmp_path, monkeypatch):
    for part in ("gradworks", "components"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "code.py").write_text("a = 1")
    monkeypatch.setattr("gradworks.base.checkpoint.__file__", str(tmp_path / "gradworks/base/checkpoint.py"))
    seen = {key("train", [], {})}
    for part in ("gradworks", "components"):
        (tmp_path / part / "code.py").write_text("a = 2")
        seen.add(key("train", [], {}))
    assert len(seen) == 3
