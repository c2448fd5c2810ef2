"""How published data files are laid out: rows of named fields from TSV, CSV, JSON lines and Parquet.

Every reader yields (line, fields), or (line, reason) for a row that cannot be read: one broken row costs one row.
"""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args

from gradworks.stage.errors import InputError

Layout = Literal["tsv", "csv", "jsonl", "parquet", "cola", "multirc", "eraser"]
Rows = Iterator[tuple[int, dict[str, Any] | str]]
SUFFIXES = (".tsv", ".csv", ".txt", ".jsonl", ".json", ".parquet")
_COLA = ("source", "label", "mark", "sentence")  # the GLUE download of CoLA has no header
_LONGEST = 50  # lines of one quoted record; more means that a closing quote is missing
# a line whose every quotation mark belongs to a quoted field; others have them as plain characters
_QUOTED = {d: re.compile(rf'(?:"(?:[^"]|"")*"|[^"{d}]*)(?:{d}(?:"(?:[^"]|"")*"|[^"{d}]*))*') for d in "\t,"}


def lines(path: Path, advance: Callable[[int], None]) -> Iterator[tuple[int, str]]:
    """Number and text of each line, split at line feeds only; `advance` is told the bytes read.

    Raises:
        InputError: a line is not UTF-8.
    """
    done = 0
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            try:
                text = raw.decode("utf-8-sig" if number == 1 else "utf-8")  # MRPC begins with a byte order mark
            except UnicodeDecodeError as error:
                raise InputError(
                    f"{path}: line {number}: not UTF-8: byte {raw[error.start]:#04x} at position {done + error.start}"
                    "\nexpected a UTF-8 file; `iconv -t UTF-8` converts one"
                ) from None
            done += len(raw)
            advance(len(raw))
            yield number, text.removesuffix("\n").removesuffix("\r")


def _nothing(_: int) -> None:
    pass


def detect(path: Path) -> Layout:
    """The layout of a file, from its suffix and first line. Raises InputError when it is none of them."""
    if path.suffix == ".parquet":
        return "parquet"
    number_and_text = next(lines(path, _nothing), None)
    if number_and_text is None:
        raise InputError(f"{path}: empty\nexpected a header and rows")
    first = number_and_text[1]
    if path.suffix in (".jsonl", ".json"):
        if first.startswith("{") and '"evidences"' in first:
            return "eraser"
        return "multirc" if re.search(r'"passage":\s*\{', first) else "jsonl"
    fields = first.split("\t")
    if len(fields) == 4 and fields[1] in ("0", "1") and fields[2] in ("", "*"):
        return "cola"
    return "tsv" if len(fields) > 1 or path.suffix == ".tsv" else "csv"


def is_quoted(path: Path, delimiter: str) -> bool:
    """Whether quotation marks enclose fields. Published TSV files come both ways; most of a file's lines decide.

    Lines with an odd number of marks do not count: they may be part of a quoted field that holds a line feed.
    """
    quoted = plain = 0
    with path.open("rb") as file:
        for raw in file:
            if raw.count(b'"') and raw.count(b'"') % 2 == 0:
                line = raw.decode(errors="replace").rstrip("\r\n")
                fits = _QUOTED[delimiter].fullmatch(line) is not None
                quoted, plain = quoted + fits, plain + (not fits)
                if quoted + plain == 1000:
                    break
    return quoted > plain


def _records(
    numbered: Iterator[tuple[int, str]], delimiter: str, quoted: bool
) -> Iterator[tuple[int, list[str] | str]]:
    """The line on which each record begins, and its fields; a quoted field may hold line feeds."""
    csv.field_size_limit(sys.maxsize)
    waiting: list[tuple[int, str]] = []
    while True:
        number, record = waiting.pop(0) if waiting else next(numbered, (0, ""))
        if number == 0:
            return
        if not quoted:
            yield number, record.split(delimiter)
            continue
        used = 0
        while record.count('"') % 2 and used < _LONGEST:
            if used == len(waiting):
                more = next(numbered, None)
                if more is None:
                    break
                waiting.append(more)
            record += "\n" + waiting[used][1]
            used += 1
        if record.count('"') % 2:  # give the lines after it back: one missing quotation mark must not swallow them
            yield number, "a quotation mark is not closed"
            continue
        del waiting[:used]
        try:
            yield number, next(csv.reader([record], delimiter=delimiter, strict=True), [])
        except csv.Error as error:
            yield number, f"broken quotation: {error}"


def _table(path: Path, delimiter: str, header: tuple[str, ...] | None, advance) -> tuple[list[str], Rows]:
    quoted = delimiter == "," or is_quoted(path, delimiter)
    records = _records(lines(path, advance), delimiter, quoted)
    names = list(header) if header else next(records, (0, []))[1]
    if isinstance(names, str):
        raise InputError(f"{path}: line 1: {names}")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{path}: line 1: the column {twice!r} stands twice")

    def rows() -> Rows:
        for number, fields in records:
            if isinstance(fields, str):
                yield number, fields
            elif len(fields) != len(names):
                if fields not in ([""], []):  # a blank line
                    yield number, f"found {len(fields)} fields, expected {len(names)}"
            else:
                yield number, dict(zip(names, fields, strict=True))

    return names, rows()


def _objects(path: Path, advance) -> Rows:
    for number, line in lines(path, advance):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except ValueError as error:
            yield number, f"not JSON: {error}"
            continue
        yield number, value if isinstance(value, dict) else f"found a JSON {type(value).__name__}, expected an object"


def _multirc(rows: Rows) -> Rows:
    """One row per answer; `group` names its question."""
    for number, found in rows:
        if isinstance(found, str):
            yield number, found
            continue
        try:
            for question in found["passage"]["questions"]:
                for answer in question["answers"]:
                    group = f"{found['idx']}-{question['idx']}"
                    yield number, {
                        "id": f"{group}-{answer['idx']}", "passage": found["passage"]["text"], "group": group,
                        "question": question["question"], "answer": answer["text"], "label": answer["label"],
                    }  # fmt: skip
        except (KeyError, TypeError) as error:
            yield number, f"not a MultiRC passage: {error} is missing"


def _eraser(rows: Rows) -> Rows:
    """BoolQ as ERASER has it: the evidence is the passage."""
    for number, found in rows:
        if isinstance(found, str):
            yield number, found
            continue
        try:
            yield number, {
                "id": str(found["annotation_id"]), "question": found["query"], "label": found["classification"],
                "passage": " ".join(part["text"] for group in found["evidences"] for part in group),
            }  # fmt: skip
        except (KeyError, TypeError) as error:
            yield number, f"not an ERASER annotation: {error} is missing"


def _first(rows: Rows) -> tuple[list[str], Rows]:
    """The names in the first row that can be read, and all rows."""
    before = []
    for number, found in rows:
        before.append((number, found))
        if not isinstance(found, str):
            break
    names = [] if not before or isinstance(before[-1][1], str) else list(before[-1][1])

    def again() -> Rows:
        yield from before
        yield from rows

    return names, again()


def _parquet(path: Path, advance) -> tuple[list[str], Rows]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{path}: not a readable Parquet file: {str(error).splitlines()[0]}") from None
    advance(path.stat().st_size)
    return table.column_names, iter(enumerate(table.to_pylist(), 1))


def read(path: Path, layout: Layout | None = None, advance: Callable[[int], None] = _nothing) -> tuple[list[str], Rows]:
    """Column names and rows of a file.

    Args:
        path: the file.
        layout: how it is laid out; found out when it is not given.
        advance: told how many bytes were read.

    Raises:
        InputError: the file is empty, not UTF-8, or its header is broken.
    """
    layout = layout or detect(path)
    assert layout in get_args(Layout)
    if layout == "parquet":
        return _parquet(path, advance)
    if layout in ("tsv", "csv", "cola"):
        return _table(path, "," if layout == "csv" else "\t", _COLA if layout == "cola" else None, advance)
    rows = _objects(path, advance)
    return _first({"jsonl": iter, "multirc": _multirc, "eraser": _eraser}[layout](rows))
