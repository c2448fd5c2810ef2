"""JSON: an object a line, one array of objects, or objects one after the other, pretty-printed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from gradworks.data.lines import Account, Lines

Rows = Iterator[tuple[int, dict[str, Any] | str]]
_LOOKED_AT = 20  # lines that decide between an object a line and pretty-printed ones
_BETWEEN = re.compile(r"[\s,]*")
_HALF = re.compile(r"\\u[dD][89a-fA-F]")  # of a surrogate pair


def _value(text: str) -> Any:
    """Raises ValueError or RecursionError."""
    return json.loads(text)


def is_a_line_each(path: Path) -> bool:
    """Whether each line is a value of its own; otherwise values span lines, or an array holds them."""
    nonblank = (text for _, text in Lines(path, lambda _: None) if text.strip())
    looked_at = list(islice(nonblank, _LOOKED_AT))
    if not looked_at or looked_at[0].lstrip()[0] not in "[{":
        return True
    values = []
    for text in looked_at:
        try:
            values.append(_value(text))
        except (ValueError, RecursionError):
            continue
    if looked_at[0].lstrip()[0] == "{":
        return any(isinstance(value, dict) for value in values) and looked_at[0].strip() != "{"
    return len(looked_at) > 1 and all(isinstance(value, list) for value in values) and len(values) == len(looked_at)


def _checked(value: Any, text: str) -> dict[str, Any] | str:
    """An object, or why it is none that can be kept."""
    if not isinstance(value, dict):
        return f"found a JSON {type(value).__name__}, expected an object"
    if _HALF.search(text):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            half = error.object[error.start]
            return f"half a surrogate pair, \\u{ord(half):04x}: no character"
    return value


def lines_of(path: Path, advance: Callable[[int], None]) -> tuple[Rows, Account]:
    """An object a line."""
    lines, account = Lines(path, advance), Account()

    def rows() -> Rows:
        for number, text in lines:
            if not text.strip():
                account.blank += 1
                continue
            account.row(number, number)
            fault = lines.fault(number, number)
            if fault:
                yield number, fault
                continue
            try:
                value = _value(text)
            except (ValueError, RecursionError) as error:
                yield number, f"not JSON: {error}"
                continue
            yield number, _checked(value, text)
        account.close(lines)

    return rows(), account


def whole(path: Path, advance: Callable[[int], None]) -> Rows:
    """An array of objects, or objects one after the other; the number is the line on which each begins.

    An element that is broken is one row, up to the next line that begins as the elements do.
    """
    lines = Lines(path, advance)
    text = "\n".join(one for _, one in lines)
    decoder = json.JSONDecoder()
    at = _BETWEEN.match(text).end()
    is_array = text[at : at + 1] == "["
    begins = None
    number, counted = 1, 0
    at = _BETWEEN.match(text, at + is_array).end()
    while at < len(text) and not (is_array and text[at] == "]"):
        number, counted = number + text.count("\n", counted, at), at
        if begins is None:  # the first element's indentation is that of all
            before = text[text.rfind("\n", 0, at) + 1 : at]
            indent = "[ \\t]?" if before.strip() else before
            begins = re.compile("(?<=\\n)" + indent + r"(?=\{)")
        try:
            value, end = decoder.raw_decode(text, at)
            found = _checked(value, text[at:end])
        except (ValueError, RecursionError) as error:
            again = begins.search(text, at + 1)
            end = again.end() if again else len(text)
            found = f"not JSON: {error}"
        yield number, lines.fault(number, number + text.count("\n", at, end)) or found
        at = _BETWEEN.match(text, end).end()
    number += text.count("\n", counted, at)
    if is_array and at >= len(text):
        yield number, "the JSON array is not closed: the file ends too early"
    elif is_array and text[at + 1 :].strip():
        yield number, "found text behind the end of the JSON array"
