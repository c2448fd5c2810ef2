"""TSV and CSV with quotation marks: no line is lost, and none is swallowed without its extent being on the account."""

import csv
import io
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradworks.base.errors import InputError
from gradworks.data import layouts
from gradworks.data.lines import Account, Lines


def read(path, text, whole=lambda _: False, **more):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    table = layouts.read(path, whole=whole, **more)
    rows = list(table.rows)
    account = table.account
    assert account.header + account.blank + len(rows) + account.further == account.lines
    assert account.lines == len(path.read_bytes().splitlines()) or b"\r" in path.read_bytes()
    return rows, account


def good(rows):
    return [fields for _, fields in rows if isinstance(fields, dict)]


def labelled(fields):
    return fields["label"] in ("a", "b")


def test_a_stray_inch_mark_costs_nothing(tmp_path):
    """Inside a field that is not quoted a mark is a character; ten lines on another one must not pair up with it."""
    lines = [f"text {n},a" for n in range(20)]
    lines[3], lines[13] = 'a 5" nail,a', 'a 6" nail,b'
    rows, account = read(tmp_path / "a.csv", "text,label\n" + "\n".join(lines) + "\n")
    assert len(good(rows)) == 20 and not account.continued
    assert good(rows)[3] == {"text": 'a 5" nail', "label": "a"}


def test_a_stray_inch_mark_in_a_quoted_field_costs_its_row(tmp_path):
    lines = [f'"text, {n}",a' for n in range(20)]
    lines[3] = '"a 5" nail, long",a'
    rows, account = read(tmp_path / "a.csv", "text,label\n" + "\n".join(lines) + "\n")
    assert [number for number, found in rows if isinstance(found, str)] == [5]
    assert len(good(rows)) == 19 and not account.continued


@pytest.mark.parametrize(
    "broken, closing",
    [
        ('"never closed,a', "text,b"),  # no mark after it: the rest of the file is inside
        ('"never closed,a', '"in ""marks""",b'),  # the next field's opening mark closes it
        ('"never closed,a', 'by 6",b'),  # an inch mark closes it, and the number of fields fits
        ('"an inch 5"",a', '"text",b'),  # a doubled mark is one that does not close
        ('text,"a', "text,b"),
    ],
)
def test_a_mark_that_is_not_closed_costs_one_row(tmp_path, broken, closing):
    lines = [f"text {n},a" for n in range(20)]
    lines[3], lines[9] = broken, closing
    rows, _ = read(tmp_path / "a.csv", "text,label\n" + "\n".join(lines) + "\n", labelled)
    assert [number for number, found in rows if isinstance(found, str)] == [5]
    assert len(good(rows)) == 19


def test_rows_between_the_first_and_the_last_line_of_a_field_are_no_text_of_it(tmp_path):
    lines = [f"text {n},a" for n in range(20)]
    lines[3], lines[9] = '"two\nlines and an inch 5"",a', 'by 6",b'
    rows, account = read(tmp_path / "a.csv", "text,label\n" + "\n".join(lines) + "\n", labelled)
    kept = [fields["text"] for fields in good(rows)]
    assert set(kept) >= {f"text {n}" for n in range(20) if n not in (3, 9)} | {'by 6"'} and not account.continued


def test_a_mark_that_opens_in_the_last_line(tmp_path):
    rows, _ = read(tmp_path / "a.csv", 'text,label\none,a\n"two,b')
    assert rows == [(2, {"text": "one", "label": "a"}), (3, "a quotation mark is not closed")]


def test_a_field_of_several_lines_is_one_row_and_its_extent_is_kept(tmp_path):
    text = 'text,label\n"one\n\ntwo, ""three""\nfour",a\nfive,b\n\n"six\nseven",b\n'
    rows, account = read(tmp_path / "a.csv", text, labelled)
    assert rows == [
        (2, {"text": 'one\n\ntwo, "three"\nfour', "label": "a"}),
        (6, {"text": "five", "label": "b"}),
        (8, {"text": "six\nseven", "label": "b"}),
    ]
    assert account.continued == [(2, 5), (8, 9)] and account.further == 4 and account.blank == 1


def test_a_row_of_several_lines_that_has_too_few_fields_gives_them_back(tmp_path):
    rows, account = read(tmp_path / "a.csv", 'x,text,label\n1,"one,a\n2,two,b\n3,b,by 5"\n4,four,a\n')
    assert rows[0] == (2, "a quotation mark is not closed: found 2 fields up to line 4") and not account.continued
    assert [fields["x"] for fields in good(rows)] == ["2", "3", "4"]


def test_a_byte_that_is_no_text_costs_the_row_that_it_is_in(tmp_path):
    text = b'text,label\none,a\n"two\ncaf\xe9",a\nthree\0,a\nfour,b\n'
    rows, account = read(tmp_path / "a.csv", text)
    assert [number for number, _ in rows] == [2, 3, 5, 6] and account.continued == [(3, 4)]
    assert rows[1][1].startswith("not UTF-8: byte 0xe9 at position 25") and rows[2][1].startswith("a NUL byte")
    assert len(good(rows)) == 2


def test_utf_16_is_named(tmp_path):
    (tmp_path / "a.tsv").write_bytes("text\tlabel\n".encode("utf-16"))
    with pytest.raises(InputError, match=r"a.tsv: line 1: found UTF-16\nexpected UTF-8"):
        layouts.read(tmp_path / "a.tsv")


@pytest.mark.parametrize("name, text", [("a.csv", "text,label\rone,a\r"), ("a.tsv", "text\tlabel\rone\ta\r")])
def test_lines_that_end_in_carriage_returns_alone_are_named(tmp_path, name, text):
    (tmp_path / name).write_bytes(text.encode())
    with pytest.raises(
        InputError, match=rf"{name}: line 1: a carriage return inside the line\nexpected lines that end"
    ):
        layouts.read(tmp_path / name)


def test_a_file_without_a_header(tmp_path):
    rows, account = read(tmp_path / "a.csv", '"one, two",a\nthree,b\n', header=("text", "label"))
    assert rows == [(1, {"text": "one, two", "label": "a"}), (2, {"text": "three", "label": "b"})]
    assert account.header == 0
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n')
    with pytest.raises(InputError, match=r"a.jsonl: header: found it for a file of the layout jsonl"):
        layouts.read(tmp_path / "a.jsonl", header=("text",))


def test_blanks_and_empty_names_in_the_header(tmp_path):
    rows, _ = read(tmp_path / "a.csv", "text, label,,\none,a,,\n")
    assert rows == [(2, {"text": "one", "label": "a", "": ""})]


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(st.text(st.sampled_from('"a,\n '), max_size=12), max_size=12))
def test_no_line_is_lost_whatever_the_marks(tmp_path_factory, lines):
    text = "text,label\n" + "\n".join(lines) + "\n"
    read(tmp_path_factory.mktemp("x") / "a.csv", text, labelled)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.text(st.sampled_from('"a,\n '), min_size=1), st.just("q")), min_size=1, max_size=8))
def test_what_the_csv_module_writes_is_read_as_it_was(tmp_path_factory, given_rows):
    body = io.StringIO()
    csv.writer(body, lineterminator="\n").writerows([("text", "label"), *given_rows])
    rows, _ = read(tmp_path_factory.mktemp("x") / "a.csv", body.getvalue())
    assert [tuple(fields.values()) for fields in good(rows)] == given_rows


WORDS = ["a", "dog,", "runs", "fast;", "he", "said", "5", "nail", "long", "tea", "milk\tx"]


@pytest.mark.parametrize("strays", [1, 3])
@pytest.mark.parametrize("delimiter, name", [(",", "a.csv"), ("\t", "a.tsv")])
def test_stray_marks_change_no_other_row(tmp_path, strays, delimiter, name):
    """Rows as the csv module writes them, some over two lines, with marks set into some of them by hand."""
    for seed in range(100):
        draw = random.Random(f"{seed} {strays} {delimiter}")  # noqa: S311  no secret
        rows = [(f"{n} {' '.join(draw.choices(WORDS, k=4))}", draw.choice("ab")) for n in range(30)]
        rows = [(f"{text}\nmore {text}" if draw.random() < 0.1 else text, label) for text, label in rows]
        body = io.StringIO()
        written = []
        for row in rows:
            csv.writer(body, delimiter=delimiter, lineterminator="\n").writerow(row)
            written.append(body.getvalue())
            body.seek(body.truncate(0))
        damaged = set(draw.sample(range(30), strays))
        for n in damaged:
            at = draw.choice([0, len(written[n]) - 4, draw.randrange(len(written[n]) - 4)])
            written[n] = f'{written[n][:at]}"{written[n][at:]}'
        found, _ = read(tmp_path / name, f"text{delimiter}label\n{''.join(written)}", labelled)
        kept = {tuple(fields.values()) for fields in good(found)}
        assert kept >= {row for n, row in enumerate(rows) if n not in damaged}


def test_a_line_that_is_unaccounted_for_stops_the_reader(tmp_path):
    (tmp_path / "a.csv").write_text("text\none\ntwo\n")
    lines = Lines(tmp_path / "a.csv", lambda _: None)
    list(lines)
    with pytest.raises(InputError, match=r"a.csv: 3 lines, 2 of them accounted for"):
        Account(header=1, rows=1).close(lines)
