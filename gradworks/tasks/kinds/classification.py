"""Classification: one of C classes, cross entropy. Two classes have two logits, or one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gradworks.base import Section, forms
from gradworks.base.errors import InputError
from gradworks.metrics import Score, classification
from gradworks.tasks.kinds._shared.parts import Texts

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from torch import Tensor

    from gradworks.spec import Batch, Outputs
    from gradworks.tasks import TaskSpec


DISTRIBUTION = "distribution"  # column of a training split whose labels are probabilities
_FEW = 10  # rows with -1: fewer mark missing labels in a file whose third class happens to be missing


class Options(Section):
    """one_logit: one output z for two classes, p(second class) = sigmoid(z)."""

    one_logit: bool = False


class Kind(Texts):
    """Cross entropy over C logits; labels (n,) int64 class indices, or (n, C) probabilities, of which the loss is the
    expected one.

    One logit z is the same model as the two logits (0, z), and is read as these.

    Attributes:
        classes: in the order of their indices.
        soft: labels may be distributions over the classes.
    """

    METRICS = classification.METRICS
    calibrated = True
    soft = True
    label_type = "string"

    def __init__(self, spec: TaskSpec) -> None:
        super().__init__(spec)
        self.classes: tuple[str, ...] = spec.classes or ()
        if len({forms.name(one) for one in self.classes}) < max(2, len(self.classes)):
            raise ValueError(f"classes: found {list(self.classes)}\nexpected two names or more, each once")
        for one, becomes in spec.collapse.items():
            if becomes not in self.classes or one in self.classes:
                raise ValueError(f"collapse: found {one}: {becomes}\nexpected a label that is no class, and a class")
        one_logit = spec.options.get("one_logit", False)
        if one_logit and len(self.classes) != 2:
            raise ValueError(f"one_logit: found {len(self.classes)} classes\nexpected two")
        self.size = 1 if one_logit else len(self.classes)
        self.columns = ("prediction", *(f"p_{name}" for name in self.classes))

    @property
    def reported(self) -> tuple[str, ...]:
        """The task's metrics, and the log loss."""
        return tuple(dict.fromkeys((*self.spec.metrics, "log_loss")))

    def _logits(self, outputs: Outputs) -> Tensor:
        """(n, C)"""
        import torch  # not by stages that only read predictions: it takes a second

        z = outputs[0]
        return z if self.size > 1 else torch.cat([torch.zeros_like(z), z], 1)

    def loss(self, outputs: Outputs, batch: Batch) -> Tensor:
        """(n,) -log p of the true class, in nats; its mean over the classes of a distribution."""
        return self.smoothed(outputs, batch, 0.0)

    def smoothed(self, outputs: Outputs, batch: Batch, share: float) -> Tensor:
        """(n,) cross entropy, in nats, with `share` of each label spread evenly over all classes."""
        from torch.nn import functional as F

        return F.cross_entropy(self._logits(outputs), batch.labels, reduction="none", label_smoothing=share)

    def divergence(self, p: Outputs, q: Outputs) -> Tensor:
        """(n,) symmetric KL, KL(p||q) + KL(q||p), in nats (SMART, Jiang et al. 2020, eq. 3)."""
        log_p, log_q = self._logits(p).log_softmax(-1), self._logits(q).log_softmax(-1)
        return ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(-1)

    def encode(self, table: pa.Table, model: Any, max_length: int, where: str) -> tuple[list[dict[str, Any]], Tensor]:
        """Labels (n,) int64."""
        return model.encode(self.texts(table), max_length), self.targets(table, where)

    def targets(self, table: pa.Table, where: str) -> Tensor:
        """(n,) int64 class indices; (n, C) float32 probabilities where the table has a column `distribution`, of a row
        without one all on its label. InputError that names the row whose label is no class.
        """
        import torch

        labels, index = table["label"].to_pylist(), {name: i for i, name in enumerate(self.classes)}
        for key, label in zip(table["id"].to_pylist(), labels, strict=True):
            if label not in index:
                raise InputError(
                    f"{where}: row {key}: found label {label!r}\nexpected one of: {', '.join(self.classes)}"
                )
        made = torch.tensor([index[label] for label in labels], dtype=torch.int64)
        if DISTRIBUTION not in table.column_names:
            return made
        rows = torch.eye(len(self.classes))[made]
        for i, one in enumerate(table[DISTRIBUTION].to_pylist()):
            if one is not None:
                rows[i] = torch.tensor(one)
        return rows

    def strata(self, labels: Tensor) -> Tensor:
        return labels if labels.dim() == 1 else labels.argmax(1)

    def signs(self, values: Sequence[str], marked: int) -> tuple[str, ...] | None:
        """A few -1 among three classes mark missing labels."""
        two = len(self.classes) == 2 and list(values) == ["1"]
        three = len(self.classes) == 3 and list(values) == ["0", "1"] and marked >= _FEW
        return self.classes if two or three else None

    def label(self, raw: Any, given: bool) -> tuple[str | None, bool]:
        """Class names are labels, and so are those that the task collapses. `True` and `False` are the classes of these
        names, or a class and the one that is called `not_` it. Whole numbers are class indices where no class is called
        a number.
        """
        text, key = forms.name(str(raw)), forms.form(raw)
        for known in (*self.classes, *self.spec.collapse):
            if text == forms.name(known):
                return known, True
        for known in (*self.classes, *self.spec.collapse):  # 1.0 is the class "1"
            if key == forms.form(known):
                return known, True
        if key in forms.NONE:
            return None, True
        if given:
            raise ValueError
        if key in ("true", "false"):
            for known in self.classes:
                if len(self.classes) == 2 and f"not_{known}" in self.classes:
                    return (known if key == "true" else f"not_{known}"), False
            raise ValueError
        if any(forms.number(one) is not None for one in self.classes):
            raise ValueError
        if key.isascii() and key.isdigit() and int(key) < len(self.classes):
            return self.classes[int(key)], False
        raise ValueError

    def accepts(self, label: Any) -> bool:
        return label in self.classes or label in self.spec.collapse

    def expected(self, also: Sequence[str] = ()) -> str:
        return f"one of: {', '.join((*self.classes, *self.spec.collapse, *also))}"

    def signed(self, found: set[str]) -> bool:
        return False

    def count(self, labels: Sequence[Any]) -> dict[str, int]:
        return dict(Counter(labels))

    def drawn_from(self, where: str) -> tuple[str, ...]:
        return self.classes

    def answers(self, outputs: Outputs) -> np.ndarray:
        """(n, C) probabilities."""
        return self._logits((outputs[0].double(),)).softmax(-1).numpy()

    def predictions(self, answers: np.ndarray | None) -> dict[str, pa.Array]:
        """The most probable class, and the probability of each."""
        import pyarrow as pa

        chosen = [] if answers is None else [self.classes[i] for i in answers.argmax(1)]
        columns = {"prediction": pa.array(chosen, pa.string())}
        for i, name in enumerate(self.classes):
            columns[f"p_{name}"] = pa.array([] if answers is None else answers[:, i], pa.float64())
        return columns

    def read(self, table: pa.Table) -> np.ndarray:
        import numpy as np

        return np.column_stack([table[f"p_{name}"].to_numpy() for name in self.classes])

    def indices(self, labels: Any) -> np.ndarray:
        """(n,) class indices of names; InputError names what is no class."""
        return classification.indices(labels, self.classes)

    def check_metric(self, metric: str, where: str) -> None:
        if metric == "f1" and len(self.classes) != 2:
            raise InputError(f"{where}: found 'f1', which is that of two classes; {self.name} has {len(self.classes)}")
        super().check_metric(metric, where)

    def score(self, metric: str, labels: Any, answers: Any) -> Score:
        return classification.score(metric, labels, answers, self.classes)

    def shares(self, metric: str, labels: Any, answers: Any) -> np.ndarray | None:
        return classification.shares(metric, labels, answers, self.classes)

    def constants(self, labels: Any) -> list[np.ndarray]:
        """Every class alone, and the shares of all: the best constants for accuracy and for the log loss."""
        import numpy as np

        found = np.bincount(self.indices(labels), minlength=len(self.classes)) / len(labels)
        return [np.tile(row, (len(labels), 1)) for row in (*np.eye(len(self.classes)), found)]

    def references(self, metric: str, labels: Any, rule: Any) -> dict[str, Score | None]:
        """Chance, the most frequent class of the examples scored, the true rule if it is known."""
        import numpy as np

        one_hot = np.eye(len(self.classes))
        most = one_hot[[np.bincount(self.indices(labels)).argmax()] * len(labels)]
        return {
            "chance": Score(1 / len(self.classes), len(labels)) if metric == "accuracy" else None,
            "majority class": self.score(metric, labels, most),
            "true rule": None if rule is None else self.score(metric, labels, one_hot[self.indices(rule)]),
        }

    def best(self, answers: np.ndarray, labels: Any) -> np.ndarray:
        """The first member that is right, so that accuracy is the share of examples on which any member is."""
        return (answers.argmax(-1) == self.indices(labels)).argmax(axis=0)

    def apart(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """1 where the most probable classes differ."""
        return (a.argmax(-1) != b.argmax(-1)).astype(float)
