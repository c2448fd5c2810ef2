"""What lies in the store may be anything: it ends in words, steers no terminal, and leads nowhere else."""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import subprocess
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gradworks.base.errors import InputError
from gradworks.cluster import artifacts as verbs
from gradworks.store.artifacts import diff, fast_yaml, lock, previews, store, words
from gradworks.store.places import Places
from tests.cluster import toy

pytestmark = pytest.mark.slow("an S3 server")

ROOT = Path(__file__).parents[2]
YAML = b"""
a: &x [1, {b: 2.5}]
c: *x
d: 0x10
e: ~
f: 2020-01-01
'1': "2"
h: !!str 5
i: &y z
j: *y
k: no
l: [[], {}]
"""
EVIL = "\x1b]0;title\x07\x9b31m\u202eexe.txt"


def md5_of(body):
    return hashlib.md5(body, usedforsecurity=False).hexdigest()


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with toy.served(tmp_path_factory.mktemp("untrusted")):
        yield Places(toy.REMOTE)


@pytest.fixture
def put(served, tmp_path, monkeypatch):
    """A function that puts outputs into the store, a lock of them into the current folder; a list is a .dir object."""
    monkeypatch.chdir(tmp_path)
    subprocess.run(["git", "init", "-q"], check=True)
    Path(".dvc").mkdir()
    Path(".dvc/config").write_text(f"[core]\n    remote = store\n['remote \"store\"']\n    url = {toy.REMOTE}\n")
    Path("dvc.yaml").write_text("stages: {}\n")

    def put_all(**outs):
        entries = {}
        for stage, (path, content) in outs.items():
            body = json.dumps(content).encode() if isinstance(content, list) else content
            md5 = md5_of(body) + (".dir" if isinstance(content, list) else "")
            served.put(served.data_key(md5), body)
            entries[stage] = {"cmd": "x", "outs": [{"path": path, "hash": "md5", "md5": md5, "size": len(body)}]}
        Path("dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": entries}))

    return put_all


def run(*args):
    parser = argparse.ArgumentParser()
    verbs.add(parser.add_subparsers(dest="verb"))
    verbs.run(parser.parse_args(["artifacts", *args]))


MD5 = md5_of(b"x")


@pytest.mark.parametrize(
    "listed",
    [
        [{"relpath": "../../.ssh/authorized_keys", "md5": MD5}],
        [{"relpath": "/etc/passwd", "md5": MD5}],
        [{"relpath": "a/../../b", "md5": MD5}],
        [{"relpath": "..\\b", "md5": MD5}],
        [{"relpath": "", "md5": MD5}],
        [{"relpath": 3, "md5": MD5}],
        [{"relpath": "a", "md5": "../../../gradworks/code/x"}],
        [{"relpath": "a", "md5": MD5 + ".dir"}],
        [{"relpath": "a"}],
        [["a", MD5]],
        [None],
    ],
)
def test_a_list_of_files_that_leads_elsewhere_is_refused(put, capsys, listed):
    put(one=("out", listed))
    run("ls", "--files", "--json")
    (row,) = json.loads(capsys.readouterr().out)["artifacts"]
    assert row["path"] == "out" and row["state"] == "damaged"
    for act in (["show", "out"], ["cat", "out/a"], ["url", "out/a"]):
        with pytest.raises(store.Fault, match="damaged"):
            run(*act)
    with pytest.raises(SystemExit):
        run("verify")
    assert "damaged: one: out\n" in capsys.readouterr().out


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 100_000, b"\xff\xfe", b"{}", b"7", b'[{"md5": 1}]'])
def test_a_damaged_list_of_files_ends_in_words(put, served, capsys, body):
    put(one=("out", [{"relpath": "a", "md5": MD5}]), two=("fine", b"fine"))
    (md5,) = (one.md5 for one in lock.work_tree(Path("dvc.yaml")).outs() if one.folder)
    served.put(served.data_key(md5), body)
    run("ls", "--files", "--json")
    assert [one["state"] for one in json.loads(capsys.readouterr().out)["artifacts"]] == ["damaged", "ok"]
    with pytest.raises(store.Fault, match="damaged"):
        run("show", "out")
    with pytest.raises(SystemExit):
        run("verify")
    assert "damaged: one: out\n" in capsys.readouterr().out


def test_no_name_and_no_text_steers_the_terminal(put, served, capsys):
    served.put(served.data_key(MD5), b"x")
    put(**{f"st{EVIL}": (f"p{EVIL}", [{"relpath": f"f{EVIL}", "md5": MD5}]), "text": ("text.txt", EVIL.encode()),
           "json": ("x.json", json.dumps({EVIL: EVIL}).encode())})  # fmt: skip
    served.delete([served.data_key(MD5)])
    for act in (["ls"], ["ls", "--files", "--parameters"], ["show", f"p{EVIL}"], ["show", "text.txt"],
                ["show", "x.json"]):  # fmt: skip
        run(*act)
    with pytest.raises(SystemExit):
        run("verify")
    shown = capsys.readouterr().out
    assert not [c for c in shown if not c.isprintable() and c != "\n"]
    assert shown.count("\\x1b]0;title\\x07\\x9b31m\\u202eexe.txt") >= 9
    for act in (["show", EVIL], ["ls", f"--rev={EVIL}"], ["prune", f"--older-than={EVIL}"], ["diff", EVIL]):
        with pytest.raises(InputError) as error:
            run(*act)
        assert all(c.isprintable() or c == "\n" for c in str(error.value))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("stages: [", "line 2: not valid YAML"),
        ("[]", "found no mapping of stages"),
        ("stages: {a: 3}", "found no mapping of stages"),
        ("stages: {a: {outs: [x]}}", "a: outs: found x"),
        ("stages: {a: {outs: [{path: x, md5: ../../y}]}}", "expected a path and the md5"),
        ("stages: {a: {outs: [{path: [x], md5: " + MD5 + "}]}}", "expected a path and the md5"),
        ("stages: !!python/object/apply:os.system [touch planted]", "no mapping of stages"),
        ("stages: {a: !!python/name:os.system x}", "line 1: not valid YAML"),
        ("stages: {a: !!timestamp x}", "not valid YAML"),
        ("stages: {[a]: {}}", "not valid YAML"),
        ("stages: *a", "not valid YAML"),
        ("stages: {a: {}, a: {}}", "line 1: not valid YAML: duplicate key"),
        ("[" * 50_000, "not valid YAML"),
    ],
)
def test_a_lock_that_is_none_is_named(put, text, said):
    Path("dvc.lock").write_text(text)
    with pytest.raises(InputError) as error:
        run("ls")
    assert str(error.value).startswith("dvc.lock: ") and said in str(error.value)
    assert not Path("planted").exists()


@pytest.mark.parametrize("name", ["dvc.lock", None])
def test_yaml_is_what_pyyaml_reads(name):
    body = (ROOT / name).read_bytes() if name else YAML
    assert fast_yaml.load(body) == yaml.safe_load(body)


def test_nothing_to_verify_is_no_proof(put):
    put()
    with pytest.raises(InputError, match=r"dvc.lock: no outputs to verify"):
        run("verify")


def files():
    table = io.BytesIO()
    pq.write_table(pa.table({"id": [f"{i}" for i in range(9)], "score": np.arange(9) / 0.7}), table)
    tensors = safetensors.numpy.save({"w": np.zeros((2, 3), "float32"), "b": np.zeros(4, "float16")})
    return {"t.parquet": table.getvalue(), "m.safetensors": tensors, "r.json": b'{"a": [1, NaN]}', "c.md": b"# card\n"}


@pytest.mark.parametrize("small", [store.SMALL, 0])  # 0: every one is read by ranges
def test_previews(put, served, capsys, monkeypatch, small):
    monkeypatch.setattr(store, "SMALL", small)
    monkeypatch.setattr(store, "_PART", 64)
    put(**{name: (name, body) for name, body in files().items()})
    run("show", "t.parquet")
    text = capsys.readouterr().out
    assert "Parquet, 9 rows" in text and "score   double" in text and "row 4" in text and "row 5" not in text
    run("show", "m.safetensors", "--json")
    preview = json.loads(capsys.readouterr().out)["preview"]
    assert preview["parameters"] == 10
    assert {t["name"]: (t["dtype"], t["shape"]) for t in preview["tensors"]} == {
        "w": ("F32", [2, 3]),
        "b": ("F16", [4]),
    }
    run("show", "r.json", "--json")
    assert json.loads(capsys.readouterr().out)["preview"]["value"] == {"a": [1, None]}
    run("show", "c.md", "--lines", "1")
    assert capsys.readouterr().out.endswith("# card\n")


def test_a_folder_shows_what_tells_of_it(put, served, capsys):
    made = {"manifest.json": b'{"stage": "train", "rows": 7}', "README.md": b"# a card", "broken.json": b"{"}
    put(**{name: (name, body) for name, body in made.items()})
    served.put(served.data_key(md5_of(b"[")), b"[")
    put(model=("model", [{"relpath": name, "md5": md5_of(body)}
                         for name, body in (made | {"config.json": b"["}).items()]))  # fmt: skip
    run("show", "model")
    text = capsys.readouterr().out
    assert (
        '"rows": 7' in text and "# a card" in text and "config.json: not valid JSON" in text and "broken.json" in text
    )


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_bytes_are_shown_or_refused_in_words(data):
    name, good = data.draw(st.sampled_from(sorted(files().items())))
    body = bytearray(good)
    for at in data.draw(st.lists(st.integers(0, len(body) - 1), max_size=8)):
        body[at] = data.draw(st.integers(0, 255))
    body = bytes(body[: data.draw(st.integers(0, len(body)))]) + data.draw(st.binary(max_size=20))
    try:
        shown = previews.shown(previews.read(name, io.BytesIO(body)), 20)
    except InputError as error:
        shown = str(error)
    assert all(c.isprintable() or c in "\n\t" or words.plain(c) == c for c in shown) and len(shown.split("\n")) <= 22


def test_times_and_sizes():
    assert [words.duration(text, "--x") for text in ("30s", "15m", "1h", "90d")] == [30, 900, 3600, 90 * 86400]
    assert [words.size(n) for n in (999, 1000, 12_345_678, None)] == ["999 B", "1 kB", "12.3 MB", ""]
    assert words.plain("a\u00a0b\u200bc") == "a\u00a0b\\u200bc" and words.plain("a\nb", lines=True) == "a\nb"


def test_yaml_that_never_ends_is_refused_before_its_end():
    with pytest.raises(yaml.YAMLError, match="nested too deep"):
        fast_yaml.load(b"[" * 200 + b"]" * 200)


def test_a_damaged_list_that_is_what_its_name_says_ends_in_words(served):
    body = b"[" * 100_000
    served.put(served.data_key(f"{md5_of(body)}.dir"), body)
    with pytest.raises(store.Fault, match="expected a list of a folder's files"):
        store.Store(served).folder(f"{md5_of(body)}.dir")


@pytest.mark.parametrize(
    "body",
    [b"", b"\xff" * 8, b"\x02" + b"\0" * 7 + b"[]", b"\x02" + b"\0" * 7 + b"{}", b"\x07" + b"\0" * 7 + b'{"a":1}'],
)
def test_a_safetensors_header_that_is_none(body):
    if body.endswith(b"{}"):
        assert previews.read("m.safetensors", io.BytesIO(body))["tensors"] == []
        return
    with pytest.raises(InputError, match=r"m.safetensors: not a safetensors file"):
        previews.read("m.safetensors", io.BytesIO(body))


def test_a_parameter_that_becomes_another_type_differs(put, served):
    def one(value):
        return lock.Lock("x", {"train": {"params": {"params.yaml": {"a": {"b": value}, "same": 1}}}})

    found = diff.compare(one(1), one(True), store.Store(served), Path("dvc.yaml"))
    assert found["stages"] == {"train": {"parameters": {"params.yaml: a.b": [1, True]}}}
