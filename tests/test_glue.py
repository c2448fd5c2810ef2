"""The GLUE score by hand, and the files of a submission as the leaderboard takes them."""

import zipfile

import pytest

from gradworks import glue, submission
from gradworks.base.errors import InputError

VALUES = {
    "cola": {"matthews": 0.6, "accuracy": 0.1},
    "sst2": {"accuracy": 0.9},
    "mrpc": {"f1": 0.9, "accuracy": 0.8},
    "stsb": {"pearson": 0.9, "spearman": 0.7},
    "qqp": {"f1": 0.7, "accuracy": 0.9},
    "nli-m": {"accuracy": 0.84},
    "nli-mm": {"accuracy": 0.82},
    "qnli": {"accuracy": 0.91},
    "rte": {"accuracy": 0.7},
    "wnli": {"accuracy": 0.65},
}


def test_the_score_is_the_mean_over_tasks_of_the_means_of_their_metrics():
    found = glue.score(VALUES)
    assert found["tasks"]["mrpc"] == pytest.approx(0.85) and found["tasks"]["nli"] == pytest.approx(0.83)
    assert found["average"] == pytest.approx((0.6 + 0.9 + 0.85 + 0.8 + 0.8 + 0.83 + 0.91 + 0.7 + 0.65) / 9)
    assert found["whole"] and found["missing"] == []
    assert glue.score(dict(reversed(VALUES.items()))) == found


def test_missing_tasks_are_named_and_wrong_ones_refused():
    found = glue.score({"rte": VALUES["rte"], "cola": VALUES["cola"]})
    assert found["average"] == pytest.approx(0.65) and not found["whole"]
    assert found["missing"] == ["SST-2", "MRPC", "STS-B", "QQP", "MNLI", "QNLI", "WNLI"]
    assert glue.score({})["average"] is None
    for given, said in (
        ({"mrpc": {"accuracy": 0.8, "f1": None}}, "task mrpc: no f1\\nexpected f1 and accuracy; found: accuracy"),
        ({"boolq": {"accuracy": 0.8}}, "task 'boolq' is none of GLUE"),
        ({"nli": VALUES["rte"], "nli-m": VALUES["rte"]}, "found nli beside nli-m"),
    ):
        with pytest.raises(InputError, match=said):
            glue.score(given)


@pytest.mark.parametrize(
    ("name", "given", "lines"),
    [
        ("CoLA", ["acceptable", "unacceptable"], ["0\t1", "1\t0"]),
        ("SST-2", ["negative", "positive"], ["0\t0", "1\t1"]),
        ("MRPC", ["equivalent", "not_equivalent"], ["0\t1", "1\t0"]),
        ("QQP", ["duplicate", "not_duplicate"], ["0\t1", "1\t0"]),
        ("STS-B", [5.2, -0.1, 2.34567, 3], ["0\t5.000", "1\t0.000", "2\t2.346", "3\t3.000"]),
        ("MNLI-mm", ["neutral", "contradiction"], ["0\tneutral", "1\tcontradiction"]),
        ("QNLI", ["not_entailment"], ["0\tnot_entailment"]),
        ("RTE", ["entailment"], ["0\tentailment"]),
        ("WNLI", ["entailment", "not_entailment"], ["0\t1", "1\t0"]),
        ("AX", ["entailment"], ["0\tentailment"]),
    ],
)
def test_lines_of_each_file(name, given, lines):
    assert glue.lines(glue.TESTS[name], given, "f") == ["index\tprediction", *lines]


def test_what_is_no_prediction_is_refused():
    with pytest.raises(InputError, match="f: row 1: found 'neutral'"):
        glue.lines(glue.TESTS["RTE"], ["entailment", "neutral"], "f")
    with pytest.raises(InputError, match="f: row 0: found nan"):
        glue.lines(glue.TESTS["STS-B"], [float("nan")], "f")


def filled(folder, *left_out):
    for name, test in glue.TESTS.items():
        if name not in ("WNLI", *left_out):
            one = next(iter(test.labels)) if test.labels else 1.5
            rows = 1063 if name == "QQP" else test.rows
            glue.write(test, [one] * rows, folder, "f")


def test_the_zip_has_the_official_names_and_the_majority_class_of_wnli(tmp_path, monkeypatch):
    small = glue.TESTS | {"QQP": glue.TestSet("QQP", "qqp", 1063, glue.TESTS["QQP"].labels)}
    monkeypatch.setattr(glue, "TESTS", small)  # 390,965 rows take a second
    filled(tmp_path / "files")
    assert submission.zipped(glue, tmp_path / "files", tmp_path / "a.zip") == []
    with zipfile.ZipFile(tmp_path / "a.zip") as made:
        assert made.namelist() == ["CoLA.tsv", "SST-2.tsv", "MRPC.tsv", "STS-B.tsv", "QQP.tsv", "MNLI-m.tsv",
                                   "MNLI-mm.tsv", "QNLI.tsv", "RTE.tsv", "WNLI.tsv", "AX.tsv"]  # fmt: skip
        assert made.read("WNLI.tsv").decode().splitlines() == ["index\tprediction", *(f"{i}\t0" for i in range(146))]
        assert made.read("STS-B.tsv").decode().splitlines()[1:3] == ["0\t1.500", "1\t1.500"]
    submission.zipped(glue, tmp_path / "files", tmp_path / "b.zip")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_a_submission_that_the_leaderboard_refuses_is_not_written(tmp_path):
    filled(tmp_path / "files", "RTE", "AX", "QQP")
    out = tmp_path / "a.zip"
    with pytest.raises(InputError, match=r"no QQP.tsv, RTE.tsv, AX.tsv\nexpected a file for each test set"):
        submission.zipped(glue, tmp_path / "files", out)
    assert not out.exists()
    assert submission.zipped(glue, tmp_path / "files", out, partial=True) == ["QQP", "RTE", "AX"]
    out.unlink()
    file = tmp_path / "files/QNLI.tsv"
    text = file.read_text()
    for wrong, said in (
        (text.replace("index\t", "id\t"), "QNLI.tsv: found the first line 'id"),
        (text[: text.rindex("5462")], "found 5462 rows, expected 5463"),
        (text.replace("\n7\t", "\n8\t"), "line 9: found index '8', expected 7"),
        (text.replace("\n7\tentailment", "\n7\t1"), "line 9: found '1', expected one of: entailment"),
    ):
        file.write_text(wrong)
        with pytest.raises(InputError, match=said):
            submission.zipped(glue, tmp_path / "files", out, partial=True)
        assert not out.exists()
