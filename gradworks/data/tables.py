"""From a Parquet split to the examples of a model."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from gradworks.data.batching import Examples

if TYPE_CHECKING:
    import pyarrow as pa

    from gradworks.tasks.kinds import Kind


def to_examples(table: pa.Table, kind: Kind, model: Any, max_length: int, where: str) -> Examples:
    """Encode a split for a model.

    Args:
        table: columns `id`, the task's text columns, `label`, and what the kind reads besides.
        kind: of the task.
        model: has `encode` and `collate`.
        max_length: tokens of one sequence.
        where: the file, for the error message.

    Raises:
        InputError: a label is none of the task's; names the row's id.
    """
    encodings, labels = kind.encode(table, model, max_length, where)
    pad = functools.partial(kind.pad, model)
    ids, strata = table["id"].to_pylist(), kind.strata(labels)
    return Examples(kind.name, ids, encodings, labels, pad, join=kind.collate, strata=strata,
                    truths=kind.truths(table), sampler=kind.sampler(table, where))  # fmt: skip
