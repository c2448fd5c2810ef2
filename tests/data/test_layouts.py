"""Published layouts, with the traps that their files have."""

import json

import pytest

from gradworks.base.errors import InputError
from gradworks.data import layouts


def read(path, text, layout=None):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    table = layouts.read(path, layout)
    return table.names, list(table.rows)


def test_a_byte_order_mark_and_windows_line_ends_are_no_text(tmp_path):
    header, rows = read(tmp_path / "a.tsv", "\ufeffQuality\t#1 String\r\n1\tone\r\n")
    assert header == ["Quality", "#1 String"]
    assert rows == [(2, {"Quality": "1", "#1 String": "one"})]


def test_plain_quotation_marks_stay(tmp_path):
    """GLUE and MNLI: a quotation mark is a character, even where a field begins with it."""
    text = 'premise\tlabel\nHe said "no"\t1\n"Can\'t it?"\t0\nOdd " one\t1\nAnother "\t1\n'
    _, rows = read(tmp_path / "a.tsv", text)
    assert [fields["premise"] for _, fields in rows] == ['He said "no"', '"Can\'t it?"', 'Odd " one', 'Another "']


def test_enclosing_quotation_marks_go(tmp_path):
    """minBERT, SNLI and Quora as written by pandas: doubled marks are one, a field may hold tabs and line feeds."""
    text = 'id\tsentence\n1\t"A ""big"" one"\n2\t"two\tfields"\n3\t"two\nlines"\n4\tplain\n'
    _, rows = read(tmp_path / "a.tsv", text)
    assert [(n, f["sentence"]) for n, f in rows] == [
        (2, 'A "big" one'),
        (3, "two\tfields"),
        (4, "two\nlines"),
        (6, "plain"),
    ]


def test_a_mark_that_is_not_closed_costs_one_row(tmp_path):
    """A csv reader alone would swallow every line after it without a word."""
    lines = [f'{n}\t"text ""{n}"""' for n in range(2, 400)]
    lines[10] = '12\t"never closed'
    _, rows = read(tmp_path / "a.tsv", "id\tsentence\n" + "\n".join(lines) + "\n")
    assert len(rows) == 398
    assert [row for row in rows if isinstance(row[1], str)] == [(12, "a quotation mark is not closed")]
    assert rows[11] == (13, {"id": "13", "sentence": 'text "13"'})


def test_cola_has_no_header(tmp_path):
    header, rows = read(tmp_path / "train.tsv", "gj04\t1\t\tFriends left.\ngj04\t0\t*\tLeft friends.\n")
    assert header[-1] == "sentence" and [f["label"] for _, f in rows] == ["1", "0"]


def test_a_row_of_another_width_is_reported(tmp_path):
    _, rows = read(tmp_path / "a.tsv", "a\tb\n1\t2\n1\n\n1\t2\t3\n")
    assert rows[1:] == [(3, "found 1 fields, expected 2"), (5, "found 3 fields, expected 2")]


def test_lines_end_at_line_feeds_only(tmp_path):
    _, rows = read(tmp_path / "a.tsv", "a\tb\none\u2028two\x85three\tx\n")
    assert rows == [(2, {"a": "one\u2028two\x85three", "b": "x"})]


def test_csv(tmp_path):
    _, rows = read(tmp_path / "a.csv", 'text,label\n"one, two",1\n')
    assert rows == [(2, {"text": "one, two", "label": "1"})]


def test_json_lines(tmp_path):
    header, rows = read(tmp_path / "a.jsonl", '{"a": 1}\n\n{"a": \n[1]\n{"a": 2}\n')
    assert header == ["a"] and rows[0] == (1, {"a": 1}) and rows[-1] == (5, {"a": 2})
    assert rows[1][0] == 3 and rows[1][1].startswith("not JSON")
    assert rows[2] == (4, "found a JSON list, expected an object")


def test_multirc_becomes_one_row_per_answer(tmp_path):
    text = (
        '{"idx": 7, "passage": {"text": "P", "questions": [{"question": "Q", "idx": 3, "answers": ['
        '{"text": "yes", "idx": 10, "label": 1}, {"text": "no", "idx": 11, "label": 0}]}]}}\n'
        '{"idx": 8, "passage": {}}\n'
    )
    _, rows = read(tmp_path / "a.jsonl", text)
    expected = {"passage": "P", "question": "Q", "group": "7-3"}
    assert rows[0] == (1, {**expected, "id": "7-3-10", "answer": "yes", "label": 1})
    assert rows[1] == (1, {**expected, "id": "7-3-11", "answer": "no", "label": 0})
    assert rows[2] == (2, "not a MultiRC passage: 'questions' is missing")


def test_wsc(tmp_path):
    target = {"span1_index": 0, "span1_text": "Mark", "span2_index": 4, "span2_text": "he"}
    rows = [{"text": "Mark said that he knew.", "target": target, "idx": 3, "label": True}, {"text": "x", "idx": 4}]
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    assert layouts.detect(path) == "wsc"
    table = layouts.read(path)
    assert list(table.rows) == [
        (1, {"id": "3", "text": "Mark said that he knew.", "label": True, "span1_text": "Mark", "span2_text": "he"}),
        (2, "not a WSC row: 'target' is missing"),
    ]


def test_eraser(tmp_path):
    text = (
        '{"annotation_id": 5, "query": "q", "classification": "True", "evidences": [[{"text": "a"}, {"text": "b"}]]}\n'
    )
    assert read(tmp_path / "a.jsonl", text)[1] == [(1, {"id": "5", "question": "q", "label": "True", "passage": "a b"})]


def test_parquet(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"a": [1, 2]}), tmp_path / "a.parquet")
    table = layouts.read(tmp_path / "a.parquet")
    assert table.names == ["a"] and list(table.rows) == [(1, {"a": 1}), (2, {"a": 2})]
    (tmp_path / "b.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(InputError, match=r"b.parquet: not a readable Parquet file"):
        layouts.read(tmp_path / "b.parquet")


def test_not_utf8_names_line_and_byte(tmp_path):
    _, rows = read(tmp_path / "a.tsv", b"a\tb\n1\t2\ncaf\xe9\t1\n3\t4\n")
    assert rows[1] == (3, "not UTF-8: byte 0xe9 at position 11 of the file") and rows[2] == (4, {"a": "3", "b": "4"})


@pytest.mark.parametrize("name", ["a.tsv", "a.jsonl"])
def test_an_empty_file(tmp_path, name):
    with pytest.raises(InputError, match=rf"{name}: empty"):
        read(tmp_path / name, "")


def test_a_column_twice(tmp_path):
    with pytest.raises(InputError, match=r"line 1: duplicate column 'a'"):
        read(tmp_path / "a.tsv", "a\ta\n1\t2\n")


def test_the_layout_can_be_told(tmp_path):
    header, _ = read(tmp_path / "a.txt", "a,b\tc\n1\t2\n", "csv")
    assert header == ["a", "b\tc"]
