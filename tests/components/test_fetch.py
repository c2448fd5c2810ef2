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
from gradworks import stage
from gradworks.stage import artefacts

ROOT = Path(__file__).parent.parent.parent
HEADER = "premise\thypothesis\tlabel\n"
ROWS = [f"P{i}\tH{i}\t{('entailment', 'neutral', 'contradiction')[i % 3]}\n" for i in range(30)]


def tree(folder):
    """Paths and hashes of everything in a folder, empty folders too."""
    return {
        p.relative_to(folder).as_posix(): artefacts.digest(p) if p.is_file() else "" for p in sorted(folder.rglob("*"))
    }


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with data and a params.yaml; `run(source)` runs the stage there, in this process."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data/mine").mkdir(parents=True)
    (tmp_path / "data/mine/train.tsv").write_text(HEADER + "".join(ROWS))
    (tmp_path / "data/mine/dev.tsv").write_text(HEADER + "".join(ROWS[:6]))

    def run(source, name="mine", task="nli"):
        Path("params.yaml").write_text(yaml.safe_dump({"task": task, "fetch": {name: source}}))
        monkeypatch.setattr("sys.argv", ["fetch", "--source", name, "--out", f"runs/fetch/{name}"])
        fetch.main()
        return Path("runs/fetch") / name

    return run


def refused(run, capsys, *args, **more):
    """The message of a run that must fail as a person sees it: short, no traceback, nothing left behind."""
    Path("params.yaml").touch()
    before = {k: v for k, v in tree(Path.cwd()).items() if k != "params.yaml"}
    with pytest.raises(SystemExit) as caught:
        stage.run(lambda: run(*args, **more))
    assert caught.value.code == 2
    assert {k: v for k, v in tree(Path.cwd()).items() if k != "params.yaml"} == before
    said = capsys.readouterr().err
    last = said[said.index("error: ") :].splitlines()
    assert len(last) <= 3 and "Traceback" not in said
    return "\n".join(last)


def test_a_folder_becomes_splits(project):
    out = project({"from": "file:data/mine"})
    manifest = artefacts.check(out)
    assert sorted(manifest["files"]) == ["bad_rows.json", "dev.parquet", "train.parquet"]
    assert manifest["splits"]["dev"] == {
        "rows": 6, "bad": 0, "unlabelled": 0, "labels": {"contradiction": 2, "entailment": 2, "neutral": 2},
        "lines": 6, "continued": 0, "header": 1, "blank": 0,
    }  # fmt: skip
    table = artefacts.read_parquet(out / "train.parquet")
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
    table = artefacts.read_parquet(out / "validation.parquet")
    assert table.column_names == ["id", "premise", "hypothesis", "label", "set", "heuristic", "rule"]
    assert table["label"].equals(table["rule"]) and table["id"][0].as_py() == "synthetic/validation-0"
    assert set(table["set"].to_pylist()) == {"in_distribution", "challenge"}


def test_few_bad_rows_are_reported_and_left_out(project, capsys):
    with open("data/mine/train.tsv", "a") as file:
        file.write("only one field\nP\tH\tmaybe\n")
    out = project({"from": "file:data/mine", "bad_rows": 0.1})
    assert artefacts.read_parquet(out / "train.parquet").num_rows == 30
    said = capsys.readouterr().err
    assert "data/mine/train.tsv: line 32: found 1 fields, expected 3; left out" in said
    bad = json.loads((out / "bad_rows.json").read_text())["train"]["bad"]
    assert [(one["file"], one["line"]) for one in bad] == [("data/mine/train.tsv", 32), ("data/mine/train.tsv", 33)]


def test_rows_without_a_gold_label_are_no_fault(project, capsys):
    with open("data/mine/train.tsv", "a") as file:
        file.write("P\tH\t-\n" * 20)
    out = project({"from": "file:data/mine"})
    assert artefacts.check(out)["splits"]["train"]["unlabelled"] == 20
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
        ({"from": "file:data/mine", "lay_out": "tsv"}, ".lay_out: unknown key\nexpected one of: bad_rows"),
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
    assert refused(project, capsys, {"from": "file:data/mine"}, task="nil").startswith("error: task: found 'nil'")


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
    assert artefacts.read_parquet(out / "train.parquet").num_rows == 30


def test_a_split_without_labels_is_left_out_and_said(project, capsys):
    """As GLUE's downloads come: test.tsv has no column for labels."""
    Path("data/mine/test.tsv").write_text("premise\thypothesis\nP\tH\n")
    out = project({"from": "file:data/mine"})
    assert sorted(artefacts.check(out)["splits"]) == ["dev", "train"]
    assert artefacts.check(out)["left_out"]["test"].startswith("data/mine/test.tsv: no column for label")
    assert "test: left out: data/mine/test.tsv: no column for label" in capsys.readouterr().err
    said = refused(project, capsys, {"from": "file:data/mine", "files": {"train": "train.tsv", "test": "test.tsv"}})
    assert said.startswith("error: data/mine/test.tsv: no column for label") and "`files` what is read" in said


def test_a_folder_of_which_nothing_is_left(project, capsys):
    for name in ("train", "dev"):
        Path(f"data/mine/{name}.tsv").write_text("premise\thypothesis\tlabel\nP\tH\t-1\n")
    said = refused(project, capsys, {"from": "file:data/mine"})
    assert said.startswith("error: data/mine/dev.tsv: 1 rows, none with a label in the column 'label'")


def coded(*values):
    return "premise\thypothesis\tlabel\n" + "".join(f"P{i}\tH{i}\t{value}\n" for i, value in enumerate(values))


def test_numbers_as_labels_are_read_by_the_order_of_classes_and_said(project, capsys):
    Path("data/mine/train.tsv").write_text(coded(0, "1.0", " 2 ", 2))
    out = project({"from": "file:data/mine"})
    assert artefacts.read_parquet(out / "train.parquet")["label"].to_pylist() == [
        "entailment", "neutral", "contradiction", "contradiction"
    ]  # fmt: skip
    values = {"0": "entailment", "1": "neutral", "2": "contradiction"}
    assert artefacts.check(out)["splits"]["train"]["label_values"] == values
    assert "train: labels read as 0 = entailment, 1 = neutral, 2 = contradiction; `labels`" in capsys.readouterr().err
    assert "label_values" not in artefacts.check(out)["splits"]["dev"]


@pytest.mark.parametrize(
    "given, values",
    [
        ({0: "contradiction", 1: "entailment"}, (0, "1.0")),
        ({"0": "contradiction", "1": "entailment"}, ("0", 1)),
        ({0.0: "contradiction", 1.0: "entailment"}, ("0", " 1 ")),
        ({False: "contradiction", True: "entailment"}, ("FALSE", "true")),
        ({False: "contradiction", True: "entailment"}, ("no", "Yes")),  # as YAML reads the keys
        ({-1: "contradiction", 1: "entailment"}, (-1, 1)),
        ({"NEG": "contradiction", "Pos": "entailment"}, ("neg", "POS ")),
        ({None: "contradiction", "-": "entailment"}, ("", "-")),
    ],
)
def test_the_source_says_what_its_labels_stand_for(project, given, values):
    Path("data/mine/train.tsv").write_text(coded(*values, "neutral"))
    out = project({"from": "file:data/mine", "labels": given})
    labels = artefacts.read_parquet(out / "train.parquet")["label"].to_pylist()
    assert labels == ["contradiction", "entailment", "neutral"]
    assert artefacts.check(out)["parameters"]["labels"]


def test_labels_of_true_and_false_by_name(project):
    header = "question\tpassage\tlabel\n"
    Path("data/mine/dev.tsv").unlink()
    Path("data/mine/train.tsv").write_text(header + "q\tp\tTRUE\nq\tp\t0\n")
    out = project({"from": "file:data/mine", "labels": {0: False}}, task="boolq")
    assert artefacts.read_parquet(out / "train.parquet")["label"].to_pylist() == ["true", "false"]


@pytest.mark.parametrize(
    "source, said",
    [
        ({"labels": {0: "entailed"}}, ".labels.0: found 'entailed'\nexpected one of: entailment, neutral, contradict"),
        ({"labels": {0: "neutral", "0.0": "entailment"}}, "expected each value once"),
        ({"labels": {1: ["neutral"]}}, ".labels.1"),
        ({"labels": ["neutral"]}, ".labels: found ['neutral']"),
        ({"header": []}, ".header: found []"),
        ({"header": ["a", "a"]}, "header: expected each name once"),
    ],
)
def test_labels_and_header_that_are_wrong(project, capsys, source, said):
    assert said in refused(project, capsys, {"from": "file:data/mine", **source})


def test_files_without_a_header(project, capsys):
    Path("data/mine/dev.tsv").unlink()
    Path("data/mine/train.tsv").write_text("".join(ROWS))
    out = project({"from": "file:data/mine", "header": ["premise", "hypothesis", "label"]})
    table = artefacts.read_parquet(out / "train.parquet")
    assert table.num_rows == 30 and table["id"][0].as_py() == "mine/train-1"
    said = refused(project, capsys, {"from": "file:data/mine"})
    assert "found: 'P0', 'H0', 'entailment'" in said and "`header: [...]` is for files without one" in said


def test_lines_of_rows_of_several_lines_are_accounted_for(project, capsys):
    Path("data/mine/dev.tsv").unlink()
    Path("data/mine/train.tsv").unlink()
    body = 'premise,hypothesis,label\n"P\nQ",H,neutral\n\nP,H 5",-\n"P,H,neutral\n' + "P,H,neutral\n" * 20
    Path("data/mine/train.csv").write_text(body)
    out = project({"from": "file:data/mine", "bad_rows": 0.1})
    counts = artefacts.check(out)["splits"]["train"]
    assert {k: counts[k] for k in ("rows", "bad", "unlabelled", "continued", "lines", "header", "blank")} == {
        "rows": 21, "bad": 1, "unlabelled": 1, "continued": 1, "lines": 24, "header": 1, "blank": 1
    }  # fmt: skip
    assert len(body.splitlines()) == 24 + 1 + 1
    assert json.loads((out / "bad_rows.json").read_text())["train"]["continued"] == [{"line": 2, "to": 3}]
    assert "train: 1 rows of several lines, 1 further lines, the first from line 2 to 3" in capsys.readouterr().err
    read = fetch.records.Split(records=[{}] * 3, account=fetch.records.Account(rows=4, lines=4))
    with pytest.raises(fetch.InputError, match=r"s: 4 lines of rows, 3 accounted for"):
        fetch._counts(read, fetch.row("stsb"), "s")


def test_a_list_where_text_is_expected_is_named(project, capsys):
    Path("data/mine/dev.tsv").unlink()
    Path("data/mine/train.tsv").unlink()
    Path("data/mine/train.jsonl").write_text('{"premise": ["P"], "hypothesis": "H", "label": "neutral"}\n' * 3)
    said = refused(project, capsys, {"from": "file:data/mine"})
    assert said.startswith("error: data/mine/train.jsonl: line 1: found a list in the column 'premise', expected text")
