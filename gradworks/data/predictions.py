"""Predictions as a table: id, label, what the kind reads and writes, and the columns by which they are scored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from gradworks.base import Section
from gradworks.base.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from gradworks.tasks.kinds import Kind


TEST, SELECTION = "predictions.parquet", "selection.parquet"  # of these splits, in a folder of `evaluate`


class Evaluate(Section):
    """The section `evaluate`.

    Attributes:
        by: columns of the test split; each of their values is scored on its own.
        batch: examples of one forward pass at most; on a CPU its tokens count too, see `gradworks.predict`.
    """

    by: list[str] = Field(default_factory=list)
    batch: int = Field(256, gt=0)


def slices(table: pa.Table, by: list[str], where: str) -> dict[str, list[Any]]:
    """Column -> values. Raises InputError that names the columns there are when one is missing or empty."""
    for column in by:
        if column not in table.column_names or table[column].null_count == len(table):
            there = ", ".join(c for c in table.column_names if table[c].null_count < len(table))
            raise InputError(f"{where}: no row has {column!r}, which evaluate.by names\nfound: {there}")
    return {column: table[column].to_pylist() for column in by}


def to_table(table: pa.Table, answers: np.ndarray | None, kind: Kind, by: list[str]) -> pa.Table:
    """Columns id, label, those that the kind reads and writes, then those of `by`. No rows for None."""
    import pyarrow as pa

    table = table if answers is not None else table.slice(0, 0)
    columns = {name: table[name] for name in ("id", "label", *kind.also)} | kind.predictions(answers)
    return pa.table(columns | {c: table[c] for c in by if c not in columns})
