"""Text files: plain, .gz or .xz, line by line with progress; word vectors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from gradworks.base.errors import InputError
from gradworks.base.progress import Progress

if TYPE_CHECKING:
    from torch import Tensor


def lines(path: Path, limit: int | None = None) -> Iterator[tuple[int, str]]:
    """Number and text of each line that is not blank, without the line's end.

    Args:
        path: UTF-8; .gz and .xz are unpacked.
        limit: how many to read at most.

    Raises:
        InputError: the file is missing, damaged, or not UTF-8; names file and line.
    """
    import gzip
    import io
    import lzma
    import zlib

    kinds = {".gz": gzip.open, ".xz": lzma.open}
    number = given = done = 0
    try:
        with path.open("rb") as raw, Progress(f"read {path.name}", path.stat().st_size, "B") as bar:
            unpacked = kinds[path.suffix](raw) if path.suffix in kinds else raw
            for number, line in enumerate(io.BufferedReader(unpacked), 1):
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
                if text:
                    yield number, text
                    given += 1
                    if given == limit:
                        return
                if number % 1000 == 0:
                    at = raw.tell()
                    bar.advance(at - done)
                    done = at
    except (FileNotFoundError, IsADirectoryError):
        raise InputError(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: line {number}: not UTF-8 at byte {error.start}") from None
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: damaged after line {number}: {error}") from None


def vectors(path: Path, limit: int | None, lowercase: bool) -> tuple[list[str], Tensor]:
    """Word vectors in the text format of GloVe (Pennington et al. 2014): a word and its numbers on each line.

    Args:
        path: frequent words first, as GloVe's files have them. A first line `words width` (word2vec's) is left out.
        limit: words to keep, from the start of the file.
        lowercase: fold the words' case; of those that become equal the first is kept.

    Returns:
        Words and (V, D) float32; the first two are [PAD], all zeros, and [UNK], the mean of all others.

    Raises:
        InputError: a line has another number of values than the first, or one that is not a number.
    """
    import numpy as np
    import torch

    rows: dict[str, np.ndarray] = {}
    width = 0
    for number, line in lines(path):
        width = width or line.count(" ")
        if number == 1 and width == 1:
            width = 0
            continue
        parts = line.rsplit(" ", width)  # GloVe 840B has words with a blank in them
        try:
            row = np.array(parts[1:], dtype=np.float32)
        except ValueError:
            row = np.empty(0)
        if len(row) != width or not np.isfinite(row).all():
            raise InputError(f"{path}: line {number}: found {line[:40]!r}\nexpected: a word and {width} numbers")
        rows.setdefault(parts[0].lower() if lowercase else parts[0], row)
        if len(rows) == limit:
            break
    if not rows:
        raise InputError(f"{path}: no vectors")
    for special in ("[PAD]", "[UNK]"):
        rows.pop(special, None)
    table = np.stack(list(rows.values()))
    table = np.concatenate([np.zeros_like(table[:1]), table.mean(0, dtype=np.float64, keepdims=True), table])
    return ["[PAD]", "[UNK]", *rows], torch.from_numpy(table.astype(np.float32))
