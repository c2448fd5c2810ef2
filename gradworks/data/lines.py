"""The lines of a text file, decoded one by one, and an account of what became of each."""

from __future__ import annotations

import codecs
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from gradworks.base.errors import InputError

PACKED = {".gz": gzip.open, ".xz": lzma.open}
_WIDE = {codecs.BOM_UTF16_LE: "UTF-16", codecs.BOM_UTF16_BE: "UTF-16"}


def suffix(path: Path) -> str:
    """Of what a file holds: .json of x.json.xz."""
    return Path(path.stem).suffix if path.suffix in PACKED else path.suffix


def stem(path: Path) -> str:
    """The file's name without suffixes: x of x.json and of x.json.xz."""
    return Path(path.stem).stem if path.suffix in PACKED else path.stem


class Lines:
    """Number and text of each line, split at line feeds only; .gz and .xz are unpacked.

    A line that is not UTF-8, or holds a NUL byte, keeps its place: its bytes become lone surrogates, and `broken` says
    why it is no text.

    Attributes:
        path: the file.
        count: the lines read so far.
        broken: line number and reason.
    """

    def __init__(self, path: Path, advance: Callable[[int], None]) -> None:
        self.path, self.count = path, 0
        self.broken: dict[int, str] = {}
        self._advance = advance

    def __iter__(self) -> Iterator[tuple[int, str]]:
        """`advance` is given the bytes of each line. Raises InputError when the file is UTF-16, or damaged."""
        done = 0
        with self.path.open("rb") as file:
            for number, (raw, read) in enumerate(self._unpacked(file), 1):
                self.count = number
                if number == 1 and raw[:2] in _WIDE:
                    raise InputError(
                        f"{self.path}: line 1: found {_WIDE[raw[:2]]}\nexpected UTF-8; `iconv -f UTF-16 -t UTF-8`"
                        " converts a file"
                    )
                try:
                    text = raw.decode("utf-8-sig" if number == 1 else "utf-8")  # MRPC begins with a byte order mark
                except UnicodeDecodeError as error:
                    text = raw.decode(errors="surrogateescape")
                    at = done + error.start
                    self.broken[number] = f"not UTF-8: byte {raw[error.start]:#04x} at position {at} of the file"
                if b"\0" in raw:
                    self.broken.setdefault(number, f"a NUL byte at position {done + raw.index(0)} of the file")
                done += len(raw)
                self._advance(read)
                yield number, text.removesuffix("\n").removesuffix("\r")

    def _unpacked(self, file: BinaryIO) -> Iterator[tuple[bytes, int]]:
        """Each line, and the bytes of the file that were read for it."""
        if self.path.suffix not in PACKED:
            for raw in file:
                yield raw, len(raw)
            return
        number = at = 0
        try:
            for number, raw in enumerate(io.BufferedReader(PACKED[self.path.suffix](file)), 1):  # noqa: B007
                before, at = at, file.tell()
                yield raw, at - before
        except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
            raise InputError(f"{self.path}: damaged after line {number}: {error}") from None

    def fault(self, first: int, last: int) -> str | None:
        """Why the lines from `first` to `last` are no text; None when they are."""
        return next((self.broken[n] for n in range(first, last + 1) if n in self.broken), None) if self.broken else None


@dataclass
class Account:
    """What became of each line: header, blank, the first line of a row (good or bad), or a further line of a row.

    Attributes:
        header, blank, rows: lines of each kind.
        continued: first and last line of each row of more than one line.
        lines: all lines of the file, known when it has been read.
    """

    header: int = 0
    blank: int = 0
    rows: int = 0
    continued: list[tuple[int, int]] = field(default_factory=list)
    lines: int = 0

    @property
    def further(self) -> int:
        """Lines of rows beyond their first."""
        return sum(last - first for first, last in self.continued)

    def row(self, first: int, last: int) -> None:
        self.rows += 1
        if last > first:
            self.continued.append((first, last))

    def close(self, lines: Lines) -> None:
        """Raises InputError when a line is unaccounted for."""
        self.lines = lines.count
        known = self.header + self.blank + self.rows + self.further
        if known != self.lines:
            raise InputError(
                f"{lines.path}: {self.lines} lines, {known} of them accounted for\n"
                f"{self.header} header, {self.blank} blank, {self.rows} rows, {self.further} further lines of rows: "
                "a fault of this reader"
            )
