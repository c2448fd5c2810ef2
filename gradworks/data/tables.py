"""From a Parquet split to the examples of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from gradworks.base.errors import InputError
from gradworks.data.batching import Examples

if TYPE_CHECKING:
    import pyarrow as pa


def to_examples(table: pa.Table, row, model, max_length: int, where: str) -> Examples:
    """Encode a split for a model.

    Args:
        table: columns `id`, the row's text columns, `label`.
        row: the task (gradworks.tasks.Row): text columns and classes.
        model: has `encode` and `collate`.
        max_length: tokens of one sequence.
        where: the file, for the error message.

    Returns:
        Examples with labels (n,) int64 class indices, or float32 for regression.

    Raises:
        InputError: a label is none of the task's classes; names the row's id.
    """
    ids = table["id"].to_pylist()
    labels = table["label"].to_pylist()
    if row.classes is None:
        values = torch.tensor(labels, dtype=torch.float32)
    else:
        index = {name: i for i, name in enumerate(row.classes)}
        for key, label in zip(ids, labels, strict=True):
            if label not in index:
                raise InputError(
                    f"{where}: row {key}: found label {label!r}\nexpected one of: {', '.join(row.classes)}"
                )
        values = torch.tensor([index[label] for label in labels], dtype=torch.int64)
    texts = list(zip(*(table[column].to_pylist() for column in row.texts), strict=True))
    return Examples(row.name, ids, model.encode(texts, max_length), values, model.collate)
