"""Span: the answer to a question is a part of a text, or there is none (SQuAD; Devlin et al. 2019, sections 4.2, 4.3).

The last text is cut into windows that overlap; the question is in all of them. Windows of a text are one example, whose
mass is their number, so that plain training weighs windows alike, as published. A window that does not hold the whole
answer has none, which the first token stands for. Unlike in BERT's script the softmax is over the tokens of the text
and that one, not over those of the question and the padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from gradworks.base import Section
from gradworks.base.errors import InputError
from gradworks.metrics import Score, span
from gradworks.tasks.kinds._shared import several
from gradworks.tasks.kinds._shared.parts import Texts

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from torch import Tensor, nn

    from gradworks.spec import Batch, Outputs
    from gradworks.tasks import TaskSpec

_NONE = -100  # of a window that is not there, or must not be learned from


class Options(Section):
    """step: tokens from the first of a window to the first of the next one. query: of the question at most. longest: of
    an answer. best: how many answers are kept. impossible: a question may have no answer. across: what becomes of an
    answer that no window holds whole: it is refused, or the example is evaluated but not learned from.
    """

    step: int = Field(128, ge=1)
    query: int = Field(64, ge=1)
    longest: int = Field(30, ge=1)
    best: int = Field(20, ge=1)
    impossible: bool = True
    across: Literal["refuse", "unlearned"] = "refuse"


class Kind(Texts):
    """Mean over windows of the cross entropies of first and last token; labels (n, k, 2) int64 positions in k windows.

    A label of the table is a list of answers, each a text and its first character; none: there is no answer. Answers
    are pairs: how much better no answer is than the best one (refused above 0), and the best texts with their log
    probabilities, the best first.
    """

    METRICS = span.METRICS
    size = 2
    calibrated = False
    label_columns = ("answers",)
    columns = ("prediction", "no_answer", "best")

    def __init__(self, spec: TaskSpec) -> None:
        super().__init__(spec)
        if spec.classes is not None or spec.collapse:
            raise ValueError(f"classes: found {list(spec.classes or spec.collapse)}\nexpected none: labels are answers")
        if len(spec.texts) != 2:
            raise ValueError(f"texts: found {list(spec.texts)}\nexpected two: the question, the text with the answer")
        self.options = Options(**spec.options)

    @property
    def cuts(self) -> bool:
        return self.options.across == "refuse"

    @property
    def label_type(self) -> pa.DataType:
        import pyarrow as pa

        return pa.list_(pa.struct({"text": pa.string(), "start": pa.int64()}))

    # data
    def label(self, raw: Any, given: bool) -> tuple[list[dict[str, Any]] | None, bool]:
        """A list of {text, start}; SQuAD's files have `answer_start`, the hub one record of two lists."""
        if raw is None:
            return None, True
        if isinstance(raw, dict) and isinstance(raw.get("text"), list):
            raw = [dict(zip(raw, one, strict=True)) for one in zip(*raw.values(), strict=True)]
        if not isinstance(raw, list) or not all(isinstance(one, dict) for one in raw):
            raise ValueError
        found = [{"text": one.get("text"), "start": one.get("start", one.get("answer_start"))} for one in raw]
        if not self.accepts(found):
            raise ValueError
        return found, True

    def fault(self, record: dict[str, Any]) -> str | None:
        context = record[self.spec.texts[1]]
        for one in record["label"]:
            if not one["text"].strip():
                return "an answer without text"
            if not context.startswith(one["text"], one["start"]):
                return f"the answer {one['text'][:60]!r} is not in the text at character {one['start']}"
        return None if record["label"] or self.options.impossible else "a question without an answer"

    def accepts(self, label: Any) -> bool:
        return isinstance(label, list) and all(
            isinstance(one, dict) and isinstance(one.get("text"), str) and isinstance(one.get("start"), int)
            and one["start"] >= 0 for one in label
        )  # fmt: skip

    def expected(self, also: Sequence[str] = ()) -> str:
        return "a list of answers, each its text and its first character"

    def signs(self, values: Sequence[str], marked: int) -> None:
        return None

    def signed(self, found: set[str]) -> bool:
        return False

    def count(self, labels: Sequence[Any]) -> dict[str, int]:
        answered = sum(bool(one) for one in labels)
        return {"answered": answered, "impossible": len(labels) - answered}

    def drawn_from(self, where: str) -> tuple[str, ...]:
        raise InputError(f"{where}: the labels of the task {self.name} are answers, not classes")

    def strata(self, labels: Any) -> None:
        return None

    def encode(self, table: pa.Table, model: Any, max_length: int, where: str) -> tuple[list[dict[str, Any]], Tensor]:
        """The windows of each example, the place of each token of the text, the text itself; the first answer counts.

        InputError names a row whose answer no window holds whole.
        """
        import torch

        several.needs_tokens(model, where)
        o, encodings, labels = self.options, [], []
        texts = self.texts(table)
        found = model.windows(texts, max_length, o.step, o.query)
        for key, (_, context), label, windows in zip(
            table["id"].to_pylist(), texts, table["label"].to_pylist(), found, strict=True
        ):
            own = [[None if p is None or p.text == 0 else (p.start, p.end) for p in places] for _, places in windows]
            at = [_positions(places, label[0]) if label else (0, 0) for places in own]
            if label and all(one == (0, 0) for one in at):
                if o.across == "refuse":
                    raise InputError(
                        f"{where}: row {key}: no window of {max_length} tokens holds {label[0]['text'][:60]!r}\n"
                        f"expected a longer max_length, a step below {o.step}, or `across: unlearned`"
                    )
                at = [(_NONE, _NONE)] * len(at)
            encodings.append(several.windows([one for one, _ in windows]) | {"places": tuple(own), "text": context})
            labels.append(at)
        most = max(map(len, labels), default=0)
        return encodings, torch.tensor([one + [(_NONE, _NONE)] * (most - len(one)) for one in labels])

    def pad(self, model: Any, encodings: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """Windows (n, k, L), and `allowed` (n, k, L): the tokens of the text, and the first one of a window."""
        import torch

        inputs = several.pad(model, encodings)
        most, longest = max(len(one["places"]) for one in encodings), several.length(inputs)
        allowed = torch.zeros(len(encodings), most, longest, dtype=torch.bool)
        for row, one in zip(allowed, encodings, strict=True):
            for window, places in zip(row, one["places"], strict=False):
                window[: len(places)] = torch.tensor([place is not None for place in places])
                window[0] = True
        return inputs | {"allowed": allowed}

    def collate(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The mass is the number of windows."""
        import torch

        return labels, (labels[:, :, 0] != _NONE).sum(1).to(torch.get_default_dtype())

    # training
    def outputs(self, model: nn.Module, batch: Batch, embedded: Tensor | None = None) -> Outputs:
        """Log probabilities (n, k, L) of the first token and of the last one; 0 where no answer begins or ends."""
        import torch

        inputs, allowed = several.without(batch.inputs, "allowed"), batch.inputs["allowed"]
        scores = model.answer(several.tokens(model, inputs, embedded), batch.task)
        scores = scores.reshape(*allowed.shape, 2).movedim(-1, 0)
        scores = scores.masked_fill(~allowed, torch.finfo(scores.dtype).min).log_softmax(-1)
        start, end = scores.masked_fill(~allowed, 0.0).unbind(0)
        return start, end

    def embed(self, model: nn.Module, batch: Batch) -> Tensor:
        """(n, k * L, D) input embeddings of the windows."""
        return several.embed(model, several.without(batch.inputs, "allowed"))

    def loss(self, outputs: Outputs, batch: Batch) -> Tensor:
        """(n,) mean over windows of -(log p(first) + log p(last)) / 2, in nats."""
        return self.smoothed(outputs, batch, 0.0)

    def smoothed(self, outputs: Outputs, batch: Batch, share: float) -> Tensor:
        """(n,) the same with `share` of each label spread evenly over all tokens that may be it."""
        labels = batch.labels[:, : outputs[0].shape[1]]
        there, total = labels[:, :, 0] != _NONE, 0.0
        for scores, at in zip(outputs, labels.clamp_min(0).unbind(-1), strict=True):
            each = -scores.gather(2, at[..., None])[..., 0]
            if share:
                each = (1 - share) * each - share * scores.sum(-1) / batch.inputs["allowed"].sum(-1).clamp_min(1)
            total = total + each / 2
        return total.where(there, 0.0).sum(1) / there.sum(1).clamp_min(1)

    def divergence(self, p: Outputs, q: Outputs) -> Tensor:
        """(n,) symmetric KL of first and of last token, in nats, the mean over windows."""
        each = sum(((a.exp() - b.exp()) * (a - b)).sum(-1) for a, b in zip(p, q, strict=True))
        return each.sum(1) / (p[0] != 0).any(-1).sum(1).clamp_min(1)

    # predictions
    def answers(self, outputs: Outputs) -> np.ndarray:
        raise NotImplementedError("an answer is a part of a text: see respond")

    def respond(self, model: nn.Module, batch: Batch, encodings: Sequence[dict[str, Any]]) -> np.ndarray:
        """The best over the windows of each example; no answer is as good as in the window that likes it least."""
        start, end = (one.double().cpu() for one in self.outputs(model, batch))
        return several.ragged([self._best(*one) for one in zip(start, end, encodings, strict=True)])

    def _best(self, start: Tensor, end: Tensor, encoding: dict[str, Any]) -> tuple[float, list[tuple[str, float]]]:
        import torch

        found: dict[str, float] = {}
        none = min(float(start[k, 0] + end[k, 0]) for k in range(len(encoding["places"])))
        for k, places in enumerate(encoding["places"]):
            own = torch.tensor([i for i, place in enumerate(places) if place is not None], dtype=torch.int64)
            score = start[k, own][:, None] + end[k, own]
            length = torch.arange(len(own))[None] - torch.arange(len(own))[:, None]  # whole texts: tokens follow on
            score = score.masked_fill((length < 0) | (length >= self.options.longest), -torch.inf).flatten()
            values, order = score.topk(min(self.options.best, len(score)))
            for value, at in zip(values.tolist(), order.tolist(), strict=True):
                if value > -torch.inf:
                    (first, _), (_, last) = (places[own[i]] for i in divmod(at, len(own)))
                    text = encoding["text"][first:last]
                    found[text] = max(value, found.get(text, value))
        best = sorted(found.items(), key=lambda one: (-one[1], one[0]))[: self.options.best]
        if not best:
            return float("inf"), []
        return (none - best[0][1] if self.options.impossible else -float("inf")), best

    def tuned(self, answers: np.ndarray, held: np.ndarray, truths: np.ndarray) -> np.ndarray:
        """With the threshold of no answer that is best for F1 on the selection split, moved to 0."""
        if not self.options.impossible:
            return answers
        limit = span.threshold(truths, [_first(one) for one in held], [none for none, _ in held])
        return several.ragged([(none - limit, best) for none, best in answers])

    def _texts(self, answers: Any) -> list[str]:
        return ["" if one[0] > 0 else _first(one) for one in answers]

    def predictions(self, answers: np.ndarray | None) -> dict[str, pa.Array]:
        """The answer, "" for none; how much better no answer is than the best one; the best ones."""
        import pyarrow as pa

        made = [] if answers is None else list(answers)
        best = [[{"text": text, "score": score} for text, score in one] for _, one in made]
        return {
            "prediction": pa.array(self._texts(made), pa.string()),
            "no_answer": pa.array([none for none, _ in made], pa.float64()),
            "best": pa.array(best, pa.list_(pa.struct({"text": pa.string(), "score": pa.float64()}))),
        }

    def read(self, table: pa.Table) -> np.ndarray:
        best = ([(one["text"], one["score"]) for one in row] for row in table["best"].to_pylist())
        return several.ragged(list(zip(table["no_answer"].to_pylist(), best, strict=True)))

    # scores
    def truths(self, table: pa.Table) -> np.ndarray:
        """(n,) texts of the gold answers."""
        return several.ragged([tuple(one["text"] for one in row) for row in table["label"].to_pylist()])

    def score(self, metric: str, labels: Any, answers: Any) -> Score:
        return span.score(metric, labels, self._texts(answers))

    def shares(self, metric: str, labels: Any, answers: Any) -> np.ndarray | None:
        return span.values(metric, labels, self._texts(answers)) if len(labels) > 1 else None

    def constants(self, labels: Any) -> list[np.ndarray]:
        """No answer to any question."""
        return [several.ragged([(float("inf"), [])] * len(labels))]

    def references(self, metric: str, labels: Any, rule: Any) -> dict[str, Score | None]:
        return {"no answer": self.score(metric, labels, self.constants(labels)[0])}

    # ensembles
    def mean(self, answers: np.ndarray) -> np.ndarray:
        """Mean probabilities of texts, of those that a member keeps; the mean of how much better no answer is."""
        import numpy as np

        made = []
        for members in answers.T:
            p: dict[str, float] = {}
            for _, best in members:
                for text, score in best:
                    p[text] = p.get(text, 0.0) + float(np.exp(score)) / len(members)
            best = sorted(((t, float(np.log(v))) for t, v in p.items() if v > 0), key=lambda one: (-one[1], one[0]))
            made.append((float(np.mean([none for none, _ in members])), best[: self.options.best]))
        return several.ragged(made)

    def best(self, answers: np.ndarray, labels: Any) -> np.ndarray:
        """The member with the highest F1, the first of equals."""
        import numpy as np

        return np.array([span.values("answer_f1", labels, self._texts(one)) for one in answers]).argmax(axis=0)

    def apart(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """1 where the answers differ by more than case, punctuation and articles."""
        import numpy as np

        pairs = zip(self._texts(a), self._texts(b), strict=True)
        return np.array([1.0 - span.exact(*both) for both in pairs])


def _first(answer: tuple[float, list[tuple[str, float]]]) -> str:
    return answer[1][0][0] if answer[1] else ""


def _positions(places: Sequence[tuple[int, int] | None], answer: dict[str, Any]) -> tuple[int, int]:
    """First and last token of an answer in a window; (0, 0) where it is not whole in it."""
    first, last = answer["start"], answer["start"] + len(answer["text"])
    own = [(i, place) for i, place in enumerate(places) if place is not None]
    inside = [i for i, (start, end) in own if end > first and start < last]
    if not inside or own[0][1][0] > first or own[-1][1][1] < last:
        return 0, 0
    return inside[0], inside[-1]
