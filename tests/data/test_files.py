"""Folders of files, and the real data sets where they are there."""

import gzip
import json
import lzma
from collections import Counter

import pytest

from gradworks.base.errors import InputError
from gradworks.data import files
from tests.kinds import kind


def test_every_file_is_the_split_of_its_name(tmp_path):
    for name in ("train.tsv", "dev.jsonl", "README.txt", "notes.pdf"):
        (tmp_path / name).write_text("x")
    assert {k: p.name for k, p in files.splits_of(tmp_path, None, "p: fetch.s").items()} == {
        "train": "train.tsv", "dev": "dev.jsonl"
    }  # fmt: skip
    assert list(files.splits_of(tmp_path, {"test": "dev.jsonl"}, "p: fetch.s")) == ["test"]


@pytest.mark.parametrize(("suffix", "packer"), [(".xz", lzma), (".gz", gzip)])
def test_packed_files_are_read_as_what_they_hold(tmp_path, suffix, packer):
    rows = [{"article": f"A {i}", "highlights": ("", " ", "h1", "é 3", None)[i]} for i in range(5)]
    for name, text in {"train.json": json.dumps(rows, indent=1), "dev.jsonl": "\n".join(map(json.dumps, rows))}.items():
        (tmp_path / (name + suffix)).write_bytes(packer.compress(text.encode()))
    paths = files.splits_of(tmp_path, None, "p: fetch.s")
    assert {split: path.name for split, path in paths.items()} == {
        "train": f"train.json{suffix}", "dev": f"dev.jsonl{suffix}"
    }  # fmt: skip
    for split, read in files.read(kind("cnn_dailymail"), paths, "s", tmp_path, "s")[0].items():
        assert [(one["document"], one["label"]) for one in read.records] == [("A 2", "h1"), ("A 3", "é 3")]
        # an empty summary is a bad row, a missing one no label
        assert [one["reason"] for one in read.bad] == [
            "found label '', expected a text that is not empty", "found label ' ', expected a text that is not empty"
        ]  # fmt: skip
        assert len(read.unlabelled) == 1 and (split != "dev" or [one["line"] for one in read.bad] == [1, 2])
    whole = (tmp_path / f"train.json{suffix}").read_bytes()
    (tmp_path / f"train.json{suffix}").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=f"train.json{suffix}: damaged after line"):
        files.read(kind("cnn_dailymail"), paths, "s", tmp_path, "s")


def test_what_cannot_be_told_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"p: fetch.s.from: no folder '.*nowhere'"):
        files.splits_of(tmp_path / "nowhere", None, "p: fetch.s")
    with pytest.raises(InputError, match=r"no data file\nexpected one of .tsv"):
        files.splits_of(tmp_path, None, "p: fetch.s")
    for name in ("train.tsv", "train.jsonl"):
        (tmp_path / name).write_text("x")
    with pytest.raises(InputError, match=r"train.jsonl and train.tsv are both the split 'train'"):
        files.splits_of(tmp_path, None, "p: fetch.s")
    with pytest.raises(InputError, match=r"p: fetch.s.files.dev: no file 'x.tsv' in .*\nfound: train.jsonl, train.tsv"):
        files.splits_of(tmp_path, {"dev": "x.tsv"}, "p: fetch.s")


def test_messages_say_what_stands_for_a_temporary_folder(tmp_path):
    (tmp_path / "train.tsv").write_bytes(b"premise\thypothesis\tlabel\n\xff\n")
    read = files.read(kind("nli"), {"train": tmp_path / "train.tsv"}, "s", tmp_path, "https://host/x.zip")[0]["train"]
    assert read.bad[0]["file"] == "https://host/x.zip/train.tsv"
    (tmp_path / "train.tsv").write_bytes(b"premise\tlabel\nP\tneutral\n")
    with pytest.raises(InputError, match=r"^https://host/x.zip/train.tsv: no column for hypothesis"):
        files.read(kind("nli"), {"train": tmp_path / "train.tsv"}, "s", tmp_path, "https://host/x.zip")


def test_the_official_json_lines_of_snli(tmp_path):
    """Rows without a majority have the gold label `-`; parses and the annotators' labels are no text of ours."""
    one = {
        "annotator_labels": ["neutral"], "captionID": "c", "gold_label": "neutral", "pairID": "p1", "genre": "travel",
        "sentence1": "A \u201cman\u201d", "sentence1_binary_parse": "( A )", "sentence1_parse": "(A)",
        "sentence2": "B", "sentence2_binary_parse": "B", "sentence2_parse": "(B)",
    }  # fmt: skip
    rows = [one, {**one, "pairID": "p2", "gold_label": "-"}]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    read = files.read(kind("nli"), {"train": tmp_path / "train.jsonl"}, "snli", tmp_path, "snli")[0]["train"]
    assert read.records == [
        {"id": "snli/train-p1", "premise": "A \u201cman\u201d", "hypothesis": "B", "label": "neutral", "captionID": "c",
         "genre": "travel"}
    ]  # fmt: skip
    assert [one["line"] for one in read.unlabelled] == [2] and not read.bad


@pytest.mark.parametrize(
    "folder, task, chosen, counts",
    [
        ("mnli", "nli", None, {"train": 10_000, "dev_matched": 3_000}),
        ("snli", "nli", {"dev": "dev.tsv"}, {"dev": 9_842}),
        ("hans", "nli-binary", {"eval": "eval.tsv"}, {"eval": 15_000}),
        ("glue/CoLA", "cola", None, {"train": 8_551, "dev": 1_043}),
        ("glue/RTE", "rte", None, {"train": 2_490, "dev": 277}),
        ("glue/MRPC", "mrpc", None, {"train": 3_667, "dev": 408}),  # the copy lacks one of 3,668
        ("glue/STS-B", "stsb", None, {"train": 5_749, "dev": 1_500}),
        ("glue/WNLI", "wnli", None, {"train": 635, "dev": 71}),
        ("glue/QNLI", "qnli", None, {"dev": 5_463}),
        ("superglue/RTE", "rte", None, {"train": 2_490, "val": 277}),
        ("superglue/CB", "cb", None, {"train": 250, "val": 56}),
        ("superglue/COPA", "copa", None, {"train": 400, "val": 100}),
        ("superglue/WiC", "wic", None, {"train": 5_428, "val": 638}),
        ("superglue/BoolQ", "boolq", None, {"val": 3_270, "train_eraser_1491": 1_491}),
        ("superglue/MultiRC", "multirc", {"val": "val.jsonl"}, {"val": 4_848}),
        ("minbert", "sst5", {"train": "ids-sst-train.csv", "dev": "ids-sst-dev.csv"}, {"train": 8_544, "dev": 1_101}),
        ("minbert", "cfimdb", {"a": "ids-cfimdb-train.csv", "b": "ids-cfimdb-dev.csv"}, {"a": 1_707, "b": 245}),
        ("minbert", "stsb", {"train": "sts-train.csv", "dev": "sts-dev.csv"}, {"train": 6_040, "dev": 863}),
    ],
)  # fmt: skip
def test_real_data_has_its_official_counts(data, folder, task, chosen, counts):
    paths = files.splits_of(data / folder, chosen, "test")
    made, left_out = files.read(kind(task), paths, "s", data / folder, folder)
    assert not left_out
    assert {split: len(one.records) for split, one in made.items()} == counts
    assert not any(one.bad for one in made.values())
    ids = Counter(one["id"] for split in made.values() for one in split.records)
    assert max(ids.values()) == 1


def test_quora_dev_has_two_broken_rows(data):
    paths = files.splits_of(data / "minbert", {"dev": "quora-dev.csv"}, "test")
    dev = files.read(kind("qqp"), paths, "s", data / "minbert", "minbert")[0]["dev"]
    assert len(dev.records) == 20_212
    assert [(one["line"], one["reason"]) for one in dev.unlabelled] == [(2577, "no gold label")]
    assert [(one["line"], one["reason"]) for one in dev.bad] == [(14222, "no text in the column 'sentence2'")]
    assert {one["file"] for one in dev.bad + dev.unlabelled} == {"minbert/quora-dev.csv"}


def test_real_texts_are_unquoted_where_they_are_quoted(data):
    paths = files.splits_of(data / "minbert", {"dev": "quora-dev.csv"}, "test")
    dev = files.read(kind("qqp"), paths, "s", data / "minbert", "minbert")[0]["dev"]
    found = next(one for one in dev.records if one["id"] == "s/dev-318658e273ac78f3b1e957b8b")
    assert found["sentence1"].endswith('Do I need ""the"" here?"')  # doubled twice by its makers
    mnli = files.read(kind("nli"), {"train": data / "mnli/train.tsv"}, "s", data / "mnli", "mnli")[0]["train"]
    assert mnli.records[13]["hypothesis"] == '"Tim I\'m so glad we got into this"'


def test_hans_keeps_what_it_is_sliced_by(data):
    one = files.read(kind("nli-binary"), {"eval": data / "hans/eval.tsv"}, "hans", data / "hans", "hans")[0][
        "eval"
    ].records[0]
    assert one["id"] == "hans/eval-ex29878" and one["heuristic"] == "constituent"
    assert one["subcase"] == "ce_adverb" and one["template"] == "temp68"


def test_a_source_may_be_one_file(tmp_path):
    file = tmp_path / "rte.tsv"
    file.write_text("sentence1\tsentence2\tlabel\na b\tc d\tentailment\n")
    assert files.splits_of(file, None, "p: fetch.s") == {"all": file}
    made, _ = files.read(kind("rte"), {"all": file}, "s", tmp_path, "data")
    assert [one["id"] for one in made["all"].records] == ["s/all-2"]
    with pytest.raises(InputError, match=r"p: fetch.s.files: found it for a source of one file"):
        files.splits_of(file, {"train": "rte.tsv"}, "p: fetch.s")


def test_articles_and_their_highlights(data):
    file = data / "corpus/cnn_dailymail_validation.json.xz"
    read = files.read(kind("cnn_dailymail"), {"validation": file}, "cnn", file.parent, "corpus")[0]["validation"]
    assert len(read.records) + len(read.bad) + len(read.unlabelled) == 13368
    assert not read.bad and read.records[0]["document"].startswith("(CNN)Share, and your gift will be multiplied.")
    assert all(one["label"].strip() for one in read.records)
