"""Cloze: which of the entities of a passage fills the blank of a query (ReCoRD; Zhang et al. 2018).

The candidates of a query are one example: each is read in its place in the query, with the passage, and has a score; a
softmax over them. As several entities may be right, the loss is that of their probabilities together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gradworks.base import Section
from gradworks.base.errors import InputError
from gradworks.metrics import Score, cloze
from gradworks.metrics.span import exact
from gradworks.tasks.kinds._shared import several
from gradworks.tasks.kinds._shared.parts import Texts

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from torch import Tensor, nn

    from gradworks.spec import Batch, Outputs
    from gradworks.tasks import TaskSpec


class Options(Section):
    """placeholder: the mark in the query that an answer replaces."""

    placeholder: str = "@placeholder"


class Kind(Texts):
    """-log p of the right candidates together; labels (n, k) int64, 1 = the candidate is right.

    The last text is the candidates, one a line; a file may have a list of them, in which each may come several times.
    A label of the table is the list of the right ones. Answers are lists of candidates with their probabilities.
    """

    METRICS = cloze.METRICS
    size = 1
    calibrated = False
    label_columns = ("answers",)
    columns = ("prediction", "candidates")

    def __init__(self, spec: TaskSpec) -> None:
        super().__init__(spec)
        if spec.classes is not None or spec.collapse:
            raise ValueError(f"classes: found {list(spec.classes or spec.collapse)}\nexpected none: labels are answers")
        if len(spec.texts) != 3:
            raise ValueError(f"texts: found {list(spec.texts)}\nexpected three: passage, query, candidates")
        self.also = spec.texts[2:]
        self.placeholder = Options(**spec.options).placeholder

    @property
    def label_type(self) -> pa.DataType:
        import pyarrow as pa

        return pa.list_(pa.string())

    # data
    def text(self, raw: Any) -> Any:
        """A list of texts as lines, each once."""
        if isinstance(raw, list) and all(isinstance(one, str) for one in raw):
            return "\n".join(dict.fromkeys(filter(None, map(_line, raw))))
        return raw

    def label(self, raw: Any, given: bool) -> tuple[list[str] | None, bool]:
        """A list of texts; the test split has none."""
        if raw is None or raw == []:
            return None, True
        if not self.accepts(raw):
            raise ValueError
        return list(dict.fromkeys(map(_line, raw))), True

    def fault(self, record: dict[str, Any]) -> str | None:
        if self.placeholder not in record[self.spec.texts[1]]:
            return f"no {self.placeholder} in the column {self.spec.texts[1]!r}"
        candidates = _lines(record[self.spec.texts[2]])
        strange = next((one for one in record["label"] if one not in candidates), None)
        return None if strange is None else f"the answer {strange[:60]!r} is none of the {len(candidates)} candidates"

    def accepts(self, label: Any) -> bool:
        return isinstance(label, list) and len(label) > 0 and all(isinstance(one, str) for one in label)

    def expected(self, also: Sequence[str] = ()) -> str:
        return "a list of answers"

    def signs(self, values: Sequence[str], marked: int) -> None:
        return None

    def signed(self, found: set[str]) -> bool:
        return False

    def count(self, labels: Sequence[Any]) -> dict[str, int]:
        return {}

    def drawn_from(self, where: str) -> tuple[str, ...]:
        raise InputError(f"{where}: the labels of the task {self.name} are answers, not classes")

    def strata(self, labels: Any) -> None:
        return None

    def encode(self, table: pa.Table, model: Any, max_length: int, where: str) -> tuple[list[dict[str, Any]], Tensor]:
        """Each candidate in its place in the query, with the passage, `max_length` tokens of each pair."""
        import torch

        encodings, right = [], []
        for (passage, query, lines), answers in zip(self.texts(table), table["label"].to_pylist(), strict=True):
            names = _lines(lines)
            made = model.encode([(passage, query.replace(self.placeholder, one)) for one in names], max_length)
            encodings.append(several.windows(made) | {"names": names})
            right.append([int(one in answers) for one in names])
        most = max(map(len, right), default=0)
        return encodings, torch.tensor([one + [0] * (most - len(one)) for one in right])

    def pad(self, model: Any, encodings: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """Candidates (n, k, L), and `there` (n, k): those that an example has."""
        import torch

        counts = torch.tensor([len(one["names"]) for one in encodings])
        return several.pad(model, encodings) | {"there": torch.arange(int(counts.max())) < counts[:, None]}

    # training
    def outputs(self, model: nn.Module, batch: Batch, embedded: Tensor | None = None) -> Outputs:
        """Log probabilities (n, k); 0 where there is no candidate."""
        import torch

        inputs, there = several.without(batch.inputs, "there"), batch.inputs["there"]
        read = several.embedded_rows(inputs, embedded)
        scores = self.forward(model, several.rows(inputs), batch.task, read).view(there.shape)
        scores = scores.masked_fill(~there, torch.finfo(scores.dtype).min).log_softmax(-1)
        return (scores.masked_fill(~there, 0.0),)

    def embed(self, model: nn.Module, batch: Batch) -> Tensor:
        """(n, k * L, D) input embeddings of the candidates, one after the other."""
        return several.embed(model, several.without(batch.inputs, "there"))

    def loss(self, outputs: Outputs, batch: Batch) -> Tensor:
        """(n,) -log of the sum of the probabilities of the right candidates, in nats."""
        return self.smoothed(outputs, batch, 0.0)

    def smoothed(self, outputs: Outputs, batch: Batch, share: float) -> Tensor:
        """(n,) the same with `share` of the label spread evenly over all candidates."""
        import torch

        (scores,) = outputs
        right = batch.labels[:, : scores.shape[1]] == 1
        loss = -scores.masked_fill(~right, torch.finfo(scores.dtype).min).logsumexp(-1)
        if share:
            loss = (1 - share) * loss - share * scores.sum(-1) / batch.inputs["there"].sum(-1)
        return loss

    def divergence(self, p: Outputs, q: Outputs) -> Tensor:
        """(n,) symmetric KL, in nats."""
        return ((p[0].exp() - q[0].exp()) * (p[0] - q[0])).sum(-1)

    # predictions
    def answers(self, outputs: Outputs) -> np.ndarray:
        raise NotImplementedError("an answer is a candidate's text: see respond")

    def respond(self, model: nn.Module, batch: Batch, encodings: Sequence[dict[str, Any]]) -> np.ndarray:
        """Candidates and their probabilities, in the order of the table."""
        (scores,) = self.outputs(model, batch)
        rows = scores.double().exp().cpu().tolist()
        return several.ragged(
            [list(zip(one["names"], row, strict=False)) for one, row in zip(encodings, rows, strict=True)]
        )

    def predictions(self, answers: np.ndarray | None) -> dict[str, pa.Array]:
        """The most probable candidate, the first of equals; the probability of each."""
        import pyarrow as pa

        made = [] if answers is None else list(answers)
        each = [[{"text": text, "p": p} for text, p in one] for one in made]
        return {
            "prediction": pa.array(_chosen(made), pa.string()),
            "candidates": pa.array(each, pa.list_(pa.struct({"text": pa.string(), "p": pa.float64()}))),
        }

    def read(self, table: pa.Table) -> np.ndarray:
        return several.ragged([[(one["text"], one["p"]) for one in row] for row in table["candidates"].to_pylist()])

    # scores
    def truths(self, table: pa.Table) -> np.ndarray:
        """(n,) pairs of the right candidates and all of them."""
        rows = zip(table["label"].to_pylist(), table[self.also[0]].to_pylist(), strict=True)
        return several.ragged([(tuple(right), tuple(_lines(lines))) for right, lines in rows])

    def score(self, metric: str, labels: Any, answers: Any) -> Score:
        return cloze.score(metric, [right for right, _ in labels], _chosen(answers))

    def shares(self, metric: str, labels: Any, answers: Any) -> np.ndarray | None:
        return cloze.values(metric, [right for right, _ in labels], _chosen(answers)) if len(labels) > 1 else None

    def constants(self, labels: Any) -> list[np.ndarray]:
        """The candidate that is most like the others, as SuperGLUE's baseline has it (Wang et al. 2019)."""
        made = []
        for _, names in labels:
            at = cloze.nearest(names)
            made.append([(one, float(i == at)) for i, one in enumerate(names)])
        return [several.ragged(made)]

    def references(self, metric: str, labels: Any, rule: Any) -> dict[str, Score | None]:
        return {"most like the others": self.score(metric, labels, self.constants(labels)[0])}

    # ensembles
    def mean(self, answers: np.ndarray) -> np.ndarray:
        """Mean probabilities of each candidate."""
        made = (zip(*members, strict=True) for members in answers.T)
        return several.ragged([[(each[0][0], sum(p for _, p in each) / len(each)) for each in row] for row in made])

    def best(self, answers: np.ndarray, labels: Any) -> np.ndarray:
        """The member with the highest F1, the first of equals."""
        import numpy as np

        gold = [right for right, _ in labels]
        return np.array([cloze.values("cloze_f1", gold, _chosen(one)) for one in answers]).argmax(axis=0)

    def apart(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """1 where the answers differ by more than case, punctuation and articles."""
        import numpy as np

        return np.array([1.0 - exact(*both) for both in zip(_chosen(a), _chosen(b), strict=True)])


def _line(text: str) -> str:
    """Blanks count as one: a candidate is a line."""
    return " ".join(text.split())


def _lines(text: str) -> list[str]:
    return list(dict.fromkeys(filter(None, map(_line, text.split("\n")))))


def _chosen(answers: Sequence[Any]) -> list[str]:
    return [max(one, key=lambda pair: pair[1])[0] for one in answers]
