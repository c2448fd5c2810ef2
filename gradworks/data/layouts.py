"""How published data files are laid out: rows of named fields from TSV, CSV, JSON, CoNLL and Parquet.

Every reader yields (line, fields), or (line, reason) for a row that cannot be read: one broken row costs one row.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from gradworks.base.errors import InputError
from gradworks.data import delimited, nested, objects, pictures
from gradworks.data.lines import Account, Lines, suffix
from gradworks.data.nested import Rows

if TYPE_CHECKING:
    import pyarrow as pa

Layout = Literal[
    "tsv",
    "csv",
    "jsonl",
    "parquet",
    "cola",
    "multirc",
    "record",
    "eraser",
    "wsc",
    "conll",
    "squad",
    "idx",
    "npz",
    "folder",
]
SUFFIXES = (".tsv", ".csv", ".txt", ".jsonl", ".json", ".parquet", ".conll")
WITH_HEADER = ("tsv", "csv", "cola")
_COLA = ("source", "label", "mark", "sentence")  # the GLUE download of CoLA has no header


@dataclass
class Table:
    """What a file holds.

    Attributes:
        names: of the columns, of all rows.
        rows: line and fields, or line and why the row cannot be read.
        account: of the file's lines, whole when the rows have been read; None where lines are no rows (Parquet, a JSON
            array, MultiRC, ReCoRD, CoNLL, SQuAD).
    """

    names: list[str]
    rows: Rows
    account: Account | None = None


def _nothing(_: int) -> None:
    pass


def detect(path: Path) -> Layout:
    """The layout of a file, from its suffix and first line. Raises InputError when it is none of them."""
    if path.suffix == ".parquet" or suffix(path) == ".conll":
        return "parquet" if path.suffix == ".parquet" else "conll"
    if (of_pictures := pictures.layout_of(path)) is not None:
        return of_pictures
    first = next((text for _, text in Lines(path, _nothing)), None)
    if first is None:
        raise InputError(f"{path}: empty\nexpected a header and rows; `files` of the source chooses what is read")
    if suffix(path) in (".jsonl", ".json"):
        if first.startswith("{") and '"evidences"' in first:
            return "eraser"
        if first.startswith("{") and '"span1_index"' in first:
            return "wsc"
        if first.startswith("{") and '"paragraphs"' in first:
            return "squad"
        if re.search(r'"qas":\s*\[', first):
            return "record"
        return "multirc" if re.search(r'"passage":\s*\{', first) else "jsonl"
    fields = first.split("\t")
    if len(fields) == 4 and fields[1] in ("0", "1") and fields[2] in ("", "*"):
        return "cola"
    return "tsv" if len(fields) > 1 or suffix(path) == ".tsv" else "csv"


def _names(rows: Rows) -> list[str]:
    """The keys of all objects, as they come: the first may lack some."""
    names: dict[str, None] = {}
    for _, found in rows:
        if not isinstance(found, str):
            names.update(dict.fromkeys(found))
    return list(names)


def _json(path: Path, layout: Layout, advance: Callable[[int], None]) -> Table:
    in_lines = objects.is_a_line_each(path)
    rows, account = objects.lines_of(path, advance) if in_lines else (objects.whole(path, advance), None)
    if layout != "jsonl":
        return Table(list(nested.FIELDS[layout]), getattr(nested, layout)(rows))
    if in_lines:
        return Table(_names(objects.lines_of(path, _nothing)[0]), rows, account)
    kept = list(rows)
    return Table(_names(iter(kept)), iter(kept))


def rows_of(table: pa.Table) -> Rows:
    """The rows of an Arrow table; one whose text is not UTF-8 costs that row."""
    number = 0
    for batch in table.to_batches(max_chunksize=1000):
        try:
            rows: list[dict[str, Any] | str] = batch.to_pylist()
        except UnicodeDecodeError:
            rows = []
            for i in range(batch.num_rows):
                try:
                    rows += batch.slice(i, 1).to_pylist()
                except UnicodeDecodeError as error:
                    rows.append(f"not UTF-8: byte {error.object[error.start]:#04x}")
        for found in rows:
            number += 1
            yield number, found


def _parquet(path: Path, advance: Callable[[int], None]) -> Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{path}: not a readable Parquet file\n{str(error).splitlines()[0][:200]}") from None
    advance(path.stat().st_size)
    return Table(table.column_names, rows_of(table))


def read(
    path: Path,
    layout: Layout | None = None,
    header: tuple[str, ...] | None = None,
    advance: Callable[[int], None] = _nothing,
    whole: Callable[[dict[str, str]], bool] = lambda _: False,
) -> Table:
    """Column names and rows of a file.

    Args:
        path: the file.
        layout: how it is laid out; found out when it is not given.
        header: names of the columns of a TSV or CSV file that has none.
        advance: given the number of bytes read.
        whole: whether fields are a good row, for lines that a quotation mark may have swallowed.

    Raises:
        InputError: the file is empty, its header is broken, or `header` is given for a file that names its fields.
    """
    layout = layout or detect(path)
    assert layout in get_args(Layout)
    if header and layout not in WITH_HEADER:
        raise InputError(f"{path}: header: found it for a file of the layout {layout}\nexpected none: its rows name their fields")  # fmt: skip  # noqa: E501
    if layout == "parquet":
        return _parquet(path, advance)
    if layout in pictures.LAYOUTS:
        return Table(*pictures.read(path, layout, advance))
    if layout in WITH_HEADER:
        header = header or (_COLA if layout == "cola" else None)
        delimiter = delimited.comma(path) if layout == "csv" else "\t"
        return Table(*delimited.read(Lines(path, advance), delimiter, header, whole))
    if layout == "squad":
        return Table(list(nested.FIELDS[layout]), nested.squad(path, advance))
    if layout == "conll":
        lines = Lines(path, advance)
        return Table(list(nested.FIELDS[layout]), nested.conll(lines, lines.broken))
    return _json(path, layout, advance)
