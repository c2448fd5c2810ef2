"""A folder of published files as splits: which file is which split, read and reported."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from gradworks.data import layouts, records
from gradworks.stage.errors import InputError
from gradworks.stage.progress import Progress

if TYPE_CHECKING:
    from gradworks.tasks import Row

_NO_DATA = ("readme", "license", "licence", "changelog")


def splits_of(folder: Path, files: Mapping[str, str] | None, where: str) -> dict[str, Path]:
    """The file of each split, by the file's name without suffix, or as `files` says.

    Raises:
        InputError: no folder, no file, or two files for one split.
    """
    if not folder.is_dir():
        raise InputError(f"{where}.from: no folder {str(folder)!r}\nexpected a folder with one file per split")
    if files:
        for split, name in files.items():
            if not (folder / name).is_file():
                there = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
                raise InputError(
                    f"{where}.files.{split}: no file {name!r} in {folder}\nfound: {', '.join(there[:12]) or 'none'}"
                )
        return {split: folder / name for split, name in files.items()}
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix in layouts.SUFFIXES and path.is_file() and path.stem.lower() not in _NO_DATA:
            if path.stem in found:
                raise InputError(
                    f"{folder}: {found[path.stem].name} and {path.name} are both the split {path.stem!r}\n"
                    f"`files: {{{path.stem}: {path.name}}}` under {where} chooses"
                )
            found[path.stem] = path
    if not found:
        raise InputError(f"{folder}: no data file\nexpected one of {', '.join(layouts.SUFFIXES)}, a file per split")
    return found


def read(
    row: Row,
    paths: Mapping[str, Path],
    name: str,
    root: Path,
    shown: str,
    layout: layouts.Layout | None = None,
    columns: Mapping[str, str] | None = None,
) -> dict[str, records.Split]:
    """Read the splits of a source.

    Args:
        row: the task.
        paths: file of each split.
        name: of the source; ids begin with NAME/SPLIT.
        root: the folder of the files; `shown` stands in its place in messages and reports (it may be temporary).
        layout: of all files; found out file by file when it is not given.
        columns: our columns and the files' names for them.

    Raises:
        InputError: see `layouts.read` and `records.read`.
    """
    made = {}
    try:
        with Progress(f"fetch {name}", sum(p.stat().st_size for p in paths.values()), "B") as bar:
            for split, path in paths.items():
                header, rows = layouts.read(path, layout, bar.advance)
                file = f"{shown}/{path.relative_to(root).as_posix()}"
                made[split] = records.read(row, rows, header, file, f"{name}/{split}", columns)
    except InputError as error:
        raise InputError(str(error).replace(str(root), shown)) from None
    return made
