"""Rows of a source become ids, texts and labels."""

import pytest

from gradworks.data import records
from gradworks.stage.errors import InputError
from gradworks.tasks import row

NLI = row("nli")


def read(rows, task=NLI, columns=None):
    fields = [(n, one) for n, one in enumerate(rows, 2)]
    header = next((list(one) for one in rows if isinstance(one, dict)), ["premise", "hypothesis", "label"])
    return records.read(task, fields, header, "f.tsv", "s/train", columns)


def pair(label, **more):
    return {"sentence1": "P", "sentence2": "H", "gold_label": label, **more}


@pytest.mark.parametrize(
    "task, raw, label",
    [
        ("nli", "neutral", "neutral"),
        ("nli", 2, "contradiction"),
        ("nli-binary", "non-entailment", "not_entailment"),
        ("nli-binary", "contradiction", "contradiction"),  # the stage corrupt collapses it
        ("sst5", "3", "positive"),
        ("qqp", "1.0", "duplicate"),
        ("boolq", True, "true"),
        ("boolq", "False", "false"),
        ("wic", False, "false"),
        ("stsb", "3.800", 3.8),
        ("nli", "-", None),
        ("nli", -1, None),
    ],
)
def test_labels(task, raw, label):
    assert records.label_of(row(task), raw) == label


@pytest.mark.parametrize(
    "task, raw", [("nli", "3"), ("nli", "yes"), ("nli", ""), ("nli", "0.5"), ("stsb", "nan"), ("stsb", "x")]
)
def test_what_is_no_label(task, raw):
    with pytest.raises(ValueError):
        records.label_of(row(task), raw)


def test_the_sources_own_ids_where_they_are_unique():
    split = read([pair("neutral", pairID="ex7"), pair("neutral", pairID="ex9")])
    assert [one["id"] for one in split.records] == ["s/train-ex7", "s/train-ex9"]
    split = read([pair("neutral", pairID="ex7"), pair("neutral", pairID="ex7")])
    assert [one["id"] for one in split.records] == ["s/train-2", "s/train-3"]
    assert "pairID" not in split.records[0]


def test_a_row_that_is_left_out_does_not_move_ids():
    rows = [pair("neutral"), pair("neutral"), pair("neutral")]
    whole = [one["id"] for one in read(rows).records]
    rows[1] = {**rows[1], "sentence2": " "}
    assert [one["id"] for one in read(rows).records] == [whole[0], whole[2]]


def test_bad_and_unlabelled_rows_are_listed():
    split = read([pair("neutral"), pair("-"), "broken", pair("maybe"), {**pair("neutral"), "sentence1": ""}])
    assert len(split.records) == 1
    assert split.unlabelled == [{"file": "f.tsv", "line": 3, "reason": "no gold label"}]
    assert [(one["line"], one["reason"]) for one in split.bad] == [
        (4, "broken"),
        (5, "found label 'maybe', expected one of: entailment, neutral, contradiction"),
        (6, "no text in the column 'sentence1'"),
    ]


def test_other_columns_stay_and_parses_go():
    split = read([pair("neutral", genre="fiction", sentence1_binary_parse="( P )", label1="neutral", annotators=["a"])])
    assert split.records == [
        {"id": "s/train-2", "premise": "P", "hypothesis": "H", "label": "neutral", "genre": "fiction"}
    ]


def test_a_missing_column_names_what_there_is():
    with pytest.raises(InputError) as caught:
        read([{"premise": "P", "text": "H", "label": "neutral"}])
    assert str(caught.value).splitlines() == [
        "f.tsv: no column for hypothesis: expected 'hypothesis' or 'sentence2'",
        "found: 'premise', 'text', 'label'",
        "`columns: {hypothesis: NAME}` of the source says which it is",
    ]


def test_columns_can_be_told():
    split = read(
        [{"a": "P", "b": "H", "c": "neutral", "k": 4}],
        columns={"premise": "a", "hypothesis": "b", "label": "c", "id": "k"},
    )
    assert split.records == [{"id": "s/train-4", "premise": "P", "hypothesis": "H", "label": "neutral"}]
    with pytest.raises(InputError, match=r"no column for label: expected 'z'"):
        read([pair("neutral")], columns={"label": "z"})
    with pytest.raises(InputError, match=r"columns: found 'premis'\nexpected one of: premise, hypothesis, label, id"):
        read([pair("neutral")], columns={"premis": "a"})


def test_an_empty_split():
    with pytest.raises(InputError, match=r"f.tsv: no rows\nexpected labelled examples"):
        read([])
    with pytest.raises(InputError, match=r"f.tsv: 2 rows, none with a label"):
        read([pair("-"), pair("-")])


def test_tables():
    table = records.to_table(
        NLI,
        [
            {"id": "1", "premise": "P", "hypothesis": "H", "label": "neutral", "n": 3},
            {"id": "2", "premise": "P", "hypothesis": "H", "label": "neutral"},
        ],
    )
    assert table.column_names == ["id", "premise", "hypothesis", "label", "n"]
    assert table["n"].to_pylist() == ["3", None]
    number = records.to_table(row("stsb"), [{"id": "1", "sentence1": "a", "sentence2": "b", "label": 2.5}])
    assert str(number.schema.field("label").type) == "double"
