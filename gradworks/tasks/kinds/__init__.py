"""Kinds of tasks: one file is one kind, found by its file name. No other file asks whether a task has classes.

A file has `Options` (a Section: its keys of a task in params.yaml) and `Kind`, made as `Kind(spec)`, which raises
ValueError, "KEY: found ..., expected ...", where the row does not fit. `Protocol` below lists what a Kind must have;
`_shared/parts.py` has what most kinds share. Three forms of a prediction:
    outputs   what `Task.outputs` gives: raw tensors, dim 0 the example
    answers   an array (n, ...) in the units of the labels, or probabilities: what is scored, averaged and written
    columns   of the table of predictions
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

from gradworks.base import words
from gradworks.base.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from torch import Tensor, nn

    from gradworks.metrics import Score
    from gradworks.spec import Batch, Outputs
    from gradworks.tasks import TaskSpec


class Kind(Protocol):
    """What a kind must have. It satisfies `gradworks.spec.Task`, whose optional parts stay optional.

    Attributes:
        METRICS: that it knows; the first is the default. A task may know fewer, see `check_metric`.
        spec: the row. name: its name.
        size: outputs of its head on one vector; 0 where it needs no head.
        reported: the metrics that `evaluate` writes.
        calibrated: answers are probabilities of `classes`: the report has calibration and confusion matrices. Such a
            kind also has `indices(labels)` -> (n,).
        label_type: of the label column: pyarrow's name of a type, or a pyarrow type where labels are lists or records.
        label_columns: names that published files have for the label column, beside the usual ones.
        also: columns that it reads beside texts and label; they are in the tables of predictions too.
        together: the column whose rows of one value are drawn into one split, as one example; None where rows are.
        words: columns from whose texts a vocabulary is made.
        columns: of a table of predictions, beside id, label and `also`.
        reads: what a model reads of a row, "texts" or "pictures"; a source and an encoder must be for the same.
        rows_at_once: rows of a table that are written together.
        carries: evaluation goes on with the state in which the inner optimizer of an update ended training.
        cuts: `encode` refuses a row of which max_length cuts off what it needs.
        paced: what a learning curve counts: "examples", or "step" where a step is an update over whole tasks.
    """

    METRICS: tuple[str, ...]
    spec: TaskSpec
    name: str
    size: int
    reported: tuple[str, ...]
    calibrated: bool
    label_type: str | pa.DataType
    label_columns: tuple[str, ...]
    also: tuple[str, ...]
    together: str | None
    words: tuple[str, ...]
    columns: tuple[str, ...]
    reads: str
    rows_at_once: int
    paced: str
    carries: bool
    cuts: bool

    # training: gradworks.spec.Task
    def outputs(self, model: nn.Module, batch: Batch, embedded: Tensor | None = None) -> Outputs: ...
    def loss(self, outputs: Outputs, batch: Batch) -> Tensor: ...

    # data
    def headed(self, header: list[str], names: Mapping[str, str]) -> list[str]:
        """The columns of a file whose rows go through `unfold`. `names`: our column and the file's name for it."""

    def unfold(self, fields: Mapping[str, Any], names: Mapping[str, str]) -> Mapping[str, Any]:
        """A file's row as texts and a label, where one column holds both. ValueError: why it cannot be read."""

    def take(self, raw: Any, column: str) -> Any:
        """What a table holds of a value that a model reads. ValueError: the reason why it is not one."""

    def column(self, values: Sequence[Any]) -> pa.Array:
        """What `take` gave, as a column of a table."""

    def arrange(self, name: str, table: pa.Table, seed: int, where: str) -> pa.Table:
        """The split `name` as it is written, by the seed of the draws; `where`: params file and key, for messages."""

    def sampler(self, table: pa.Table, where: str) -> Callable[..., Iterator[tuple[list[int], Tensor]]] | None:
        """Where training does not read every row once an epoch: called with the batch size, batches of a step's group,
        seed and batches to leave out, it gives the rows and labels of each batch, without end.
        """

    def encode(self, table: pa.Table, model: Any, max_length: int, where: str) -> tuple[list[dict[str, Any]], Any]:
        """What the model reads of each row, and the labels, (n,) or ragged. InputError that names a row's id."""

    def pad(self, model: Any, encodings: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """Encodings of one batch, padded to the longest."""

    def collate(self, labels: Any) -> tuple[Any, Tensor]:
        """Labels of one batch, and the mass of each example: 1, or its labelled tokens."""

    def strata(self, labels: Any) -> Tensor | None:
        """(n,) whole numbers: clean batches hold each in equal numbers. None where labels have no classes."""

    def label(self, raw: Any, given: bool) -> tuple[str | float | None, bool]:
        """The label that a value of a file means, None where it says that there is none, and whether it is one by its
        name. `given`: the source says what its values are, so that no number is an index. ValueError: no label.
        """

    def signs(self, values: Sequence[str], marked: int) -> tuple[str, ...] | None:
        """The classes that labels -1, 1 or -1, 0, 1 may name, where -1 may also mark a missing label: a reader asks.

        Args:
            values: what the file has besides -1. marked: rows with -1.
        """

    def text(self, raw: Any) -> Any:
        """The text that a value of a text column means; the value itself where it is none."""

    def fault(self, record: dict[str, Any]) -> str | None:
        """Why a row whose texts and label are good, each alone, is not; `record`: texts, label and other columns."""

    def accepts(self, label: Any) -> bool:
        """Whether a table may hold this label, before `collapse`."""

    def expected(self, also: Sequence[str] = ()) -> str:
        """What a label may be, for messages; `also`: further values that a source explains."""

    def signed(self, forms: set[str]) -> bool:
        """Whether -1 is a value in a column of such values, not a mark for no label."""

    def count(self, labels: Sequence[Any]) -> dict[str, int]:
        """Label -> examples, for manifests; empty where labels are numbers."""

    def drawn_from(self, where: str) -> tuple[str, ...]:
        """The classes that noise and imbalance draw from. InputError where there are none; `where` begins it."""

    # predictions
    def answers(self, outputs: Outputs) -> np.ndarray:
        """(n, ...) of raw outputs on the CPU."""

    def respond(self, model: nn.Module, batch: Batch, encodings: Sequence[dict[str, Any]]) -> np.ndarray:
        """(n, ...) the answers of a model in evaluation mode to one batch, whose `encodings` are as `encode` made them.

        A kind that generates text, or whose outputs alone do not say what was answered, has its own.
        """

    def tuned(self, answers: np.ndarray, held: np.ndarray, truths: np.ndarray) -> np.ndarray:
        """Answers after what is chosen on the selection split (a threshold): `held` are its answers."""

    def predictions(self, answers: np.ndarray | None) -> dict[str, pa.Array]:
        """Columns of the table of predictions; empty ones for None."""

    def read(self, table: pa.Table) -> np.ndarray:
        """The answers of a table that holds `columns`."""

    # scores
    def truths(self, table: pa.Table) -> np.ndarray:
        """(n,) what the methods below take as labels, of a table that holds id, label and `also`; `==` compares two."""

    def check_metric(self, metric: str, where: str) -> None:
        """Raises InputError when the task does not know a metric."""

    def scoring(self, metrics: Sequence[str]) -> Kind:
        """A kind whose answers serve these metrics, at less cost where others need more; itself where not."""

    def score(self, metric: str, labels: Any, answers: Any) -> Score:
        """Of labels as `truths` gives them; those of classes and numbers also as `encode` made them."""

    def shares(self, metric: str, labels: Any, answers: Any) -> np.ndarray | None:
        """(n,) what each example adds to a score, see gradworks.metrics; None where it is not defined."""

    def constants(self, labels: Any) -> list[np.ndarray]:
        """Answers (n, ...) of predictions that read no input. Training must be better than the best of them."""

    def references(self, metric: str, labels: Any, rule: Any) -> dict[str, Score | None]:
        """Scores that need no training, by name; `rule`: labels by the rule that made the data, or None."""

    # ensembles of m members: (m, n, ...)
    def mean(self, answers: np.ndarray) -> np.ndarray:
        """(n, ...) the answer of the ensemble."""

    def best(self, answers: np.ndarray, labels: Any) -> np.ndarray:
        """(n,) the member whose answer is best, the first of equals."""

    def apart(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """(n,) how far two members disagree: 1 or 0 for classes, a distance for numbers."""


def names() -> list[str]:
    """Of the kinds there are."""
    return sorted(one.name for one in pkgutil.iter_modules(__path__) if not one.name.startswith("_"))


def find(name: Any, where: str = "kind") -> ModuleType:
    """The file of a kind. Raises InputError that suggests one; `where` begins the message."""
    if name not in names():
        raise InputError(words.unknown(where, name, names()))
    return import_module(f"{__name__}.{name}")


def forgotten(made: Any) -> list[str]:
    """What a kind, made for some row, lacks of the protocol."""
    methods = [name for name, one in vars(Kind).items() if callable(one) and not name.startswith("_")]
    return [name for name in (*Kind.__annotations__, *methods) if not hasattr(made, name)]
