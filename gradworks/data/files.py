"""A folder of published files as splits: which file is which split, read and reported."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from gradworks.base.errors import InputError
from gradworks.base.progress import Progress
from gradworks.data import layouts, lines, pictures, records

if TYPE_CHECKING:
    from gradworks.tasks.kinds import Kind

WHOLE = "all"  # the one split of a source that is one file
_EXPECTED = {
    "texts": f"one of {', '.join(layouts.SUFFIXES)}, a file per split",
    "pictures": "X-images-idx3-ubyte.gz, X.npz or X.parquet, a file per split X, or folders CLASS or SPLIT/CLASS",
}
_NO_DATA = ("readme", "license", "licence", "changelog")


def splits_of(folder: Path, files: Mapping[str, str] | None, where: str, reads: str = "texts") -> dict[str, Path]:
    """The file of each split, by the file's name without suffix, or as `files` says; one file alone is the split `all`.

    Args:
        folder: of the files, or one file.
        files: split and file, relative to `folder`; of pictures it may be a folder.
        where: params file and section, for messages.
        reads: what the task's models read, "texts" or "pictures": which files are looked for.

    Raises:
        InputError: nothing there, no file, or two files for one split.
    """
    if folder.is_file():
        if files:
            raise InputError(f"{where}.files: found it for a source of one file\nits only split is {WHOLE!r}")
        return {WHOLE: folder}
    if not folder.is_dir():
        raise InputError(
            f"{where}.from: no folder {str(folder)!r}\nexpected a folder with a file per split, or one file"
        )
    if files:
        for split, name in files.items():
            if not (folder / name).is_file() and not (reads == "pictures" and (folder / name).is_dir()):
                there = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
                raise InputError(
                    f"{where}.files.{split}: no file {name!r} in {folder}\nfound: {', '.join(there[:12]) or 'none'}"
                )
        return {split: folder / name for split, name in files.items()}
    found: dict[str, Path] = pictures.splits_of(folder) if reads == "pictures" else {}
    for path in sorted(folder.iterdir()) if not found else ():
        hidden = path.name.startswith((".", "~"))  # macOS and editors leave such files beside the data
        split = lines.stem(path)
        if lines.suffix(path) in layouts.SUFFIXES and path.is_file() and not hidden and split.lower() not in _NO_DATA:
            if split in found:
                raise InputError(
                    f"{folder}: {found[split].name} and {path.name} are both the split {split!r}\n"
                    f"`files: {{{split}: {path.name}}}` under {where} chooses"
                )
            found[split] = path
    if not found:
        there = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
        raise InputError(
            f"{folder}: no data file\nexpected {_EXPECTED[reads]}\n"
            f"found: {', '.join(there[:8]) or 'none'}; `files` of the source chooses what is read"
        )
    return found


def check_columns(row: Kind, path: Path, layout: layouts.Layout | None, asked: records.Asked) -> None:
    """Whether a file's header names the texts and the label; one that only its rows tell is left to `read`.

    Raises:
        InputError: a column is not there, or the header is broken.
    """
    layout = layout or layouts.detect(path)
    if layout == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            names = pq.read_schema(path).names
        except (pa.ArrowInvalid, OSError) as error:
            raise InputError(f"{path}: not a readable Parquet file\n{str(error).splitlines()[0][:200]}") from None
    elif layout in layouts.WITH_HEADER:
        names = layouts.read(path, layout, asked.header).names
    else:
        return
    records.columns_of(row, names, str(path), asked)


def read(
    row: Kind,
    paths: Mapping[str, Path],
    name: str,
    root: Path,
    shown: str,
    layout: layouts.Layout | None = None,
    asked: records.Asked | None = None,
    chosen: bool = False,
) -> tuple[dict[str, records.Split], dict[str, str]]:
    """Read the splits of a source.

    Args:
        row: the task.
        paths: file of each split.
        name: of the source; ids begin with NAME/SPLIT.
        root: the folder of the files; `shown` replaces it in messages and reports (it may be temporary).
        layout: of all files; found out file by file when it is not given.
        asked: what the source says of its columns and labels.
        chosen: the source names its files: each must have labels.

    Returns:
        The splits that have labels, and the others with the reason.

    Raises:
        InputError: see `layouts.read` and `records.read`; no split has labels.
    """
    asked = asked or records.Asked()

    def one(split: str, path: Path) -> records.Split:
        whole = partial(records.is_whole, row, asked=asked)
        table = layouts.read(path, layout, asked.header, bar.advance, whole)
        inside = path.is_relative_to(root)
        file = f"{shown}/{path.relative_to(root).as_posix()}" if inside else str(path)
        made = records.read(row, table.rows, table.names, file, f"{name}/{split}", asked)
        made.account = table.account
        return made

    try:
        with Progress(f"fetch {name}", sum(p.stat().st_size for p in paths.values()), "B") as bar:
            return labelled({split: partial(one, split, path) for split, path in paths.items()}, chosen)
    except InputError as error:
        raise type(error)(str(error).replace(str(root), shown)) from None
    except OSError as error:
        raise InputError(f"{shown}: {error.strerror}: {error.filename}") from None


def labelled(
    splits: Mapping[str, Callable[[], records.Split]], chosen: bool = False
) -> tuple[dict[str, records.Split], dict[str, str]]:
    """Read the splits that have labels; test splits of benchmarks have none, and are left out with the reason.

    Raises:
        InputError: a split has no labels, where they were `chosen` or where none of them has.
    """
    made, left_out, first = {}, {}, None
    for split, read_one in splits.items():
        try:
            made[split] = read_one()
        except records.Unlabelled as error:
            if chosen:
                raise
            first = first or error
            left_out[split] = str(error).splitlines()[0]
    if not made:
        raise first or InputError("no split\nexpected at least one")
    return made, left_out
