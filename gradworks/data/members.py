"""The members of slices, as the stage `slice` wrote them: what training and evaluation read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gradworks.base import artifacts, words
from gradworks.base.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

FILE = "slices.parquet"  # columns id, slice
MEMBER = "in"  # in a column of predictions that is called as the slice; null outside it


def read(folder: Path, data: Path, names: Sequence[str] | None = None) -> dict[str, frozenset[str]]:
    """The ids of each slice, in the order of the stage.

    Args:
        folder: what the stage `slice` wrote.
        data: what `corrupt` wrote, of which it must be.
        names: of the slices that are asked for; None = all.

    Raises:
        InputError: a file is damaged, the slices are of other data, or one is not there.
    """
    about = artifacts.check(folder)
    now = {name: one["sha256"] for name, one in artifacts.read_json(data / artifacts.MANIFEST)["files"].items()}
    if any(now.get(name) != made for name, made in about["of"].items()):
        raise InputError(
            f"{folder}: slices of other data than {data}\nexpected those that the stage `slice` made of it"
        )
    table = artifacts.read_parquet(folder / FILE, ["id", "slice"])
    found: dict[str, set[str]] = {name: set() for name in about["slices"]}
    for one, name in zip(table["id"].to_pylist(), table["slice"].to_pylist(), strict=True):
        found[name].add(one)
    for name in names or ():
        if name not in found:
            raise InputError(words.unknown(str(folder), name, found))
    return {name: frozenset(found[name]) for name in (found if names is None else names)}


def columns(table: pa.Table, ids: Mapping[str, frozenset[str]], where: str) -> pa.Table:
    """The table with a column for each slice: "in" for members, null for others. InputError where it has one."""
    import pyarrow as pa

    keys = table["id"].to_pylist()
    for name, own in ids.items():
        if name in table.column_names:
            raise InputError(
                f"{where}: found a column {name!r}, as a slice is called\nexpected another name of the slice"
            )
        table = table.append_column(name, pa.array([MEMBER if key in own else None for key in keys], pa.string()))
    return table
