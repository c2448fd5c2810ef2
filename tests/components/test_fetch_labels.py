"""The stage fetch on people's own files: labels, splits without them, files without a header, rows of several lines."""

import json
from pathlib import Path

import pytest

from components import fetch
from gradworks.base import artifacts
from tests import kinds
from tests.components.conftest import ROWS
from tests.components.test_fetch import refused


def test_a_split_without_labels_is_left_out_and_said(project, capsys):
    """As GLUE's downloads come: test.tsv has no column for labels."""
    Path("data/mine/test.tsv").write_text("premise\thypothesis\nP\tH\n")
    out = project({"from": "file:data/mine"})
    assert sorted(artifacts.check(out)["splits"]) == ["dev", "train"]
    assert artifacts.check(out)["left_out"]["test"].startswith("data/mine/test.tsv: no column for label")
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
    assert artifacts.read_parquet(out / "train.parquet")["label"].to_pylist() == [
        "entailment", "neutral", "contradiction", "contradiction"
    ]  # fmt: skip
    values = {"0": "entailment", "1": "neutral", "2": "contradiction"}
    assert artifacts.check(out)["splits"]["train"]["label_values"] == values
    assert "train: labels read as 0 = entailment, 1 = neutral, 2 = contradiction; `labels`" in capsys.readouterr().err
    assert "label_values" not in artifacts.check(out)["splits"]["dev"]


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
    labels = artifacts.read_parquet(out / "train.parquet")["label"].to_pylist()
    assert labels == ["contradiction", "entailment", "neutral"]
    assert artifacts.check(out)["parameters"]["labels"]


def test_labels_of_true_and_false_by_name(project):
    header = "question\tpassage\tlabel\n"
    Path("data/mine/dev.tsv").unlink()
    Path("data/mine/train.tsv").write_text(header + "q\tp\tTRUE\nq\tp\t0\n")
    out = project({"from": "file:data/mine", "labels": {0: False}}, task="boolq")
    assert artifacts.read_parquet(out / "train.parquet")["label"].to_pylist() == ["true", "false"]


@pytest.mark.parametrize(
    "source, said",
    [
        ({"labels": {0: "entailed"}}, ".labels.0: found 'entailed'\nexpected one of: entailment, neutral, contradict"),
        ({"labels": {0: "neutral", "0.0": "entailment"}}, "expected each value once"),
        ({"labels": {1: ["neutral"]}}, ".labels: found ['neutral']\nexpected text or a number"),
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
    table = artifacts.read_parquet(out / "train.parquet")
    assert table.num_rows == 30 and table["id"][0].as_py() == "mine/train-1"
    said = refused(project, capsys, {"from": "file:data/mine"})
    assert "found: 'P0', 'H0', 'entailment'" in said and "`header: [...]` is for files without one" in said


def test_lines_of_rows_of_several_lines_are_accounted_for(project, capsys):
    Path("data/mine/dev.tsv").unlink()
    Path("data/mine/train.tsv").unlink()
    body = 'premise,hypothesis,label\n"P\nQ",H,neutral\n\nP,H 5",-\n"P,H,neutral\n' + "P,H,neutral\n" * 20
    Path("data/mine/train.csv").write_text(body)
    out = project({"from": "file:data/mine", "bad_rows": 0.1})
    counts = artifacts.check(out)["splits"]["train"]
    assert {k: counts[k] for k in ("rows", "bad", "unlabelled", "continued", "lines", "header", "blank")} == {
        "rows": 21, "bad": 1, "unlabelled": 1, "continued": 1, "lines": 24, "header": 1, "blank": 1
    }  # fmt: skip
    assert len(body.splitlines()) == 24 + 1 + 1
    assert json.loads((out / "bad_rows.json").read_text())["train"]["continued"] == [{"line": 2, "to": 3}]
    assert "train: 1 rows of several lines, 1 further lines, the first from line 2 to 3" in capsys.readouterr().err
    read = fetch.records.Split(records=[{"label": 1.0}] * 3, account=fetch.records.Account(rows=4, lines=4))
    with pytest.raises(fetch.InputError, match=r"s: 4 lines of rows, 3 accounted for"):
        fetch._counts(read, kinds.kind("stsb"), "s")


def test_a_list_where_text_is_expected_is_named(project, capsys):
    Path("data/mine/dev.tsv").unlink()
    Path("data/mine/train.tsv").unlink()
    Path("data/mine/train.jsonl").write_text('{"premise": ["P"], "hypothesis": "H", "label": "neutral"}\n' * 3)
    said = refused(project, capsys, {"from": "file:data/mine"})
    assert said.startswith("error: data/mine/train.jsonl: line 1: found a list in the column 'premise', expected text")
