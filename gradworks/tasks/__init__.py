"""Tasks are rows, kinds are code: `find("nli", values)` gives a row, `kind(row)` what encodes, trains and scores it.

A row (`TaskSpec`) names a kind, text columns, classes and metrics. Rows of published data are in the files of this
folder, as `ROWS`; those of one's own in the section `tasks` of params.yaml. A kind is a file of kinds/, which says what
every kind must have.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, field_validator

from gradworks import base
from gradworks.base import Section, names, words
from gradworks.base.errors import InputError

if TYPE_CHECKING:
    from gradworks.tasks.kinds import Kind

_TAKEN = ("id", "label")  # columns of every table


@dataclass(frozen=True)
class Hub:
    """Where published data of a row lies on the hub, stored as Parquet: a commit never changes.

    Attributes:
        repository: OWNER/NAME. revision: a commit of 40 digits. config: of repositories that have several.
    """

    repository: str
    revision: str
    config: str | None = None

    @property
    def source(self) -> dict[str, str]:
        """As the section `fetch` of params.yaml has it."""
        made = {"from": f"hub:{self.repository}@{self.revision}"}
        return made if self.config is None else made | {"config": self.config}


@dataclass(frozen=True)
class TaskSpec:
    """One task.

    Attributes:
        name: its name in params.yaml.
        kind: a file of kinds/.
        texts: the text columns, in the order in which a model reads them.
        classes: the labels in the order of the class indices of published data; None where labels are numbers.
        metrics: the task's own; the first is the main one.
        collapse: labels of a finer set and the class that each becomes.
        options: of the kind, see its class `Options`.
        sizes: published examples of each split. majority: of predicting one class, as published for the test set.
        hub: where data of it lie on the hub; empty where no commit is known that has them as Parquet.
    """

    name: str
    kind: str
    texts: tuple[str, ...]
    classes: tuple[str, ...] | None
    metrics: tuple[str, ...]
    collapse: Mapping[str, str] = field(default_factory=dict, hash=False)
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    sizes: Mapping[str, int] = field(default_factory=dict, hash=False)
    majority: Mapping[str, float] = field(default_factory=dict, hash=False)
    hub: tuple[Hub, ...] = ()


class Own(Section):
    """A task of the section `tasks`; further keys are options of its kind.

    Attributes:
        texts: the text columns.
        classes: none where labels are numbers.
        metrics: the first is the main one; by default the kind's first.
    """

    kind: str
    texts: list[str]
    classes: list[str | int] | None = None
    metrics: list[str] | None = None
    collapse: dict[str, str] = Field(default_factory=dict)

    @field_validator("texts")
    @classmethod
    def _columns(cls, texts: list[str]) -> list[str]:
        if not texts or len(set(texts)) < len(texts) or set(texts) & set(_TAKEN):
            raise ValueError(f"expected the names of text columns, each once, and none of {', '.join(_TAKEN)}")
        return texts


def shipped() -> dict[str, TaskSpec]:
    """The rows of this folder by name."""
    files = [one.name for one in pkgutil.iter_modules(__path__) if not one.ispkg and not one.name.startswith("_")]
    found = [importlib.import_module(f"{__name__}.{name}") for name in sorted(files)]
    return {one.name: one for file in found for one in file.ROWS}


def specs(values: Mapping[str, Any], where: str = "params.yaml") -> dict[str, TaskSpec]:
    """The rows of this folder and of the section `tasks` of a params file, by name.

    Args:
        values: what the params file holds.
        where: the file, for messages.

    Raises:
        InputError: a task of one's own is not as its kind needs it; names the key.
    """
    rows, given = shipped(), values.get("tasks")
    if given is None:
        return rows
    at = f"{where}: tasks"
    if not isinstance(given, dict):
        raise InputError(f"{at}: found {words.shown(given)}\nexpected tasks by name")
    names.check(given, at)
    for name in given:
        if name in rows:
            raise InputError(f"{at}.{name}: a task that gradworks has already\nexpected a name of your own")
    return rows | {name: own(name, one, f"{at}.{name}") for name, one in given.items()}


def own(name: str, given: Any, where: str) -> TaskSpec:
    """The row of a task of one's own. Raises InputError at the first mistake; `where`: file and key."""
    from gradworks.tasks import kinds

    if not isinstance(given, dict) or "kind" not in given:
        raise InputError(f"{where}.kind: missing\nexpected one of: {', '.join(kinds.names())}")
    found = kinds.find(given["kind"], f"{where}.kind")
    fields, options = Own.model_fields, found.Options.model_fields
    for key in given:
        if key not in fields and key not in options:
            raise InputError(words.unknown(f"{where}.{key}".rpartition(".")[0], key, [*fields, *options]))
    row = base.validate({key: value for key, value in given.items() if key in fields}, Own, where)
    chosen = {key: value for key, value in given.items() if key in options}
    base.validate(chosen, found.Options, where)
    classes = None if row.classes is None else tuple(map(str, row.classes))
    spec = TaskSpec(name, row.kind, tuple(row.texts), classes, (), row.collapse, chosen)
    try:
        made = found.Kind(spec)
    except ValueError as error:
        raise InputError(f"{where}.{error}") from None
    metrics = tuple(row.metrics or made.METRICS[:1])
    for metric in metrics:
        made.check_metric(metric, f"{where}.metrics")
    return TaskSpec(name, row.kind, spec.texts, classes, metrics, row.collapse, chosen)


def find(name: str, values: Mapping[str, Any], where: str = "params.yaml", key: str = "task") -> TaskSpec:
    """The row of that name.

    Args:
        name: of a row of this folder or of the section `tasks`.
        values: what the params file holds.
        where: the file; key: where it names the task; for messages.

    Raises:
        InputError: there is none; suggests the nearest.
    """
    rows = specs(values, where)
    if name not in rows:
        raise InputError(words.unknown(f"{where}: {key}", name, sorted(rows)))
    return rows[name]


def kind(spec: TaskSpec) -> Kind:
    """What encodes, trains and scores a task. Raises InputError when the row does not fit its kind."""
    from gradworks.tasks import kinds

    try:
        return kinds.find(spec.kind, f"task {spec.name}: kind").Kind(spec)
    except ValueError as error:
        raise InputError(f"task {spec.name}: {error}") from None


def of(params: Path, name: str | None = None) -> Kind:
    """The kind of a params file's task, or of another one by name."""
    values = base.read_yaml(params)
    return kind(find(base.value(params, "task") if name is None else name, values, str(params)))
