"""Rows of a source become ids, texts and labels."""

import pytest

from gradworks.base.errors import InputError
from gradworks.data import records
from tests.kinds import kind

NLI = kind("nli")


def read(rows, task=NLI, columns=None, labels=None, header=None):
    fields = [(n, one) for n, one in enumerate(rows, 2)]
    header = header or next((list(one) for one in rows if isinstance(one, dict)), ["premise", "hypothesis", "label"])
    return records.read(task, fields, header, "f.tsv", "s/train", records.Asked(columns or {}, labels or {}))


def pair(label, **more):
    return {"sentence1": "P", "sentence2": "H", "gold_label": label, **more}


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
        "`columns: {hypothesis: NAME}` of the source says which it is, `files` what is read, `header: [...]` "
        "is for files without one",
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
    (table,) = records.to_tables(
        NLI,
        [
            {"id": "1", "premise": "P", "hypothesis": "H", "label": "neutral", "n": 3},
            {"id": "2", "premise": "P", "hypothesis": "H", "label": "neutral"},
        ],
    )
    assert table.column_names == ["id", "premise", "hypothesis", "label", "n"]
    assert table["n"].to_pylist() == ["3", None]
    (number,) = records.to_tables(kind("stsb"), [{"id": "1", "sentence1": "a", "sentence2": "b", "label": 2.5}])
    assert str(number.schema.field("label").type) == "double"


def test_the_label_column_is_decided_from_all_rows():
    """The first row says nothing: -1 there, a label further down, and in another column than the first of the names."""
    rows = [pair("-"), pair("-1"), pair("neutral")]
    assert [one["label"] for one in read(rows).records] == ["neutral"]
    rows = [{**pair(mark), "label": label, "score": "7"} for mark, label in [("-", ""), ("-", "neutral"), (None, 0)]]
    split = read(rows)
    assert [one["label"] for one in split.records] == ["neutral", "entailment"] and len(split.unlabelled) == 1
    assert split.records[0]["score"] == "7" and split.records[0]["gold_label"] == "-"
    assert split.values == {"0": "entailment"}


def test_a_split_without_labels_is_no_fault_of_its_rows():
    for rows in ([pair("-1"), pair("")], [pair(None), pair(None), "broken"]):
        with pytest.raises(records.Unlabelled, match=r"f.tsv: 2 rows, none with a label in the column 'gold_label'"):
            read(rows)
    with pytest.raises(records.Unlabelled, match="no column for label"):
        read([{"premise": "P", "hypothesis": "H"}])


def test_values_that_are_no_names_are_kept_with_what_they_were_read_as():
    split = read([pair(0), pair("1.0"), pair("contradiction")])
    assert split.values == {"0": "entailment", "1": "neutral"}
    split = read([pair(0), pair(1)], labels={"0": "contradiction", "1": "entailment"})
    assert [one["label"] for one in split.records] == ["contradiction", "entailment"]
    assert split.values == {"0": "contradiction", "1": "entailment"}


@pytest.mark.parametrize("marks, task", [([-1, 1, 1], "rte"), (["-1", "1.0"], "rte"), ([-1] * 10 + [0, 1], "nli")])
def test_minus_one_beside_a_class_that_is_missing_is_asked_for(marks, task):
    """-1 as the mark of a missing label would leave a whole class out."""
    names = kind(task).spec.texts
    rows = [{names[0]: "a", names[1]: "b", "label": mark} for mark in marks]
    with pytest.raises(
        InputError, match=r"f.tsv: found labels -1, .* for [23] classes: is -1 one of them, or no label"
    ):
        read(rows, kind(task))
    for other in ([-1, 0, 0], [-1, 1, 0], [-1, 0, 1, 2]):
        if max(other) < len(kind(task).classes):
            kept = read([{names[0]: "a", names[1]: "b", "label": mark} for mark in other], kind(task))
            assert len(kept.records) == len(other) - 1
    given = {"-1": kind(task).classes[-1], "0": kind(task).classes[1], "1": kind(task).classes[0]}
    assert len(read(rows, kind(task), labels=given).records) == len(rows)


def test_minus_one_of_a_signed_score_is_a_value():
    rows = [{"sentence1": "a", "sentence2": "b", "score": value} for value in ("-1", "0.5", "-0.25")]
    assert [one["label"] for one in read(rows, kind("stsb")).records] == [-1.0, 0.5, -0.25]
    assert len(read(rows[:2], kind("stsb")).unlabelled) == 1


def test_a_column_named_like_a_text_does_not_replace_it():
    rows = [{"a": "P", "b": "H", "premise": "other", "hypothesis": "neutral", "label": "junk"}]
    columns = {"premise": "a", "hypothesis": "b", "label": "hypothesis"}
    assert read(rows, columns=columns).records == [
        {"id": "s/train-2", "premise": "P", "hypothesis": "H", "label": "neutral"}
    ]
    with pytest.raises(
        InputError, match=r"the column 'hypothesis' would be hypothesis and label\n`columns: {label: NAME"
    ):
        read(rows, columns={"label": "hypothesis"})
    with pytest.raises(InputError, match=r"the column 'a' would be premise and hypothesis"):
        read(rows, columns={"premise": "a", "hypothesis": "a"})


@pytest.mark.parametrize(
    "value, said",
    [(["P"], "found a list in the column 'sentence1', expected text"), ({"a": 1}, "found an object in"),
     (5, "found a number in"), (True, "found true or false in"), (None, "no text in the column")],
)  # fmt: skip
def test_what_is_no_text_is_named(value, said):
    assert read([{**pair("neutral"), "sentence1": value}]).bad[0]["reason"].startswith(said)


def test_ids_that_are_no_names_count_as_none():
    rows = [pair("neutral", id={"paragraph": 1}), pair("neutral", id={"paragraph": 2})]
    assert [one["id"] for one in read(rows).records] == ["s/train-2", "s/train-3"]
