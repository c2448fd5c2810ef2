"""What kinds share: one output tensor of a model that reads a row's texts; labels that are numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gradworks.base import forms, words
from gradworks.base.errors import InputError
from gradworks.metrics import Score, regression

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from torch import Tensor, nn

    from gradworks.spec import Batch, Outputs
    from gradworks.tasks import TaskSpec


_FOUND = {list: "a list", dict: "an object", bool: "true or false", int: "a number", float: "a number", bytes: "bytes"}


class Texts:
    """A kind whose model reads the texts of a row and gives one tensor (n, size)."""

    METRICS: tuple[str, ...]
    size = 1
    label_columns: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    together: str | None = None
    reads = "texts"
    paced = "examples"
    carries = False
    cuts = False
    rows_at_once = 2**20

    def __init__(self, spec: TaskSpec) -> None:
        self.spec, self.name = spec, spec.name

    @property
    def words(self) -> tuple[str, ...]:
        return self.spec.texts

    @property
    def reported(self) -> tuple[str, ...]:
        return self.spec.metrics

    def outputs(self, model: nn.Module, batch: Batch, embedded: Tensor | None = None) -> Outputs:
        """One forward pass; `embedded` (n, L, D) replaces the input embeddings. Returns one tensor (n, size)."""
        return (self.forward(model, batch.inputs, batch.task, embedded),)

    def forward(self, model: nn.Module, inputs: Any, task: str, embedded: Tensor | None) -> Tensor:
        """(rows, size) of the task's head."""
        given = (inputs,) if embedded is None else (inputs, embedded)
        return model(*given, task=task) if hasattr(model, "heads") else model(*given)

    def embed(self, model: nn.Module, batch: Batch) -> Tensor:
        """(n, L, D) input embeddings, differentiable in the model's parameters."""
        return model.embed(batch.inputs)

    def headed(self, header: list[str], names: Mapping[str, str]) -> list[str]:
        return header

    def unfold(self, fields: Mapping[str, Any], names: Mapping[str, str]) -> Mapping[str, Any]:
        return fields

    def take(self, raw: Any, column: str) -> str:
        raw = self.text(raw)
        if isinstance(raw, str) and raw.strip():
            return raw
        if raw is None or isinstance(raw, str):
            raise ValueError(f"no text in the column {column!r}")
        found = _FOUND.get(type(raw), type(raw).__name__)
        raise ValueError(f"found {found} in the column {column!r}, expected text")

    def column(self, values: Sequence[Any]) -> pa.Array:
        import pyarrow as pa

        return pa.array([v if v is None or isinstance(v, str) else str(v) for v in values], pa.string())

    def arrange(self, name: str, table: pa.Table, seed: int, where: str) -> pa.Table:
        """As it was drawn."""
        return table

    def sampler(self, table: pa.Table, where: str) -> None:
        """Every row once an epoch."""
        return

    def texts(self, table: pa.Table) -> list[tuple[str, ...]]:
        return list(zip(*(table[column].to_pylist() for column in self.spec.texts), strict=True))

    def text(self, raw: Any) -> Any:
        return raw

    def fault(self, record: dict[str, Any]) -> str | None:
        return None

    def respond(self, model: nn.Module, batch: Batch, encodings: Sequence[dict[str, Any]]) -> np.ndarray:
        """The answers of the raw outputs of one forward pass."""
        return self.answers(tuple(one.float().cpu() for one in self.outputs(model, batch)))

    def tuned(self, answers: np.ndarray, held: np.ndarray, truths: np.ndarray) -> np.ndarray:
        """Nothing is chosen."""
        return answers

    def truths(self, table: pa.Table) -> np.ndarray:
        """The label column."""
        return table["label"].to_numpy(zero_copy_only=False)

    def pad(self, model: Any, encodings: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        return model.collate(encodings)

    def collate(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Every example has mass 1."""
        import torch

        return labels, torch.ones(len(labels), device=labels.device)

    def answers(self, outputs: Outputs) -> np.ndarray:
        raise NotImplementedError

    def scoring(self, metrics: Sequence[str]) -> Texts:
        return self

    def check_metric(self, metric: str, where: str) -> None:
        if metric not in self.METRICS:
            raise InputError(words.unknown(where, metric, self.METRICS))

    def mean(self, answers: np.ndarray) -> np.ndarray:
        return answers.mean(axis=0)


class Values(Texts):
    """A kind whose labels and answers are numbers, (n,)."""

    METRICS = regression.METRICS
    calibrated = False
    label_type = "float64"
    columns = ("value",)

    def __init__(self, spec: TaskSpec) -> None:
        if spec.classes is not None or spec.collapse:
            raise ValueError(f"classes: found {list(spec.classes or spec.collapse)}\nexpected none: labels are numbers")
        super().__init__(spec)

    def encode(self, table: pa.Table, model: Any, max_length: int, where: str) -> tuple[list[dict[str, Any]], Tensor]:
        """Labels (n,) float32."""
        import torch

        return model.encode(self.texts(table), max_length), torch.tensor(
            table["label"].to_pylist(), dtype=torch.float32
        )

    def strata(self, labels: Any) -> None:
        return None

    def signs(self, values: Sequence[str], marked: int) -> None:
        return None

    def label(self, raw: Any, given: bool) -> tuple[float | None, bool]:
        key = forms.form(raw)
        if key in forms.NONE:
            return None, True
        value = float(key)  # raises ValueError, for True too
        if value in (float("inf"), float("-inf")):
            raise ValueError
        return value, True

    def accepts(self, label: Any) -> bool:
        return not isinstance(label, str)

    def expected(self, also: Sequence[str] = ()) -> str:
        return "a number"

    def signed(self, found: set[str]) -> bool:
        """Where another number is below 0, too."""
        return any(re.fullmatch(r"-\d*[.\d]\d*", one) and one != "-1" for one in found)

    def count(self, labels: Sequence[Any]) -> dict[str, int]:
        return {}

    def drawn_from(self, where: str) -> tuple[str, ...]:
        raise InputError(f"{where}: the task {self.name} has no classes")

    def answers(self, outputs: Outputs) -> np.ndarray:
        return outputs[0][:, 0].double().numpy()

    def predictions(self, answers: np.ndarray | None) -> dict[str, pa.Array]:
        import pyarrow as pa

        return {"value": pa.array([] if answers is None else answers, pa.float64())}

    def read(self, table: pa.Table) -> np.ndarray:
        return table["value"].to_numpy()

    def score(self, metric: str, labels: Any, answers: Any) -> Score:
        return regression.score(metric, labels, answers)

    def shares(self, metric: str, labels: Any, answers: Any) -> np.ndarray | None:
        return regression.shares(metric, labels, answers)

    def constants(self, labels: Any) -> list[np.ndarray]:
        """The mean of the labels."""
        import numpy as np

        return [np.full(len(labels), np.asarray(labels, dtype=np.float64).mean())]

    def references(self, metric: str, labels: Any, rule: Any) -> dict[str, Score | None]:
        return {}

    def best(self, answers: np.ndarray, labels: Any) -> np.ndarray:
        import numpy as np

        return np.abs(answers - np.asarray(labels, dtype=np.float64)).argmin(axis=0)

    def apart(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return abs(a - b)
