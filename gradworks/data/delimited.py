"""TSV and CSV: every line becomes a row, a bad row, or part of a row whose extent is on the account.

The csv module reads quoted fields; which lines it took is ours to know, because a mark that is not closed would make it
take everything up to the next one. The lines of a row that is not whole are given back, all but its first.
"""

from __future__ import annotations

import csv
import re
import sys
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from gradworks.base.errors import InputError
from gradworks.data.lines import Account, Lines

Rows = Iterator[tuple[int, dict[str, Any] | str]]
_RETURN = "a carriage return inside the line"
_LONGEST = 1000  # lines of one row; more means that a closing mark is missing
# a line whose every quotation mark belongs to a quoted field; others have them as plain characters
_QUOTED = {d: re.compile(rf'(?:"(?:[^"]|"")*"|[^"{d}]*)(?:{d}(?:"(?:[^"]|"")*"|[^"{d}]*))*') for d in "\t,"}


def comma(path: Path) -> str:
    """What is between the fields of a CSV file: a semicolon where its first line has no comma between fields."""
    first = next((text for _, text in Lines(path, lambda _: None)), "")
    return ";" if _count(first, ",") < 2 <= _count(first, ";") else ","


def _count(text: str, delimiter: str) -> int:
    """Fields of a line; 0 where its quotation marks do not fit."""
    try:
        return len(next(csv.reader([text], delimiter=delimiter, strict=True), []))
    except csv.Error:
        return 0


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


class _Feed:
    """Lines for the csv module, with those that the present row took."""

    def __init__(self, lines: Lines) -> None:
        self._lines = iter(lines)
        self._waiting: deque[tuple[int, str]] = deque()
        self.taken: list[tuple[int, str]] = []

    def __iter__(self) -> _Feed:
        return self

    def __next__(self) -> str:
        if len(self.taken) == _LONGEST:
            raise StopIteration
        self.taken.append(self._waiting.popleft() if self._waiting else next(self._lines))
        return self.taken[-1][1] + "\n"

    def give_back(self) -> None:
        """All lines of the present row but its first: they are read again, as rows of their own."""
        self._waiting.extendleft(reversed(self.taken[1:]))
        del self.taken[1:]


def _alone(text: str, delimiter: str) -> list[str]:
    """The fields of one line; its marks are plain characters where they enclose nothing."""
    try:
        return next(csv.reader([text], delimiter=delimiter, strict=True), [])
    except csv.Error:
        return text.split(delimiter)


def _swallowed(whole: list[bool]) -> bool:
    """Whether a row of several lines took in other rows: one between its first and last, or all of its lines.

    The last line alone proves nothing: where the text is the first of two columns, the end of a text that spans lines
    is a row, too.
    """
    return any(whole[1:-1]) or all(whole)


def _plain(lines: Lines, delimiter: str) -> Iterator[tuple[int, int, list[str] | str]]:
    for number, text in lines:
        yield number, number, text.split(delimiter)


def _quoted(
    lines: Lines, delimiter: str, fits: Callable[[list[str]], bool], whole: Callable[[list[str]], bool]
) -> Iterator[tuple[int, int, list[str] | str]]:
    """First and last line of each row, and its fields or why there are none.

    Args:
        lines: of the file.
        delimiter: of its fields.
        fits: whether there are as many fields as a row has.
        whole: whether fields are a good row of their own, label included.
    """
    csv.field_size_limit(sys.maxsize)
    feed = _Feed(lines)
    reader = csv.reader(feed, delimiter=delimiter, strict=True)
    while True:
        feed.taken.clear()
        found: list[str] | str
        try:
            found = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            unclosed = len(feed.taken) > 1 or "unexpected end" in str(error)
            found = "a quotation mark is not closed" if unclosed else f"broken quotation: {error}"
            if "new-line character" in str(error):
                found = _RETURN
        if len(feed.taken) > 1:
            last = feed.taken[-1][0]
            if isinstance(found, list) and not fits(found):
                found = f"a quotation mark is not closed: found {len(found)} fields up to line {last}"
            elif isinstance(found, list) and _swallowed([whole(_alone(text, delimiter)) for _, text in feed.taken]):
                found = f"a quotation mark is not closed: up to line {last} there are rows of their own"
            if isinstance(found, str):
                feed.give_back()
        yield feed.taken[0][0], feed.taken[-1][0], found


def read(
    lines: Lines,
    delimiter: str,
    header: tuple[str, ...] | None,
    whole: Callable[[dict[str, str]], bool],
) -> tuple[list[str], Rows, Account]:
    """Column names, rows, and the account, which is closed when the rows have been read.

    Args:
        lines: of the file.
        delimiter: a tab, a comma or a semicolon.
        header: names of the columns of a file whose first line is a row.
        whole: whether the fields of one line are a good row; called where a quoted field spans lines.

    Raises:
        InputError: the header is broken; while rows are read, a line is unaccounted for.
    """
    names: list[str] = list(header or ())
    account = Account()
    if delimiter != "\t" or is_quoted(lines.path, delimiter):
        found = _quoted(
            lines, delimiter, lambda fields: not names or len(fields) == len(names),
            lambda fields: len(fields) == len(names) > 0 and whole(dict(zip(names, fields, strict=True))),
        )  # fmt: skip
    else:
        found = _plain(lines, delimiter)
    if not header:
        first, last, fields = next(found, (0, 0, []))
        fault = lines.fault(first, last) or (fields if isinstance(fields, str) else None)
        if any("\r" in name for name in fields):
            fault = _RETURN
        if fault == _RETURN:
            raise InputError(f"{lines.path}: line 1: {fault}\nexpected lines that end in a line feed")
        if fault:
            raise InputError(f"{lines.path}: line 1: {fault}\nexpected the names of the columns")
        names += [name.strip() for name in fields]
        account.header = last
        twice = next((name for name in names if name and names.count(name) > 1), None)
        if twice:
            raise InputError(f"{lines.path}: line 1: duplicate column {twice!r}\nexpected distinct names")

    def rows() -> Rows:
        for first, last, fields in found:
            if fields in ([""], []) and len(names) > 1:
                account.blank += 1
                continue
            account.row(first, last)
            fault = lines.fault(first, last)
            if fault or isinstance(fields, str):
                yield first, fault or fields
            elif len(fields) != len(names):
                yield first, f"found {len(fields)} fields, expected {len(names)}"
            else:
                yield first, dict(zip(names, fields, strict=True))
        account.close(lines)

    return names, rows(), account
