"""Tasks are rows, not classes: `row("nli")` names its text columns, its labels and its metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gradworks.base.errors import InputError


@dataclass(frozen=True)
class Row:
    """One task.

    Attributes:
        name: its name in params.yaml.
        texts: the text columns, in the order in which a model reads them.
        classes: the labels in the order of the class indices of published data; None is regression.
        metrics: the task's own; the first is the main one.
        collapse: labels of a finer set and the class that each becomes.
    """

    name: str
    texts: tuple[str, ...]
    classes: tuple[str, ...] | None
    metrics: tuple[str, ...]
    collapse: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def reported(self) -> tuple[str, ...]:
        """`metrics`, and the log loss of classes."""
        return self.metrics if self.classes is None else (*self.metrics, "log_loss")


def row(name: str) -> Row:
    """The row of that name. Raises InputError that lists the names there are."""
    from gradworks.tasks import glue, minbert, nli, superglue

    rows = {one.name: one for file in (nli, glue, superglue, minbert) for one in file.ROWS}
    if name not in rows:
        raise InputError(f"task: found {name!r}\nexpected one of: {', '.join(sorted(rows))}")
    return rows[name]
