"""Answers: which of a question's answers are right, each judged alone (MultiRC, Khashabi et al. 2018).

A row is one answer to one question; the answers of a question share the value of the column `group`. The second class
is that of right answers. Trained as classification, scored over questions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gradworks.base import Section, words
from gradworks.base.errors import InputError
from gradworks.metrics import Score
from gradworks.metrics import answers as metrics
from gradworks.tasks.kinds import classification

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from gradworks.tasks import TaskSpec


class Options(Section):
    """group: the column that names the question of a row."""

    group: str = "group"


class Kind(classification.Kind):
    """Cross entropy over two classes; labels (n,) int64 class indices; truths are pairs of question and label."""

    METRICS = (*metrics.METRICS, *classification.Kind.METRICS)

    def __init__(self, spec: TaskSpec) -> None:
        super().__init__(spec)
        if len(self.classes) != 2:
            raise ValueError(f"classes: found {len(self.classes)}\nexpected two: of wrong answers, of right ones")
        self.together = spec.options.get("group", Options().group)
        self.also = (self.together,)

    def fault(self, record: dict[str, Any]) -> str | None:
        return None if record.get(self.also[0]) is not None else f"no question in the column {self.also[0]!r}"

    def check_metric(self, metric: str, where: str) -> None:
        if metric not in self.METRICS:
            raise InputError(words.unknown(where, metric, self.METRICS))

    def truths(self, table: pa.Table) -> np.ndarray:
        import numpy as np

        made = np.empty(len(table), dtype=object)
        made[:] = list(zip(*(table[name].to_pylist() for name in (*self.also, "label")), strict=True))
        return made

    def indices(self, labels: Any) -> np.ndarray:
        """(n,) class indices of pairs or of names."""
        return super().indices([one[1] if isinstance(one, tuple) else one for one in labels])

    def score(self, metric: str, labels: Any, answers: Any) -> Score:
        if metric not in metrics.METRICS:
            return super().score(metric, self.indices(labels), answers)
        return metrics.score(metric, [group for group, _ in labels], self.indices(labels), answers.argmax(1))

    def shares(self, metric: str, labels: Any, answers: Any) -> np.ndarray | None:
        if metric not in metrics.METRICS:
            return super().shares(metric, self.indices(labels), answers)
        return metrics.shares(metric, [group for group, _ in labels], self.indices(labels), answers.argmax(1))
