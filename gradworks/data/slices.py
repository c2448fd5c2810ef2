"""Slices: named subsets of examples that a predicate picks, a *slicing function* of a row.

    from gradworks.data.slices import slicing_function

    @slicing_function
    def negation(row):
        return " not " in f" {row['hypothesis']} ".lower()

Slices overlap. A function sees every column but the label: what picks test examples must not read the answer. The
general ones, which need no file, are in `slices_general.py`. (Chen et al. 2019, arXiv:1909.06349; Hancock et al. 2019.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from gradworks.base import Section, words
from gradworks.base.errors import InputError
from gradworks.data import functions, slices_general
from gradworks.data.functions import Function, Row

if TYPE_CHECKING:
    import pyarrow as pa

NEEDED = ("train", "test")  # splits in which a slice must have members: to be learned, and to be measured


def slicing_function(call: Callable[[Row], Any] | None = None, *, name: str | None = None) -> Any:
    """Mark a function of a row (column -> value) as a slicing function: it returns True for members.

    Args:
        call: the function, where the decorator has no brackets.
        name: of the slice; by default the function's.
    """
    if call is None:
        return lambda one: functions.marked(one, "slicing", name)
    return functions.marked(call, "slicing", name)


class Slices(Section):
    """The section `slice`.

    Attributes:
        file: Python with slicing functions, relative to the checkout.
        use: names of slices, of the file or general ones; by default all of the file.
    """

    file: str | None = None
    use: list[str] | None = Field(None, min_length=1)

    @model_validator(mode="after")
    def _some(self) -> Slices:
        if self.file is None and self.use is None:
            raise ValueError("found neither file nor use\nexpected a file of functions, or names of general ones")
        return self


def chosen(asked: Slices, top: Path, where: str) -> dict[str, Function]:
    """The functions that the section asks for, by name.

    Args:
        asked: the section.
        top: the checkout, to which `file` is relative.
        where: params file and key, for messages.

    Raises:
        InputError: the file is not as `functions.read` needs it; a name is unknown, twice, or a general one's too.
    """
    general = slices_general.functions()
    own = functions.read(top / asked.file, "slicing", f"{where}.file") if asked.file else {}
    both = next((name for name in own if name in general), None)
    if both:
        raise InputError(f"{asked.file}: {both!r} is the name of a general slicing function too\nexpected another name")
    known, wanted = {**own, **general}, list(own) if asked.use is None else asked.use
    for name in wanted:
        if name not in known:
            raise InputError(words.unknown(f"{where}.use", name, known))
        if wanted.count(name) > 1:
            raise InputError(f"{where}.use: found {name} twice\nexpected each slice once")
    return {name: known[name] for name in wanted}


def members(function: Function, rows: list[Row]) -> list[str]:
    """Ids of the rows in the slice. Raises InputError where the function raises or returns no truth value."""
    found = []
    for row, one in zip(rows, functions.apply(function, rows), strict=True):
        if type(one).__name__ not in ("bool", "bool_"):
            raise InputError(
                f"{function.file}: slicing function {function.name}: row {row['id']}: returned {words.shown(one)}\n"
                "expected True or False"
            )
        if one:
            found.append(row["id"])
    return found


def sliced(
    chosen: Mapping[str, Function], splits: Mapping[str, pa.Table], texts: tuple[str, ...]
) -> tuple[dict[str, list[str]], dict[str, dict[str, int]]]:
    """The ids of each slice over all splits, and how many members each split has: slice -> split -> members.

    Raises:
        InputError: a function fails, or a slice has no members in a split of `NEEDED`.
    """
    rows = {name: functions.rows(table, texts) for name, table in splits.items()}
    ids: dict[str, list[str]] = {}
    counts: dict[str, dict[str, int]] = {}
    for name, function in chosen.items():
        found = {split: members(function, own) for split, own in rows.items()}
        counts[name] = {split: len(own) for split, own in found.items()}
        empty = next((split for split in NEEDED if not counts[name][split]), None)
        if empty:
            raise InputError(
                f"{function.file}: slicing function {name}: none of the {len(rows[empty])} examples of {empty} is a "
                "member\nexpected at least one: a slice is trained and measured on its members"
            )
        ids[name] = list(dict.fromkeys(one for own in found.values() for one in own))
    return ids, counts


def to_table(ids: Mapping[str, Sequence[str]]) -> pa.Table:
    """Columns id, slice: a row for each member of each slice."""
    import pyarrow as pa

    pairs = [(one, name) for name, own in ids.items() for one in own]
    return pa.table({"id": pa.array([i for i, _ in pairs], pa.string()),
                     "slice": pa.array([s for _, s in pairs], pa.string())})  # fmt: skip
