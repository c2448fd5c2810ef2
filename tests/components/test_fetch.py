"""The stage fetch: what it writes, what it says, and that it leaves nothing behind when it stops."""

import hashlib
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml

from components import fetch
from gradworks import base
from gradworks.base import artifacts
from tests.components.conftest import HEADER, ROWS

ROOT = Path(__file__).parent.parent.parent


def tree(folder):
    """Paths and hashes of everything in a folder, empty folders too."""
    return {
        p.relative_to(folder).as_posix(): artifacts.digest(p) if p.is_file() else "" for p in sorted(folder.rglob("*"))
    }


def refused(run, capsys, *args, **more):
    """The message of a run that must fail as a person sees it: short, no traceback, nothing left behind."""
    Path("params.yaml").touch()
    before = {k: v for k, v in tree(Path.cwd()).items() if k != "params.yaml"}
    with pytest.raises(SystemExit) as caught:
        base.run(lambda: run(*args, **more))
    assert caught.value.code == 2
    assert {k: v for k, v in tree(Path.cwd()).items() if k != "params.yaml"} == before
    said = capsys.readouterr().err
    last = said[said.index("error: ") :].splitlines()
    assert len(last) <= 3 and "Traceback" not in said
    return "\n".join(last)


def test_a_folder_becomes_splits(project):
    out = project({"from": "file:data/mine"})
    manifest = artifacts.check(out)
    assert sorted(manifest["files"]) == ["bad_rows.json", "dev.parquet", "train.parquet"]
    assert manifest["splits"]["dev"] == {
        "rows": 6, "bad": 0, "unlabelled": 0, "labels": {"contradiction": 2, "entailment": 2, "neutral": 2},
        "lines": 6, "continued": 0, "header": 1, "blank": 0,
    }  # fmt: skip
    table = artifacts.read_parquet(out / "train.parquet")
    assert table.column_names == ["id", "premise", "hypothesis", "label"]
    assert table.to_pylist()[1] == {"id": "mine/train-3", "premise": "P1", "hypothesis": "H1", "label": "neutral"}


def test_the_same_bytes_twice_and_nothing_of_this_machine(project, tmp_path):
    first = tree(project({"from": "file:data/mine"}))
    assert tree(project({"from": "file:data/mine"})) == first
    assert str(tmp_path) not in Path("runs/fetch/mine/manifest.json").read_text()
    source = {"from": "synthetic:nli", "seed": 3, "rows": {"train": 60, "test": 20}}
    synthetic = tree(project(source, "synthetic"))
    assert tree(project(source, "synthetic")) == synthetic
    assert tree(project({**source, "seed": 4}, "synthetic")) != synthetic


def test_the_synthetic_source_has_its_columns(project):
    out = project({"from": "synthetic:nli", "rows": {"train": 30, "validation": 20}}, "synthetic")
    table = artifacts.read_parquet(out / "validation.parquet")
    assert table.column_names == ["id", "premise", "hypothesis", "label", "set", "heuristic", "rule"]
    assert table["label"].equals(table["rule"]) and table["id"][0].as_py() == "synthetic/validation-0"
    assert set(table["set"].to_pylist()) == {"in_distribution", "challenge"}


def test_few_bad_rows_are_reported_and_left_out(project, capsys):
    with open("data/mine/train.tsv", "a") as file:
        file.write("only one field\nP\tH\tmaybe\n")
    out = project({"from": "file:data/mine", "bad_rows": 0.1})
    assert artifacts.read_parquet(out / "train.parquet").num_rows == 30
    said = capsys.readouterr().err
    assert "data/mine/train.tsv: line 32: found 1 fields, expected 3; left out" in said
    bad = json.loads((out / "bad_rows.json").read_text())["train"]["bad"]
    assert [(one["file"], one["line"]) for one in bad] == [("data/mine/train.tsv", 32), ("data/mine/train.tsv", 33)]


def test_rows_without_a_gold_label_are_no_fault(project, capsys):
    with open("data/mine/train.tsv", "a") as file:
        file.write("P\tH\t-\n" * 20)
    out = project({"from": "file:data/mine"})
    assert artifacts.check(out)["splits"]["train"]["unlabelled"] == 20
    assert "train: 20 rows without a gold label left out, the first at line 32" in capsys.readouterr().err


def test_too_many_bad_rows_stop_the_stage(project, capsys):
    with open("data/mine/train.tsv", "a") as file:
        file.write("P\tH\tmaybe\n")
    said = refused(project, capsys, {"from": "file:data/mine"})
    assert said.startswith("error: data/mine/train.tsv: line 32: found label 'maybe', expected one of: entailment")
    assert "1 of 37 rows are bad, more than params.yaml: fetch.mine.bad_rows: 0.001" in said


@pytest.mark.parametrize(
    "content, said",
    [
        (
            b"premise\ttext\tlabel\nP\tH\tneutral\n",
            "data/mine/train.tsv: no column for hypothesis: expected 'hypothesis'",
        ),
        (b"premise\thypothesis\tlabel\n", "data/mine/train.tsv: no rows"),
        (b"", "data/mine/train.tsv: empty"),
        (b"premise\thypothesis\tlabel\nP\tH\tyes\n", "data/mine/train.tsv: line 2: found label 'yes', expected one of"),
        (b"premise\thypothesis\tlabel\nP\tcaf\xe9\tneutral\n", "data/mine/train.tsv: line 2: not UTF-8: byte 0xe9"),
    ],
)
def test_bad_files(project, capsys, content, said):
    Path("data/mine/train.tsv").write_bytes(content)
    assert refused(project, capsys, {"from": "file:data/mine"}).startswith(f"error: {said}")


@pytest.mark.parametrize(
    "source, said",
    [
        (
            {"from": "file:data/mine", "lay_out": "tsv"},
            ".lay_out: unknown key; did you mean layout?\nexpected one of: bad_rows",
        ),
        ({"from": "file:data/mine", "layout": "xls"}, ".layout: found 'xls'\n"),
        ({"from": "file:data/mine", "bad_rows": 2.0}, ".bad_rows: found 2.0\n"),
        ({"from": "file:data/mine", "bad_rows": "1 %"}, ".bad_rows: found '1 %'\n"),
        ({"from": "file:data/mine", "files": {"../x": "train.tsv"}}, ".files.../x"),
        ({"from": "file:data/mine", "sha256": "0" * 64}, "sha256: not for a source from file:"),
        ({"from": "ftp://host/a.tsv"}, "from: expected synthetic:nli, file:FOLDER"),
        ({"from": "https://host/a.tsv"}, "sha256: missing; a source from https: needs it"),
        ({"from": "https://me:secret@host/a.tsv", "sha256": "0" * 64}, "from: a password in it"),
        ({"from": "https://host/a.tsv", "sha256": "123"}, ".sha256: found '123'\n"),
        ({"from": "hub:owner/name"}, "with a commit of 40 digits"),
        ({"from": "hub:owner/name@main"}, "with a commit of 40 digits"),
        ({"from": "synthetic:nli"}, "rows: missing; a source from synthetic: needs it"),
        ({"from": "synthetic:qa", "rows": {"train": 1}}, "from: expected synthetic:nli, not 'synthetic:qa'"),
        ({"from": "synthetic:nli", "rows": {"train": 0}}, ".rows.train: found 0\n"),
        ({}, ".from: missing"),
    ],
)
def test_a_section_that_is_wrong(project, capsys, source, said):
    message = refused(project, capsys, source)
    assert message.startswith("error: params.yaml: fetch.mine") and said in message


def test_a_source_that_is_not_there(project, capsys, monkeypatch):
    project({"from": "file:data/mine"})
    monkeypatch.setattr("sys.argv", ["fetch", "--source", "min", "--out", "runs/fetch/min"])
    assert refused(fetch.main, capsys) == "error: params.yaml: no key 'fetch.min'\nfound: mine"
    assert refused(project, capsys, {"from": "file:data/mine"}, task="nil").startswith(
        "error: params.yaml: task: found 'nil'"
    )


def test_a_failed_fetch_leaves_the_earlier_one(project, capsys):
    out = project({"from": "file:data/mine"})
    before = tree(out)
    Path("data/mine/train.tsv").write_bytes(b"\xff")
    refused(project, capsys, {"from": "file:data/mine"})
    assert tree(out) == before


class Slow(http.server.BaseHTTPRequestHandler):
    """Sends a byte count that it never reaches."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "1000000000")
        self.end_headers()
        try:
            for _ in range(1000):
                self.wfile.write(b"x" * 100_000)
                time.sleep(0.01)
        except OSError:
            pass

    def log_message(self, *_):
        pass


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_download_leaves_nothing(tmp_path, number, code):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Slow)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    (tmp_path / "tmp").mkdir()
    source = {"from": f"http://127.0.0.1:{server.server_port}/train.tsv", "sha256": "0" * 64}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"task": "nli", "fetch": {"far": source}}))
    before = tree(tmp_path)
    command = [sys.executable, "-m", "components.fetch", "--source", "far", "--out", "runs/fetch/far"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path / "tmp")}
    with subprocess.Popen(command, cwd=tmp_path, env=env, stderr=subprocess.PIPE, text=True) as child:
        deadline = time.monotonic() + 60
        while not any(p.stat().st_size > 1_000_000 for p in (tmp_path / "tmp").rglob("*") if p.is_file()):
            assert time.monotonic() < deadline and child.poll() is None
            time.sleep(0.02)
        child.send_signal(number)
        said = child.stderr.read()
    server.shutdown()
    server.server_close()
    assert child.returncode == code
    assert len(said.splitlines()) <= 3 and "Traceback" not in said
    assert tree(tmp_path) == before


def test_a_download_becomes_splits(project):
    body = (HEADER + "".join(ROWS)).encode()

    class Handler(Slow):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/train.tsv"
    try:
        out = project({"from": address, "sha256": hashlib.sha256(body).hexdigest()})
    finally:
        server.shutdown()
        server.server_close()
    assert artifacts.read_parquet(out / "train.parquet").num_rows == 30
