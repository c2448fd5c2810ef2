"""JSON as people have it: lines, arrays, pretty-printed; one broken row costs one row."""

import json

import pytest

from gradworks.data import layouts

ROWS = [{"text": f"t {n}", "label": n} for n in range(4)]


def read(path, text):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    table = layouts.read(path)
    return table.names, list(table.rows), table.account


@pytest.mark.parametrize("indent", [None, 0, 1, 2, "\t"])
@pytest.mark.parametrize("start", ["", "\ufeff", "\n \n"])
def test_an_array(tmp_path, indent, start):
    names, rows, _ = read(tmp_path / "a.json", start + json.dumps(ROWS, indent=indent))
    assert names == ["text", "label"] and [fields for _, fields in rows] == ROWS
    lines = (start + json.dumps(ROWS, indent=indent)).splitlines()
    assert all("{" in lines[number - 1] for number, _ in rows)


def test_an_array_with_an_element_a_line(tmp_path):
    text = "[" + ",\n".join(json.dumps(row) for row in ROWS) + "]\n"
    assert [fields for _, fields in read(tmp_path / "a.json", text)[1]] == ROWS
    broken = text.replace('"t 1"', '"t 1')
    rows = read(tmp_path / "a.json", broken)[1]
    assert [number for number, found in rows if isinstance(found, str)] == [2]
    assert [fields for _, fields in rows if not isinstance(fields, str)] == [ROWS[0], ROWS[2], ROWS[3]]


@pytest.mark.parametrize("indent", [1, 4])
def test_objects_one_after_the_other(tmp_path, indent):
    text = "\n".join(json.dumps(row, indent=indent) for row in ROWS)
    assert [fields for _, fields in read(tmp_path / "a.jsonl", text)[1]] == ROWS


@pytest.mark.parametrize("indent", [0, 2])
def test_a_broken_element_of_a_pretty_array_costs_one_row(tmp_path, indent):
    text = json.dumps(ROWS, indent=indent).replace('"t 1"', '"t 1')
    rows = read(tmp_path / "a.json", text)[1]
    assert [isinstance(found, str) for _, found in rows] == [False, True, False, False]
    assert rows[1][0] == 6 and rows[1][1].startswith("not JSON")


def test_an_array_that_ends_too_early_or_goes_on(tmp_path):
    rows = read(tmp_path / "a.json", json.dumps(ROWS, indent=1)[:-2])[1]
    assert rows[-1][1] == "the JSON array is not closed: the file ends too early" and len(rows) == 5
    rows = read(tmp_path / "a.json", json.dumps(ROWS, indent=1) + "\nmore")[1]
    assert rows[-1][1] == "found text behind the end of the JSON array" and len(rows) == 5


def test_elements_that_are_no_objects(tmp_path):
    rows = read(tmp_path / "a.json", '["text", 1, {"text": "a"}]')[1]
    assert [found for _, found in rows] == [
        "found a JSON str, expected an object", "found a JSON int, expected an object", {"text": "a"}
    ]  # fmt: skip
    rows = read(tmp_path / "a.jsonl", '["a", "b"]\n["c", "d"]\n')[1]
    assert [(number, found) for number, found in rows] == [
        (1, "found a JSON list, expected an object"), (2, "found a JSON list, expected an object")
    ]  # fmt: skip


def test_the_names_are_those_of_all_rows(tmp_path):
    assert read(tmp_path / "a.jsonl", '{"text": "a"}\n{"label": 1, "text": "b"}\n')[0] == ["text", "label"]
    assert read(tmp_path / "a.json", '[{"text": "a"}, {"label": 1}]')[0] == ["text", "label"]


def test_half_a_surrogate_pair_costs_its_row(tmp_path):
    whole = '{"text": "\\ud83d\\ude00 \\u00e9"}\n'
    for half in ('{"text": "a \\ud83d"}', '{"text": "\\uDE00\\uD83D"}', '{"\\udead": "x", "text": "a"}'):
        for text in (whole + half + "\n" + whole, "[" + whole + "," + half + ",\n" + whole + "]"):
            rows = read(tmp_path / "a.jsonl", text)[1]
            assert [isinstance(found, str) for _, found in rows] == [False, True, False]
            assert rows[1][1].startswith("half a surrogate pair, \\ud")
            assert rows[0][1] == {"text": "\U0001f600 \u00e9"}


def test_bytes_that_are_no_text_cost_their_row(tmp_path):
    text = b'\xef\xbb\xbf{"text": "a"}\n\n{"text": "caf\xe9"}\n{"text": "b\0"}\n{"text": "c"}\n'
    _, rows, account = read(tmp_path / "a.jsonl", text)
    assert [(n, isinstance(found, str)) for n, found in rows] == [(1, False), (3, True), (4, True), (5, False)]
    assert "0xe9 at position 31" in rows[1][1] and "NUL byte" in rows[2][1]
    assert (account.lines, account.rows, account.blank) == (5, 4, 1)
    rows = read(tmp_path / "a.json", b'[\n{"text": "caf\xe9"},\n{"text": "c"}\n]')[1]
    assert rows[0][1].startswith("not UTF-8") and rows[1] == (3, {"text": "c"})


def test_nesting_without_end(tmp_path):
    deep = '{"text": ' + "[" * 200_000 + "]" * 200_000 + "}"
    rows = read(tmp_path / "a.jsonl", '{"text": "a"}\n' + deep + '\n{"text": "b"}\n')[1]
    assert [isinstance(found, str) for _, found in rows] == [False, True, False]
